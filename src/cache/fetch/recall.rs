//! Index entries that have lost versions since they were stored.
//!
//! Registries publish and yank, and almost never remove a version. A body without a length that breaks off at the end
//! of a line looks complete and lists fewer versions. So such a body does not replace the stored entry before upstream
//! has confirmed it:
//!
//! ```text
//!  new body lacks versions of the stored one ── ask again ─┬─ lists them all: the first body was cut
//!                                                          ├─ lacks the same: a recall; log, count and store it
//!                                                          └─ lacks others: a failure; the stored entry stays
//! ```

use std::time::SystemTime;

use tracing::warn;
use url::Url;

use super::{
    super::counters::Counter,
    entry::{EntryFetcher, Fetch},
    request::{EntryReply, unexpected_304},
};
use crate::{
    upstream::{Failure, FailureKind},
    validators::Validators,
};

/// Names of lost versions in one log line.
const MAX_NAMED_VERSIONS: usize = 10;

impl EntryFetcher {
    /// One attempt, and a second one if the first lists fewer versions than the stored entry.
    pub(super) async fn attempt_confirmed(
        &self,
        fetch: &Fetch<'_>,
        url: &Url,
        validators: &Validators,
        started: SystemTime,
    ) -> Result<EntryReply, Failure> {
        let reply = self.attempt(fetch, url, validators, started).await?;
        self.confirm_versions(fetch, url, reply, started).await
    }

    /// Asks again if `reply` lists fewer versions than the stored entry. Returns the reply to accept.
    async fn confirm_versions(
        &self,
        fetch: &Fetch<'_>,
        url: &Url,
        reply: EntryReply,
        started: SystemTime,
    ) -> Result<EntryReply, Failure> {
        let (EntryReply::Body(fresh), Some(stored), Some(retention)) =
            (&reply, &fetch.stored, fetch.resource.retention())
        else {
            return Ok(reply);
        };
        let lost = retention.lost_versions(&stored.body, &fresh.body);
        if lost.is_empty() {
            return Ok(reply);
        }
        let unconditional = Validators::default();
        let again = match self.attempt(fetch, url, &unconditional, started).await? {
            EntryReply::Body(again) => again,
            EntryReply::NotModified(_) => return Err(unexpected_304(url)),
        };
        let still_lost = retention.lost_versions(&stored.body, &again.body);
        let resource = fetch.resource;
        if still_lost.is_empty() {
            warn!(%resource, lost = lost.len(), "upstream sent an incomplete entry; it was asked again");
        } else if still_lost == lost {
            let versions = named(&lost);
            warn!(%resource, %versions, "upstream has recalled versions: it no longer lists them");
            self.count(Counter::EntriesRecalled);
        } else {
            let why = "lacks versions that are stored, other ones each time".to_owned();
            return Err(FailureKind::Unrecognised { why }.at(url));
        }
        Ok(EntryReply::Body(again))
    }
}

/// Versions for a log line.
fn named(versions: &[String]) -> String {
    let named = versions[..versions.len().min(MAX_NAMED_VERSIONS)].join(", ");
    match versions.len().saturating_sub(MAX_NAMED_VERSIONS) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}
