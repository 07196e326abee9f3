//! Settings that cannot be used. Every message is one line and names the flag, key or file to change.

use std::{io, path::PathBuf};

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
    /// The settings file is not TOML, or has an unknown key.
    #[error("cannot read the settings file {}{}: {message}", path.display(), at_line(*.line))]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line of the fault, from 1.
        line: Option<usize>,
        /// The parser's message, on one line.
        message: String,
    },
    /// A duration that cannot be read, in the settings file or in a variable.
    #[error("cannot read `{name} = \"{text}\"` in {place}: {source}")]
    Duration {
        /// The key or the variable.
        name: &'static str,
        /// Its value.
        text: String,
        /// Where it stands.
        place: &'static str,
        /// The parser's error.
        source: humantime::DurationError,
    },
    /// An address that does not parse.
    #[error("cannot use `{text}` as {purpose}: {source}")]
    Url {
        /// The address.
        text: String,
        /// Its purpose.
        purpose: &'static str,
        /// The parser's error.
        source: url::ParseError,
    },
    /// An address of the wrong kind.
    #[error("cannot use `{text}` as {purpose}: {reason}")]
    Address {
        /// The address.
        text: String,
        /// Its purpose.
        purpose: &'static str,
        /// The reason.
        reason: &'static str,
    },
    /// A registry's name that is invalid, or reserved.
    #[error("`{0}` cannot be the name of a registry in the settings file")]
    RegistryName(String),
    /// An address given as the store.
    #[error("cannot use `{0}` as the store: only a folder can be one")]
    StoreAddress(String),
    /// No place for the store.
    #[error("no home folder is known; say `--store PATH`")]
    NoHome,
}

fn at_line(line: Option<usize>) -> String {
    line.map_or(String::new(), |line| format!(", line {line}"))
}
