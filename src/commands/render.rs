//! Writes to stdout and stderr, and the small formats that several commands share.

use std::io::{self, Write as _};

use serde::Serialize;

use super::CommandError;
use crate::error::chain;

/// Writes data to stdout. A closed pipe is no failure: the reader has seen enough (`larder status | head`).
pub(super) fn print(text: &str) -> Result<(), CommandError> {
    let mut stdout = io::stdout();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CommandError::Stdout(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Writes one JSON document to stdout, on one line.
pub(super) fn print_json(document: &impl Serialize) -> Result<(), CommandError> {
    print(&format!("{}\n", serde_json::to_string(document)?))
}

/// Writes a line for people to stderr. A closed stderr is ignored.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Writes an error and its causes to stderr.
pub fn print_error(error: &CommandError) {
    note(&format!("error: {}", chain(error)));
}

/// A number with its noun: `1 package`, `2 packages`.
pub(super) fn counted(number: usize, noun: &str) -> String {
    if number == 1 {
        format!("1 {noun}")
    } else {
        format!("{number} {noun}s")
    }
}
