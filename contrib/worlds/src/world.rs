//! [`World`]: one description, of either kind, and the worlds that are kept as tests.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::cargo::CargoWorld;
use crate::dice::Dice;
use crate::outcome::Outcome;
use crate::rustup::RustupWorld;

/// The client that gives the truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `cargo fetch`.
    Cargo,
    /// `cargo build`.
    Build,
    /// `rustup toolchain install`.
    Rustup,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Cargo, Self::Build, Self::Rustup];
}

/// The description of a world.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum World {
    /// For cargo.
    Cargo(CargoWorld),
    /// For rustup.
    Rustup(RustupWorld),
}

/// A world that is kept as a test, with the reason.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Kept {
    /// The fault that this world has shown.
    pub why: String,
    /// The world.
    pub world: World,
}

impl World {
    /// The world of a seed. Another version of this crate may make another one of it.
    pub fn from_seed(kind: Kind, seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        match kind {
            Kind::Cargo => Self::Cargo(CargoWorld::random(&mut dice, false)),
            Kind::Build => Self::Cargo(CargoWorld::random(&mut dice, true)),
            Kind::Rustup => Self::Rustup(RustupWorld::random(&mut dice)),
        }
    }

    /// The state of larder's store at the end of the story, in a few words.
    pub fn state(&self) -> &str {
        match self {
            Self::Cargo(world) => &world.state,
            Self::Rustup(world) => &world.state,
        }
    }

    /// Builds the world on disk, lives its story, and compares the verdict of this larder with the truth.
    ///
    /// # Panics
    /// If the world cannot be built: the generator or a tool is at fault, not larder.
    pub fn run(&self, larder: &Path) -> Outcome {
        match self {
            Self::Cargo(world) => world.run(larder),
            Self::Rustup(world) => world.run(larder),
        }
    }
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cargo(world) => world.fmt(f),
            Self::Rustup(world) => world.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seed_gives_the_same_world_and_json_keeps_it() {
        for kind in Kind::ALL {
            for seed in 0..200 {
                let world = World::from_seed(kind, seed);
                assert_eq!(world, World::from_seed(kind, seed));
                let text = serde_json::to_string(&world).unwrap();
                assert_eq!(world, serde_json::from_str(&text).unwrap());
                assert!(world.to_string().lines().count() > 2, "{world}");
            }
        }
    }
}
