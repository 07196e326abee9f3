//! Makes worlds of rustup from random choices.

use fake_upstream::{HOST, WASM};

use super::{Event, PathToolchain, Place, Release, Removed, Request, RustupWorld, WORK_FOLDER};
use crate::dice::Dice;
use crate::harm::{Harm, How};

/// A target that only some releases have.
const RARE_TARGET: &str = "thumbv8m.base-none-eabi";
/// The day of a nightly that has everything. Without one, rustup would ask for each day since 2014.
const OLDEST_NIGHTLY: &str = "2026-04-12";
/// Days of later nightlies, in their order.
const NIGHTLIES: [&str; 4] = ["2026-04-13", "2026-04-14", "2026-04-16", "2026-04-17"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Empty,
    Lazy,
    Installed,
    Warmed,
    WarmedLess,
    Evicted,
    Damaged,
    Older,
}

impl State {
    fn words(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Lazy => "filled by another toolchain's install",
            Self::Installed => "filled by the same install",
            Self::Warmed => "warmed",
            Self::WarmedLess => "warmed for less",
            Self::Evicted => "with evictions",
            Self::Damaged => "damaged",
            Self::Older => "warmed before releases",
        }
    }
}

impl RustupWorld {
    pub(crate) fn random(dice: &mut Dice) -> Self {
        let releases = releases(dice);
        let request = request(dice, &releases);
        let state = dice.weighted(&[
            (4, State::Empty),
            (12, State::Lazy),
            (15, State::Installed),
            (22, State::Warmed),
            (10, State::WarmedLess),
            (14, State::Evicted),
            (11, State::Damaged),
            (12, State::Older),
        ]);
        let settings: &[Option<&str>] = &[
            None,
            None,
            None,
            Some("version = \"12\"\nprofile = \"minimal\"\n"),
            Some("version = \"12\"\ndefault_toolchain = \"stable\"\nprofile = \"default\"\n"),
        ];
        let settings = dice.pick(settings).map(str::to_owned);
        let mut settings = place_settings(&request).or(settings);
        if dice.chance(8) {
            let host = *dice.pick(&[HOST, HOST, "aarch64-unknown-linux-gnu"]);
            let text = settings.unwrap_or_else(|| "version = \"12\"\n".to_owned());
            settings = Some(format!("default_host_triple = \"{host}\"\n{text}"));
        }
        let installed = dice.chance(20).then(|| installable(dice, &releases));
        let mut story = Story {
            dice,
            releases: releases.clone(),
            request: &request,
            events: Vec::new(),
        };
        story.fill(state);
        story.middle();
        story.harm(state);
        story.gc();
        let events = story.events;
        let is_rot = |event: &Event| matches!(event, Event::Harm(harm) if harm.how == How::Flip);
        Self {
            state: state.words().to_owned(),
            releases,
            rustup: (*dice.pick(&["1.29.0", "1.29.0", "1.30.0"])).to_owned(),
            settings,
            installed,
            max_age: (*dice.pick(&["0s", "0s", "60s", "1h"])).to_owned(),
            format: dice.chance(15).then(|| "gz".to_owned()),
            verify: events.iter().any(is_rot) || dice.chance(15),
            events,
            is_by_proxy: match request.place {
                Place::Command => false,
                Place::Legacy | Place::Toml => request.path.is_some() || dice.chance(30),
                Place::Default | Place::Override => true,
            },
            has_host: !matches!(request.place, Place::Default | Place::Override)
                && request.path.is_none()
                && dice.chance(7),
            joins_targets: dice.chance(30),
            request,
        }
    }
}

/// The user's settings that name the wanted toolchain, if no command or file does.
fn place_settings(request: &Request) -> Option<String> {
    let channel = request.channel.as_deref()?;
    let profile = request.profile.as_deref().unwrap_or("default");
    let start = format!("version = \"12\"\nprofile = \"{profile}\"\n");
    match request.place {
        Place::Default => Some(format!("default_toolchain = \"{channel}-{HOST}\"\n{start}")),
        Place::Override => Some(format!(
            "{start}\n[overrides]\n\"{WORK_FOLDER}\" = \"{channel}-{HOST}\"\n"
        )),
        Place::Command | Place::Legacy | Place::Toml => None,
    }
}

/// A toolchain of one of these releases that a user may have, often with more than the profile.
fn installable(dice: &mut Dice, releases: &[Release]) -> Request {
    let release = dice.pick(releases);
    Request {
        place: Place::Command,
        path: None,
        channel: Some(if dice.chance(70) {
            release.channel.clone()
        } else {
            release.version.clone()
        }),
        profile: Some((*dice.pick(&["minimal", "minimal", "default"])).to_owned()),
        components: dice.some(
            &[
                "clippy".to_owned(),
                "rustfmt".to_owned(),
                "rust-src".to_owned(),
            ],
            35,
        ),
        targets: dice.some(&[WASM.to_owned()], 35),
    }
}

fn release(dice: &mut Dice, channel: &str, version: &str, date: &str) -> Release {
    let packages =
        ["clippy-preview", "rustfmt-preview", "rust-docs", "rust-std"].map(str::to_owned);
    let is_nightly = channel == "nightly";
    Release {
        channel: channel.to_owned(),
        version: version.to_owned(),
        date: date.to_owned(),
        targets: if dice.chance(30) {
            vec![RARE_TARGET.to_owned()]
        } else {
            Vec::new()
        },
        unavailable: if dice.chance(if is_nightly { 50 } else { 5 }) {
            dice.some(&packages, 30)
        } else {
            Vec::new()
        },
        is_gz_only: dice.chance(10),
    }
}

fn releases(dice: &mut Dice) -> Vec<Release> {
    let mut all = Vec::new();
    if dice.chance(40) {
        all.push(release(dice, "stable", "1.94.0", "2026-03-05"));
    }
    all.push(release(dice, "stable", "1.95.0", "2026-04-16"));
    if dice.chance(30) {
        all.push(release(dice, "beta", "1.96.0-beta.3", "2026-04-20"));
    }
    let days = dice.some(&NIGHTLIES, 50);
    if !days.is_empty() {
        all.push(Release {
            targets: vec![RARE_TARGET.to_owned()],
            unavailable: Vec::new(),
            is_gz_only: false,
            ..release(dice, "nightly", "1.97.0-nightly", OLDEST_NIGHTLY)
        });
    }
    for day in days {
        all.push(release(dice, "nightly", "1.97.0-nightly", day));
    }
    all
}

fn request(dice: &mut Dice, releases: &[Release]) -> Request {
    let wanted = dice.pick(releases);
    let channel = channel(dice, wanted);
    let place = dice.weighted(&[(45, Place::Command), (15, Place::Legacy), (40, Place::Toml)]);
    let place = if dice.chance(12) {
        *dice.pick(&[Place::Default, Place::Override])
    } else {
        place
    };
    let components = [
        "clippy",
        "rustfmt",
        "rust-src",
        "rust-docs",
        "clippy-preview",
        "miri",
    ];
    let components = components.map(str::to_owned);
    let targets = [WASM, HOST, RARE_TARGET].map(str::to_owned);
    let mut request = Request {
        place,
        path: None,
        channel: Some(channel),
        profile: [
            None,
            Some("minimal"),
            Some("minimal"),
            Some("default"),
            Some("complete"),
        ][dice.between(0, 4)]
        .map(str::to_owned),
        components: if dice.chance(45) {
            dice.some(&components[..5], 30)
        } else {
            Vec::new()
        },
        targets: if dice.chance(35) {
            dice.some(&targets, 45)
        } else {
            Vec::new()
        },
    };
    let is_nightly = request
        .channel
        .as_ref()
        .is_some_and(|channel| channel.starts_with("nightly"));
    if !is_nightly && dice.chance(3) {
        request.components.push(components[5].clone());
    }
    let has_lists = !request.components.is_empty() || !request.targets.is_empty();
    if place == Place::Toml && has_lists && dice.chance(15) {
        request.channel = None;
    }
    if matches!(place, Place::Default | Place::Override) {
        request.components.clear();
        request.targets.clear();
    }
    if place == Place::Toml && dice.chance(6) {
        request = Request {
            place,
            channel: None,
            path: Some(*dice.pick(&[
                PathToolchain::Absolute,
                PathToolchain::Absolute,
                PathToolchain::Relative,
                PathToolchain::Missing,
            ])),
            profile: None,
            components: Vec::new(),
            targets: Vec::new(),
        };
    }
    request
}

fn channel(dice: &mut Dice, release: &Release) -> String {
    let Release {
        channel,
        version,
        date,
        ..
    } = release;
    let short = version
        .rsplit_once('.')
        .map_or(version.as_str(), |(short, _)| short);
    match (channel.as_str(), dice.between(0, 19)) {
        (_, 0) => "1.12.0".to_owned(),
        (_, 1) => {
            let arch = HOST.split('-').next().unwrap_or(HOST);
            let host = [HOST, arch, "gnu", "musl", "unknown-linux-gnu"][dice.between(0, 4)];
            format!("{channel}-{host}")
        }
        (_, 2) => format!("{channel}-2026-04-15"),
        ("stable", 3..=6) => version.clone(),
        ("stable", 7..=9) => short.to_owned(),
        ("beta", 3..=5) => version.clone(),
        (_, 10..=13) => format!("{channel}-{date}"),
        _ => channel.clone(),
    }
}

struct Story<'a> {
    dice: &'a mut Dice,
    /// All releases so far.
    releases: Vec<Release>,
    request: &'a Request,
    events: Vec<Event>,
}

impl Story<'_> {
    fn fill(&mut self, state: State) {
        let (same, wanted) = (self.as_command(), self.request.clone());
        let event = match state {
            State::Empty => return,
            State::Lazy => Event::Install(self.other()),
            State::Installed => Event::Install(same),
            State::Warmed | State::Older => Event::Warm(wanted),
            State::WarmedLess => Event::Warm(self.less()),
            State::Evicted | State::Damaged if self.dice.chance(40) => Event::Install(same),
            State::Evicted | State::Damaged => Event::Warm(wanted),
        };
        self.events.push(event);
        if state == State::Older {
            self.release();
            if self.dice.chance(70) {
                self.online();
            }
        }
    }

    /// The request as one that another user can make.
    fn as_command(&self) -> Request {
        let mut request = self.request.clone();
        if matches!(request.place, Place::Default | Place::Override) {
            request.place = Place::Command;
        }
        if request.path.take().is_some() {
            request.channel = Some("stable".to_owned());
        }
        request
    }

    /// `larder gc`, after which clients or `warm` may use the store again.
    fn gc(&mut self) {
        if !self.dice.chance(12) {
            return;
        }
        let flags: &[&[&str]] = &[
            &["--max-size", "0"],
            &["--max-size", "0", "--keep-last-nightlies", "1"],
            &["--keep-last-stables", "1"],
            &["--older-than", "0s"],
        ];
        let flags = self.dice.pick(flags);
        self.events.push(Event::Gc(
            flags.iter().map(|&flag| flag.to_owned()).collect(),
        ));
        if self.dice.chance(25) {
            self.online();
        }
    }

    fn other(&mut self) -> Request {
        let mut other = request(self.dice, &self.releases.clone());
        if matches!(other.place, Place::Default | Place::Override) {
            other.place = Place::Command;
        }
        if other.path.take().is_some() {
            other.channel = Some("stable".to_owned());
        }
        other
    }

    /// A request for less of the same.
    fn less(&mut self) -> Request {
        let mut less = self.request.clone();
        if self.dice.chance(60) {
            less.components.clear();
        }
        if self.dice.chance(60) {
            less.targets.clear();
        }
        if self.dice.chance(60) {
            less.profile = Some("minimal".to_owned());
        }
        less.place = Place::Command;
        less.path = None;
        less.channel.get_or_insert_with(|| "stable".to_owned());
        less
    }

    fn middle(&mut self) {
        for _ in 0..self.dice.weighted(&[(50, 0), (30, 1), (15, 2), (5, 3)]) {
            match self.dice.between(0, 7) {
                0..=2 => self.release(),
                3 => {
                    let version = *self.dice.pick(&["1.29.0", "1.30.0", "1.31.0"]);
                    self.events.push(Event::ReleaseRustup(version.to_owned()));
                }
                4 => self.remove(),
                5 => self.outage(),
                _ => self.online(),
            }
            if self.dice.chance(50) {
                self.online();
            }
        }
    }

    /// Something that makes larder ask upstream.
    fn online(&mut self) {
        let same = self.as_command();
        let event = match self.dice.between(0, 10) {
            10 => Event::OwnInstall(installable(self.dice, &self.releases.clone())),
            0 if self.dice.chance(50) => Event::OwnInstall(same),
            0 | 1 => Event::Install(same),
            2 | 3 => Event::Install(self.other()),
            4 | 5 => Event::Check(same),
            6 => Event::Warm(self.request.clone()),
            7 => Event::Warm(self.less()),
            _ => Event::Warm(self.other()),
        };
        self.events.push(event);
    }

    fn outage(&mut self) {
        let event = if self.dice.chance(50) {
            Event::Down
        } else {
            Event::Broken
        };
        self.events.push(event);
        self.online();
        self.events.push(Event::Up);
    }

    fn release(&mut self) {
        let (channel, version, date) = *self.dice.pick(&[
            ("stable", "1.95.1", "2026-05-07"),
            ("stable", "1.96.0", "2026-05-28"),
            ("beta", "1.97.0-beta.1", "2026-05-30"),
            ("nightly", "1.98.0-nightly", "2026-04-18"),
            ("nightly", "1.98.0-nightly", "2026-04-20"),
        ]);
        let is_known = |other: &Release| other.channel == channel && other.date.as_str() >= date;
        if self.releases.iter().any(is_known) {
            return;
        }
        let release = release(self.dice, channel, version, date);
        self.releases.push(release.clone());
        self.events.push(Event::Release(release));
    }

    fn remove(&mut self) {
        let release = self.dice.pick(&self.releases).clone();
        if release.date == OLDEST_NIGHTLY {
            return;
        }
        let packages = ["rustc", "cargo", "rust-std", "clippy-preview", "rust-src"];
        let removed = match self.dice.between(0, 5) {
            0 | 1 => Removed::Manifests,
            2 => Removed::RustupRelease,
            _ => Removed::Package((*self.dice.pick(&packages)).to_owned()),
        };
        self.events.push(Event::Remove(release, removed));
    }

    fn harm(&mut self, state: State) {
        let how = match state {
            State::Evicted => How::Delete,
            State::Damaged if self.dice.chance(50) => How::Flip,
            State::Damaged => How::Truncate,
            State::Empty
            | State::Lazy
            | State::Installed
            | State::Warmed
            | State::WarmedLess
            | State::Older => return,
        };
        let percents = [(40, 10), (40, 30), (10, 50), (10, 100)];
        let harm = Harm::random(self.dice, how, &percents);
        self.events.push(Event::Harm(harm));
        if self.dice.chance(15) {
            self.online();
        }
    }
}
