//! The scene `million`: how long larder takes to start on a store that holds a million files.
//!
//! The files are hard links to one index entry and one crate. Larder never reads them: it is their number that could matter.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::json;

use crate::goods;
use crate::row::{Row, Unit, rounded};
use crate::scene::Play;
use testkit::larder::Site;

/// Links to one file; file systems allow for some 65,000.
const LINKS: usize = 50_000;
/// Entries, and as many crates.
const EACH: usize = 500_000;

pub(crate) fn play(play: &Play<'_>) -> Vec<Row> {
    let upstream = goods::upstream();
    let entry = goods::entry(&upstream, "an index entry", "small", 3_000);
    let archive = goods::archive(&upstream, "a crate", "slim", 11_000);
    let site = Site::new(play.larder, &upstream.url());
    let larder = site.serve(&[]);
    for good in [&entry, &archive] {
        assert_eq!(larder.get(&good.path).status, 200, "{}", good.what);
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
    fill(&site).expect("the temporary folder has room for a million links");
    for _ in 0..play.rounds {
        row.push(start(), json!({"with_two_entries": rounded(few)}));
    }
    vec![row]
}

/// Multiplies what the store holds.
fn fill(site: &Site) -> io::Result<()> {
    let entry = find(site.store(), "small")?;
    let crates = site.store().join("v1/blobs");
    let archive = find(&crates, "")?;
    // Below `index/sm/al`, as all names of five letters and more.
    let index = entry.ancestors().nth(3).unwrap_or(&entry);
    multiply(&entry, |number| {
        index.join(format!(
            "{:02x}/{:02x}/x{number}",
            number % 251,
            number % 241
        ))
    })?;
    multiply(&archive, |number| {
        crates.join(format!("{:02x}/{number:062x}", number % 256))
    })
}

/// Links `EACH` times to this file, or to copies of it.
fn multiply(file: &Path, place: impl Fn(usize) -> PathBuf) -> io::Result<()> {
    let mut source = file.to_owned();
    for number in 0..EACH {
        let link = place(number);
        if number % LINKS == 0 {
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

/// The first file of this name, or of any, below a folder.
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
