//! Which crates of a lock file this machine needs, as their index entries come in, in any order. Pure; crates are known by the
//! marks of their entries, which tell two of one name in two registries apart.

use std::collections::{HashMap, HashSet};

/// What is wanted so far, and what else would be if its dependents were.
#[derive(Debug, Default)]
pub(super) struct Wants {
    wanted: HashSet<u64>,
    /// What each crate needs whose entry has come.
    needs: HashMap<u64, Vec<u64>>,
}

impl Wants {
    /// At first these are wanted, whatever anybody says.
    pub(super) fn of(roots: impl IntoIterator<Item = u64>) -> Self {
        Self {
            wanted: roots.into_iter().collect(),
            needs: HashMap::new(),
        }
    }

    /// The entry of `crate_` has come. Which crates are now known to be wanted whose entry has come, each told once.
    ///
    /// Versions are not told apart: two of one crate are rarely for different platforms.
    pub(super) fn learn(&mut self, crate_: u64, needs: Vec<u64>) -> Vec<u64> {
        let is_wanted = self.wanted.contains(&crate_);
        let is_new = self.needs.insert(crate_, needs).is_none();
        if !is_wanted || !is_new {
            return Vec::new();
        }
        let mut found = vec![crate_];
        let mut at = 0;
        while let Some(wanted) = found.get(at) {
            at += 1;
            for need in self.needs.get(wanted).cloned().unwrap_or_default() {
                if self.wanted.insert(need) && self.needs.contains_key(&need) {
                    found.push(need);
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is wanted of `NAME: NEEDS` in the order in which the entries come, from the roots.
    #[track_caller]
    fn check(roots: &str, entries: &[&str], expected: &str) {
        let mark = |name: &str| u64::from(name.as_bytes()[0]);
        let words = |text: &str| text.split_whitespace().map(mark).collect::<Vec<_>>();
        let mut wants = Wants::of(words(roots));
        let found: Vec<_> = entries
            .iter()
            .flat_map(|entry| {
                let (name, needs) = entry.split_once(':').unwrap();
                wants.learn(mark(name), words(needs))
            })
            .collect();
        assert_eq!(found, words(expected), "{entries:?}");
    }

    #[test]
    fn what_the_roots_lead_to_is_wanted_in_whatever_order_it_comes() {
        check("a", &["a: b", "b: c", "c:", "d:"], "a b c");
        check("a", &["c:", "d: c", "b: c", "a: b"], "a b c");
        check("a d", &["d:", "b: d", "a: b"], "d a b");
    }

    #[test]
    fn what_only_unwanted_crates_lead_to_is_not() {
        check("a", &["w: x", "x: w y", "y:", "a:"], "a");
    }

    #[test]
    fn circles_end_and_what_comes_twice_is_told_once() {
        check("a", &["b: a b", "a: b", "a: b c", "c:"], "a b");
    }
}
