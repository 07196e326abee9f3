//! Prints a report again and again, until Ctrl-C or until its reader is gone.
//!
//! On a terminal each report takes the place of the one before. Elsewhere an empty line separates them.

use std::{
    io::{self, Write as _},
    time::{Duration, Instant},
};

use tokio::time::sleep;

use super::{CommandError, render::Screen};

/// Time between two reports.
const INTERVAL: Duration = Duration::from_secs(2);
/// Moves the cursor to the first line.
const HOME: &str = "\x1b[H";
/// Clears the rest of a line.
const CLEAR_LINE: &str = "\x1b[K";
/// Clears everything below the cursor.
const CLEAR_BELOW: &str = "\x1b[J";
/// Clears the terminal.
const CLEAR: &str = "\x1b[2J";

/// Prints what `report` returns for the size of the terminal, every [`INTERVAL`]. A report that takes long is made less
/// often.
///
/// # Errors
/// Those of `report`, and of stdout.
pub(super) async fn watch(
    report: impl AsyncFn(Screen) -> Result<String, CommandError>,
) -> Result<(), CommandError> {
    let repeat = async {
        let mut is_first = true;
        loop {
            let began = Instant::now();
            let screen = Screen::of_stdout();
            let text = report(screen).await?;
            if !write(&frame(&text, is_first, screen))? {
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

/// The text of one report on a terminal or elsewhere. On a terminal it overwrites the one before, without an empty
/// moment between them. The end of a report that is too high is left out: its beginning would scroll away otherwise.
fn frame(text: &str, is_first: bool, screen: Screen) -> String {
    if !screen.is_terminal() {
        let before = if is_first { "" } else { "\n" };
        return format!("{before}{text}");
    }
    let lines: Vec<_> = text.lines().collect();
    // The cursor stands below the last line.
    let rows = screen
        .rows
        .map_or(usize::MAX, |rows| rows.saturating_sub(1));
    let shown = match lines.len() > rows {
        true => rows.saturating_sub(1),
        false => lines.len(),
    };
    let mut frame = format!("{HOME}{}", if is_first { CLEAR } else { "" });
    for line in &lines[..shown] {
        frame += &format!("{line}{CLEAR_LINE}\n");
    }
    if shown < lines.len() {
        let hidden = lines.len() - shown;
        frame += &format!("({hidden} more lines need a higher terminal){CLEAR_LINE}\n");
    }
    frame + CLEAR_BELOW
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
        let file = Screen::default();
        assert_eq!(frame("a\n", true, file), "a\n");
        assert_eq!(frame("a\n", false, file), "\na\n");
        let terminal = Screen {
            columns: Some(80),
            rows: None,
        };
        let first = frame("a\n", true, terminal);
        assert_eq!(first, format!("{HOME}{CLEAR}a{CLEAR_LINE}\n{CLEAR_BELOW}"));
        let second = frame("a\n", false, terminal);
        assert_eq!(second, format!("{HOME}a{CLEAR_LINE}\n{CLEAR_BELOW}"));
    }

    #[test]
    fn a_low_terminal_shows_the_beginning_of_a_report() {
        let terminal = Screen {
            columns: Some(80),
            rows: Some(4),
        };
        let frame = frame("a\nb\nc\nd\n", false, terminal);
        assert!(frame.contains("b") && !frame.contains("c\x1b"), "{frame}");
        assert!(frame.contains("(2 more lines need a higher terminal)"));
        assert_eq!(frame.matches('\n').count(), 3, "{frame}");
    }
}
