//! One request for an entry: a conditional GET whose body is decoded, bounded and validated in memory.
//!
//! A pair takes two requests, and with `verify-signatures` a third one for the manifest's signature. The sidecar comes
//! first, because it holds the hash of the manifest. If the stored manifest has that hash, the second request is not
//! needed. If upstream publishes a release between the two, the hashes differ, and the next attempt gets both files of
//! the new generation.

use std::time::{Duration, SystemTime};

use url::Url;

use super::{
    decode::{BodyLimit, Decoder},
    entry_body::EntryBody,
};
use crate::{
    hash::Sha256,
    memory_budget::Reservation,
    resource::{Location, Resource},
    store::Entry,
    trust::SigningKeys,
    upstream::{Failure, FailureKind, Get, Reply, Upstream},
    validators::Validators,
};

/// Size limit of a sidecar, in bytes. It holds a hash and a file name, or a signature.
const MAX_SIDECAR_BYTES: usize = 4096;

/// A good answer about an entry.
pub(in super::super) enum EntryReply {
    /// The stored copy is still right. Carries upstream's new `max-age`.
    NotModified(Option<Duration>),
    /// A new body.
    Body(Entry),
}

/// A request for an entry or a pair.
pub(in super::super) struct EntryRequest<'a> {
    pub(in super::super) resource: &'a Resource,
    pub(in super::super) url: &'a Url,
    /// The stored copy, against which a pair's sidecar is compared.
    pub(in super::super) stored: Option<&'a Entry>,
    /// Validators of the stored copy, or none to get the body in any case.
    pub(in super::super) validators: Validators,
    /// Time limit for the response head and for each chunk of the body.
    pub(in super::super) read_timeout: Duration,
    /// The user's size limit of every entry, in bytes.
    pub(in super::super) max_bytes: u64,
    /// The body's share of the memory for arriving bodies.
    pub(in super::super) memory: &'a Reservation,
    /// Keys of which one must have signed a manifest; `None` if signatures do not matter.
    pub(in super::super) keys: Option<&'a SigningKeys>,
    /// The time of the request, which becomes the entry's check time.
    pub(in super::super) started: SystemTime,
}

impl EntryRequest<'_> {
    /// Sends the request.
    pub(in super::super) async fn send(&self, upstream: &Upstream) -> Result<EntryReply, Failure> {
        match self.resource.location() {
            Location::Pair(..) => self.send_pair(upstream).await,
            Location::Entry(_) | Location::Blob(_) | Location::ListedIn(_) => {
                self.send_single(upstream, self.validators.clone()).await
            }
        }
    }

    async fn send_pair(&self, upstream: &Upstream) -> Result<EntryReply, Failure> {
        let sidecar = get_sidecar(upstream, self.url, self.read_timeout).await?;
        if let Some(stored) = self.stored
            && stored.head.sha256 == sidecar.sha256
            && stored.head.sidecar.as_deref() == Some(sidecar.text.as_str())
        {
            return Ok(EntryReply::NotModified(sidecar.max_age));
        }
        match self.send_single(upstream, Validators::default()).await? {
            EntryReply::Body(mut entry) if entry.head.sha256 == sidecar.sha256 => {
                entry.head.max_age = sidecar
                    .max_age
                    .map(|age| age.as_secs())
                    .or(entry.head.max_age);
                self.check_signature(upstream, &entry).await?;
                Ok(EntryReply::Body(entry.with_sidecar(sidecar.text)))
            }
            EntryReply::Body(entry) => Err(FailureKind::WrongHash {
                got: entry.head.sha256,
                expected: sidecar.sha256,
            }
            .at(self.url)),
            EntryReply::NotModified(_) => Err(unexpected_304(self.url)),
        }
    }

    /// Checks the signature of a manifest, which upstream has at the manifest's address plus `.asc`.
    async fn check_signature(&self, upstream: &Upstream, manifest: &Entry) -> Result<(), Failure> {
        let Some(keys) = self.keys else {
            return Ok(());
        };
        let text = get_beside(upstream, self.url, "asc", self.read_timeout).await;
        let (text, _) = text.map_err(|failure| {
            if !matches!(failure.kind, FailureKind::Absent { .. }) {
                return failure;
            }
            let why = "has no signature beside it, which the setting `verify-signatures` wants";
            FailureKind::Unsupported {
                why: why.to_owned(),
            }
            .at(self.url)
        })?;
        keys.verify(&text, &manifest.body).map_err(|error| {
            let why = format!("has a signature that does not prove it: {error}");
            FailureKind::Unrecognised { why }.at(self.url)
        })
    }

    fn limit(&self) -> BodyLimit {
        let of_kind = BodyLimit::of(self.resource);
        if self.max_bytes >= of_kind.bytes {
            return of_kind;
        }
        BodyLimit {
            bytes: self.max_bytes,
            setting: Some("max-entry"),
        }
    }

    async fn send_single(
        &self,
        upstream: &Upstream,
        validators: Validators,
    ) -> Result<EntryReply, Failure> {
        let policy = self.resource.policy();
        let get = Get {
            url: self.url.clone(),
            validators,
            offset: 0,
            range: None,
            compressible: policy.compressible,
            read_timeout: self.read_timeout,
        };
        let mut incoming = match upstream.get(&get).await? {
            Reply::NotModified { max_age } => return Ok(EntryReply::NotModified(max_age)),
            Reply::Body(incoming) => incoming,
        };
        let limit = self.limit();
        let mut decoder = Decoder::new(incoming.coding);
        let mut body = EntryBody::new(incoming.total, limit, self.memory, self.url)?;
        while let Some(chunk) = incoming.chunk().await? {
            decoder.decode(&chunk, self.url, limit, |decoded| body.append(decoded))?;
        }
        decoder.finish(self.url, |decoded| body.append(decoded))?;
        let body = body.finish();
        self.resource.validate(&body).map_err(|error| {
            let why = error.to_string();
            let kind = if error.is_genuine() {
                FailureKind::Unsupported { why }
            } else {
                FailureKind::Unrecognised { why }
            };
            kind.at(self.url)
        })?;
        let entry = Entry::new(body, incoming.validators, incoming.max_age, self.started);
        Ok(EntryReply::Body(entry))
    }
}

/// A sidecar: the file beside a manifest that holds its hash.
pub(in super::super) struct SidecarReply {
    text: String,
    sha256: Sha256,
    max_age: Option<Duration>,
}

/// Gets the sidecar of the file at `url`.
pub(in super::super) async fn get_sidecar(
    upstream: &Upstream,
    url: &Url,
    read_timeout: Duration,
) -> Result<SidecarReply, Failure> {
    let (text, max_age) = get_beside(upstream, url, "sha256", read_timeout).await?;
    let unrecognised = || {
        let why = "is no sidecar: it does not begin with a sha256; a login page or a wrong server?";
        FailureKind::Unrecognised {
            why: why.to_owned(),
        }
        .at(url)
    };
    let sha256 = text
        .get(..64)
        .and_then(Sha256::parse)
        .ok_or_else(unrecognised)?;
    Ok(SidecarReply {
        text,
        sha256,
        max_age,
    })
}

/// Gets a small text beside the file at `url`, with upstream's `max-age`.
async fn get_beside(
    upstream: &Upstream,
    url: &Url,
    extension: &str,
    read_timeout: Duration,
) -> Result<(String, Option<Duration>), Failure> {
    let mut beside = url.clone();
    beside.set_path(&format!("{}.{extension}", url.path()));
    let unrecognised = || {
        let why = format!(
            "has no text of up to {MAX_SIDECAR_BYTES} bytes beside it, with `.{extension}`"
        );
        FailureKind::Unrecognised { why }.at(url)
    };
    let get = plain_get(beside, read_timeout);
    let Reply::Body(mut incoming) = upstream.get(&get).await? else {
        return Err(unrecognised());
    };
    let mut text = Vec::new();
    while let Some(chunk) = incoming.chunk().await? {
        text.extend_from_slice(&chunk);
        if text.len() > MAX_SIDECAR_BYTES {
            return Err(unrecognised());
        }
    }
    let text = String::from_utf8(text).map_err(|_| unrecognised())?;
    Ok((text, incoming.max_age))
}

/// An unconditional request for a whole body, without compression.
pub(in super::super) fn plain_get(url: Url, read_timeout: Duration) -> Get {
    Get {
        url,
        validators: Validators::default(),
        offset: 0,
        range: None,
        compressible: false,
        read_timeout,
    }
}

/// The failure of an upstream that answers 304 to an unconditional request.
pub(super) fn unexpected_304(url: &Url) -> Failure {
    let why = "is 304 although the request was not conditional".to_owned();
    FailureKind::Unrecognised { why }.at(url)
}
