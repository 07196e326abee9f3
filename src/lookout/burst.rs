//! Which registered lock file a client works on, as far as what it asks for tells. Pure.

use std::{collections::HashSet, sync::Arc};

use super::shelf::{Lock, Package};

/// Which share of its direct dependencies must have been asked for, in tenths: cargo asks for all of them first, but those that
/// are replaced by others are never asked for.
const OF_DIRECT: usize = 9;

/// A lock file, and what the store lacks of it.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) lock: Arc<Lock>,
    /// In the lock file's order.
    pub(super) lacks: Vec<Arc<Package>>,
}

/// What to do.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Fetch what it lacks: it is what the client works on, or as good.
    Follow(Candidate),
    /// More must be heard.
    Unclear,
    /// Whatever else may come, there is nothing to fetch.
    Nothing,
}

/// Index entries that were asked for with no great pause in between, and the lock files that may explain them all.
#[derive(Debug)]
pub(super) struct Burst {
    /// What was asked for since a client set out.
    heard: Heard,
    /// The same, and what was asked for before, unless that was nothing.
    all: Option<Heard>,
}

#[derive(Clone, Debug)]
struct Heard {
    asked: HashSet<u64>,
    candidates: Vec<Candidate>,
}

impl Burst {
    /// A client sets out just after these entries were asked for. They may be another's, who goes on, or the beginning of the
    /// same work.
    pub(super) fn after(earlier: &HashSet<u64>, candidates: Vec<Candidate>) -> Self {
        let heard = Heard {
            asked: HashSet::new(),
            candidates,
        };
        let mut all = (!earlier.is_empty()).then(|| heard.clone());
        for mark in earlier {
            all.iter_mut().for_each(|all| all.note(*mark));
        }
        Self { heard, all }
    }

    /// An entry is asked for.
    pub(super) fn note(&mut self, mark: u64) {
        self.heard.note(mark);
        self.all.iter_mut().for_each(|all| all.note(mark));
    }

    /// What was asked for since the client set out.
    pub(super) fn into_asked(self) -> HashSet<u64> {
        self.heard.asked
    }

    /// What to do, by what was asked for since the client set out, or else by that and what was asked for before.
    pub(super) fn verdict(&self) -> Verdict {
        match (
            self.heard.verdict(),
            self.all.as_ref().map_or(Verdict::Nothing, Heard::verdict),
        ) {
            (Verdict::Follow(candidate), _) | (_, Verdict::Follow(candidate)) => {
                Verdict::Follow(candidate)
            }
            (Verdict::Nothing, Verdict::Nothing) => Verdict::Nothing,
            (Verdict::Unclear | Verdict::Nothing, Verdict::Unclear | Verdict::Nothing) => {
                Verdict::Unclear
            }
        }
    }
}

impl Heard {
    fn note(&mut self, mark: u64) {
        if self.asked.insert(mark) {
            // Cargo asks for nothing that is not in its lock file, if that is good.
            self.candidates
                .retain(|candidate| candidate.lock.names(mark));
        }
    }

    /// A lock file explains what was asked for if it names all of that, and nearly all that it depends on directly is among it. If
    /// several do, which happens to copies of one project, they must lack the same; one that lacks nothing is as good an
    /// explanation as any.
    fn verdict(&self) -> Verdict {
        let lacks_any = |candidate: &Candidate| !candidate.lacks.is_empty();
        if !self.candidates.iter().any(lacks_any) {
            return Verdict::Nothing;
        }
        let mut explaining = self.candidates.iter().filter(|candidate| {
            let direct = candidate.lock.direct();
            let asked = direct.iter().filter(|mark| self.asked.contains(mark));
            !direct.is_empty() && asked.count() * 10 >= direct.len() * OF_DIRECT
        });
        let Some(first) = explaining.next() else {
            return Verdict::Unclear;
        };
        if lacks_any(first) && explaining.all(|other| other.lacks == first.lacks) {
            Verdict::Follow(first.clone())
        } else {
            Verdict::Unclear
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lookout::shelf::named;

    /// Lock files as `DIRECT | INDIRECT`, with `!` behind what the store lacks; what is asked for; and which of them is followed.
    #[track_caller]
    fn check(locks: &[&str], asked: &str, expected: Option<usize>) {
        check_after(locks, "", asked, expected);
    }

    /// The same, when other entries were asked for before a client set out.
    #[track_caller]
    fn check_after(locks: &[&str], earlier: &str, asked: &str, expected: Option<usize>) {
        let candidates = locks.iter().map(|text| {
            let (lock, all) = named(text);
            let lacks = all
                .into_iter()
                .filter_map(|(package, word)| word.ends_with('!').then_some(package));
            Candidate {
                lacks: lacks.collect(),
                lock,
            }
        });
        let candidates: Vec<_> = candidates.collect();
        let mark = |name: &str| named(name).1[0].0.mark;
        let earlier_marks = earlier.split_whitespace().map(mark).collect();
        let mut burst = Burst::after(&earlier_marks, candidates.clone());
        for name in asked.split_whitespace() {
            burst.note(mark(name));
        }
        let followed = match burst.verdict() {
            Verdict::Follow(found) => candidates
                .iter()
                .position(|candidate| Arc::ptr_eq(&candidate.lock, &found.lock)),
            Verdict::Unclear | Verdict::Nothing => None,
        };
        assert_eq!(followed, expected, "{locks:?} after {earlier}, {asked}");
    }

    #[test]
    fn the_one_whose_direct_dependencies_are_all_asked_for_is_followed() {
        let lock = "a b! | c d!";
        check(&[lock], "a", None);
        check(&[lock], "a b", Some(0));
        check(&[lock], "c a d b", Some(0));
        check(&[lock], "a b e", None);
        check(&["a b | c d"], "a b", None);
        check(&["| c d!"], "c", None);
    }

    #[test]
    fn a_tenth_of_many_may_be_missing() {
        let lock = "a b c d e f g h i j k!";
        check(&[lock], "a b c d e f g h i", None);
        check(&[lock], "a b c d e f g h i j", Some(0));
    }

    #[test]
    fn what_two_share_decides_nothing_and_what_tells_them_apart_does() {
        let locks = ["a b | c x!", "a b | c y!", "a b e | c y!"];
        check(&locks, "a b", None);
        check(&locks, "a b c", None);
        check(&locks, "a b c x", Some(0));
        check(&locks, "a b e", Some(2));
        // One that has all it needs explains it as well.
        check(&["a b!", "a b"], "a b", None);
        check(&["a b! | c", "a b"], "a b c", Some(0));
    }

    #[test]
    fn what_was_asked_for_before_another_client_set_out_counts_and_is_not_held_against_it() {
        let locks = ["a b! | c", "d e! | f"];
        check(&locks, "b", None);
        check_after(&locks, "a", "b", Some(0));
        check_after(&locks, "a", "b d", None);
        check_after(&locks, "a", "d e", Some(1));
        check_after(&locks, "a g", "b", None);
        check_after(&locks, "", "d e", Some(1));
    }

    #[test]
    fn copies_that_lack_the_same_are_as_good_as_one() {
        check(&["a b! | c!", "a b! | c!"], "a b", Some(0));
        check(&["a b! | c!", "a b! | c"], "a b", None);
    }
}
