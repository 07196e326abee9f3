//! Index entries that take back what the stored entry lists.
//!
//! Registries publish and yank. They almost never remove a version, and never change the checksum of one. A body
//! without a length that breaks off at the end of a line looks complete and lists fewer versions, and a bad mirror may
//! answer once with another file. So such a body does not replace the stored entry before upstream has confirmed it:
//!
//! ```text
//!  new body lacks versions, or states other checksums ── ask again ─┬─ neither: the first body was bad
//!                                                                   ├─ the same: a recall
//!                                                                   └─ something else: a failure, the stored stays
//!  a recall ── logged and recorded once (`Store::recalls`)
//!           └─ stored: the new body with the first checksums, and with removed versions that pins lock
//! ```
//!
//! So the stored entry is the witness of the first checksums. The record has downloads by another hash refused.

use std::time::SystemTime;

use tracing::{info, warn};
use url::Url;

use super::{
    super::counters::Counter,
    entry::{EntryFetcher, Fetch},
    request::{EntryReply, unexpected_304},
};
use crate::{
    clock::seconds,
    error::chain,
    resource::{RecalledVersions, Resource, Retention, RewrittenVersion},
    store::{Entry, Recall, RecallKind},
    upstream::{Failure, FailureKind},
    validators::Validators,
};

/// Names of versions in one log line.
const MAX_NAMED_VERSIONS: usize = 10;

impl EntryFetcher {
    /// One attempt, and a second one if the first takes back what the stored entry lists.
    pub(super) async fn attempt_confirmed(
        &self,
        fetch: &Fetch<'_>,
        url: &Url,
        validators: &Validators,
        started: SystemTime,
    ) -> Result<EntryReply, Failure> {
        let reply = self.attempt(fetch, url, validators, started).await?;
        match (&reply, &fetch.stored, fetch.resource.retention()) {
            (EntryReply::Body(fresh), Some(stored), Some(retention))
                if fresh.head.sha256 != stored.head.sha256 =>
            {
                Box::pin(self.confirm(fetch, url, retention, stored, reply, started)).await
            }
            _ => Ok(reply),
        }
    }

    /// Asks again if `reply` removes versions or changes checksums. Returns the reply to accept.
    async fn confirm(
        &self,
        fetch: &Fetch<'_>,
        url: &Url,
        retention: &dyn Retention,
        stored: &Entry,
        reply: EntryReply,
        started: SystemTime,
    ) -> Result<EntryReply, Failure> {
        let EntryReply::Body(mut fresh) = reply else {
            return Ok(reply);
        };
        let known = self.known(retention);
        let mut recalled = retention.recalled_versions(&stored.body, &fresh.body);
        let unknown = unconfirmed(&recalled, &known);
        let resource = fetch.resource;
        if !unknown.is_empty() {
            let unconditional = Validators::default();
            fresh = match self.attempt(fetch, url, &unconditional, started).await? {
                EntryReply::Body(again) => again,
                EntryReply::NotModified(_) => return Err(unexpected_304(url)),
            };
            recalled = retention.recalled_versions(&stored.body, &fresh.body);
            let still = unconfirmed(&recalled, &known);
            if still.is_empty() {
                let (lost, rewritten) = (unknown.removed.len(), unknown.rewritten.len());
                warn!(%resource, lost, rewritten, "upstream sent an incomplete entry; it was asked again");
            } else if still != unknown {
                let why = "lacks versions that are stored, or states other checksums, other ones each time";
                return Err(FailureKind::Unrecognised {
                    why: why.to_owned(),
                }
                .at(url));
            } else if !still.removed.is_empty() {
                self.count(Counter::EntriesRecalled);
            }
        }
        let locked = match retention.package() {
            Some((registry, name)) => self.lookup.locked(registry, name).await,
            None => Vec::new(),
        };
        let new = stated_recalls(retention, &recalled, started);
        let is_over = |recall: &&Recall| is_over(recall, retention, &fresh.body);
        let over = known.iter().filter(is_over).cloned().collect();
        self.record(resource, new, over, &locked).await;
        let kept = retention.with_kept_versions(&stored.body, &fresh.body, &recalled, &locked);
        Ok(EntryReply::Body(match kept {
            None => fresh,
            Some(body) => fresh.with_body(body),
        }))
    }

    /// The recorded recalls of this crate.
    fn known(&self, retention: &dyn Retention) -> Vec<Recall> {
        let Some((registry, name)) = retention.package() else {
            return Vec::new();
        };
        let all = self.lookup.store.recalls();
        let own = all.iter().filter(|recall| recall.is_about(registry, name));
        own.cloned().collect()
    }

    /// Records `new` recalls, drops those that are `over`, and logs what is new. `locked` are the versions that pins
    /// lock.
    async fn record(
        &self,
        resource: &Resource,
        new: Vec<Recall>,
        over: Vec<Recall>,
        locked: &[String],
    ) {
        if new.is_empty() && over.is_empty() {
            return;
        }
        for recall in &over {
            let (version, kind) = (&recall.version, recall.kind.as_str());
            info!(%resource, version, kind, "upstream has taken back a recall");
        }
        let recorded = self.lookup.store.change_recalls(new.clone(), over);
        let unrecorded = recorded.await.unwrap_or_else(|error| {
            warn!(%resource, error = %chain(&error), "cannot record what upstream has recalled");
            new
        });
        log_recalls(resource, &unrecorded, locked);
    }
}

/// The recalls that a new body states, seen at `since`.
fn stated_recalls(
    retention: &dyn Retention,
    recalled: &RecalledVersions,
    since: SystemTime,
) -> Vec<Recall> {
    let Some((registry, name)) = retention.package() else {
        return Vec::new();
    };
    let recall = |version: &String, kind| Recall {
        registry: registry.to_owned(),
        name: name.to_owned(),
        version: version.clone(),
        kind,
        since: seconds(since),
    };
    let removed = recalled.removed.iter();
    let removed = removed.map(|version| recall(version, RecallKind::Removed));
    let yanked = recalled.yanked.iter();
    let yanked = yanked.map(|version| recall(version, RecallKind::Yanked));
    let rewritten = recalled.rewritten.iter();
    let rewritten = rewritten.map(|rewritten| recall(&rewritten.version, kind_of(rewritten)));
    removed.chain(yanked).chain(rewritten).collect()
}

fn kind_of(rewritten: &RewrittenVersion) -> RecallKind {
    let RewrittenVersion { was, now, .. } = *rewritten;
    RecallKind::Checksum { was, now }
}

/// Logs recalls that were not recorded before, each kind in one line.
fn log_recalls(resource: &Resource, recalls: &[Recall], locked: &[String]) {
    let of_kind = |is_kind: fn(RecallKind) -> bool| {
        let recalls = recalls.iter().filter(|recall| is_kind(recall.kind));
        let versions: Vec<_> = recalls.map(|recall| recall.version.as_str()).collect();
        let is_locked = |version: &&&str| locked.iter().any(|locked| locked == **version);
        let locked: Vec<_> = versions.iter().filter(is_locked).copied().collect();
        (!versions.is_empty()).then(|| (named(&versions), named(&locked)))
    };
    if let Some((versions, locked)) = of_kind(|kind| kind == RecallKind::Removed) {
        warn!(%resource, %versions, %locked, "upstream has recalled versions: it no longer lists them; those that warmed projects lock stay served");
    }
    if let Some((versions, locked)) = of_kind(|kind| kind == RecallKind::Yanked) {
        match locked.is_empty() {
            true => info!(%resource, %versions, "upstream has yanked versions"),
            false => {
                warn!(%resource, %versions, %locked, "upstream has yanked versions that warmed projects lock; they stay served");
            }
        }
    }
    if let Some((versions, locked)) = of_kind(|kind| matches!(kind, RecallKind::Checksum { .. })) {
        warn!(%resource, %versions, %locked, "upstream states other checksums than before; they are refused, and the first ones stay served");
    }
}

/// The removed and rewritten versions that no record has yet.
fn unconfirmed(recalled: &RecalledVersions, known: &[Recall]) -> RecalledVersions {
    let is_known = |version: &String, kind| {
        let mut known = known.iter();
        known.any(|recall| recall.version == *version && recall.kind == kind)
    };
    let removed = recalled.removed.iter();
    let removed = removed.filter(|version| !is_known(version, RecallKind::Removed));
    let rewritten = recalled.rewritten.iter();
    let rewritten = rewritten.filter(|rewritten| !is_known(&rewritten.version, kind_of(rewritten)));
    RecalledVersions {
        removed: removed.cloned().collect(),
        yanked: Vec::new(),
        rewritten: rewritten.cloned().collect(),
    }
}

/// Returns whether upstream's `body` has the version again as it was before the recall.
fn is_over(recall: &Recall, retention: &dyn Retention, body: &[u8]) -> bool {
    let listed = retention.listed_state(body, &recall.version);
    match recall.kind {
        RecallKind::Removed => listed.is_some(),
        RecallKind::Yanked => listed.is_some_and(|state| !state.is_yanked),
        // Another checksum again is a recall of its own.
        RecallKind::Checksum { now, .. } => listed.is_some_and(|state| state.checksum != Some(now)),
    }
}

/// Versions for a log line.
fn named(versions: &[&str]) -> String {
    let named = versions[..versions.len().min(MAX_NAMED_VERSIONS)].join(", ");
    match versions.len().saturating_sub(MAX_NAMED_VERSIONS) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}
