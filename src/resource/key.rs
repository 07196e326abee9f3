//! [`Key`]: the name under which the store has an entry.

use std::fmt;

/// The name of a stored entry: a relative path whose segments are safe as file names. It must not change between
/// releases, because a changed key orphans every stored copy.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(String);

impl Key {
    /// Joins segments that the calling kind has validated.
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
            "a key consists of safe segments: {segments:?}"
        );
        Self(segments.join("/"))
    }

    /// The key of a stored file, by its path below the entries. `None` for a path that no key has.
    pub(crate) fn of_path(path: &str) -> Option<Self> {
        let is_safe = |segment: &str| {
            !segment.is_empty() && !segment.starts_with('.') && !segment.contains(['\\', '\0'])
        };
        path.split('/').all(is_safe).then(|| Self(path.to_owned()))
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
