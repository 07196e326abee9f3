//! Resources: everything that cargo and rustup can ask larder for.
//!
//! A [`Resource`] is one nameable thing, for example the index entry of `serde`. Its *kind* is a type that implements
//! [`Kind`]. A kind is data: it says where a resource is stored, where upstream has it, how long a copy stays fresh,
//! and how to recognise a valid body. The cache acts on these answers and never asks which kind it handles. A new
//! kind is a new file in [`registry`] or [`dist`], whose `parse` functions map paths to kinds. A path outside their
//! trees also needs a line in `server::route`.
//!
//! ```text
//!                      GET path ──> server::route ──> Resource
//!                                                        │
//!    where stored?      which rules?       where upstream?       valid?           more, for some kinds
//!    Kind::location     Kind::policy       Kind::source          Kind::validate   Kind::listed, ::located,
//!    ─> Location        ─> Policy          ─> Source             ─> InvalidBody   ::dependencies, ::views ...
//! ```
//!
//! | kind | stored as | fresh for | address | optional traits |
//! |---|---|---|---|---|
//! | [`RegistryConfig`] | entry | a day | index + `config.json` | [`Retention`] |
//! | [`IndexEntry`] | entry | upstream's `max-age` | index + `se/rd/serde` | [`Dependencies`], [`Views`], [`Retention`] |
//! | [`CrateFile`] | blob | always | named by the config | [`Listed`] in the index entry, [`Located`], [`CrateVersion`] |
//! | channel manifest | pair with sidecar | always if dated, or `max-age` | dist server | [`Views`], [`InstallProfiles`], [`Releases`] |
//! | other sidecar | entry | as its file | dist server or update root | |
//! | file without sidecar | entry and blob | upstream's `max-age` | dist server or update root | [`Measured`] |
//! | archive | blob | as its path | dist server or update root | [`Listed`] in a manifest or sidecar |
//! | `release-stable.toml` | entry | `max-age` | update root | [`Releases`] |
//! | `rustup-init.sh` | entry | `max-age` | update root | |
//! | [`AdvisoryArchive`] | entry | an hour | as the settings say | |
//!
//! **Entry, pair, blob.** An entry is a small record with its body, stored under a [`Key`]. A pair is an entry that
//! holds a file and its `.sha256` sidecar, always of one generation. A blob is a body that is stored under its own
//! hash, which also verifies it. A request for a blob often lacks the hash: then [`Location::ListedIn`] names the
//! resource whose body lists it, and [`Listed::resolve`] reads that body.
//!
//! **Optional traits.** Most kinds need nothing but [`Kind`]. The rest is in small traits that a kind implements and
//! announces through an accessor, for example [`Kind::dependencies`].
//!
//! This module is pure: no input or output, no clock, no HTTP.

mod advisories;
pub mod dist;
mod error;
mod key;
mod policy;
pub mod registry;
mod upstreams;

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    sync::Arc,
    time::SystemTime,
};

use bytes::Bytes;
use url::Url;

use crate::hash::Sha256;

pub use advisories::AdvisoryArchive;
pub use dist::Dist;
pub use error::{InvalidBody, LineProblem, LocateError, TemplateError, TemplateProblem, Unlisted};
pub use key::Key;
pub use policy::{Audience, Freshness, Policy};
pub use registry::{
    CrateFile, EnabledFeatures, IndexEntry, ListedState, ListedVersion, NeededCrate,
    RecalledVersions, Registries, Registry, RegistryConfig, RewrittenVersion, VersionNeeds,
};
pub use upstreams::Upstreams;

/// One nameable thing of some kind. Cheap to clone.
pub type Resource = Arc<dyn Kind>;

/// One kind of resource. `Display` names the resource in messages: ``index entry of `serde` ``.
pub trait Kind: fmt::Debug + fmt::Display + Send + Sync {
    /// Where the store has it.
    fn location(&self) -> Location;

    /// The rules for its copies.
    fn policy(&self) -> Policy;

    /// Where upstream has it.
    fn source(&self) -> Source;

    /// Checks that `body` can be this resource. Upstream offers no hash for most entries, so this check is what rejects
    /// a login page or half a file.
    ///
    /// # Errors
    /// [`InvalidBody`], a phrase that fits after "the answer".
    fn validate(&self, _body: &[u8]) -> Result<(), InvalidBody> {
        Ok(())
    }

    /// For kinds whose hash other resources list. Every kind with [`Location::ListedIn`] has this.
    fn listed(&self) -> Option<&dyn Listed> {
        None
    }

    /// For kinds whose address another resource names. Every kind with [`Source::NamedBy`] has this.
    fn located(&self) -> Option<&dyn Located> {
        None
    }

    /// For kinds whose body names other resources that a client needs next.
    fn dependencies(&self) -> Option<&dyn Dependencies> {
        None
    }

    /// For kinds of which clients may get another body than the stored one.
    fn views(&self) -> Option<&dyn Views> {
        None
    }

    /// For kinds whose stored copy does not give way to every "not found" from upstream.
    fn retention(&self) -> Option<&dyn Retention> {
        None
    }

    /// For kinds whose body lists the downloads of whole installs.
    fn install_profiles(&self) -> Option<&dyn InstallProfiles> {
        None
    }

    /// For resources whose absence is final some day.
    fn absence(&self) -> Option<Absence> {
        None
    }

    /// For kinds that are one version of a crate.
    fn crate_version(&self) -> Option<&dyn CrateVersion> {
        None
    }

    /// For kinds whose entry holds the hash of the body, which larder computes, and not the body.
    fn measured(&self) -> Option<&dyn Measured> {
        None
    }

    /// For kinds whose body each release replaces.
    fn releases(&self) -> Option<&dyn Releases> {
        None
    }
}

/// A resource whose hash is listed in the body of others.
pub trait Listed: Send + Sync {
    /// The resource with its hash, as `listing` states it. `listing` is the body of the resource in
    /// [`Location::ListedIn`] or of one of [`Listed::listings`].
    ///
    /// # Errors
    /// [`Unlisted`] if the listing does not mention the resource.
    fn resolve(&self, listing: &[u8]) -> Result<Resource, Unlisted>;

    /// Further resources that may list this one, the likeliest first; all are stored as pairs. They follow from the
    /// name alone, so the result may be incomplete. The last one lists the resource permanently, if upstream has it.
    fn listings(&self) -> Vec<Resource> {
        Vec::new()
    }

    /// The [`Measured`] resource that lists this one if nothing else does. `None` if an unlisted resource must not be
    /// served.
    fn unproven(&self) -> Option<Resource> {
        None
    }
}

/// One version of a crate.
pub trait CrateVersion: Send + Sync {
    /// The registry's name.
    fn registry(&self) -> &str;

    /// The crate's name in lower case, as pins and recalls have it.
    fn name(&self) -> String;

    /// The version.
    fn version(&self) -> &str;

    /// The index entry that lists it.
    fn entry(&self) -> Resource;

    /// Returns whether the body of the index entry lists the version.
    fn is_listed(&self, listing: &[u8]) -> bool;

    /// When it was published, if the body of the index entry says so.
    fn published(&self, listing: &[u8]) -> Option<SystemTime>;
}

/// A resource of which upstream publishes no hash. Its body is stored as a blob, and its entry lists the blob.
pub trait Measured: Send + Sync {
    /// Checks that a body with this start can be the resource.
    ///
    /// # Errors
    /// [`InvalidBody`], a phrase that fits after "the answer".
    fn validate_start(&self, start: &[u8]) -> Result<(), InvalidBody>;

    /// The entry's body, given the hash of the resource's body.
    fn record(&self, sha256: Sha256) -> String;
}

/// A resource whose address is named in the body of another.
pub trait Located: Send + Sync {
    /// The address, given the body of the resource in [`Source::NamedBy`].
    ///
    /// # Errors
    /// The body names no usable address.
    fn locate(&self, naming: &[u8]) -> Result<Url, LocateError>;
}

/// A resource whose body names resources that clients need together with it.
pub trait Dependencies: Send + Sync {
    /// The resources that the client will probably ask for next, given this body.
    fn prefetch_hints(&self, body: &[u8]) -> Vec<PrefetchHint>;

    /// The entries that must be checked with upstream after the time beside them, or they do not fit `new`, which is
    /// about to replace `old`. Only times later than `after` are reported, and none is later than `now`.
    fn invalidates(
        &self,
        old: Option<&[u8]>,
        new: &[u8],
        after: SystemTime,
        now: SystemTime,
    ) -> Vec<(Key, SystemTime)>;
}

/// A resource whose stored copy does not give way to every "not found" from upstream.
pub trait Retention: Send + Sync {
    /// A resource that every working upstream of this one has. While it cannot be had, "not found" means nothing.
    fn witness(&self) -> Resource;

    /// The versions of `old` that `new` takes back.
    fn recalled_versions(&self, _old: &[u8], _new: &[u8]) -> RecalledVersions {
        RecalledVersions::default()
    }

    /// `new` with what must be kept of `old`: the first checksum of rewritten versions, and removed versions that are
    /// in `locked`, as yanked ones. `None` if that changes nothing.
    fn with_kept_versions(
        &self,
        _old: &[u8],
        _new: &[u8],
        _recalled: &RecalledVersions,
        _locked: &[String],
    ) -> Option<Bytes> {
        None
    }

    /// The state of `version` in `body`; `None` if it does not list it.
    fn listed_state(&self, _body: &[u8], _version: &str) -> Option<ListedState> {
        None
    }

    /// The crate that this resource describes, as pins name it: the registry's name and the crate's in lower case.
    fn package(&self) -> Option<(&str, &str)>;
}

/// A resource of which clients may get another body than the stored one.
pub trait Views: Send + Sync {
    /// The body for clients; `None` if it is the stored one.
    fn client_view(&self, _body: &Bytes) -> Option<Bytes> {
        None
    }

    /// The body in which the versions that `hides` returns true for are marked as yanked; `None` if there are none. It
    /// gets a version and the time of its publication, if known.
    fn hiding_view(
        &self,
        _body: &Bytes,
        _hides: &dyn Fn(&str, Option<SystemTime>) -> bool,
    ) -> Option<Bytes> {
        None
    }

    /// The blobs that `body` offers to clients. [`Views::offline_view`] needs to know which of them are stored.
    fn checksums(&self, _body: &[u8]) -> Vec<Sha256> {
        Vec::new()
    }

    /// The body for clients while upstream is unreachable. It offers only the blobs in `offered`: the stored ones, and
    /// missing ones that pins offer.
    fn offline_view(&self, body: Bytes, _offered: &HashSet<Sha256>) -> Bytes {
        body
    }
}

/// A resource whose body lists the downloads of whole installs.
pub trait InstallProfiles: Send + Sync {
    /// The downloads of each install profile that contains the blob `requested`, in the order in which the client
    /// requests them. Smaller profiles come first, and each profile contains the one before it.
    fn profile_downloads(&self, body: &Bytes, requested: Sha256) -> Vec<Vec<Resource>>;
}

/// A resource whose body each release replaces, and lists the blobs of that release. Clients may still need an older
/// body, because the newest one lists blobs that are not stored.
pub trait Releases: Send + Sync {
    /// The folder whose children are the names of releases, among others.
    fn folder(&self) -> Key;

    /// The resource that has the body of the release of this name for ever; `None` if no release has such a name.
    fn of_name(&self, name: &str) -> Option<Resource>;

    /// The resource that has `body` for ever; `None` if `body` does not tell its release.
    fn of_body(&self, body: &[u8]) -> Option<Resource>;

    /// Other resources that have `body` too, if upstream has them: the same release by other names.
    fn other_names(&self, body: &[u8]) -> Vec<Resource>;

    /// Sorts names of releases, the newest first.
    fn sort_newest_first(&self, names: &mut [String]);

    /// The blobs that `body` offers to clients, each by the name of its part of the release. Names are the same in all
    /// releases.
    fn parts(&self, body: &Bytes) -> BTreeMap<String, Sha256>;

    /// The folder whose children are the names of parts that `body` does not list; `None` if it lists all.
    fn part_folder(&self, _body: &[u8]) -> Option<Key> {
        None
    }

    /// The part of this name, if [`Releases::part_folder`] has it. Its listing names its hash.
    fn part(&self, _body: &[u8], _name: &str) -> Option<Resource> {
        None
    }
}

/// How the store remembers that upstream does not have a resource.
#[derive(Clone, Debug)]
pub struct Absence {
    /// The key of an entry that stands for the absence.
    pub key: Key,
    /// The absence is final if upstream confirmed it at this time or later.
    pub final_from: SystemTime,
    /// The resource that clients ask for in place of the absent one.
    pub fallback: Option<Resource>,
}

/// A resource that a client will probably ask for next.
#[derive(Clone, Debug)]
pub struct PrefetchHint {
    /// The resource. It remembers the need for it, so its own hints are narrower.
    pub resource: Resource,
    /// That need as text. Two hints to one resource with different needs lead to different further hints.
    pub need: String,
    /// `true`: fetch it even if it is not stored. `false`: only revalidate it if it is stored, because a stored copy
    /// shows that some client needed it before.
    pub is_likely: bool,
}

/// Where the store has a resource.
#[derive(Clone, Debug)]
pub enum Location {
    /// An entry: a small record with its body, stored under this key.
    Entry(Key),
    /// One half of an entry that stores a file and its sidecar, always of one generation. Upstream has the sidecar at
    /// the file's address plus `.sha256`, and the hash in it verifies the file.
    Pair(Key, Half),
    /// A blob, stored under its own hash, which also verifies it.
    Blob(Sha256),
    /// Unknown until the body of this other resource has been read: see [`Listed::resolve`].
    ListedIn(Resource),
}

impl Location {
    /// The hash of a blob; `None` for the other places.
    pub fn blob_hash(&self) -> Option<Sha256> {
        match self {
            Self::Blob(sha256) => Some(*sha256),
            Self::Entry(_) | Self::Pair(..) | Self::ListedIn(_) => None,
        }
    }
}

/// One half of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// The file.
    Body,
    /// The sidecar, which contains the file's hash.
    Sidecar,
}

/// Where upstream has a resource.
#[derive(Clone, Debug)]
pub enum Source {
    /// At this address.
    At(Url),
    /// At an address that the body of this other resource names: see [`Located::locate`].
    NamedBy(Resource),
}
