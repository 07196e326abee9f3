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

/// The version of the JSON documents. It changes when a field is removed or gets another meaning; docs/json.md has
/// them.
const SCHEMA: u32 = 1;

/// A JSON document with its version.
#[derive(Serialize)]
struct Versioned<'a, T> {
    schema: u32,
    #[serde(flatten)]
    document: &'a T,
}

/// Writes one JSON document to stdout, on one line. `document` must be an object.
pub(super) fn print_json(document: &impl Serialize) -> Result<(), CommandError> {
    let schema = SCHEMA;
    let text = serde_json::to_string(&Versioned { schema, document })?;
    print(&format!("{text}\n"))
}

/// Writes a line for people to stderr. A closed stderr is ignored.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Writes an error and its causes to stderr and, with `--json`, a document with the same text to stdout.
pub fn print_error(error: &CommandError, json: bool) {
    let text = chain(error);
    note(&format!("error: {text}"));
    if json {
        // Where stdout is closed, stderr has the error.
        let _ = print_json(&serde_json::json!({ "error": text }));
    }
}

/// A number with its noun: `1 package`, `2 packages`.
pub(super) fn counted(number: usize, noun: &str) -> String {
    if number == 1 {
        format!("1 {noun}")
    } else {
        format!("{number} {noun}s")
    }
}
