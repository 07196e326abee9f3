//! Package sources: the many spellings in lock files and settings, and the one form that can be compared.
//!
//! Parsing is cargo-lock's `SourceId`. Its equality is not used: it compares URLs as they are written, while cargo
//! treats `https://host/index`, `https://host/index/` and `https://host/index.git` as one registry.

use cargo_lock::SourceId;

use super::error::EntryError;

/// The place that a package comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PackageSource {
    /// This machine: a workspace member or a path dependency. Nothing to fetch.
    Local,
    /// crates.io, over whichever protocol.
    CratesIo,
    /// Another registry: its index URL in canonical form, see [`canonical_index`].
    Registry(String),
    /// A git repository, as the lock file spells it, `git+` and `#COMMIT` included.
    Git(String),
}

/// The index URL of a registry in the one form that can be compared, for example a user's setting with
/// [`PackageSource::Registry`]. `sparse+` is part of the identity and stays; `registry+` is not and goes.
///
/// A trailing slash and `.git` are dropped, and a URL on the host of crates.io's git index is lower-cased and made
/// https: cargo's rule, `CanonicalUrl::new` in `src/cargo/util/canonical_url.rs`. `None` if the text is no URL.
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

/// Parses a `source` field.
///
/// # Errors
/// If no kind of source is spelled so.
pub fn parse_source(text: &str) -> Result<PackageSource, EntryError> {
    let id = SourceId::from_url(text).map_err(|_| EntryError::UnknownSource)?;
    if id.is_git() {
        return Ok(PackageSource::Git(text.to_owned()));
    }
    if id.is_path() {
        return Ok(PackageSource::Local);
    }
    let plain = canonical(&id).ok_or(EntryError::BadSourceUrl)?;
    // `is_default_registry` compares text, so ask it in the spelling that cargo itself writes.
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
fn canonical(id: &SourceId) -> Option<String> {
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
