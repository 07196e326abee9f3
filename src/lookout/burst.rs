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
    asked: HashSet<u64>,
    candidates: Vec<Candidate>,
}

impl Burst {
    pub(super) fn new(candidates: Vec<Candidate>) -> Self {
        Self {
            asked: HashSet::new(),
            candidates,
        }
    }

    /// An entry is asked for.
    pub(super) fn note(&mut self, mark: u64) {
        if self.asked.insert(mark) {
            // Cargo asks for nothing that is not in its lock file, if that is good.
            self.candidates
                .retain(|candidate| candidate.lock.names(mark));
        }
    }

    /// A lock file explains what was asked for if it names all of that, and nearly all that it depends on directly is among it. If
    /// several do, which happens to copies of one project, they must lack the same; one that lacks nothing is as good an
    /// explanation as any.
    pub(super) fn verdict(&self) -> Verdict {
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
