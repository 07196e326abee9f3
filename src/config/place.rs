//! [`Place`]: where a setting's value stands, for errors.

use std::{fmt, path::PathBuf};

/// The place of a setting's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A flag, by its name.
    Flag(&'static str),
    /// A variable, by its name.
    Variable(String),
    /// A key of the settings file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The key.
        key: String,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "flag --{name}"),
            Self::Variable(name) => write!(f, "variable {name}"),
            Self::File { path, line, key } => {
                write!(f, "{}, line {line}, key `{key}`", path.display())
            }
        }
    }
}
