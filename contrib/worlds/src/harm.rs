//! Harm to the files of a store: deleted, flipped and truncated ones.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use testkit::store;

use crate::dice::Dice;

/// Harm to some files of a store. The same description harms the same files in each run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Harm {
    /// The files that may be hit.
    pub(crate) files: Files,
    /// The harm to each.
    pub(crate) how: How,
    /// The share of the files that is hit.
    pub(crate) percent: u32,
    /// Decides which files are hit.
    pub(crate) salt: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Files {
    Entries,
    Blobs,
    All,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum How {
    Delete,
    Flip,
    Truncate,
}

impl Harm {
    /// Random harm of this kind. `percents` are the shares to choose from, with their weights.
    pub(crate) fn random(dice: &mut Dice, how: How, percents: &[(u32, u32)]) -> Self {
        let files = dice.weighted(&[(40, Files::Blobs), (30, Files::Entries), (30, Files::All)]);
        Self {
            files,
            how,
            percent: dice.weighted(percents),
            salt: dice.number(),
        }
    }

    /// Harms the files below this store's folder. Returns their paths.
    pub(crate) fn apply(&self, store: &Path) -> Vec<PathBuf> {
        let folders: &[&str] = match self.files {
            Files::Entries => &["v1/entries"],
            Files::Blobs => &["v1/blobs"],
            Files::All => &["v1/entries", "v1/blobs"],
        };
        let mut hit = Vec::new();
        for folder in folders {
            let folder = store.join(folder);
            if !folder.is_dir() {
                continue;
            }
            for (path, content) in store::files(&folder) {
                let mut dice = Dice::new(self.salt ^ fold(&stable_name(&folder, &path)));
                if dice.chance(self.percent) {
                    self.harm(&path, content, &mut dice);
                    hit.push(path);
                }
            }
        }
        hit
    }

    fn harm(&self, path: &Path, mut content: Vec<u8>, dice: &mut Dice) {
        let done = match self.how {
            How::Delete => fs::remove_file(path),
            How::Flip if content.is_empty() => Ok(()),
            How::Flip => {
                let at = dice.between(0, content.len() - 1);
                content[at] ^= 1 << dice.between(0, 7);
                fs::write(path, content)
            }
            How::Truncate => {
                content.truncate(dice.between(0, content.len().saturating_sub(1)));
                fs::write(path, content)
            }
        };
        done.expect("the store is writable");
    }
}

/// The path below the folder, without the hash of upstream's address, which differs from run to run.
fn stable_name(folder: &Path, path: &Path) -> String {
    let below = path.strip_prefix(folder).unwrap_or(path);
    let mut parts = below
        .components()
        .map(|part| part.as_os_str().to_string_lossy().into_owned());
    let first = parts.next().unwrap_or_default();
    let first = first
        .rsplit_once('-')
        .map_or(first.as_str(), |(name, _)| name)
        .to_owned();
    std::iter::once(first)
        .chain(parts)
        .collect::<Vec<_>>()
        .join("/")
}

/// A number derived from a text (FNV-1a).
pub(crate) fn fold(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match self.how {
            How::Delete => "are deleted",
            How::Flip => "get one flipped bit each",
            How::Truncate => "are truncated",
        };
        let files = match self.files {
            Files::Entries => "entries",
            Files::Blobs => "blobs",
            Files::All => "files",
        };
        write!(f, "{} % of the store's {files} {how}", self.percent)
    }
}
