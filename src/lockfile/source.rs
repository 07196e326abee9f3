//! Package sources: their spellings in lock files and settings.

use std::sync::Arc;

use cargo_lock::SourceId;

use crate::resource::{Registries, Registry};

/// Where a package comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PackageSource {
    /// On this machine: a workspace member or a path dependency. Nothing to fetch.
    Local,
    /// crates.io, over whichever protocol.
    CratesIo,
    /// Another registry: its index URL in canonical form, see [`canonical_index`].
    Registry(String),
    /// A git repository, as the lock file spells it, `git+` and `#COMMIT` included.
    Git(String),
}

impl PackageSource {
    /// The registry that is meant, if it is one of these.
    pub fn registry<'a>(&self, registries: &'a Registries) -> Option<&'a Arc<Registry>> {
        match self {
            Self::Local | Self::Git(_) => None,
            Self::CratesIo => Some(registries.crates_io()),
            Self::Registry(index) => registries.iter().find(|registry| {
                canonical_index(&format!("sparse+{}", registry.index())).as_ref() == Some(index)
            }),
        }
    }
}

/// The index URL of a registry in the one form that can be compared: a setting of the user with
/// [`PackageSource::Registry`], for instance. `sparse+` is part of the identity and stays; `registry+` is not and goes.
///
/// A trailing slash and `.git` are dropped, and a URL on the host of crates.io's git index is lower-cased and made
/// https: cargo's rule, `CanonicalUrl::new` in `src/cargo/util/canonical_url.rs`. `None` if it is no URL.
pub fn canonical_index(url: &str) -> Option<String> {
    let (sparse, plain) = match url.strip_prefix("sparse+") {
        Some(plain) => (true, plain),
        None => (false, url.strip_prefix("registry+").unwrap_or(url)),
    };
    let id = SourceId::from_url(&format!("registry+{plain}")).ok()?;
    let plain = canonical(&id)?;
    Some(if sparse {
        format!("sparse+{plain}")
    } else {
        plain
    })
}

pub(super) fn source(text: &str) -> Result<PackageSource, &'static str> {
    let id = SourceId::from_url(text).map_err(|_| "its source is of no known kind")?;
    if id.is_git() {
        return Ok(PackageSource::Git(text.to_owned()));
    }
    if id.is_path() {
        return Ok(PackageSource::Local);
    }
    let plain = canonical(&id).ok_or("its source is no usable URL")?;
    // Asked in the spelling that cargo itself writes, so that a missing slash does not make another registry of it.
    let (usual, index) = if text.starts_with("sparse+") {
        (format!("sparse+{plain}/"), format!("sparse+{plain}"))
    } else {
        (format!("registry+{plain}"), plain)
    };
    match SourceId::from_url(&usual) {
        Ok(id) if id.is_default_registry() => Ok(PackageSource::CratesIo),
        Ok(_) | Err(_) => Ok(PackageSource::Registry(index)),
    }
}

/// See [`canonical_index`].
pub(super) fn canonical(id: &SourceId) -> Option<String> {
    let mut url = id.url().clone();
    url.path_segments_mut().ok()?.pop_if_empty();
    if url.host_str().is_some() && url.host_str() == SourceId::default().url().host_str() {
        // A web scheme cannot be refused; another one (`ssh`) can, and then stays.
        let _ = url.set_scheme("https");
        let path = url.path().to_lowercase();
        url.set_path(&path);
    }
    let path = url.path().strip_suffix(".git").map(str::to_owned);
    if let Some(path) = path {
        url.set_path(&path);
    }
    let text = String::from(url);
    // A URL without any path always prints its slash.
    Some(text.strip_suffix('/').map_or(text.clone(), str::to_owned))
}
