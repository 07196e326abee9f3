//! Undoes the compression of a transfer, chunk by chunk and within a memory bound.

use std::io::Write as _;

use flate2::write::MultiGzDecoder;
use url::Url;

use crate::{
    resource::Resource,
    upstream::{Coding, Failure, FailureKind},
};

/// Compressed bytes decoded at a time. Gzip can expand data a thousandfold, and the size limit is checked between
/// steps.
const STEP_BYTES: usize = 1024;

/// The size limit of one body after decoding.
#[derive(Clone, Copy, Debug)]
pub(super) struct BodyLimit {
    /// In bytes.
    pub(super) bytes: u64,
    /// The setting that has it, if one has.
    pub(super) setting: Option<&'static str>,
}

impl BodyLimit {
    /// The limit of a resource's bodies.
    pub(super) fn of(resource: &Resource) -> Self {
        let policy = resource.policy();
        Self {
            bytes: policy.max_bytes,
            setting: policy.max_bytes_setting,
        }
    }

    /// Checks the bytes of a body that have arrived.
    pub(super) fn check(self, len: u64, url: &Url) -> Result<(), Failure> {
        if len <= self.bytes {
            return Ok(());
        }
        let Self { bytes, setting } = self;
        let limit = bytes;
        Err(FailureKind::TooLarge { limit, setting }.at(url))
    }
}

/// The decoder of one response body.
pub(super) enum Decoder {
    Identity,
    Gzip(Box<MultiGzDecoder<Vec<u8>>>),
}

impl Decoder {
    pub(super) fn new(coding: Coding) -> Self {
        match coding {
            Coding::Identity => Self::Identity,
            Coding::Gzip => Self::Gzip(Box::new(MultiGzDecoder::new(Vec::new()))),
        }
    }

    /// Decodes `chunk` and passes the result to `take`, possibly in several calls. Buffers little more than `limit`
    /// bytes beside what it has passed on.
    pub(super) fn decode<E: From<Failure>>(
        &mut self,
        chunk: &[u8],
        url: &Url,
        limit: BodyLimit,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        match self {
            Self::Identity => take(chunk),
            Self::Gzip(decoder) => {
                for step in chunk.chunks(STEP_BYTES) {
                    decoder
                        .write_all(step)
                        .map_err(|cause| undecodable(url, &cause))?;
                    let mut decoded = std::mem::take(decoder.get_mut());
                    limit.check(decoded.len() as u64, url)?;
                    if !decoded.is_empty() {
                        take(&decoded)?;
                    }
                    // The next step reuses the allocation.
                    decoded.clear();
                    *decoder.get_mut() = decoded;
                }
                Ok(())
            }
        }
    }

    /// Passes the last decoded bytes to `take`, and checks that the compressed data is complete.
    pub(super) fn finish<E: From<Failure>>(
        &mut self,
        url: &Url,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        match self {
            Self::Identity => Ok(()),
            Self::Gzip(decoder) => {
                decoder
                    .try_finish()
                    .map_err(|cause| undecodable(url, &cause))?;
                let rest = std::mem::take(decoder.get_mut());
                if rest.is_empty() { Ok(()) } else { take(&rest) }
            }
        }
    }
}

fn undecodable(url: &Url, cause: &std::io::Error) -> Failure {
    let cause = format!("its gzip encoding: {cause}");
    FailureKind::Broken { cause }.at(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compresses `body`, cuts off the last `cut` bytes, and decodes the rest in chunks of `piece` bytes.
    fn round_trip(body: &[u8], piece: usize, cut: usize) -> Result<Vec<u8>, Failure> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(body).unwrap();
        let compressed = encoder.finish().unwrap();
        let url = Url::parse("http://a.example/").unwrap();
        let mut decoder = Decoder::new(Coding::Gzip);
        let mut decoded = Vec::new();
        let limit = BodyLimit {
            bytes: 1 << 20,
            setting: None,
        };
        let mut take = |part: &[u8]| -> Result<(), Failure> {
            decoded.extend_from_slice(part);
            Ok(())
        };
        for piece in compressed[..compressed.len() - cut].chunks(piece) {
            decoder.decode(piece, &url, limit, &mut take)?;
        }
        decoder.finish(&url, &mut take)?;
        Ok(decoded)
    }

    #[test]
    fn decodes_gzip_bodies_of_any_size_in_chunks_of_any_size() {
        for size in [0, 1, 300, 32 << 10, (32 << 10) + 1, 200_000] {
            let body: Vec<u8> = (0..size).map(|_| fastrand::u8(b'a'..=b'p')).collect();
            for piece in [1, 1000, 8192, 1 << 20] {
                let decoded = round_trip(&body, piece, 0).unwrap();
                assert!(decoded == body, "{size} bytes in chunks of {piece}");
            }
        }
    }

    #[test]
    fn a_truncated_gzip_body_is_an_error() {
        for cut in [1, 4, 8, 9, 200] {
            let decoded = round_trip(&[7; 100_000], 1000, cut);
            assert!(
                matches!(
                    decoded,
                    Err(Failure {
                        kind: FailureKind::Broken { .. },
                        ..
                    })
                ),
                "{cut} bytes less: {decoded:?}"
            );
        }
    }
}
