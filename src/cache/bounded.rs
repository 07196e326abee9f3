//! A hash map with a fixed capacity, for facts that cost little to learn again.
//!
//! When the map is full, it forgets everything. That is cruder than dropping the least recently used entry, but needs
//! no bookkeeping. A lost fact costs one more request or one more hash.

use std::{borrow::Borrow, collections::HashMap, hash::Hash};

/// Capacity of the cache's maps, in entries. A large project touches about a thousand.
const MAX_TRACKED: usize = 100_000;

/// A map of at most [`MAX_TRACKED`] entries.
#[derive(Debug)]
pub(super) struct BoundedMap<K, V>(HashMap<K, V>);

impl<K, V> Default for BoundedMap<K, V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash, V> BoundedMap<K, V> {
    /// The value of `key`.
    pub(super) fn get<Q>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.0.get(key)
    }

    /// The value of `key`, for a change.
    pub(super) fn get_mut<Q>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.0.get_mut(key)
    }

    /// Sets the value of `key`. Empties the map first if it is full.
    pub(super) fn insert(&mut self, key: K, value: V) {
        if self.0.len() >= MAX_TRACKED {
            self.0.clear();
        }
        self.0.insert(key, value);
    }

    /// Removes `key` and returns its value.
    pub(super) fn remove<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.0.remove(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_map_forgets_everything_and_takes_the_new_entry() {
        let mut map = BoundedMap::default();
        for number in 0..MAX_TRACKED {
            map.insert(number, ());
        }
        assert!(map.get(&0).is_some());
        map.insert(MAX_TRACKED, ());
        assert!(map.get(&0).is_none() && map.get(&MAX_TRACKED).is_some());
        assert_eq!(map.0.len(), 1);
    }
}
