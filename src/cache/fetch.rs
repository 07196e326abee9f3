//! One flight from the first question to the commit: attempts, resuming, proof, staging. Runs detached from the clients
//! that wait for it; decisions are `decide`'s, breakers are `reach`'s.

use std::{
    io::Write as _,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use tokio::{sync::watch, time::timeout};
use tracing::{info, warn};
use url::Url;

use super::{
    Cache, CacheEvent, Counter, FetchResult, FetchedBody, Outcome, RequestClass, StaleReason,
    blob_flight_key,
    breaker::{self, Transition},
    decide::{Decision, Demand, Settlement, settle},
    flight::{FlightKey, Progress},
    ranges::RangeDownloads,
    write_behind::Update,
};
use crate::{
    clock::now,
    error::{Error, chain},
    hash::{Hasher, Sha256},
    resource::{Key, Location, Resource, Source},
    store::{Blob, CHUNK_BYTES, Checked, Entry, ReadAt as _, Spool, StoreError},
    upstream::{Coding, Failure, FailureKind, Get, Origin, Reply, UpstreamBody, retry_delay},
    validators::Validators,
};

/// How long clients may be left without a byte: below the 30 s after which cargo gives a request up (cargo,
/// `HttpTimeout` in `util/network/http.rs`).
pub(super) const CLIENT_TIMEOUT: Duration = Duration::from_secs(24);
/// How long one attempt for something not stored waits for upstream's head.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A body is shown to clients while it arrives once it is this large or this old. Before that, a bad one can still be
/// answered with words.
const STREAM_FROM: u64 = 64 << 10;
const STREAM_AFTER: Duration = Duration::from_millis(50);
/// Clients are told of more bytes when there are so many, or this long after they were last told: each time, all of them
/// wake and read, which for small pieces costs more than the bytes.
const TELL_BYTES: u64 = 256 << 10;
const TELL_AFTER: Duration = Duration::from_millis(10);

/// The largest sidecar: a hash and a file's name.
const SIDECAR_LIMIT: usize = 4096;

/// A good answer for an entry.
enum Fetched {
    NotModified(Option<Duration>),
    Body(Entry),
}

impl Cache {
    /// Fetches or revalidates an entry and lands.
    pub(super) async fn fetch_entry(
        self,
        resource: Resource,
        key: Key,
        demand: Demand,
        class: RequestClass,
        progress: watch::Sender<Progress>,
    ) {
        let mut fetched = None;
        let result = match self.settle_entry(&resource, &key, demand, class).await {
            Ok((result, WritePlan::Put(old))) => {
                self.invalidate_dependencies(&resource, old.as_ref(), &result)
                    .await;
                if let FetchedBody::Entry(entry) = &result.body {
                    self.0
                        .write_behind
                        .write_later(&resource, &key, Update::Entry(entry.clone()));
                    // What is as it was has been followed when it was asked about.
                    let is_changed = old.is_none_or(|old| old.head.sha256 != entry.head.sha256);
                    fetched = is_changed.then(|| entry.body.clone());
                }
                Ok(result)
            }
            Ok((result, WritePlan::Nothing)) => Ok(result),
            Err(error) => Err(error),
        };
        progress.send_replace(Progress::Done(result));
        if let Some(body) = fetched {
            self.report_entry(&resource, &body, class);
        }
    }

    /// Tells the prefetcher that a client's request asks upstream about an entry.
    fn report_entry(&self, resource: &Resource, body: &Bytes, class: RequestClass) {
        if class == RequestClass::Client {
            self.0.events.send(|| CacheEvent::EntryRequested {
                resource: resource.clone(),
                body: body.clone(),
            });
        }
    }

    async fn settle_entry(
        &self,
        resource: &Resource,
        key: &Key,
        demand: Demand,
        class: RequestClass,
    ) -> Result<(FetchResult, WritePlan), Error> {
        let flight_key = FlightKey::Entry(key.clone());
        // Again, now that this flight is the only one: another may have landed just before it began.
        let stored = self.stored(resource, key).await?;
        let validators = match (
            self.decide(resource, &flight_key, stored.as_ref(), demand),
            &stored,
        ) {
            (Decision::Serve(outcome), Some(entry)) => {
                // That flight may have been for another requirement.
                self.report_entry(resource, &entry.body, class);
                return Ok((result(outcome, entry.clone()), WritePlan::Nothing));
            }
            (Decision::Serve(_), None) => return Err(self.abandoned(resource)),
            (Decision::Refuse(refusal), _) => return Err(self.refused(resource, refusal)),
            (Decision::Revalidate(validators), _) => validators,
            (Decision::Fetch, _) => Validators::default(),
        };
        if let Some(entry) = &stored {
            self.report_entry(resource, &entry.body, class);
        }
        let url = self.locate(resource, Demand::Fresh).await?;
        let mut began = None;
        let mut tried = 0;
        loop {
            tried += 1;
            if let Err(error) = self.0.write_behind.wait_for_capacity().await {
                let error = Error::store("store", resource, &error);
                let Some(entry) = stored else {
                    return Err(error);
                };
                warn!(%resource, %error, "serving a stale copy");
                let outcome = Outcome::Stale(StaleReason::Failed);
                return Ok((result(outcome, entry), WritePlan::Nothing));
            }
            let permit = self.0.entry_permits.acquire().await;
            // While this one waited for room, others may have found out.
            if tried == 1 {
                match (
                    self.decide(resource, &flight_key, stored.as_ref(), demand),
                    &stored,
                ) {
                    (Decision::Serve(outcome), Some(entry)) => {
                        return Ok((result(outcome, entry.clone()), WritePlan::Nothing));
                    }
                    (Decision::Refuse(refusal), _) => return Err(self.refused(resource, refusal)),
                    (Decision::Serve(_), None) | (Decision::Revalidate(_) | Decision::Fetch, _) => {
                    }
                }
            }
            let patience = match &stored {
                Some(_) => self.0.options.upstream_timeout,
                None => HEAD_TIMEOUT,
            };
            // PendingWrite for room is nobody's fault.
            let began = *began.get_or_insert_with(Instant::now);
            let started = now();
            let asked = self.ask(
                resource,
                &url,
                stored.as_ref(),
                validators.clone(),
                patience,
                started,
            );
            let asked = timeout(CLIENT_TIMEOUT, asked).await.unwrap_or_else(|_| {
                Err(FailureKind::Broken {
                    cause: "it came too slowly".to_owned(),
                }
                .at(&url))
            });
            let failure = match asked {
                Ok(fetched) => {
                    self.note_answer(resource, &url);
                    return self.accept(resource, &flight_key, key, stored, fetched, started);
                }
                Err(failure) => failure,
            };
            drop(permit);
            self.note_failure(resource, &url, &failure);
            match (settle(stored.is_some(), &failure), stored.as_ref()) {
                (Settlement::ServeStale, Some(entry)) => {
                    warn!(%resource, error = %failure, "serving a stale copy");
                    let outcome = Outcome::Stale(StaleReason::Failed);
                    return Ok((result(outcome, entry.clone()), WritePlan::Nothing));
                }
                (Settlement::RememberAbsence, _) => {
                    self.remember_absence(flight_key, resource.policy().negative_ttl);
                    return Err(Error::Absent {
                        resource: resource.to_string(),
                    });
                }
                (Settlement::ServeStale | Settlement::Fail, _) => {
                    self.wait_or_fail(resource, failure, tried, began).await?;
                }
            }
        }
    }

    /// Turns upstream's good answer about an entry into a result.
    fn accept(
        &self,
        resource: &Resource,
        flight_key: &FlightKey,
        key: &Key,
        stored: Option<Entry>,
        fetched: Fetched,
        started: SystemTime,
    ) -> Result<(FetchResult, WritePlan), Error> {
        self.0.negative.remove(flight_key);
        match (fetched, stored) {
            (Fetched::NotModified(max_age), Some(mut entry)) => {
                entry.checked = Checked::At(started);
                let same_age = max_age.is_none_or(|age| Some(age.as_secs()) == entry.head.max_age);
                if same_age {
                    self.0.write_behind.write_later(
                        resource,
                        key,
                        Update::Checked(entry.head.sha256, Checked::At(started)),
                    );
                    return Ok((result(Outcome::Revalidated, entry), WritePlan::Nothing));
                }
                entry.head.max_age = max_age.map(|age| age.as_secs());
                Ok((
                    result(Outcome::Revalidated, entry.clone()),
                    WritePlan::Put(Some(entry)),
                ))
            }
            (Fetched::NotModified(_), None) => Err(self.abandoned(resource)),
            (Fetched::Body(mut fresh), Some(old)) if fresh.head.sha256 == old.head.sha256 => {
                fresh.checked = Checked::At(started);
                fresh.head.fetched = old.head.fetched;
                if fresh.head == old.head {
                    self.0.write_behind.write_later(
                        resource,
                        key,
                        Update::Checked(fresh.head.sha256, Checked::At(started)),
                    );
                    return Ok((result(Outcome::Revalidated, fresh), WritePlan::Nothing));
                }
                Ok((
                    result(Outcome::Revalidated, fresh),
                    WritePlan::Put(Some(old)),
                ))
            }
            (Fetched::Body(mut fresh), old) => {
                fresh.checked = Checked::At(started);
                Ok((result(Outcome::Miss, fresh), WritePlan::Put(old)))
            }
        }
    }

    /// Makes entries that must agree with a changed one be checked again, before the changed one can be seen.
    async fn invalidate_dependencies(
        &self,
        resource: &Resource,
        old: Option<&Entry>,
        result: &FetchResult,
    ) {
        let FetchedBody::Entry(new) = &result.body else {
            return;
        };
        let now = now();
        // Of an entry that is new here all lines are new, and few of them matter: what was checked before a moment that lies further
        // back than the window, and than what a request fetches ahead or joins, is stale by now in any case.
        let window = self
            .0
            .options
            .max_age
            .clamp(CLIENT_TIMEOUT, Duration::from_secs(1 << 30));
        let after = match old {
            Some(_) => SystemTime::UNIX_EPOCH,
            None => now - window,
        };
        let Some(dependencies) = resource.dependencies() else {
            return;
        };
        let due = dependencies.invalidates(old.map(|old| &*old.body), &new.body, after, now);
        if due.is_empty() {
            return;
        }
        self.0.invalidations.add(&due);
        if let Err(error) = self.0.store.invalidate(due).await {
            warn!(%resource, error = %chain(&error), "cannot make dependencies due");
        }
    }

    /// Asks upstream about an entry, as its place demands.
    async fn ask(
        &self,
        resource: &Resource,
        url: &Url,
        stored: Option<&Entry>,
        validators: Validators,
        patience: Duration,
        started: SystemTime,
    ) -> Result<Fetched, Failure> {
        match resource.location() {
            Location::Pair(..) => {
                self.ask_pair(resource, url, stored, patience, started)
                    .await
            }
            Location::Entry(_) | Location::Blob(_) | Location::ListedIn(_) => {
                self.ask_entry(resource, url, validators, patience, started)
                    .await
            }
        }
    }

    /// Asks for the sidecar, and for the body unless the stored one has that hash. A release in between shows as a wrong
    /// hash, and the next attempt finds both new.
    async fn ask_pair(
        &self,
        resource: &Resource,
        url: &Url,
        stored: Option<&Entry>,
        patience: Duration,
        started: SystemTime,
    ) -> Result<Fetched, Failure> {
        let (sidecar, expected, max_age) = self.ask_sidecar(url, patience).await?;
        if let Some(stored) = stored
            && stored.head.sha256 == expected
            && stored.head.sidecar.as_deref() == Some(sidecar.as_str())
        {
            return Ok(Fetched::NotModified(max_age));
        }
        match self
            .ask_entry(resource, url, Validators::default(), patience, started)
            .await?
        {
            Fetched::Body(mut entry) if entry.head.sha256 == expected => {
                entry.head.max_age = max_age
                    .or(entry.head.max_age.map(Duration::from_secs))
                    .map(|age| age.as_secs());
                Ok(Fetched::Body(entry.with_sidecar(sidecar)))
            }
            Fetched::Body(entry) => Err(FailureKind::WrongHash {
                got: entry.head.sha256,
                expected,
            }
            .at(url)),
            Fetched::NotModified(_) => Err(FailureKind::Unrecognised {
                why: "is 304 although nothing was conditional".to_owned(),
            }
            .at(url)),
        }
    }

    /// The sidecar of the file at `url`, the hash in it, and its `max-age`.
    async fn ask_sidecar(
        &self,
        url: &Url,
        patience: Duration,
    ) -> Result<(String, Sha256, Option<Duration>), Failure> {
        let mut beside = url.clone();
        beside.set_path(&format!("{}.sha256", url.path()));
        let validators = Validators::default();
        let ask = Get {
            url: beside,
            validators,
            offset: 0,
            range: None,
            compressible: false,
            read_timeout: patience,
        };
        let unrecognised = || {
            FailureKind::Unrecognised {
                why: "is no sidecar: it does not begin with a sha256".to_owned(),
            }
            .at(url)
        };
        let Reply::Body(mut incoming) = self.0.upstream.get(&ask).await? else {
            return Err(unrecognised());
        };
        let mut text = Vec::new();
        while let Some(chunk) = incoming.chunk().await? {
            text.extend_from_slice(&chunk);
            if text.len() > SIDECAR_LIMIT {
                return Err(unrecognised());
            }
        }
        let text = String::from_utf8(text).map_err(|_| unrecognised())?;
        let sum = text
            .get(..64)
            .and_then(Sha256::parse)
            .ok_or_else(unrecognised)?;
        Ok((text, sum, incoming.max_age))
    }

    async fn ask_entry(
        &self,
        resource: &Resource,
        url: &Url,
        validators: Validators,
        patience: Duration,
        started: SystemTime,
    ) -> Result<Fetched, Failure> {
        let policy = resource.policy();
        let ask = Get {
            url: url.clone(),
            validators,
            offset: 0,
            range: None,
            compressible: policy.compressible,
            read_timeout: patience,
        };
        let mut incoming = match self.0.upstream.get(&ask).await? {
            Reply::NotModified { max_age } => return Ok(Fetched::NotModified(max_age)),
            Reply::Body(incoming) => incoming,
        };
        let mut decoder = Decoder::new(incoming.coding);
        let mut body = Vec::with_capacity(
            usize::try_from(incoming.total.unwrap_or(0).min(policy.max_bytes)).unwrap_or(0),
        );
        let too_large = || {
            FailureKind::TooLarge {
                limit: policy.max_bytes,
            }
            .at(url)
        };
        let mut take = |part: &[u8]| {
            body.extend_from_slice(part);
            if body.len() as u64 > policy.max_bytes {
                Err(too_large())
            } else {
                Ok(())
            }
        };
        while let Some(chunk) = incoming.chunk().await? {
            decoder.decode(&chunk, url, policy.max_bytes, &mut take)?;
        }
        decoder.finish(url, &mut take)?;
        let body = Bytes::from(body);
        resource.validate(&body).map_err(|why| {
            FailureKind::Unrecognised {
                why: why.to_string(),
            }
            .at(url)
        })?;
        Ok(Fetched::Body(Entry::new(
            body,
            incoming.validators,
            incoming.max_age,
            started,
        )))
    }

    /// Fetches a blob, lets clients read it while it arrives, and lands.
    pub(super) async fn fetch_blob(
        self,
        resource: Resource,
        sum: Sha256,
        demand: Demand,
        progress: watch::Sender<Progress>,
    ) {
        let arrival = self.arrive(&resource, sum, demand, &progress).await;
        let result = match arrival {
            Ok(Download::Stored(blob)) => Ok(FetchResult {
                outcome: Outcome::Hit,
                body: FetchedBody::Blob(blob),
                write_error: None,
            }),
            Ok(Download::Spooled(spool, len)) => {
                let blob = Blob {
                    len,
                    bytes: spool.clone(),
                };
                let mut result = FetchResult {
                    outcome: Outcome::Miss,
                    body: FetchedBody::Blob(blob),
                    write_error: None,
                };
                progress.send_replace(Progress::Verified(result.clone()));
                match self.0.write_behind.write_blob(&resource, spool, sum).await {
                    Ok(()) => self.0.verified.insert(sum, len),
                    Err(error) => result.write_error = Some(error),
                }
                Ok(result)
            }
            Err(error) => Err(error),
        };
        progress.send_replace(Progress::Done(result));
    }

    /// Brings a blob's proven bytes into a spool.
    async fn arrive(
        &self,
        resource: &Resource,
        sum: Sha256,
        demand: Demand,
        progress: &watch::Sender<Progress>,
    ) -> Result<Download, Error> {
        if let Some(blob) = self.stored_blob(resource, sum).await
            && self.prove(sum, &blob).await.is_some()
        {
            return Ok(Download::Stored(blob));
        }
        let flight_key = blob_flight_key(resource, sum);
        match self.decide(resource, &flight_key, None, demand) {
            Decision::Refuse(refusal) => return Err(self.refused(resource, refusal)),
            Decision::Serve(_) | Decision::Revalidate(_) | Decision::Fetch => {}
        }
        let mut url = self.locate(resource, Demand::Fresh).await?;
        let mut is_located_anew = false;
        let spool = self.0.store.spool();
        let mut transfer = Transfer::new(resource, Arc::new(spool));
        let mut tried = 0;
        loop {
            tried += 1;
            let admitted = self.0.write_behind.wait_for_capacity().await;
            admitted.map_err(|error| Error::store("store", resource, &error))?;
            let permit = self.0.blob_permits.acquire().await;
            if let (1, Some(error)) = (tried, self.down(resource, &url)) {
                return Err(error);
            }
            transfer.last_byte = Instant::now();
            let failure = match self.transfer(&url, sum, &mut transfer, progress).await {
                Ok(()) => {
                    self.note_answer(resource, &url);
                    return Ok(Download::Spooled(transfer.spool, transfer.written));
                }
                Err(TransferError::Store(error)) => {
                    return Err(Error::store("store", resource, &error));
                }
                Err(TransferError::Failure(failure)) => failure,
            };
            drop(permit);
            self.note_failure(resource, &url, &failure);
            let may_have_moved = matches!(
                failure.kind,
                FailureKind::Unreachable { .. }
                    | FailureKind::Absent { .. }
                    | FailureKind::Denied { .. }
            );
            if may_have_moved && !is_located_anew {
                is_located_anew = true;
                let now_at = self.locate(resource, Demand::Refresh).await?;
                if now_at != url {
                    url = now_at;
                    continue;
                }
            }
            match failure.kind {
                FailureKind::Absent { .. } => {
                    self.remember_absence(flight_key, resource.policy().negative_ttl);
                    return Err(Error::Absent {
                        resource: resource.to_string(),
                    });
                }
                // Clients have read some of it: there is no second try.
                FailureKind::WrongHash { .. } | FailureKind::TooLarge { .. }
                    if transfer.is_shown =>
                {
                    warn!(%resource, error = %failure, "refused; nothing was stored");
                    return Err(Error::Upstream {
                        resource: resource.to_string(),
                        failure,
                        tried,
                    });
                }
                FailureKind::WrongHash { .. } => transfer
                    .start_over()
                    .await
                    .map_err(|error| Error::store("store", resource, &error))?,
                FailureKind::Unreachable { .. }
                | FailureKind::Silent { .. }
                | FailureKind::Broken { .. }
                | FailureKind::Status { .. }
                | FailureKind::Denied { .. }
                | FailureKind::Redirected { .. }
                | FailureKind::TooLarge { .. }
                | FailureKind::Unrecognised { .. } => {}
            }
            self.wait_or_fail(resource, failure, tried, transfer.last_byte)
                .await?;
        }
    }

    /// One attempt to bring the rest of a blob.
    async fn transfer(
        &self,
        url: &Url,
        sum: Sha256,
        transfer: &mut Transfer,
        progress: &watch::Sender<Progress>,
    ) -> Result<(), TransferError> {
        loop {
            transfer.consume_ranges(progress).await;
            let is_all = transfer.written > 0 && transfer.total == Some(transfer.written);
            if is_all || self.stream(url, transfer, progress).await? == Stopped::AtEnd {
                break;
            }
        }
        let got = transfer.hasher.clone().finish();
        if got == sum {
            return Ok(());
        }
        if transfer.parts.are_used {
            self.0.parts.distrust(Origin::from(url));
        }
        Err(FailureKind::WrongHash { got, expected: sum }.at(url).into())
    }

    /// Asks for what follows the front, and brings it up to the next part or to the end.
    async fn stream(
        &self,
        url: &Url,
        transfer: &mut Transfer,
        progress: &watch::Sender<Progress>,
    ) -> Result<Stopped, TransferError> {
        let ask = Get {
            url: url.clone(),
            validators: Validators::default(),
            offset: transfer.written,
            range: None,
            compressible: false,
            read_timeout: HEAD_TIMEOUT,
        };
        let mut incoming = match self.0.upstream.get(&ask).await? {
            Reply::Body(incoming) => incoming,
            Reply::NotModified { .. } => {
                let why = "is 304 although nothing was conditional".to_owned();
                return Err(FailureKind::Unrecognised { why }.at(url).into());
            }
        };
        transfer.begin(&incoming, url)?;
        if transfer.written == 0 {
            transfer.parts.cancel_all().await;
            transfer.parts = self.begin_parts(&incoming, url, &transfer.spool);
        }
        transfer.bound = transfer.parts.next_range_start(transfer.written).await;
        let mut decoder = Decoder::new(incoming.coding);
        let limit = transfer.limit;
        while let Some(chunk) = incoming.chunk().await? {
            if transfer.written + chunk.len() as u64 >= transfer.bound {
                transfer.bound = transfer.parts.next_range_start(transfer.bound).await;
            }
            decoder.decode(&chunk, url, limit, |part| transfer.take(part, url))?;
            transfer.show(progress);
            if transfer.written == transfer.bound {
                return Ok(Stopped::AtPart);
            }
        }
        decoder.finish(url, |part| transfer.take(part, url))?;
        if transfer
            .total
            .is_some_and(|total| total != transfer.written)
        {
            let cause = format!("it ended after {} bytes", transfer.written);
            return Err(FailureKind::Broken { cause }.at(url).into());
        }
        Ok(Stopped::AtEnd)
    }

    /// Asks for something only to see whether the answer is a good one.
    async fn probe_once(&self, resource: &Resource, url: &Url) -> Result<(), Failure> {
        let asked = async {
            let validators = Validators::default();
            if let Location::Pair(..) = resource.location() {
                return self.ask_sidecar(url, HEAD_TIMEOUT).await.map(|_| ());
            }
            if let Location::Entry(_) = resource.location() {
                let asked = self.ask_entry(resource, url, validators, HEAD_TIMEOUT, now());
                return asked.await.map(|_| ());
            }
            let ask = Get {
                url: url.clone(),
                validators,
                offset: 0,
                range: None,
                compressible: false,
                read_timeout: HEAD_TIMEOUT,
            };
            let Reply::Body(mut incoming) = self.0.upstream.get(&ask).await? else {
                return Ok(());
            };
            // The whole would be proof; the beginning tells a login page.
            let begin = incoming.chunk().await?.unwrap_or_default();
            if begin.trim_ascii_start().starts_with(b"<") {
                let why = "is a page; a login page?".to_owned();
                return Err(FailureKind::Unrecognised { why }.at(url));
            }
            Ok(())
        };
        let silent = || {
            FailureKind::Silent {
                after: CLIENT_TIMEOUT,
            }
            .at(url)
        };
        timeout(CLIENT_TIMEOUT, asked)
            .await
            .unwrap_or_else(|_| Err(silent()))
    }

    /// Where upstream keeps it.
    async fn locate(&self, resource: &Resource, demand: Demand) -> Result<Url, Error> {
        let naming = match resource.source() {
            Source::At(url) => return Ok(url),
            Source::NamedBy(naming) => naming,
        };
        let named = Box::pin(self.ensure_entry(&naming, demand)).await?;
        let located = resource.located().ok_or_else(|| self.abandoned(resource))?;
        let url = located
            .locate(&named)
            .map_err(|why| match naming.source() {
                Source::At(url) => Error::Upstream {
                    resource: resource.to_string(),
                    failure: FailureKind::Unrecognised {
                        why: format!("is of no use: {why}"),
                    }
                    .at(&url),
                    tried: 1,
                },
                Source::NamedBy(_) => self.abandoned(resource),
            })?;
        // Its host was named by a configured upstream, so redirects may go there.
        self.0.upstream.allow_redirects_to(&url);
        Ok(url)
    }

    async fn ensure_entry(&self, resource: &Resource, demand: Demand) -> Result<Bytes, Error> {
        let Location::Entry(key) = resource.location() else {
            return Err(self.abandoned(resource));
        };
        let (_, entry) = self
            .entry(resource, key, demand, super::Until::Verified)
            .await?;
        Ok(entry.body)
    }

    /// Waits before the next attempt, or fails if there shall be none. `since` is when the clients' wait began.
    async fn wait_or_fail(
        &self,
        resource: &Resource,
        failure: Failure,
        tried: usize,
        since: Instant,
    ) -> Result<(), Error> {
        let left = CLIENT_TIMEOUT.saturating_sub(since.elapsed());
        match retry_delay(&failure, tried, fastrand::f64()) {
            Some(pause) if pause < left => {
                tokio::time::sleep(pause).await;
                Ok(())
            }
            Some(_) | None => Err(Error::Upstream {
                resource: resource.to_string(),
                failure,
                tried,
            }),
        }
    }

    /// Believes upstream's word for as long as it would believe it about what is there, too, at most.
    fn remember_absence(&self, flight_key: FlightKey, ttl: Duration) {
        let ttl = ttl.min(self.0.options.max_age);
        self.0.negative.insert(flight_key, now() + ttl);
    }

    fn note_answer(&self, resource: &Resource, url: &Url) {
        self.count(Counter::UpstreamAnswers);
        if self.0.breakers.note_answer(resource, url) {
            info!(upstream = %Origin::from(url), "upstream is back");
        }
    }

    fn note_failure(&self, resource: &Resource, url: &Url, failure: &Failure) {
        self.count(Counter::UpstreamFailures);
        // Where a redirect led to is another host, whose failure says nothing about the one that was asked.
        if failure.origin != Origin::from(url) {
            return;
        }
        let change = self.0.breakers.note_failure(url, failure, now());
        match change {
            Transition::None => return,
            Transition::ClosedToSlow => {
                warn!(upstream = %Origin::from(url), cause = %failure, "upstream is slow; serving what is stored, asking only for what is not");
            }
            Transition::ClosedToOpen | Transition::SlowToOpen => warn_of_outage(url, failure),
        }
        if change != Transition::SlowToOpen {
            self.0.upstream.reconnect();
            tokio::spawn(probe(self.clone(), resource.clone(), url.clone()));
        }
    }
}

/// Asks the upstream of `url` until there is a good answer: for what it last answered well, else for what failed.
async fn probe(cache: Cache, failed: Resource, url: Url) {
    let inner = Arc::downgrade(&cache.0);
    drop(cache);
    for tried in 0.. {
        tokio::time::sleep(breaker::probe_delay(tried)).await;
        let Some(inner) = inner.upgrade() else { return };
        let cache = Cache(inner);
        if cache.0.breakers.outage(&url).is_none() {
            return;
        }
        // What was well once is the better question, but it may be what is ill now.
        let known = cache.0.breakers.last_good(&url).filter(|_| tried % 2 == 0);
        let (resource, url) = known.unwrap_or_else(|| (failed.clone(), url.clone()));
        match cache.probe_once(&resource, &url).await {
            // Denied and absent are answers: whoever answers so is there.
            Ok(())
            | Err(Failure {
                kind: FailureKind::Absent { .. } | FailureKind::Denied { .. },
                ..
            }) => {
                return cache.note_answer(&resource, &url);
            }
            Err(failure) => {
                cache.count(Counter::ProbesFailed);
                if cache.0.breakers.note_failed_probe(&url, &failure) {
                    warn_of_outage(&url, &failure);
                }
                cache.0.upstream.reconnect();
            }
        }
    }
}

fn warn_of_outage(url: &Url, failure: &Failure) {
    warn!(upstream = %Origin::from(url), cause = %failure, "upstream is out of reach; serving what is stored");
}

/// What is to be done with a landed entry.
enum WritePlan {
    /// Nothing: it is stored as it is.
    Nothing,
    /// Put it in place of the old one.
    Put(Option<Entry>),
}

fn result(outcome: Outcome, entry: Entry) -> FetchResult {
    FetchResult {
        outcome,
        body: FetchedBody::Entry(entry),
        write_error: None,
    }
}

/// How a blob came.
enum Download {
    /// It was there already.
    Stored(Blob),
    /// Proven, in the spool, of this length.
    Spooled(Arc<Spool>, u64),
}

/// Where a stream came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stopped {
    AtEnd,
    /// At a part that has come another way.
    AtPart,
}

/// Why an attempt stopped.
enum TransferError {
    Failure(Failure),
    Store(StoreError),
}

impl From<Failure> for TransferError {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

/// A blob's transfer over all its attempts.
struct Transfer {
    spool: Arc<Spool>,
    hasher: Hasher,
    written: u64,
    /// How much of `written` came with the last piece, which is held back from clients.
    last_piece: u64,
    /// Bytes at the start of this attempt that an earlier one brought already.
    skip: u64,
    total: Option<u64>,
    limit: u64,
    /// What comes another way, and where the first of it begins.
    parts: RangeDownloads,
    bound: u64,
    began: Instant,
    last_byte: Instant,
    is_shown: bool,
    /// How much clients were last told of, and when.
    told: (u64, Instant),
}

impl Transfer {
    fn new(resource: &Resource, spool: Arc<Spool>) -> Self {
        let began = Instant::now();
        Self {
            spool,
            hasher: Hasher::default(),
            written: 0,
            last_piece: 0,
            skip: 0,
            total: None,
            limit: resource.policy().max_bytes,
            parts: RangeDownloads::default(),
            bound: u64::MAX,
            began,
            last_byte: began,
            is_shown: false,
            told: (0, began),
        }
    }

    async fn start_over(&mut self) -> Result<(), StoreError> {
        self.parts.cancel_all().await;
        self.hasher = Hasher::default();
        self.written = 0;
        self.last_piece = 0;
        self.total = None;
        self.spool
            .clear()
            .map_err(|source| StoreError::io("staging", source))
    }

    /// Begins an attempt. The sum at the end proves that the parts belong together.
    fn begin(&mut self, incoming: &UpstreamBody, url: &Url) -> Result<(), Failure> {
        self.skip = if incoming.is_partial { 0 } else { self.written };
        if incoming.total.is_some_and(|total| total > self.limit) {
            return Err(FailureKind::TooLarge { limit: self.limit }.at(url));
        }
        // A client may have been told the size already.
        if !self.is_shown {
            self.total = incoming.total;
        }
        Ok(())
    }

    fn take(&mut self, part: &[u8], url: &Url) -> Result<(), TransferError> {
        let known = usize::try_from(self.skip).map_or(part.len(), |skip| skip.min(part.len()));
        self.skip -= known as u64;
        let room = usize::try_from(self.bound - self.written).unwrap_or(usize::MAX);
        let part = &part[known..];
        let part = &part[..part.len().min(room)];
        if part.is_empty() {
            return Ok(());
        }
        if self
            .total
            .is_some_and(|total| self.written + part.len() as u64 > total)
        {
            // Clients were promised this size: what goes beyond must not make a bad body look whole.
            let cause = "it is longer than announced".to_owned();
            return Err(FailureKind::Broken { cause }.at(url).into());
        }
        if self.written + part.len() as u64 > self.limit {
            return Err(FailureKind::TooLarge { limit: self.limit }.at(url).into());
        }
        self.spool
            .write(self.written, part)
            .map_err(|source| TransferError::Store(StoreError::io("staging", source)))?;
        self.advance(part);
        Ok(())
    }

    /// Moves the front over what is in the spool now.
    fn advance(&mut self, part: &[u8]) {
        self.hasher.update(part);
        self.written += part.len() as u64;
        self.last_piece = part.len() as u64;
        self.last_byte = Instant::now();
    }

    /// Moves the front over the parts that lie there, as they arrive.
    async fn consume_ranges(&mut self, progress: &watch::Sender<Progress>) {
        while let Some(arrived) = self.parts.arrived(self.written).await {
            while self.written < arrived {
                let len =
                    usize::try_from((arrived - self.written).min(CHUNK_BYTES as u64)).unwrap_or(0);
                let Ok(part) = self.spool.read_at(self.written, len).await else {
                    // The disk filled up, and the spool went on in memory without them.
                    return self.parts.cancel_all().await;
                };
                self.advance(&part);
                self.show(progress);
            }
        }
    }

    /// Lets clients read all but the last piece.
    fn show(&mut self, progress: &watch::Sender<Progress>) {
        let ready = self.written - self.last_piece;
        let is_time = if self.is_shown {
            let (told, at) = self.told;
            ready >= told + TELL_BYTES || at.elapsed() >= TELL_AFTER
        } else {
            self.written >= STREAM_FROM || self.began.elapsed() >= STREAM_AFTER
        };
        if ready > 0 && is_time {
            self.is_shown = true;
            self.told = (ready, Instant::now());
            progress.send_replace(Progress::Arriving {
                spool: self.spool.clone(),
                total: self.total,
                ready,
            });
        }
    }
}

/// Undoes a transfer's compression, piece by piece and bounded.
enum Decoder {
    Identity,
    Gzip(Box<MultiGzDecoder<Vec<u8>>>),
}

impl Decoder {
    fn new(coding: Coding) -> Self {
        match coding {
            Coding::Identity => Self::Identity,
            Coding::Gzip => Self::Gzip(Box::new(MultiGzDecoder::new(Vec::new()))),
        }
    }

    /// Decodes `chunk` and hands over what came out; never holds much more than `limit`.
    fn decode<E: From<Failure>>(
        &mut self,
        chunk: &[u8],
        url: &Url,
        limit: u64,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        match self {
            Self::Identity => take(chunk),
            Self::Gzip(decoder) => {
                // Small bites: gzip can blow up a thousandfold, and the limit is only seen between them.
                for bite in chunk.chunks(1024) {
                    decoder
                        .write_all(bite)
                        .map_err(|cause| undecodable(url, &cause))?;
                    let mut out = std::mem::take(decoder.get_mut());
                    if out.len() as u64 > limit {
                        return Err(E::from(FailureKind::TooLarge { limit }.at(url)));
                    }
                    if !out.is_empty() {
                        take(&out)?;
                    }
                    // Its room serves the next bite.
                    out.clear();
                    *decoder.get_mut() = out;
                }
                Ok(())
            }
        }
    }

    /// Hands over what the decoder still holds, at most a buffer of its own, and proves that the encoding is whole.
    fn finish<E: From<Failure>>(
        &mut self,
        url: &Url,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        match self {
            Self::Identity => Ok(()),
            Self::Gzip(decoder) => {
                decoder
                    .try_finish()
                    .map_err(|cause| undecodable(url, &cause))?;
                let rest = std::mem::take(decoder.get_mut());
                if rest.is_empty() { Ok(()) } else { take(&rest) }
            }
        }
    }
}

fn undecodable(url: &Url, cause: &std::io::Error) -> Failure {
    FailureKind::Broken {
        cause: format!("its gzip encoding: {cause}"),
    }
    .at(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packs, and unpacks again in pieces of this size.
    fn there_and_back(body: &[u8], piece: usize, cut: usize) -> Result<Vec<u8>, Failure> {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(body).unwrap();
        let packed = packer.finish().unwrap();
        let url = Url::parse("http://a.example/").unwrap();
        let mut decoder = Decoder::new(Coding::Gzip);
        let mut unpacked = Vec::new();
        let mut take = |part: &[u8]| -> Result<(), Failure> {
            unpacked.extend_from_slice(part);
            Ok(())
        };
        for piece in packed[..packed.len() - cut].chunks(piece) {
            decoder.decode(piece, &url, 1 << 20, &mut take)?;
        }
        decoder.finish(&url, &mut take)?;
        Ok(unpacked)
    }

    #[test]
    fn a_gzip_body_comes_out_whole_whatever_its_size_and_pieces() {
        for size in [0, 1, 300, 32 << 10, (32 << 10) + 1, 200_000] {
            let body: Vec<u8> = (0..size).map(|_| fastrand::u8(b'a'..=b'p')).collect();
            for piece in [1, 1000, 8192, 1 << 20] {
                let unpacked = there_and_back(&body, piece, 0).unwrap();
                assert!(unpacked == body, "{size} bytes in pieces of {piece}");
            }
        }
    }

    #[test]
    fn a_gzip_body_that_was_cut_is_broken() {
        for cut in [1, 4, 8, 9, 200] {
            let unpacked = there_and_back(&[7; 100_000], 1000, cut);
            assert!(
                matches!(
                    unpacked,
                    Err(Failure {
                        kind: FailureKind::Broken { .. },
                        ..
                    })
                ),
                "{cut} bytes less: {unpacked:?}"
            );
        }
    }
}
