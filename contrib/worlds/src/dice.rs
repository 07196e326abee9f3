//! Random choices that depend on the seed alone.

/// A random number generator with the choices that the generators need.
#[derive(Debug)]
pub(crate) struct Dice(fastrand::Rng);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// True in this many of a hundred cases.
    pub(crate) fn chance(&mut self, percent: u32) -> bool {
        self.0.u32(0..100) < percent
    }

    /// A number in `from..=to`.
    pub(crate) fn between(&mut self, from: usize, to: usize) -> usize {
        self.0.usize(from..=to)
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.0.u64(..)
    }

    /// One of the items, which must not be empty.
    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.0.usize(0..items.len())]
    }

    /// One of the items, each with a weight.
    pub(crate) fn weighted<T: Copy>(&mut self, items: &[(u32, T)]) -> T {
        let total = items.iter().map(|(weight, _)| weight).sum();
        let mut at = self.0.u32(0..total);
        for (weight, item) in items {
            if at < *weight {
                return *item;
            }
            at -= weight;
        }
        items[items.len() - 1].1
    }

    /// Each item with this probability, in their order.
    pub(crate) fn some<T: Clone>(&mut self, items: &[T], percent: u32) -> Vec<T> {
        let kept = items.iter().filter(|_| self.chance(percent));
        kept.cloned().collect()
    }
}
