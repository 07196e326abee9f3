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
