//! `larder man`: prints the manual page of larder or of one command in roff, or writes all pages to a folder.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use super::{CommandError, render::print};
use crate::cli;

/// Runs the command. `words` lead to a command; without any, the page is about larder itself. With a folder, the pages
/// of all commands are written there as `larder.1`, `larder-warm.1` and so on.
///
/// # Errors
/// There is no such command, or stdout or the folder cannot be written to.
pub fn run(words: &[String], folder: Option<&Path>) -> Result<ExitCode, CommandError> {
    match folder {
        None => print(&page(words)?)?,
        Some(folder) => write_all(folder)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The commands as they are described: each with its full name, and without `help`.
fn commands() -> clap::Command {
    let mut whole = cli::command().disable_help_subcommand(true);
    whole.build();
    whole
}

fn page(words: &[String]) -> Result<String, CommandError> {
    let whole = commands();
    let mut command = &whole;
    for word in words {
        let inner = command.find_subcommand(word);
        command = inner.ok_or_else(|| CommandError::NoSuchCommand(words.join(" ")))?;
    }
    Ok(render(command)?)
}

/// The name of a command's page.
fn title(command: &clap::Command) -> &str {
    command
        .get_display_name()
        .unwrap_or_else(|| command.get_name())
}

fn render(command: &clap::Command) -> io::Result<String> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    let page = String::from_utf8_lossy(&page);
    // clap_mangen leaves out quotes around an empty date, so the page's source would be shown as its date.
    let lines = page.lines().map(|line| match line.strip_prefix(".TH ") {
        None => line.to_owned(),
        Some(_) => format!(
            ".TH \"{}\" 1 \"\" \"larder {}\" \"larder manual\"",
            title(command).to_uppercase(),
            env!("CARGO_PKG_VERSION")
        ),
    });
    Ok(lines.map(|line| line + "\n").collect())
}

fn write_all(folder: &Path) -> Result<(), CommandError> {
    let failed = |path: PathBuf| move |source| CommandError::ManualFolder { path, source };
    fs::create_dir_all(folder).map_err(failed(folder.to_owned()))?;
    let mut left = vec![commands()];
    while let Some(command) = left.pop() {
        let path = folder.join(format!("{}.1", title(&command)));
        let text = render(&command)?;
        fs::write(&path, text).map_err(failed(path))?;
        left.extend(command.get_subcommands().cloned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_with_its_own_flags() {
        let words = |text: &str| {
            text.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let check = page(&words("check")).unwrap();
        let head = format!(
            ".TH \"LARDER-CHECK\" 1 \"\" \"larder {}\" ",
            env!("CARGO_PKG_VERSION")
        );
        assert!(check.contains(&head), "{check}");
        assert!(check.contains("verify"), "{check}");
        assert!(!check.contains("upstream\\-timeout"), "{check}");
        assert!(page(&words("client print")).unwrap().contains("rustup"));
        assert!(page(&[]).unwrap().contains("warm"));
        let refused = page(&words("bake")).unwrap_err();
        assert_eq!(refused.to_string(), "there is no command `bake`");
    }

    #[test]
    fn folder_gets_a_page_for_each_command_that_a_page_names() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("man1");
        write_all(&folder).unwrap();
        let exists = |name: &str| folder.join(format!("{name}.1")).exists();
        for name in ["larder", "larder-warm", "larder-client-print"] {
            assert!(exists(name), "{name}");
        }
        for page in fs::read_dir(&folder).unwrap() {
            let text = fs::read_to_string(page.unwrap().path()).unwrap();
            let lines = text.lines().filter_map(|line| line.strip_suffix("(1)"));
            for name in lines {
                assert!(exists(&name.replace('\\', "")), "{name}");
            }
        }
    }
}
