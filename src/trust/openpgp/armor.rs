//! ASCII armor: Base64 between two marked lines (RFC 9580, section 6.2).

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::error::OpenPgpError;

/// The bytes of the first block in `text`. Its checksum is not looked at: signatures prove more.
pub(super) fn decode(text: &str) -> Result<Vec<u8>, OpenPgpError> {
    let mut lines = text.lines().map(str::trim);
    lines
        .find(|line| line.starts_with("-----BEGIN PGP "))
        .ok_or(OpenPgpError::Armor)?;
    // Headers end with an empty line.
    lines
        .find(|line| line.is_empty())
        .ok_or(OpenPgpError::Armor)?;
    let mut encoded = String::new();
    for line in lines {
        if line.starts_with('=') || line.starts_with("-----END PGP ") {
            return STANDARD.decode(encoded).map_err(|_| OpenPgpError::Armor);
        }
        encoded += line;
    }
    Err(OpenPgpError::Armor)
}

/// A block with these bytes.
#[cfg(test)]
pub(super) fn encode(bytes: &[u8]) -> String {
    let encoded = STANDARD.encode(bytes);
    format!("-----BEGIN PGP SIGNATURE-----\n\n{encoded}\n-----END PGP SIGNATURE-----\n")
}
