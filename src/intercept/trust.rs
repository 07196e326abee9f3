//! The files of root certificates for clients: what the client trusts without larder, and larder's authority.
//!
//! The settings of cargo and of rustup for such a file replace the system's roots, and other hosts than the intercepted
//! ones still show the certificates that they have.

use std::{
    io,
    path::{Path, PathBuf},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};

use crate::files::{self, MAX_CERTIFICATES_BYTES};

/// A file of root certificates that the user's settings name, and that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the root certificates in {}{}", .path.display(), .setting)]
pub struct RootsError {
    path: PathBuf,
    /// The setting that names the file, in parentheses.
    setting: String,
    source: io::Error,
}

impl RootsError {
    /// The same error about a file that this setting names.
    #[must_use]
    pub fn set_by(self, setting: &str) -> Self {
        let setting = format!(" ({setting})");
        Self { setting, ..self }
    }
}

/// The roots in `file`, else those of the system, and `authority_pem`.
///
/// # Errors
/// The file cannot be read.
pub fn bundle(file: Option<&Path>, authority_pem: &str) -> Result<String, RootsError> {
    let mut text = match file {
        Some(path) => {
            files::read_text(path, MAX_CERTIFICATES_BYTES).map_err(|source| RootsError {
                path: path.to_owned(),
                setting: String::new(),
                source,
            })?
        }
        None => system_roots(),
    };
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(authority_pem);
    Ok(text)
}

/// The system's roots, PEM. Those that cannot be read are left out, as clients do.
fn system_roots() -> String {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::debug!(%error, "cannot read some of the system's root certificates");
    }
    let mut text = String::new();
    for root in found.certs {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let digits = BASE64_STANDARD.encode(&root);
        for line in digits.as_bytes().chunks(64) {
            text.push_str(&String::from_utf8_lossy(line));
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::{CertificateDer, pem::PemObject as _};

    use super::*;

    #[test]
    fn a_bundle_has_the_roots_of_the_user_or_of_the_system_and_the_authority() {
        let certificates = |text: &str| CertificateDer::pem_slice_iter(text.as_bytes()).count();
        let authority = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let system = rustls_native_certs::load_native_certs().certs.len();
        assert_eq!(certificates(&bundle(None, authority).unwrap()), system + 1);

        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), authority.trim_end()).unwrap();
        let bundled = bundle(Some(file.path()), authority).unwrap();
        assert_eq!(certificates(&bundled), 2);
        assert!(bundle(Some(Path::new("/no/such/file")), authority).is_err());
    }
}
