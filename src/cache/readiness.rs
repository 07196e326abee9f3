//! Tells whether the cache can answer from its store now.

use super::Cache;
use crate::error::chain;

impl Cache {
    /// Why stored files cannot be served now, if they cannot.
    pub async fn store_failure(&self) -> Option<String> {
        let store = &self.0.entries.lookup.store;
        if let Some(problem) = store.problem() {
            return Some(problem);
        }
        let failure = store.check_folders().await.err();
        failure.map(|error| chain(&error))
    }
}
