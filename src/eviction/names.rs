//! Names of stored files, for reports: an entry's key leads to its resource, and entries name the blobs they list.

use std::collections::{HashMap, HashSet};

use super::{
    policy::RemovalPlan,
    survey::{Survey, read_entry},
};
use crate::{
    hash::Sha256,
    resource::{Key, Resource, Upstreams},
    store::{Store, StoreError},
};

/// The names of the files to remove, by their position in the inventory.
pub(super) async fn of_removals(
    store: &Store,
    upstreams: &Upstreams,
    survey: &Survey,
    decision: &RemovalPlan,
) -> Result<HashMap<usize, String>, StoreError> {
    let removals: HashSet<usize> = decision.removals.iter().map(|(at, _)| *at).collect();
    let mut names = HashMap::new();
    for (at, record) in survey.records.iter().enumerate() {
        let Some(key) = record.file.entry() else {
            continue;
        };
        if removals.contains(&at)
            && let Some(resource) = upstreams.entry_of(key)
        {
            names.insert(at, resource.to_string());
        }
        let listed = survey.items[at].lists.iter().copied();
        let unnamed: Vec<usize> = listed
            .filter(|at| removals.contains(at) && !names.contains_key(at))
            .collect();
        if unnamed.is_empty() {
            continue;
        }
        let hash = |at: usize| survey.records[at].file.blob();
        let hashes = unnamed.iter().filter_map(|at| hash(*at)).collect();
        let found = of_blobs(store, upstreams, key, hashes).await?;
        for at in unnamed {
            let name = hash(at).and_then(|sha256| found.get(&sha256));
            names.extend(name.map(|resource| (at, resource.to_string())));
        }
    }
    Ok(names)
}

/// The resources of these blobs, which the entry lists.
pub(super) async fn of_blobs(
    store: &Store,
    upstreams: &Upstreams,
    key: &Key,
    hashes: Vec<Sha256>,
) -> Result<HashMap<Sha256, Resource>, StoreError> {
    let Some(body) = read_entry(store, key).await? else {
        return Ok(HashMap::new());
    };
    let named = hashes.into_iter().filter_map(|sha256| {
        let resource = upstreams.blob_of(key, &body, sha256)?;
        Some((sha256, resource))
    });
    Ok(named.collect())
}
