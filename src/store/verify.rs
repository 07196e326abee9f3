//! Rehashing stored blobs: finds bytes that a disk has lost or altered since they were written.
//!
//! Hashing is work for the processor, so rayon spreads the files over its threads. Each thread reads one file at a
//! time in chunks, which bounds the memory.

use std::{
    io::{self, Read as _},
    path::Path,
};

use rayon::prelude::*;

use super::{buffers::CHUNK_BYTES, layout::StoreLayout};
use crate::{
    files::open_nofollow,
    hash::{Hasher, Sha256},
};

/// Those of `hashes` whose blob has other contents or cannot be read to its end. A missing blob counts too.
pub(super) fn damaged(layout: &StoreLayout, hashes: Vec<Sha256>) -> Vec<Sha256> {
    let hashes = hashes.into_par_iter();
    let damaged = hashes.filter(|sha256| !has_hash(&layout.blob(*sha256), *sha256));
    damaged.collect()
}

fn has_hash(path: &Path, expected: Sha256) -> bool {
    matches!(hash(path), Ok(Some(found)) if found == expected)
}

fn hash(path: &Path) -> io::Result<Option<Sha256>> {
    let Some(mut file) = open_nofollow(path)? else {
        return Ok(None);
    };
    let mut hasher = Hasher::default();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(Some(hasher.finish())),
            len => hasher.update(&chunk[..len]),
        }
    }
}
