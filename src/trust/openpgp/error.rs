//! [`OpenPgpError`].

/// A file of keys or a signature that larder cannot use, or a signature that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenPgpError {
    /// No `-----BEGIN PGP` block, or one whose Base64 is broken.
    #[error("it is no ASCII-armored OpenPGP file")]
    Armor,
    /// A packet whose length or contents are broken.
    #[error("its OpenPGP packets are broken")]
    Packet,
    /// No RSA key of version 4.
    #[error("it has no RSA key")]
    NoKey,
    /// Another kind of signature.
    #[error("it is no RSA signature of a file, of version 4 with SHA-256 or SHA-512")]
    Unsupported,
    /// No key has made the signature for this file.
    #[error("it was not made for this file with a key that is trusted")]
    Wrong,
}
