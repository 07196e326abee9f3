//! Statements of README.md, docs and the help that a machine can judge. `guides` runs the commands.

use std::{
    fs,
    path::Path,
    process::Output,
    time::{Duration, Instant},
};

use clap::{CommandFactory as _, Parser as _};
use fake_upstream::{FakeUpstream, Installer, Toolchain};
use larder::cli::Cli;
use tempfile::TempDir;
use testkit::larder::Site;

use crate::fixture::{site, site_at};

/// The text of a document.
#[track_caller]
fn read(document: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(document)).unwrap()
}

/// The documents for users.
fn documents() -> Vec<String> {
    let docs = ["docs", "docs/guides", "contrib/container"].map(|folder| {
        let files = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        let documents = names.filter(|name| name.ends_with(".md"));
        documents
            .map(|name| format!("{folder}/{name}"))
            .collect::<Vec<_>>()
    });
    [docs.concat(), vec!["README.md".to_owned()]].concat()
}

/// The contents of the code blocks in this language.
pub(crate) fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let start = format!("```{language}\n");
    let parts = text.split(start.as_str()).skip(1);
    parts.filter_map(|part| part.split("```").next()).collect()
}

/// The command lines of larder in code blocks, and in the text unless they have placeholders.
fn larder_commands(document: &str) -> Vec<Vec<String>> {
    let lines = blocks(document, "sh").into_iter().flat_map(str::lines);
    let lines = lines.flat_map(|line| line.split(" #").next().unwrap_or_default().split(" || "));
    let is_prose = |line: &&str| !line.starts_with("| `") && !line.starts_with("    ");
    let prose: Vec<_> = document.lines().filter(is_prose).collect();
    // A command may go on in the next line.
    let prose = prose.join("\n");
    let in_text = prose.split("\n\n").filter(|part| !part.starts_with("```"));
    let in_text: Vec<_> = in_text
        .flat_map(|part| part.split('`').skip(1).step_by(2))
        .map(|code| code.replace('\n', " "))
        .collect();
    let placeholders = ["COMMAND", "NAME", "CMD", "TRIPLE", "DIR", "..."];
    let in_text = in_text
        .iter()
        .filter(|code| !placeholders.iter().any(|word| code.contains(word)));
    let all = lines.chain(in_text.map(String::as_str)).map(str::trim);
    // The name alone, and the beginning of a line.
    let is_mention =
        |line: &&str| ["larder run", "larder run --", "larder run --offline"].contains(line);
    all.filter(|line| line.starts_with("larder ") && !is_mention(line))
        .map(|line| {
            // Without what only the shell reads.
            let command = line.split(['&', '>']).next().unwrap_or_default();
            let words = command.split_whitespace();
            words
                .map(|word| word.trim_matches('\'').to_owned())
                .collect()
        })
        .collect()
}

#[test]
fn every_command_of_larder_in_the_documents_is_accepted() {
    let mut found = 0;
    for document in documents() {
        for command in larder_commands(&read(&document)) {
            let parsed = Cli::try_parse_from(&command);
            assert!(parsed.is_ok(), "{document}: {command:?}: {parsed:?}");
            found += 1;
        }
    }
    assert!(found > 60, "{found}");
}

/// The files that a document links to, relative to its folder.
#[test]
fn links_of_the_documents_lead_to_files_and_headings() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for document in documents() {
        let text = read(&document);
        let folder = root.join(&document);
        let links = text.split("](").skip(1);
        let links = links.filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.contains("://")) {
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let path = folder.parent().unwrap().join(path);
            assert!(path.exists(), "{document}: {link}");
            if !heading.is_empty() {
                let target = fs::read_to_string(&path).unwrap();
                let mut headings = target.lines().filter(|line| line.starts_with('#'));
                let anchor = |line: &str| line.trim_matches(['#', ' ']).to_lowercase();
                let found = headings.any(|line| anchor(line).replace(' ', "-") == heading);
                assert!(found, "{document}: {link}");
            }
        }
    }
}

#[test]
fn settings_for_cargo_in_the_guide_are_those_that_client_print_prints() {
    let guide = read("docs/guides/laptop.md");
    let block = blocks(&guide, "toml")[0];
    let upstream = FakeUpstream::start();
    let output = site(&upstream).command(&["client", "print"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), block);
}

#[test]
fn settings_of_larder_in_the_reference_are_accepted_and_serve_the_registry_where_it_says() {
    let reference = read("docs/settings.md");
    let block = blocks(&reference, "toml")[0];
    let folder = TempDir::new().unwrap();
    let settings = folder.path().join("larder.toml");
    fs::write(&settings, block).unwrap();
    let upstream = FakeUpstream::start();
    let site = site_at(&upstream.url());
    let larder = site.serve(&["--offline", "--config", &settings.display().to_string()]);
    let config = larder.get("/registry/corp/config.json");
    assert_eq!(config.status, 200, "{}", config.text());
}

#[test]
fn command_for_another_host_stores_its_toolchain_rustup_and_the_script() {
    let guide = read("docs/guides/toolchains.md");
    let line = guide
        .lines()
        .find_map(|line| line.strip_prefix("larder warm --toolchain 1.95.0 "));
    let flags = line.unwrap().split(" #").next().unwrap().split_whitespace();
    let flags: Vec<_> = ["--toolchain", "1.95.0"].into_iter().chain(flags).collect();
    let host = "aarch64-unknown-linux-gnu";
    assert!(flags.contains(&host), "{flags:?}");
    let upstream = FakeUpstream::start();
    let toolchain = Toolchain::new("stable", "1.95.0").host(host);
    upstream.release(&toolchain);
    let installer = Installer::new("1.29.0").host(host).program("a program");
    upstream.release_rustup(&installer);
    let site = site(&upstream);
    let run = |command: &str| {
        let server = ["--dist-server", upstream.base_url()];
        site.command(&[&[command], &server[..], &flags].concat())
    };
    assert_eq!(run("check").status.code(), Some(1));
    let warm = run("warm");
    assert!(warm.status.success(), "{warm:?}");
    let check = run("check");
    assert!(check.status.success(), "{check:?}");
    upstream.stop();
    let larder = site.serve(&["--offline", "--dist-server", upstream.base_url()]);
    let archives = [
        "cargo",
        "clippy-preview",
        "rust-docs",
        "rust-std",
        "rustc",
        "rustfmt-preview",
    ];
    let archives = archives.map(|package| toolchain.archive_path(package, host) + ".xz");
    let more = [
        "/rustup-init.sh".to_owned(),
        installer.newest_path(),
        installer.archive_path(),
    ];
    for path in archives.into_iter().chain(more) {
        assert_eq!(larder.get(&path).status, 200, "{path}");
    }
}

/// Settings that take any text, and the one that all tests give as a flag.
const NOT_JUDGED: [&str; 12] = [
    "access-log",
    "advisory-db",
    "allow-advisory",
    "allow-host",
    "ca-file",
    "deny",
    "index",
    "intercept-folder",
    "redirect-host",
    "signing-key",
    "store",
    "tunnel",
];

/// The output of a command that ends at once. A daemon that starts is killed, and fails the test.
#[track_caller]
fn refused(site: &Site, arguments: &[&str]) -> Output {
    let mut child = site.spawn(arguments);
    let end = Instant::now() + Duration::from_secs(60);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > end {
            let _ = child.kill();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

#[test]
fn every_setting_in_the_help_has_a_variable_and_a_key() {
    let mut cli = Cli::command();
    cli.build();
    let upstream = FakeUpstream::start();
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("larder.toml");
    let mut found = 0;
    for command in ["serve", "warm"] {
        let arguments = cli.find_subcommand(command).unwrap().get_arguments();
        let flags = arguments.filter_map(clap::Arg::get_long);
        for flag in flags {
            let is_setting = command == "serve" || flag == "jobs";
            let is_of_run = ["config", "help", "json", "quiet", "verbose"].contains(&flag);
            if !is_setting || is_of_run || NOT_JUDGED.contains(&flag) {
                continue;
            }
            let name = format!("LARDER_{}", flag.replace('-', "_").to_uppercase());
            let site_of = site(&upstream).variable(&name, "nonsense");
            let output = refused(&site_of, &[command]);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(
                output.status.code() == Some(2) && said.contains(&format!("variable {name}:")),
                "{flag}: {output:?}"
            );
            fs::write(&file, format!("{flag} = \"nonsense\"\n")).unwrap();
            let path = file.display().to_string();
            let output = refused(&site(&upstream), &[command, "--config", &path]);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(
                output.status.code() == Some(2) && said.contains(&format!("key `{flag}`:")),
                "{flag}: {output:?}"
            );
            found += 1;
        }
    }
    assert!(found >= 17, "{found}");
}
