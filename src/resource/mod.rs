//! What larder can be asked for: kinds as data, each naming its things and stating its policy. Pure: no I/O, no clock,
//! no HTTP; the cache acts on what is said here and never asks which kind it holds.

pub mod dist;
mod key;
pub mod registry;
mod upstreams;

use std::{collections::HashSet, fmt, sync::Arc, time::Duration, time::SystemTime};

use bytes::Bytes;
use url::Url;

use crate::hash::Sha256;

pub use dist::Dist;
pub use key::Key;
pub use registry::{CrateFile, IndexEntry, Registries, Registry, RegistryConfig};
pub use upstreams::Upstreams;

/// One nameable thing of some kind. Cheap to clone.
pub type Resource = Arc<dyn Kind>;

/// One kind of thing a client can ask for. `Display` names it for people: ``index entry of `serde` ``.
pub trait Kind: fmt::Debug + fmt::Display + Send + Sync {
    /// Where the store keeps it.
    fn location(&self) -> Location;

    /// How the cache must treat it.
    fn policy(&self) -> Policy;

    /// Where upstream keeps it.
    fn source(&self) -> Source;

    /// Names this resource in full, given the body of the resource that [`Location::ListedIn`] pointed at.
    ///
    /// # Errors
    /// [`Unlisted`] if the listing does not mention it.
    fn resolve(&self, _listing: &[u8]) -> Result<Resource, Unlisted> {
        Err(Unlisted)
    }

    /// Pairs whose bodies [`Kind::resolve`] reads as well as the listing's, the likeliest first. Others may be as good; these
    /// can be told from the name alone. The last one lists it for ever, if upstream has it.
    fn listings(&self) -> Vec<Resource> {
        Vec::new()
    }

    /// The address, given the body of the resource that [`Source::NamedBy`] pointed at.
    ///
    /// # Errors
    /// A sentence on why that body names no address.
    fn locate(&self, _naming: &[u8]) -> Result<Url, String> {
        Err("this kind of thing has a fixed address".to_owned())
    }

    /// Whether `body` can be what was asked for. This is what keeps a login page or half a file out of the store
    /// where upstream offers no hash.
    ///
    /// # Errors
    /// A phrase on what is wrong with it, fit to follow "the answer".
    fn validate(&self, _body: &[u8]) -> Result<(), String> {
        Ok(())
    }

    /// Entries that must have been checked after the moment beside them to be consistent with `new`, which is about to
    /// replace `old`, as far as that moment lies after `_after`.
    fn invalidates(
        &self,
        _old: Option<&[u8]>,
        _new: &[u8],
        _after: SystemTime,
        _now: SystemTime,
    ) -> Vec<(Key, SystemTime)> {
        Vec::new()
    }

    /// What whoever asked for this will most likely ask for next, given its body.
    fn prefetch_hints(&self, _body: &[u8]) -> Vec<PrefetchHint> {
        Vec::new()
    }

    /// What whoever was given this body may go on to ask for, `asked` among it: runs of blobs in the order in which they are
    /// asked for, each with all that is in the one before it.
    fn profile_downloads(&self, _body: &Bytes, _asked: Sha256) -> Vec<Vec<Resource>> {
        Vec::new()
    }

    /// The body for clients, where it is not the stored one.
    fn client_view(&self, _body: &Bytes) -> Option<Bytes> {
        None
    }

    /// The blobs that `body` offers to clients.
    fn checksums(&self, _body: &[u8]) -> Vec<Sha256> {
        Vec::new()
    }

    /// The body for clients while upstream is out of reach and only the blobs in `stored` can be had.
    fn offline_view(&self, body: Bytes, _stored: &HashSet<Sha256>) -> Bytes {
        body
    }
}

/// What will be asked for next.
#[derive(Clone, Debug)]
pub struct PrefetchHint {
    /// The thing, which knows for what it will be asked for, and so what it leads to in turn.
    pub resource: Resource,
    /// What sets it apart from other leads to the same thing that lead further to something else.
    pub choice: String,
    /// Whether that is likely enough to fetch it; if not, it is worth asking about only if it was asked for before.
    pub is_likely: bool,
}

/// The listing does not mention the resource.
#[derive(Debug, PartialEq, Eq)]
pub struct Unlisted;

/// Where the store keeps a resource.
#[derive(Clone, Debug)]
pub enum Location {
    /// In an entry: a small record, body included, under a key.
    Entry(Key),
    /// As one half of an entry that holds a file and its sidecar, always of one generation. Upstream keeps the sidecar at
    /// the file's address with `.sha256` behind it, and the hash in it is the file's proof.
    Pair(Key, Half),
    /// As a blob, named by its own hash, which is also its proof.
    Blob(Sha256),
    /// Not known before this other resource has been read: then [`Kind::resolve`] tells.
    ListedIn(Resource),
}

/// Which half of a pair is meant: a file, or the sidecar beside it that holds its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// The file.
    Body,
    /// The sidecar.
    Sidecar,
}

/// Where upstream keeps a resource.
#[derive(Clone, Debug)]
pub enum Source {
    /// At this address.
    At(Url),
    /// At an address that the body of this other resource leads to, by [`Kind::locate`].
    NamedBy(Resource),
}

/// The rules that one kind is kept by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How long a stored copy may be served unasked.
    pub freshness: Freshness,
    /// The largest body accepted from upstream, in bytes, after decoding.
    pub max_bytes: u64,
    /// How long upstream's word that there is no such thing is believed.
    pub negative_ttl: Duration,
    /// What clients are told that it is.
    pub content_type: &'static str,
    /// Whether to ask upstream for a compressed transfer. Bodies are stored decoded in any case.
    pub compressible: bool,
    /// Whose habits decide what a failure looks like.
    pub audience: Audience,
}

/// The client that asks for a kind of thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// cargo.
    Cargo,
    /// rustup, or its script.
    Rustup,
}

/// How long a stored copy may be served without asking upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Its name fixes its bytes.
    Forever,
    /// This long, whatever upstream says.
    For(Duration),
    /// As long as upstream's `max-age` says, at most as long as the user's cap.
    AsUpstreamSays,
}
