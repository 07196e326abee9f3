//! Makes worlds of cargo from random choices.

use fake_upstream::{HOST, WASM};

use super::{CargoWorld, Event, Question, QuestionPath, TruthBy};
use crate::dice::Dice;
use crate::harm::{Harm, How};
use crate::project::Project;
use crate::project::generate::{edited, project};
use crate::registry::generate::{Shelf, shelf};
use crate::registry::{CrateSpec, Dep, DepKind, RegistryName};

/// The way in which the store was filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Empty,
    Lazy,
    Fetched,
    Warmed,
    WarmedForTarget,
    Evicted,
    Damaged,
    Older,
}

impl State {
    fn words(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Lazy => "filled by another project",
            Self::Fetched => "filled by cargo fetch",
            Self::Warmed => "warmed",
            Self::WarmedForTarget => "warmed for a target",
            Self::Evicted => "with evictions",
            Self::Damaged => "damaged",
            Self::Older => "warmed before releases",
        }
    }
}

/// A target besides the host.
const WINDOWS: &str = "x86_64-pc-windows-msvc";

impl CargoWorld {
    /// A random world; its truth is a build if `is_build`.
    pub(crate) fn random(dice: &mut Dice, is_build: bool) -> Self {
        let shelf = shelf(dice);
        let project = project(dice, &shelf);
        let is_script = can_be_script(&project) && dice.chance(15);
        let is_vendored = !is_script && dice.chance(9);
        let is_locked = !is_script && (is_vendored || dice.chance(85));
        let state = dice.weighted(&[
            (5, State::Empty),
            (13, State::Lazy),
            (13, State::Fetched),
            (25, State::Warmed),
            (10, State::WarmedForTarget),
            (14, State::Evicted),
            (12, State::Damaged),
            (8, State::Older),
        ]);
        let targets = targets(dice, state, is_build);
        let mut story = Story {
            dice,
            shelf: &shelf,
            project: &project,
            events: Vec::new(),
            has_edits: false,
            is_vendored,
            is_script,
        };
        story.fill(state, &targets);
        story.middle();
        story.harm(state);
        story.gc();
        story.add();
        let (events, has_edits) = (story.events, story.has_edits);
        let is_outside_home = dice.chance(25);
        let question = Question {
            path: if is_script {
                QuestionPath::Project
            } else {
                question_path(dice, &project, &events, is_locked)
            },
            ..question(dice, &events, targets, is_build, has_edits)
        };
        let has_lock_elsewhere = (!is_script && question.path != QuestionPath::Lock)
            .then(|| dice.chance(6).then(|| dice.chance(60)));
        let git_deps = if project.has_git() && dice.chance(50) {
            shelf.dep(dice, &[]).into_iter().collect()
        } else {
            Vec::new()
        };
        Self {
            state: state.words().to_owned(),
            crates: shelf.crates,
            project,
            is_locked,
            is_vendored,
            is_outside_home,
            is_script,
            has_lock_elsewhere: has_lock_elsewhere.flatten(),
            lock_version: dice.chance(12).then(|| *dice.pick(&[2, 3])),
            is_corp_unknown: dice.chance(8),
            git_deps,
            has_mirror: !is_script && !is_vendored && dice.chance(3),
            joins_targets: dice.chance(50),
            max_age: (*dice.pick(&["0s", "0s", "60s", "1h"])).to_owned(),
            events,
            question,
        }
    }
}

/// True if a cargo script can have all that the project has.
fn can_be_script(project: &Project) -> bool {
    let is_plain = |dep: &Dep| dep.kind == DepKind::Normal && !dep.is_optional;
    project.packages.len() == 1 && project.workspace.is_none() && project.deps().all(is_plain)
}

/// The targets of a `warm` for targets.
fn targets(dice: &mut Dice, state: State, is_build: bool) -> Vec<String> {
    let sets: &[&[&str]] = &[&[HOST], &[HOST], &[WASM], &[WINDOWS], &[HOST, WASM]];
    let is_chosen = state == State::WarmedForTarget || dice.chance(10);
    let set: &[&str] = match (is_chosen, is_build) {
        (true, false) => sets[dice.between(0, sets.len() - 1)],
        (_, true) if is_chosen || dice.chance(80) => &[HOST],
        _ => &[],
    };
    set.iter().map(|&target| target.to_owned()).collect()
}

fn question(
    dice: &mut Dice,
    events: &[Event],
    warmed: Vec<String>,
    is_build: bool,
    has_edits: bool,
) -> Question {
    let is_rot = |event: &Event| matches!(event, Event::Harm(harm) if harm.how == How::Flip);
    // Only a build for the host proves anything about other targets.
    let targets = match dice.between(0, 9) {
        0 => Vec::new(),
        1 if !is_build => vec![WASM.to_owned()],
        _ => warmed,
    };
    let truth = match is_build {
        false => TruthBy::Fetch,
        // Without `--locked`, cargo would change a lock file that does not fit, of which `check` says so.
        true if !has_edits && dice.chance(25) => TruthBy::PlainBuild,
        true if dice.chance(35) => TruthBy::Test,
        true => TruthBy::Build,
    };
    Question {
        verify: events.iter().any(is_rot) || dice.chance(15),
        targets,
        truth,
        path: QuestionPath::Project,
    }
}

fn question_path(
    dice: &mut Dice,
    project: &Project,
    events: &[Event],
    is_locked: bool,
) -> QuestionPath {
    let keeps_lock = !events.contains(&Event::DeleteLock);
    let member = project.packages.iter().find(|package| {
        project.workspace.is_some()
            && !package.folder.is_empty()
            && !package.folder.starts_with("patched/")
    });
    match (dice.between(0, 19), member) {
        (0..=2, Some(member)) => QuestionPath::Member(member.folder.clone()),
        (3, _) => QuestionPath::Manifest,
        (4, _) if is_locked && keeps_lock => QuestionPath::Lock,
        (5, _) => QuestionPath::Above,
        _ => QuestionPath::Project,
    }
}

/// The story while it is made up.
struct Story<'a> {
    dice: &'a mut Dice,
    shelf: &'a Shelf,
    project: &'a Project,
    events: Vec<Event>,
    has_edits: bool,
    is_vendored: bool,
    is_script: bool,
}

impl Story<'_> {
    fn fill(&mut self, state: State, targets: &[String]) {
        let warm = |targets: &[String]| Event::Warm {
            targets: targets.to_vec(),
        };
        let event = match state {
            State::Empty => return,
            State::Lazy => self.fetch_other(),
            State::Fetched => Event::Fetch,
            State::Warmed | State::Older => warm(&[]),
            State::WarmedForTarget => warm(targets),
            State::Evicted | State::Damaged if self.dice.chance(40) => Event::Fetch,
            State::Evicted | State::Damaged => warm(&[]),
        };
        self.events.push(event);
        if state == State::Older {
            self.publish();
            let event = if self.dice.chance(60) {
                Event::Update
            } else {
                Event::DeleteLock
            };
            self.events.push(event);
            // The changed project may be warmed again, when upstream is there or not.
            if self.dice.chance(30) {
                self.events.push(warm(&[]));
            }
        }
    }

    /// Events between the first filling and the end.
    fn middle(&mut self) {
        if self.is_vendored && self.dice.chance(25) {
            self.events.push(Event::LoseVendored {
                percent: *self.dice.pick(&[20, 50, 100]),
                salt: self.dice.number(),
            });
        }
        for _ in 0..self.dice.weighted(&[(50, 0), (30, 1), (15, 2), (5, 3)]) {
            match self.dice.between(0, 9) {
                0 | 1 => self.publish(),
                2 => self.yank(),
                3 => self.remove(),
                4 => self.outage(),
                5 | 6 => self.edit(),
                7 => self.events.push(Event::DeleteLock),
                8 => self.events.push(Event::Update),
                _ => self.online(),
            }
            if self.dice.chance(40) {
                self.online();
            }
        }
    }

    /// Something that makes larder ask upstream.
    fn online(&mut self) {
        let event = match self.dice.between(0, 4) {
            0 => Event::Fetch,
            1 => Event::Warm {
                targets: Vec::new(),
            },
            2 => Event::Daemon,
            _ => self.fetch_other(),
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

    fn fetch_other(&mut self) -> Event {
        let count = self.dice.between(1, 3);
        let mut deps = Vec::new();
        for _ in 0..count {
            deps.extend(self.shelf.dep(self.dice, &deps));
        }
        Event::FetchOther { deps }
    }

    fn publish(&mut self) {
        let package = self.shelf.newer(self.dice);
        self.events.push(Event::Publish(package));
    }

    fn victim(&mut self) -> (RegistryName, String, String) {
        let CrateSpec {
            registry,
            name,
            version,
            ..
        } = self.dice.pick(&self.shelf.crates);
        (*registry, name.clone(), version.clone())
    }

    fn yank(&mut self) {
        let (registry, name, version) = self.victim();
        let is_same = |event: &Event| matches!(event, Event::Yank { name: n, version: v, .. } if *n == name && *v == version);
        let is_gone =
            |event: &Event| matches!(event, Event::RemoveEntry { name: n, .. } if *n == name);
        if !self
            .events
            .iter()
            .any(|event| is_same(event) || is_gone(event))
        {
            self.events.push(Event::Yank {
                registry,
                name,
                version,
            });
        }
    }

    fn remove(&mut self) {
        let (registry, name, version) = self.victim();
        let event = if self.dice.chance(60) {
            Event::RemoveEntry { registry, name }
        } else {
            Event::RemoveCrate {
                registry,
                name,
                version,
            }
        };
        self.events.push(event);
    }

    fn edit(&mut self) {
        self.has_edits = true;
        let mut edits = self.events.iter().rev();
        let last = edits.find(|event| matches!(event, Event::Edit(_)));
        let project = match last {
            Some(Event::Edit(project)) => project.clone(),
            Some(_) | None => self.project.clone(),
        };
        let edited = edited(self.dice, project, self.shelf);
        if self.is_script && !can_be_script(&edited) {
            return;
        }
        self.events.push(Event::Edit(edited));
        if self.dice.chance(25) {
            self.events.push(Event::Update);
        }
    }

    /// `larder gc`, after which the store may be used again.
    fn gc(&mut self) {
        if !self.dice.chance(10) {
            return;
        }
        let flags: &[&[&str]] = &[&["--max-size", "0"], &["--older-than", "0s"]];
        let flags = self.dice.pick(flags);
        let flags = flags.iter().map(|&flag| flag.to_owned()).collect();
        self.events.push(Event::Gc { flags });
        if self.dice.chance(25) {
            self.online();
        }
    }

    /// `cargo add`, offline or not.
    fn add(&mut self) {
        let has_package = self
            .project
            .packages
            .iter()
            .any(|package| package.folder.is_empty());
        if self.is_script || !has_package || !self.dice.chance(8) {
            return;
        }
        self.has_edits = true;
        let (registry, package, _) = self.victim();
        // A package that needs one crate by two names cannot be built, though its crates can be fetched.
        let is_known = self.project.deps().any(|dep| dep.package == package);
        if registry == RegistryName::CratesIo && !is_known {
            let is_offline = self.dice.chance(60);
            self.events.push(Event::Add {
                package,
                is_offline,
            });
        }
    }

    fn harm(&mut self, state: State) {
        let how = match state {
            State::Evicted => How::Delete,
            State::Damaged if self.dice.chance(50) => How::Flip,
            State::Damaged => How::Truncate,
            State::Empty
            | State::Lazy
            | State::Fetched
            | State::Warmed
            | State::WarmedForTarget
            | State::Older => return,
        };
        let percents = [(30, 10), (40, 30), (20, 50), (10, 100)];
        let harm = Harm::random(self.dice, how, &percents);
        self.events.push(Event::Harm(harm));
        if self.dice.chance(15) {
            // The store is used again, with upstream or without.
            self.online();
        }
    }
}
