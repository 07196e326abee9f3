//! Keys of entries.

use std::fmt;

/// The name an entry is stored under: a relative path of harmless segments. Stable across releases, since changing it
/// orphans every stored copy.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(String);

impl Key {
    /// Joins segments that were validated by the kind which calls this.
    pub(super) fn new(segments: &[&str]) -> Self {
        debug_assert!(
            segments
                .iter()
                .flat_map(|segment| segment.split('/'))
                .all(|segment| {
                    !segment.is_empty()
                        && !segment.starts_with('.')
                        && !segment.contains(['\\', '\0'])
                }),
            "a key is made of harmless segments: {segments:?}"
        );
        Self(segments.join("/"))
    }

    /// The key as a relative path with `/` between segments.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
