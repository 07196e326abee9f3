//! [`PinReadiness`]: whether each warmed project, toolchain and crate works offline, for `status` and `list`.
//!
//! | state | says | judged by |
//! |---|---|---|
//! | ready | a build or an install works offline | the functions of `larder check`, now |
//! | complete | all files that it needed when it was warmed are stored | the pin alone |
//! | not ready | something is missing | either |
//!
//! These commands must answer at once, so they never start cargo. Where `larder check` would ask cargo, as for a
//! project without a lock file, the state is "complete" at best. The same holds where no file states the request, as
//! for `larder warm --toolchain`. So nothing is called ready that `larder check` would not call ready.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Serialize;
use tokio::time::timeout;

use super::check::judge_settings;
use crate::{
    app::App,
    check,
    config::Settings,
    overview::{ProjectState, project_states},
    plan::{self, Inventory, PlanRequest, ToolchainOptions},
    projects, script,
    store::{Owner, Pin, StoreError},
};

/// Longest wait for the judgement: a project may lie on a mount whose server does not answer.
const JUDGE_TIMEOUT: Duration = Duration::from_secs(10);

/// Readiness of a project, toolchain or crate for offline use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ReadinessState {
    /// It does.
    Ready,
    /// All files that it needed when it was warmed are stored. `larder check` tells more.
    Complete,
    /// Something is missing.
    NotReady,
}

impl ReadinessState {
    /// The word for people.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Complete => "complete",
            Self::NotReady => "not ready",
        }
    }
}

/// A warmed project, toolchain or crate, and whether it works offline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct PinReadiness {
    /// The owner of the pin, as `larder forget` takes it.
    pub(super) owner: String,
    /// Its readiness for offline use.
    pub(super) state: ReadinessState,
    /// Number of crates that it needed when it was warmed.
    pub(super) packages: usize,
    /// Number of archives of toolchains.
    pub(super) components: usize,
    /// The missing parts.
    pub(super) missing: Vec<String>,
    /// Reasons why it cannot be told whether it is ready.
    pub(super) unknown: Vec<String>,
    /// True if its file no longer exists.
    pub(super) gone: bool,
}

/// Missing parts, and problems, that are named one by one. Of more, only this number is named.
const NAMED_PARTS: usize = 3;

impl PinReadiness {
    /// The missing parts that a fetch may bring: those without a reason beside them.
    pub(super) fn unstored(&self) -> impl Iterator<Item = &str> {
        let missing = self.missing.iter().map(String::as_str);
        missing.filter(|part| !part.contains(": "))
    }

    /// The reasons against readiness, in a few lines: problems, then the names of missing parts.
    pub(super) fn problems(&self) -> Vec<String> {
        let reasoned = self.missing.iter().filter(|part| part.contains(": "));
        let mut lines: Vec<_> = reasoned.clone().take(NAMED_PARTS).cloned().collect();
        match reasoned.count().saturating_sub(NAMED_PARTS) {
            0 => {}
            more => lines.push(format!(
                "and {more} more problems; `larder check` lists them"
            )),
        }
        let names: Vec<_> = self.unstored().collect();
        let named = names.len().min(NAMED_PARTS);
        let more = match names.len() - named {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        if named > 0 {
            lines.push(format!("missing: {}{more}", names[..named].join(", ")));
        }
        let unknown = self.unknown.iter();
        lines.extend(unknown.map(|unknown| format!("unknown: {unknown}")));
        lines
    }
}

/// The judgement of `check` about one file.
#[derive(Debug, Default)]
struct Judgement {
    missing: Vec<String>,
    unknown: Vec<String>,
}

/// The readiness of each of `pins`, in their order. Neither upstream nor cargo is asked.
///
/// # Errors
/// The store cannot be read.
pub(super) async fn readiness_of(
    settings: &Settings,
    app: &App,
    pins: &[Pin],
) -> Result<Vec<PinReadiness>, StoreError> {
    let states = project_states(&app.store, pins).await?;
    // Boxed, because the plan is large.
    let judging = Box::pin(judge(settings, app, pins));
    let judged = match timeout(JUDGE_TIMEOUT, judging).await {
        Ok(judged) => judged?,
        Err(_) => BTreeMap::new(),
    };
    let readiness = states.into_iter().map(|state| {
        let judged = judged.get(&state.owner).filter(|_| !state.is_gone);
        PinReadiness::new(state, judged)
    });
    Ok(readiness.collect())
}

impl PinReadiness {
    fn new(found: ProjectState, judged: Option<&Judgement>) -> Self {
        // A changed lock file may no longer need what the pin needs.
        let missing = match judged {
            Some(judged) if judged.unknown.is_empty() || !judged.missing.is_empty() => {
                judged.missing.clone()
            }
            Some(_) | None => found.missing,
        };
        let unknown = judged.map_or_else(Vec::new, |judged| judged.unknown.clone());
        Self {
            state: match (missing.is_empty(), judged) {
                (false, _) => ReadinessState::NotReady,
                (true, Some(judged)) if judged.unknown.is_empty() => ReadinessState::Ready,
                (true, _) => ReadinessState::Complete,
            },
            owner: found.owner.to_string(),
            packages: found.packages,
            components: found.components,
            missing,
            unknown,
            gone: found.is_gone,
        }
    }
}

/// The verdict of `larder check` on the files that own pins, as far as it needs no cargo.
async fn judge(
    settings: &Settings,
    app: &App,
    pins: &[Pin],
) -> Result<BTreeMap<Owner, Judgement>, StoreError> {
    let files = pins.iter().filter_map(|pin| match &pin.owner {
        Owner::File(path) if script::is_script(path) => None,
        Owner::File(path) => Some(path.clone()),
        Owner::Toolchain(_) | Owner::Crate(_) | Owner::Dependency(_) => None,
    });
    let request = PlanRequest {
        paths: existing(files.collect()).await,
        is_current_optional: true,
        cargo_home: settings.cargo_home.clone(),
        toolchains: ToolchainOptions {
            rustup_settings: settings.rustup_settings.clone(),
            rustup_toolchain: settings.client_variables.rustup_toolchain(),
            cargo_in_path: settings.client_variables.cargo_in_path(),
            ..ToolchainOptions::default()
        },
    };
    let mut judged = BTreeMap::new();
    if request.paths.is_empty() {
        return Ok(judged);
    }
    let mut plan = plan::plan(request, &app.upstreams.registries).await;
    plan.exclude_as_in(pins);
    let inventory = Inventory::new(&app.cache, &app.store, &app.upstreams);
    plan.compare_locks(&inventory).await;
    judge_settings(&mut plan, settings, app).await;
    // Problems with paths are no missing files of rustup.
    plan.failed.clear();
    let projects: Vec<_> = plan.projects.iter().map(plan::ProjectPlan::owner).collect();
    let unasked: BTreeSet<_> = plan.unasked_projects().collect();
    let toolchains: Vec<_> = plan
        .toolchains
        .iter()
        .map(|plan| plan.owner.clone())
        .collect();
    let found = check::check(&app.cache, &app.store, &app.upstreams, plan, false).await?;
    for (owner, project) in projects.into_iter().zip(found.projects) {
        let mut unknown = project.unknown;
        if unasked.contains(&owner) {
            unknown.push("only cargo can tell what it needs; `larder check` asks it".to_owned());
        }
        let missing = project.missing.iter().map(ToString::to_string).collect();
        judged.insert(owner, Judgement { missing, unknown });
    }
    for (owner, toolchain) in toolchains.into_iter().zip(found.toolchains) {
        // Every install of a toolchain needs the files of rustup itself that are missing.
        let missing = toolchain.missing.iter().chain(&found.failed);
        let judgement = Judgement {
            missing: missing.map(ToString::to_string).collect(),
            unknown: Vec::new(),
        };
        judged.insert(owner, judgement);
    }
    Ok(judged)
}

/// Those of `paths` that exist.
async fn existing(paths: Vec<PathBuf>) -> Vec<PathBuf> {
    let looking = tokio::task::spawn_blocking(move || {
        let is_there = |path: &PathBuf| Path::try_exists(path).unwrap_or(false);
        paths.into_iter().filter(is_there).collect()
    });
    looking.await.unwrap_or_default()
}

/// The kind of thing that owns a pin: `project`, `toolchain`, `crate` or `dependency`.
pub(super) fn kind_of(owner: &Owner) -> &'static str {
    match owner {
        Owner::File(path) if projects::is_toolchain_file(path) => "toolchain",
        Owner::File(_) => "project",
        Owner::Toolchain(_) => "toolchain",
        Owner::Crate(_) => "crate",
        Owner::Dependency(_) => "dependency",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(missing: &[&str]) -> ProjectState {
        ProjectState {
            owner: Owner::File("/p/Cargo.lock".into()),
            packages: 1,
            components: 0,
            missing: missing.iter().map(|what| (*what).to_owned()).collect(),
            is_gone: false,
        }
    }

    #[test]
    fn problems_come_before_the_names_of_missing_parts_which_share_a_line() {
        let missing = ["a", "b", "c", "Cargo.lock does not fit: why", "d"];
        let mut readiness = PinReadiness::new(state(&missing), None);
        readiness.unknown.push("this".to_owned());
        let expected = [
            "Cargo.lock does not fit: why",
            "missing: a, b, c and 1 more",
            "unknown: this",
        ];
        assert_eq!(readiness.problems(), expected);
        assert_eq!(readiness.unstored().count(), 4);
    }

    #[test]
    fn nothing_is_ready_unless_check_calls_it_ready() {
        let state_of = |missing: &[&str], judged: Option<(&[&str], &[&str])>| {
            let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
            let judged = judged.map(|(missing, unknown)| Judgement {
                missing: texts(missing),
                unknown: texts(unknown),
            });
            PinReadiness::new(state(missing), judged.as_ref()).state
        };
        assert_eq!(state_of(&[], Some((&[], &[]))), ReadinessState::Ready);
        assert_eq!(
            state_of(&[], Some((&["left"], &[]))),
            ReadinessState::NotReady
        );
        assert_eq!(
            state_of(&[], Some((&[], &["why"]))),
            ReadinessState::Complete
        );
        assert_eq!(
            state_of(&["left"], Some((&[], &["why"]))),
            ReadinessState::NotReady
        );
        assert_eq!(state_of(&[], None), ReadinessState::Complete);
        assert_eq!(state_of(&["left"], None), ReadinessState::NotReady);
        // The lock file no longer names it.
        assert_eq!(state_of(&["left"], Some((&[], &[]))), ReadinessState::Ready);
    }
}
