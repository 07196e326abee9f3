//! Tells whether the cache can answer from its store now.

use super::Cache;
use crate::error::chain;

impl Cache {
    /// Why stored files cannot be served now, if they cannot.
    pub async fn store_failure(&self) -> Option<String> {
        let store = &self.0.entries.lookup.store;
        let problem = store.problem();
        match problem {
            Some(problem) => Some(problem),
            None => store
                .check_readable()
                .await
                .err()
                .map(|error| chain(&error)),
        }
    }
}
