//! Refuses versions that clients must not get, although upstream or the store has them.

use crate::{
    error::Error,
    hash::Sha256,
    resource::Resource,
    store::{RecallKind, Store},
};

/// Refuses the bytes that upstream has put in the place of a version's first ones.
pub(super) fn refuse_rewritten(
    store: &Store,
    resource: &Resource,
    sha256: Sha256,
) -> Result<(), Error> {
    let Some(versioned) = resource.crate_version() else {
        return Ok(());
    };
    let recalls = store.recalls();
    if recalls.is_empty() {
        return Ok(());
    }
    let (registry, name) = (versioned.registry(), versioned.name());
    let rewritten = recalls.iter().find_map(|recall| match recall.kind {
        RecallKind::Checksum { was, now }
            if now == sha256
                && recall.version == versioned.version()
                && recall.is_about(registry, &name) =>
        {
            Some(was)
        }
        RecallKind::Checksum { .. } | RecallKind::Removed | RecallKind::Yanked => None,
    });
    match rewritten {
        None => Ok(()),
        Some(was) => Err(Error::Refused {
            resource: resource.to_string(),
            why: format!(
                "upstream has changed its checksum to {sha256}; larder serves the first one, {was}"
            ),
        }),
    }
}
