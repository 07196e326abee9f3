//! Verifies detached OpenPGP signatures of files with RSA keys: as much of RFC 9580 as Rust's releases use.
//!
//! ```text
//!  channel-rust-stable.toml.asc      one signature packet: version 4, of a binary document, RSA, SHA-256 or SHA-512
//!  rust-key.asc                      public key packets: version 4, RSA; all may sign
//!
//!  signed bytes = file, then the packet from its version to its hashed subpackets, then 4, 255 and their length
//! ```
//!
//! The mathematics is ring's, which larder has for TLS. Other keys and signatures are refused. A file of keys is
//! trusted as a whole: the bindings of its subkeys, its names and its dates are not looked at.

mod armor;
mod error;
mod packet;

use ring::signature::{
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA512, RsaPublicKeyComponents,
};

pub use error::OpenPgpError;
use packet::{PublicKey, Signature};

/// The keys whose signatures are trusted.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKeys(Vec<PublicKey>);

impl std::fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKeys({} keys)", self.0.len())
    }
}

impl SigningKeys {
    /// The key that signs Rust's releases, 108F 6620 5EAE B0AA A8DD 5E1C 85AB 96E6 FA1B E5FE, with its subkeys. It
    /// stood in rustup's repository until 2023 (`src/rust-key.pgp.ascii`).
    ///
    /// # Panics
    /// Never: a test reads the key.
    pub fn of_rust() -> Self {
        Self::parse(include_str!("rust-key.asc")).expect("the key is a valid one")
    }

    /// Reads an ASCII-armored file of public keys.
    ///
    /// # Errors
    /// It is none, or has no RSA key.
    pub fn parse(text: &str) -> Result<Self, OpenPgpError> {
        let bytes = armor::decode(text)?;
        let mut keys = Vec::new();
        for packet in packet::split(&bytes) {
            keys.extend(PublicKey::of(packet?)?);
        }
        match keys.is_empty() {
            true => Err(OpenPgpError::NoKey),
            false => Ok(Self(keys)),
        }
    }

    /// Checks that one of the keys has made the ASCII-armored `signature` for `file`.
    ///
    /// # Errors
    /// None has, or the signature cannot be used.
    pub fn verify(&self, signature: &str, file: &[u8]) -> Result<(), OpenPgpError> {
        let bytes = armor::decode(signature)?;
        let mut is_any = false;
        for packet in packet::split(&bytes) {
            let Some(signature) = Signature::of(packet?)? else {
                continue;
            };
            is_any = true;
            let signed = [file, &signature.trailer].concat();
            if self
                .0
                .iter()
                .any(|key| is_made_by(key, &signature, &signed))
            {
                return Ok(());
            }
        }
        match is_any {
            true => Err(OpenPgpError::Wrong),
            false => Err(OpenPgpError::Unsupported),
        }
    }
}

fn is_made_by(key: &PublicKey, signature: &Signature, signed: &[u8]) -> bool {
    let scheme = match signature.is_sha512 {
        true => &RSA_PKCS1_2048_8192_SHA512,
        false => &RSA_PKCS1_2048_8192_SHA256,
    };
    // OpenPGP leaves out leading zeros, which RSA needs.
    let Some(missing) = key.modulus.len().checked_sub(signature.number.len()) else {
        return false;
    };
    let number = [&vec![0; missing], signature.number.as_slice()].concat();
    let key = RsaPublicKeyComponents {
        n: &key.modulus,
        e: &key.exponent,
    };
    key.verify(scheme, signed, &number).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by GnuPG 2.2 with a key for this test.
    const KEY: &str = include_str!("../../../fixtures/openpgp/key.asc");
    const FILE: &[u8] = include_bytes!("../../../fixtures/openpgp/file");
    const SIGNATURE: &str = include_str!("../../../fixtures/openpgp/file.asc");

    #[test]
    fn a_signature_by_gnupg_proves_its_file_and_no_other() {
        let keys = SigningKeys::parse(KEY).unwrap();
        assert_eq!(keys.verify(SIGNATURE, FILE), Ok(()));
        assert_eq!(keys.verify(SIGNATURE, b"other"), Err(OpenPgpError::Wrong));
        let rust = SigningKeys::of_rust();
        assert_eq!(rust.verify(SIGNATURE, FILE), Err(OpenPgpError::Wrong));
    }

    #[test]
    fn every_flipped_bit_of_a_signature_is_noticed() {
        let keys = SigningKeys::parse(KEY).unwrap();
        let bytes = armor::decode(SIGNATURE).unwrap();
        let packet = packet::split(&bytes).next().unwrap().unwrap();
        let signature = Signature::of(packet).unwrap().unwrap();
        // The unhashed part and the first two bytes of the hash prove nothing, and are not looked at.
        let first = bytes.len() - packet.body.len();
        let hashed = first..first + signature.trailer.len() - 6;
        let number = bytes.len() - signature.number.len()..bytes.len();
        for at in hashed.chain(number) {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            let text = armor::encode(&bytes);
            assert!(keys.verify(&text, FILE).is_err(), "byte {at}");
        }
    }

    #[test]
    fn the_key_of_rust_has_three_rsa_keys_of_4096_bits() {
        let keys = SigningKeys::of_rust();
        let bits: Vec<_> = keys.0.iter().map(|key| key.modulus.len() * 8).collect();
        assert_eq!(bits, [4096, 4096, 4096]);
    }

    #[test]
    fn other_files_are_no_keys_and_no_signatures() {
        let keys = SigningKeys::parse(KEY).unwrap();
        for text in [
            "",
            "hello",
            "-----BEGIN PGP MESSAGE-----\n\n!!!\n-----END PGP MESSAGE-----\n",
        ] {
            assert_eq!(SigningKeys::parse(text).unwrap_err(), OpenPgpError::Armor);
            assert_eq!(keys.verify(text, FILE), Err(OpenPgpError::Armor));
        }
        assert_eq!(
            SigningKeys::parse(SIGNATURE).unwrap_err(),
            OpenPgpError::NoKey
        );
        assert_eq!(keys.verify(KEY, FILE), Err(OpenPgpError::Unsupported));
        let bytes = armor::decode(SIGNATURE).unwrap();
        for end in 0..bytes.len() {
            let cut = armor::encode(&bytes[..end]);
            assert!(keys.verify(&cut, FILE).is_err(), "{end}");
        }
    }
}
