//! Settings that cannot be used. Every message is one line and begins with the flag, variable or file to change.

use std::{io, path::PathBuf};

use url::Url;

use super::place::Place;

/// A setting that cannot be used. This is wrong usage: exit code 2.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The settings file cannot be read.
    #[error("cannot read the settings file {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The settings file is not TOML, or a table lacks a key.
    #[error("cannot read the settings file {}{}: {message}", path.display(), at_line(*.line))]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line of the fault, from 1.
        line: Option<usize>,
        /// The parser's message, on one line.
        message: String,
    },
    /// The settings file has a key that no setting has.
    #[error("{}, line {line}: unknown key `{key}`{}", path.display(), did_you_mean(*.closest))]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The key.
        key: String,
        /// The known key that is closest to it.
        closest: Option<&'static str>,
    },
    /// A value that cannot be used.
    #[error("{place}: cannot use `{text}`: {reason}")]
    Value {
        /// Where it stands.
        place: Place,
        /// The value as it was written.
        text: String,
        /// The reason.
        reason: String,
    },
    /// An upstream that is this larder: each request would wait for itself.
    #[error(
        "`{url}`, which is to be {purpose}, is larder's own address; give the address of upstream"
    )]
    OwnAddress {
        /// The address.
        url: Url,
        /// Its purpose.
        purpose: String,
    },
    /// No place for the store.
    #[error("no home folder is known; say `--store PATH`")]
    NoHome,
}

fn at_line(line: Option<usize>) -> String {
    line.map_or(String::new(), |line| format!(", line {line}"))
}

fn did_you_mean(closest: Option<&str>) -> String {
    closest.map_or(String::new(), |key| format!("; did you mean `{key}`?"))
}
