//! `larder man`: prints the manual page of larder, or of one command, in roff.

use std::process::ExitCode;

use super::{CommandError, render::print};
use crate::cli;

/// Runs the command. `words` lead to a command; without any, the page is about larder itself.
///
/// # Errors
/// There is no such command, or stdout cannot be written to.
pub fn run(words: &[String]) -> Result<ExitCode, CommandError> {
    print(&page(words)?)?;
    Ok(ExitCode::SUCCESS)
}

fn page(words: &[String]) -> Result<String, CommandError> {
    let mut whole = cli::command();
    // Gives every command its full name.
    whole.build();
    let mut command = &whole;
    for word in words {
        let inner = command.find_subcommand(word);
        command = inner.ok_or_else(|| CommandError::NoSuchCommand(words.join(" ")))?;
    }
    let title = [&["larder".to_owned()], words].concat().join("-");
    let mut page = Vec::new();
    let man = clap_mangen::Man::new(command.clone());
    man.title(title).render(&mut page)?;
    Ok(String::from_utf8_lossy(&page).into_owned())
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
        assert!(
            check.contains(".TH larder\\-check") || check.contains(".TH larder-check"),
            "{check}"
        );
        assert!(check.contains("verify"), "{check}");
        assert!(!check.contains("upstream\\-timeout"), "{check}");
        assert!(
            page(&words("client print")).unwrap().contains("Rustup")
                || page(&words("client print")).unwrap().contains("rustup")
        );
        assert!(page(&[]).unwrap().contains("warm"));
        let refused = page(&words("bake")).unwrap_err();
        assert_eq!(refused.to_string(), "there is no command `bake`");
    }
}
