//! The benchmark `million`: the time until larder is ready on a store with a million files.
//!
//! The files are hard links to one index entry and one crate. Larder does not read them at start; the benchmark shows
//! whether their number matters.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::json;

use crate::benchmark::Context;
use crate::payload;
use crate::row::{Row, Unit, rounded};
use testkit::larder::Site;

/// Hard links to one file. File systems allow about 65,000.
const LINKS_PER_FILE: usize = 50_000;
/// Number of index entries, and of crates.
const FILES_PER_KIND: usize = 500_000;

pub(crate) fn run(context: &Context<'_>) -> Vec<Row> {
    let upstream = payload::upstream();
    let entry = payload::entry(&upstream, "an index entry", "small", 3_000);
    let archive = payload::archive(&upstream, "a crate", "slim", 11_000);
    let site = Site::new(context.larder, &upstream.url());
    let larder = site.serve(&[]);
    for payload in [&entry, &archive] {
        assert_eq!(larder.get(&payload.path).status, 200, "{}", payload.label);
    }
    larder.wait_until_idle();
    larder.stop();
    let mut row = Row {
        unit: Unit::Seconds,
        ..Row::ratio("start-up with a million stored entries", 1.0, 0.05)
    };
    let start = || {
        let began = Instant::now();
        let larder = site.serve(&[]);
        let took = began.elapsed().as_secs_f64();
        larder.stop();
        took
    };
    let few = start();
    fill(&site).expect("the temporary folder takes a million links");
    for _ in 0..context.rounds {
        row.push(start(), json!({"with_two_entries": rounded(few)}));
    }
    vec![row]
}

/// Links the stored entry and the stored crate half a million times each.
fn fill(site: &Site) -> io::Result<()> {
    let entry = find(site.store(), "small")?;
    let crates = site.store().join("v1/blobs");
    let archive = find(&crates, "")?;
    // The registry's folder. The number of files matters, not whether larder would look there.
    let registry = entry.ancestors().nth(3).unwrap_or(&entry);
    multiply(&entry, |number| {
        registry.join(format!(
            "{:02x}/{:02x}/x{number}",
            number % 251,
            number % 241
        ))
    })?;
    multiply(&archive, |number| {
        crates.join(format!("{:02x}/{number:062x}", number % 256))
    })
}

/// Makes `FILES_PER_KIND` hard links to this file, or to copies of it.
fn multiply(file: &Path, place: impl Fn(usize) -> PathBuf) -> io::Result<()> {
    let mut source = file.to_owned();
    for number in 0..FILES_PER_KIND {
        let link = place(number);
        if number % LINKS_PER_FILE == 0 {
            if let Some(folder) = link.parent() {
                std::fs::create_dir_all(folder)?;
            }
            std::fs::copy(file, &link)?;
            source = link;
            continue;
        }
        if let Err(error) = std::fs::hard_link(&source, &link) {
            let (io::ErrorKind::NotFound, Some(folder)) = (error.kind(), link.parent()) else {
                return Err(error);
            };
            std::fs::create_dir_all(folder)?;
            std::fs::hard_link(&source, &link)?;
        }
    }
    Ok(())
}

/// The first file below a folder with this name, or with any name if `name` is empty.
fn find(folder: &Path, name: &str) -> io::Result<PathBuf> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for found in std::fs::read_dir(folder)? {
            let path = found?.path();
            if path.is_dir() {
                folders.push(path);
            } else if name.is_empty() || path.file_name().is_some_and(|known| known == name) {
                return Ok(path);
            }
        }
    }
    Err(io::ErrorKind::NotFound.into())
}
