//! Random worlds, in which real cargo and rustup judge the verdict of `larder check`; see the crate `worlds`. Many more
//! run with `contrib/worlds/run`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use worlds::{Kept, Kind, World};

const LARDER: &str = env!("CARGO_BIN_EXE_larder");

/// Runs the worlds in two threads and fails with the report of each that disagrees.
#[track_caller]
fn assert_all_agree(worlds: Vec<(String, World)>) {
    let run = |worlds: &[(String, World)]| {
        let mut reports = String::new();
        for (name, world) in worlds {
            if let Some((finding, report)) = world.run(Path::new(LARDER)).disagreement() {
                let _ = writeln!(reports, "== {name}: {finding:?}\n{world}\n{report}");
            }
        }
        reports
    };
    let (left, right) = worlds.split_at(worlds.len() / 2);
    let reports = std::thread::scope(|scope| {
        let left = scope.spawn(|| run(left));
        run(right) + &left.join().unwrap()
    });
    assert!(reports.is_empty(), "{reports}");
}

#[test]
fn check_agrees_with_real_clients_in_a_few_random_worlds() {
    let worlds = Kind::ALL.into_iter().flat_map(|kind| {
        (0..5).map(move |seed| (format!("{kind:?} {seed}"), World::from_seed(kind, seed)))
    });
    assert_all_agree(worlds.collect());
}

#[test]
fn check_agrees_in_every_world_that_once_disagreed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/worlds/kept");
    let mut worlds = Vec::new();
    for file in fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let kept: Kept = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        worlds.push((format!("{}: {}", path.display(), kept.why), kept.world));
    }
    assert!(!worlds.is_empty());
    assert_all_agree(worlds);
}
