//! [`script`]: `rustup-init.sh`, the script that installs rustup.
//!
//! Upstream's script insists on https: it passes `--proto '=https'` to curl in two places (docs/client-behaviour.md
//! R-13). larder serves plain http on loopback, so [`script_for_client`] removes that option and makes larder the
//! default server:
//!
//! ```text
//!  #!/bin/sh
//!  export RUSTUP_UPDATE_ROOT="${RUSTUP_UPDATE_ROOT:-http://127.0.0.1:3263/rustup}"     inserted
//!  export RUSTUP_DIST_SERVER="${RUSTUP_DIST_SERVER:-http://127.0.0.1:3263}"            inserted
//!  ...  curl --proto '=https' --tlsv1.2 ...                                            option removed, twice
//! ```
//!
//! If upstream's text has changed so that the edit would not fit, the script is refused, and an older copy stays
//! stored.

use std::{fmt, sync::Arc};

use bytes::Bytes;

use super::path::{Dist, DistPath, rustup_policy};
use crate::resource::{Freshness, InvalidBody, Kind, Location, Policy, Resource, Source};

/// The bootstrap script as upstream has it.
pub fn script(dist: &Arc<Dist>) -> Resource {
    Arc::new(BootstrapScript {
        file: DistPath {
            dist: dist.clone(),
            path: "rustup/rustup-init.sh".to_owned(),
        },
    })
}

/// The bootstrap script.
#[derive(Debug, PartialEq, Eq)]
struct BootstrapScript {
    file: DistPath,
}

impl fmt::Display for BootstrapScript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("script `rustup-init.sh`")
    }
}

impl Kind for BootstrapScript {
    fn location(&self) -> Location {
        Location::Entry(self.file.key())
    }

    fn policy(&self) -> Policy {
        rustup_policy(Freshness::AsUpstreamSays, 1 << 20, "text/x-shellscript")
    }

    fn source(&self) -> Source {
        Source::At(self.file.url())
    }

    fn validate(&self, body: &[u8]) -> Result<(), InvalidBody> {
        if !body.starts_with(b"#!/") {
            return Err(InvalidBody::NotScript);
        }
        // A stored copy that can be edited must not be replaced by one that cannot.
        match script_for_client(body, "http://localhost/") {
            Ok(_) => Ok(()),
            Err(error) => Err(InvalidBody::UneditableScript(error.to_string())),
        }
    }
}

/// The option of curl that forbids http (rustup, `downloader` in `rustup-init.sh`).
const HTTPS_ONLY_OPTION: &str = "--proto '=https' ";

/// Number of places where the script passes [`HTTPS_ONLY_OPTION`].
const HTTPS_ONLY_COUNT: usize = 2;

/// An upstream script that larder cannot edit.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// Not text.
    #[error("it is not UTF-8")]
    NotUtf8(#[from] std::str::Utf8Error),
    /// The option that forbids http occurs this often, not [`HTTPS_ONLY_COUNT`] times.
    #[error("it insists on https in {0} places, and {HTTPS_ONLY_COUNT} were expected")]
    HttpsOnlyCount(usize),
    /// The variables are inserted before the second line, and there is none.
    #[error("it has one line only")]
    OneLine,
}

/// Upstream's script, edited for a client that reached larder at `base`, which ends in `/`. It downloads from larder
/// unless the user's variables name other servers, and may use http if larder itself was reached by http.
///
/// # Errors
/// The text is not as expected, so the edited script would work in part only.
pub fn script_for_client(script: &[u8], base: &str) -> Result<Bytes, ScriptError> {
    let text = std::str::from_utf8(script)?;
    let places = text.matches(HTTPS_ONLY_OPTION).count();
    if places != HTTPS_ONLY_COUNT {
        return Err(ScriptError::HttpsOnlyCount(places));
    }
    let (interpreter, rest) = text.split_once('\n').ok_or(ScriptError::OneLine)?;
    let base = base.trim_end_matches('/');
    let is_https = base.starts_with("https://");
    let note = if is_https {
        "these two lines are new"
    } else {
        "the curl options that insist on https are gone, and these two lines are new"
    };
    let edited = format!(
        "{interpreter}\n\
         # Served by larder: {note}.\n\
         export RUSTUP_UPDATE_ROOT=\"${{RUSTUP_UPDATE_ROOT:-{base}/rustup}}\"\n\
         export RUSTUP_DIST_SERVER=\"${{RUSTUP_DIST_SERVER:-{base}}}\"\n"
    );
    let rest = match is_https {
        true => rest.to_owned(),
        false => rest.replace(HTTPS_ONLY_OPTION, ""),
    };
    Ok(Bytes::from(edited + &rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bootstrap_script_is_edited_in_exactly_two_places_or_refused() {
        let upstream = "#!/bin/sh\ncurl --proto '=https' --tlsv1.2 a\ncurl --proto '=https' b\n";
        let served = script_for_client(upstream.as_bytes(), "http://127.0.0.1:3263/").unwrap();
        let served = std::str::from_utf8(&served).unwrap();
        assert!(served.starts_with("#!/bin/sh\n"));
        assert!(served.contains("${RUSTUP_UPDATE_ROOT:-http://127.0.0.1:3263/rustup}"));
        assert!(served.contains("${RUSTUP_DIST_SERVER:-http://127.0.0.1:3263}"));
        assert!(served.ends_with("curl --tlsv1.2 a\ncurl b\n"));
        let secure = script_for_client(upstream.as_bytes(), "https://larder.example/").unwrap();
        let secure = std::str::from_utf8(&secure).unwrap();
        assert!(secure.contains("${RUSTUP_DIST_SERVER:-https://larder.example}"));
        assert!(secure.ends_with(upstream.trim_start_matches("#!/bin/sh\n")));
        assert!(script_for_client(b"#!/bin/sh\ncurl --proto '=https' a\n", "http://x/").is_err());
    }
}
