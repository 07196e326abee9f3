//! Each seed in its target once, without an engine. Inputs that once failed are among the seeds.

#![allow(clippy::unwrap_used, reason = "a failed precondition is a failure")]

use std::fs;
use std::path::Path;

use fuzz::TARGETS;

#[test]
fn seeds_pass_their_targets() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    for (name, target) in TARGETS {
        let mut count = 0;
        for seed in fs::read_dir(seeds.join(name)).unwrap() {
            let path = seed.unwrap().path();
            // Shown only if the target fails.
            println!("{}", path.display());
            target(&fs::read(path).unwrap());
            count += 1;
        }
        assert!(count >= 3, "{name} has {count} seeds");
    }
    assert_eq!(fs::read_dir(seeds).unwrap().count(), TARGETS.len());
}
