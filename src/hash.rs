//! SHA-256: [`Sha256`], a digest as a value, and [`Hasher`], which computes one while a body arrives.
//!
//! A digest verifies everything that larder stores. The index has the digests of crates, a manifest or a sidecar those
//! of dist files, and the record of an entry that of its body, which is also the `ETag` for clients.

use std::{
    fmt,
    io::{self, Read},
};

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

/// A SHA-256 digest. `Display` prints 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha256([u8; 32]);

/// A text is not 64 hex digits.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a sha256")]
pub struct InvalidSha256(String);

impl Sha256 {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// The digest of everything that `reader` returns, in pieces of at most `chunk`. `count` gets the number of bytes
    /// of each piece.
    ///
    /// # Errors
    /// Those of the reader.
    pub fn of_reader(
        reader: &mut impl Read,
        chunk: &mut [u8],
        mut count: impl FnMut(u64),
    ) -> io::Result<Self> {
        let mut hasher = Hasher::default();
        loop {
            match reader.read(chunk)? {
                0 => return Ok(hasher.finish()),
                len => {
                    hasher.update(&chunk[..len]);
                    count(len as u64);
                }
            }
        }
    }

    /// Parses 64 hex digits in either case.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return None;
        }
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
            let high = char::from(pair[0]).to_digit(16)?;
            let low = char::from(pair[1]).to_digit(16)?;
            *byte = u8::try_from(high * 16 + low).ok()?;
        }
        Some(Self(digest))
    }

    /// The 64 hex digits in ASCII. Each response carries one: a table is much faster than formatting byte by byte.
    pub fn digits(&self) -> [u8; 64] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut digits = [0; 64];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(self.0) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        digits
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(std::str::from_utf8(&self.digits()).unwrap_or_default())
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for Sha256 {
    type Error = InvalidSha256;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or(InvalidSha256(text))
    }
}

impl From<Sha256> for String {
    fn from(digest: Sha256) -> Self {
        digest.to_string()
    }
}

/// Computes a digest chunk by chunk.
#[derive(Clone, Default)]
pub struct Hasher(sha2::Sha256);

impl Hasher {
    /// Adds the next chunk.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all chunks.
    pub fn finish(self) -> Sha256 {
        Sha256(self.0.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_parses_from_either_case() {
        let digest = Sha256::of(b"larder");
        assert_eq!(Sha256::parse(&digest.to_string()), Some(digest));
        assert_eq!(
            Sha256::parse(&digest.to_string().to_uppercase()),
            Some(digest)
        );
        assert_eq!(Sha256::parse("abc"), None);
        assert_eq!(Sha256::parse(&"g".repeat(64)), None);
    }

    #[test]
    fn chunks_give_the_digest_of_the_whole() {
        let mut hasher = Hasher::default();
        hasher.update(b"lar");
        hasher.update(b"der");
        assert_eq!(hasher.finish(), Sha256::of(b"larder"));
        let mut counts = Vec::new();
        let read = Sha256::of_reader(&mut &b"larder"[..], &mut [0; 4], |len| counts.push(len));
        assert_eq!(read.unwrap(), Sha256::of(b"larder"));
        assert_eq!(counts, [4, 2]);
    }
}
