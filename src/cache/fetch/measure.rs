//! One request for a file of which upstream publishes no hash.
//!
//! The body goes through a spool and becomes a blob under the hash that larder computes. The reply is the entry that
//! lists this blob. Clients wait for the whole file, because nothing but its end tells that it is complete. For the
//! same reason an attempt that breaks off is not resumed.

use std::{error::Error, sync::Arc};

use bytes::Bytes;
use tokio::time::Instant;
use tracing::info;

use super::{
    super::lookup::Lookup,
    decode::{BodyLimit, Decoder},
    request::{EntryReply, EntryRequest, plain_get},
};
use crate::{
    hash::{Hasher, Sha256},
    resource::Measured,
    store::{Entry, Spool},
    upstream::{Failure, FailureKind, Get, Reply, Upstream, UpstreamBody},
};

/// Sends the request, and stores the body.
pub(super) async fn send(
    request: &EntryRequest<'_>,
    measured: &dyn Measured,
    lookup: &Lookup,
    upstream: &Upstream,
) -> Result<EntryReply, Failure> {
    let (resource, url) = (request.resource, request.url);
    let get = Get {
        validators: request.validators.clone(),
        ..plain_get(url.clone(), request.read_timeout)
    };
    let mut incoming = match upstream.get(&get).await? {
        Reply::NotModified { max_age } => return Ok(EntryReply::NotModified(max_age)),
        Reply::Body(incoming) => incoming,
    };
    let spool = Arc::new(lookup.store.spool());
    let sha256 = receive(&mut incoming, request, measured, &spool).await?;
    let written = lookup
        .write_behind
        .write_blob(resource, spool, sha256)
        .await;
    // Without a stored blob, the client's answer fetches it once more, by this hash.
    if let Ok(file) = written {
        lookup.verified.insert(sha256, file, Instant::now());
    }
    info!(%resource, "upstream publishes no hash of this file; it is served as upstream sent it");
    let record = Bytes::from(measured.record(sha256));
    let entry = Entry::new(
        record,
        incoming.validators,
        incoming.max_age,
        request.started,
    );
    Ok(EntryReply::Body(entry))
}

fn unstorable(error: &dyn Error) -> FailureKind {
    let why = format!("cannot be written to the store: {error}");
    FailureKind::Unsupported { why }
}

/// Writes the body to the spool, and returns its hash.
async fn receive(
    incoming: &mut UpstreamBody,
    request: &EntryRequest<'_>,
    measured: &dyn Measured,
    spool: &Spool,
) -> Result<Sha256, Failure> {
    let url = request.url;
    let limit = BodyLimit::of(request.resource);
    let total = incoming.total.unwrap_or(0);
    if !spool.has_space(total) {
        let made = spool.make_space(total).await;
        made.map_err(|error| unstorable(&error).at(url))?;
    }
    let mut hasher = Hasher::default();
    let mut written: u64 = 0;
    let mut append = |chunk: &[u8]| {
        if written == 0 {
            let why = measured.validate_start(chunk);
            why.map_err(|why| {
                FailureKind::Unrecognised {
                    why: why.to_string(),
                }
                .at(url)
            })?;
        }
        limit.check(written + chunk.len() as u64, url)?;
        let put = spool.write(written, chunk);
        put.map_err(|error| unstorable(&error).at(url))?;
        hasher.update(chunk);
        written += chunk.len() as u64;
        Ok(())
    };
    let mut decoder = Decoder::new(incoming.coding);
    while let Some(chunk) = incoming.chunk().await? {
        decoder.decode(&chunk, url, limit, &mut append)?;
    }
    decoder.finish(url, &mut append)?;
    if incoming.total.is_some_and(|total| total != written) {
        let cause = format!("it ended after {written} bytes");
        return Err(FailureKind::Broken { cause }.at(url));
    }
    Ok(hasher.finish())
}
