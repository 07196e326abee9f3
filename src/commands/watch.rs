//! Prints a report again and again, until Ctrl-C or until its reader is gone.
//!
//! On a terminal each report takes the place of the one before. Elsewhere an empty line separates them.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use tokio::time::sleep;

use super::CommandError;

/// Time between two reports.
const INTERVAL: Duration = Duration::from_secs(2);
/// Moves the cursor to the first line and clears the terminal.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Prints what `report` returns, every [`INTERVAL`]. A report that takes long is made less often.
///
/// # Errors
/// Those of `report`, and of stdout.
pub(super) async fn watch(
    report: impl AsyncFn() -> Result<String, CommandError>,
) -> Result<(), CommandError> {
    let repeat = async {
        let mut is_first = true;
        loop {
            let began = Instant::now();
            let text = report().await?;
            if !write(&frame(&text, is_first, io::stdout().is_terminal()))? {
                return Ok(());
            }
            is_first = false;
            sleep(INTERVAL.max(began.elapsed() * 10)).await;
        }
    };
    tokio::select! {
        ended = repeat => ended,
        stopped = tokio::signal::ctrl_c() => Ok(stopped?),
    }
}

/// The text of one report on a terminal or elsewhere.
fn frame(text: &str, is_first: bool, is_terminal: bool) -> String {
    let before = match (is_terminal, is_first) {
        (true, _) => CLEAR,
        (false, true) => "",
        (false, false) => "\n",
    };
    format!("{before}{text}")
}

/// Writes to stdout. Returns whether there still is a reader.
fn write(text: &str) -> Result<bool, CommandError> {
    let mut stdout = io::stdout();
    let written = stdout.write_all(text.as_bytes());
    match written.and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(CommandError::Stdout(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_replace_each_other_on_a_terminal_only() {
        assert_eq!(frame("a\n", true, false), "a\n");
        assert_eq!(frame("a\n", false, false), "\na\n");
        assert_eq!(frame("a\n", false, true), format!("{CLEAR}a\n"));
    }
}
