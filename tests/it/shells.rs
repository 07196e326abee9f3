//! Completion scripts in real shells, and manual pages in real viewers.
//!
//! `.ci/run` installs these programs. Where one is missing, its test says so and ends.

#![allow(
    clippy::print_stderr,
    reason = "says why a machine without a program does not test with it"
)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

/// Words to complete, each with the word that the shell must find for its last one.
const COMPLETIONS: [(&str, &str); 6] = [
    ("larder chec", "check"),
    ("larder client pri", "print"),
    ("larder client print rus", "rustup"),
    ("larder serve --offl", "--offline"),
    ("larder warm --toolchain-format g", "gz"),
    ("larder completions fi", "fish"),
];

/// The output of a program, or nothing if it is not installed.
#[track_caller]
pub(crate) fn output(command: &mut Command) -> Option<Output> {
    match command.output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("NOT TESTED: {command:?} is not installed");
            None
        }
        output => Some(output.unwrap()),
    }
}

fn larder(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
    let output = command.env_clear().args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A shell that reads no settings of the user, with an empty home.
fn shell(program: &str, home: &TempDir) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("HOME", home.path())
        .env("TERM", "dumb")
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .current_dir(home.path());
    command
}

/// A new home that contains a shell's completion script under this name.
fn home_with_script(shell: &str, name: &str) -> TempDir {
    let home = TempDir::new().unwrap();
    let script = larder(&["completions", shell]);
    fs::write(home.path().join(name), script).unwrap();
    home
}

#[test]
fn bash_completes_commands_flags_and_values() {
    let home = home_with_script("bash", "larder.bash");
    for (line, expected) in COMPLETIONS {
        let words: Vec<_> = line.split(' ').collect();
        let script = "source larder.bash
            COMP_WORDS=(\"$@\") COMP_CWORD=$(($# - 1))
            _larder larder \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD - 1]}\"
            printf '%s\\n' \"${COMPREPLY[@]}\"";
        let mut bash = shell("bash", &home);
        bash.args(["--norc", "-c", script, "bash"]).args(words);
        let Some(output) = output(&mut bash) else {
            return;
        };
        let found = String::from_utf8_lossy(&output.stdout);
        assert_eq!(found.trim_end(), expected, "{line}: {output:?}");
        assert!(output.stderr.is_empty(), "{output:?}");
    }
}

#[test]
fn fish_completes_commands_flags_and_values() {
    let home = home_with_script("fish", "larder.fish");
    for (line, expected) in COMPLETIONS {
        let mut fish = shell("fish", &home);
        fish.args([
            "--no-config",
            "-c",
            "source larder.fish; complete -C $argv[1]",
            line,
        ]);
        let Some(output) = output(&mut fish) else {
            return;
        };
        let found = String::from_utf8_lossy(&output.stdout);
        // A word, a tab, and its description.
        let found: Vec<_> = found
            .lines()
            .filter_map(|line| line.split('\t').next())
            .collect();
        assert!(found.contains(&expected), "{line}: {output:?}");
        assert!(output.stderr.is_empty(), "{output:?}");
    }
}

#[test]
fn zsh_completes_commands_flags_and_values() {
    // The shell's module for pseudo-terminals types the words, a tab and a newline. A function named `larder` then
    // writes its arguments to a file.
    let script = "zmodload zsh/zpty
        zpty inner zsh -f -i
        zpty -w inner 'fpath=($PWD $fpath); autoload -U compinit; compinit -D -u'
        zpty -w inner 'larder() { print -r -- larder $* > done; exit }'
        zpty -w -n inner \"$1\"$'\\t\\n'
        while zpty -r inner; do :; done";
    let home = home_with_script("zsh", "_larder");
    for (line, expected) in COMPLETIONS {
        let mut zsh = shell("zsh", &home);
        zsh.args(["-f", "-c", script, "zsh", line]);
        let Some(output) = output(&mut zsh) else {
            return;
        };
        let (before, _) = line.rsplit_once(' ').unwrap();
        let done = fs::read_to_string(home.path().join("done"));
        let done = done.unwrap_or_else(|error| panic!("{error}: {output:?}"));
        let expected = format!("{before} {expected}");
        assert_eq!(done.trim_end(), expected, "{output:?}");
    }
}

/// Runs a viewer on each page. `wrong` returns the lines of its messages that count.
#[track_caller]
fn judge_pages(viewer: &str, arguments: &[&str], wrong: impl Fn(&Output) -> Vec<String>) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().display().to_string();
    assert_eq!(larder(&["man", "--folder", &path]), "");
    let pages: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|page| page.unwrap().path())
        .collect();
    assert!(pages.len() > 12, "{pages:?}");
    for page in &pages {
        let mut command = Command::new(viewer);
        command
            .env("LC_ALL", "C")
            .env("MANWIDTH", "80")
            .args(arguments)
            .arg(page);
        let Some(output) = output(&mut command) else {
            return;
        };
        let wrong = wrong(&output);
        assert!(wrong.is_empty(), "{}: {wrong:#?}", page.display());
        // Some systems have a `man` that shows nothing.
        if viewer == "man" && !has_text(&output, page) {
            eprintln!("NOT TESTED: this `man` shows no page: {output:?}");
            return;
        }
    }
}

fn has_text(output: &Output, page: &Path) -> bool {
    let name = page.file_stem().unwrap().to_string_lossy();
    String::from_utf8_lossy(&output.stdout).contains(&*name)
}

#[test]
fn man_shows_every_page_without_a_warning() {
    judge_pages("man", &["--warnings", "-l"], |output| {
        let messages = String::from_utf8_lossy(&output.stderr);
        // A minimal system has no other locale.
        let messages = messages
            .lines()
            .filter(|line| !line.contains("set the locale"));
        messages.map(str::to_owned).collect()
    });
}

#[test]
fn mandoc_finds_no_fault_in_any_page() {
    judge_pages("mandoc", &["-T", "lint", "-W", "warning"], |output| {
        let messages = String::from_utf8_lossy(&output.stdout);
        // Pages have no date, so that a package can be built again with the same bytes. Blank lines above a list of
        // values are clap_mangen's.
        let known = ["missing date", "br before sp", "br after sp"];
        messages
            .lines()
            .filter(|line| !known.iter().any(|part| line.contains(part)))
            .map(str::to_owned)
            .collect()
    });
}
