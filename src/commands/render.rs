//! Writes to stdout and stderr, and the small formats that several commands share.

use std::{
    collections::{HashMap, HashSet},
    io::{self, IsTerminal as _, Write as _},
};

use indicatif::HumanCount;
use serde::Serialize;

use super::CommandError;
use crate::{error::chain, plan::Problem};

/// The size of the terminal that stdout is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Screen {
    /// Its width in characters; `None` if stdout is no terminal.
    pub(super) columns: Option<usize>,
    /// Its height in lines.
    pub(super) rows: Option<usize>,
}

/// Width of a terminal that does not tell its own.
const DEFAULT_COLUMNS: usize = 80;

impl Screen {
    /// Looks at stdout.
    pub(super) fn of_stdout() -> Self {
        let stdout = io::stdout();
        if !stdout.is_terminal() {
            return Self::default();
        }
        let size = rustix::termios::tcgetwinsize(&stdout).ok();
        let size = size.filter(|size| size.ws_col > 0 && size.ws_row > 0);
        Self {
            columns: Some(size.map_or(DEFAULT_COLUMNS, |size| usize::from(size.ws_col))),
            rows: size.map(|size| usize::from(size.ws_row)),
        }
    }

    /// Returns whether stdout is a terminal.
    pub(super) fn is_terminal(self) -> bool {
        self.columns.is_some()
    }
}

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
    print(&json_line(document)?)
}

/// One JSON document as a line. `document` must be an object.
pub(super) fn json_line(document: &impl Serialize) -> Result<String, CommandError> {
    let schema = SCHEMA;
    let text = serde_json::to_string(&Versioned { schema, document })?;
    Ok(text + "\n")
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

/// Things with one cause that are named one by one. Of more, only this number is named.
const NAMED_THINGS: usize = 3;

/// One line for each cause, in the order of their first things. With `all`, one line for each thing.
pub(super) fn by_cause(problems: &[Problem], all: bool) -> Vec<String> {
    let mut lines = Vec::new();
    let mut seen = HashSet::new();
    let mut things: HashMap<_, Vec<_>> = HashMap::new();
    for problem in problems {
        things
            .entry(problem.cause.as_str())
            .or_default()
            .push(problem);
    }
    for problem in problems {
        let same = &things[problem.cause.as_str()];
        if all || same.len() <= NAMED_THINGS {
            lines.push(problem.to_string());
        } else if seen.insert(problem.cause.as_str()) {
            let names: Vec<_> = same
                .iter()
                .take(NAMED_THINGS)
                .map(|one| one.what.as_str())
                .collect();
            let (count, names) = (HumanCount(same.len() as u64), names.join(", "));
            let cause = match problem.cause.as_str() {
                "" => String::new(),
                cause => format!(": {cause}"),
            };
            lines.push(format!(
                "{count}, among them {names} (`-v` lists all){cause}"
            ));
        }
    }
    lines
}

/// A number with its noun: `1 package`, `2 packages`.
pub(super) fn counted(number: usize, noun: &str) -> String {
    if number == 1 {
        format!("1 {noun}")
    } else {
        format!("{number} {noun}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_with_one_cause_share_a_line_unless_they_are_few() {
        let problem = |name: u32, why: &str| Problem::new(format_args!("p{name}"), why);
        let mut problems: Vec<_> = (0..20_000)
            .map(|name| problem(name, "it is down"))
            .collect();
        problems.push(problem(1, "it is odd"));
        problems.push(Problem::new("crate `a`", ""));
        assert_eq!(
            by_cause(&problems, false),
            [
                "20,000, among them p0, p1, p2 (`-v` lists all): it is down",
                "p1: it is odd",
                "crate `a`"
            ]
        );
        let all = by_cause(&problems, true);
        assert_eq!(
            (all.len(), all[19_999].as_str()),
            (20_002, "p19999: it is down")
        );
    }
}
