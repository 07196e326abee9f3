//! The subjects of `warm` and `check`: paths, toolchains and crates of the command line, of lists and of the settings.
//!
//! | named | projects |
//! |---|---|
//! | nothing | those of the current folder, if it has any, and what the settings file declares |
//! | paths | those |
//! | only `--toolchain`, `--crate` or `--list` | those of lists |

use std::path::{Path, PathBuf};

use super::CommandError;
use crate::{
    cli,
    config::{DeclaredSet, DeclaredToolchain, Settings},
    crate_spec::{CrateSpec, CrateUse},
    files,
    plan::{NamedToolchain, PlanRequest, ToolchainOptions},
};

/// Size limit of a list, in bytes.
const MAX_LIST_BYTES: u64 = 16 << 20;

/// The subjects of a command.
#[derive(Debug)]
pub(super) struct Selection {
    /// Projects and toolchains.
    pub(super) request: PlanRequest,
    /// Crates, each with its use.
    pub(super) crates: Vec<(CrateSpec, CrateUse)>,
}

impl Selection {
    /// Merges flags, lists and settings. `targets` are those of named toolchains.
    ///
    /// # Errors
    /// A list that cannot be used, or `--with-dependencies` without a crate.
    pub(super) fn new(
        settings: &Settings,
        paths: Vec<PathBuf>,
        crates: cli::Crates,
        toolchains: cli::Toolchains,
        targets: &[String],
    ) -> Result<Self, CommandError> {
        let usage = if crates.with_dependencies {
            CrateUse::Dependency
        } else {
            CrateUse::Install
        };
        let names_nothing = paths.is_empty()
            && crates.crates.is_empty()
            && crates.list.is_empty()
            && toolchains.toolchain.is_empty();
        let declared = Some(&settings.declared).filter(|set| names_nothing && !set.is_empty());
        let mut selection = Self {
            request: PlanRequest {
                paths,
                is_current_optional: declared.is_some(),
                cargo_home: settings.cargo_home.clone(),
                toolchains: toolchain_options(settings, toolchains, targets),
            },
            crates: crates
                .crates
                .into_iter()
                .map(|spec| (spec, usage))
                .collect(),
        };
        if names_nothing {
            selection.request.paths.push(PathBuf::from("."));
        }
        for list in &crates.list {
            selection.add_list(list, usage)?;
        }
        if let Some(declared) = declared {
            selection.add_declared(declared);
        }
        if crates.with_dependencies && selection.crates.is_empty() {
            return Err(CommandError::NoCrate);
        }
        Ok(selection)
    }

    fn add_list(&mut self, list: &Path, usage: CrateUse) -> Result<(), CommandError> {
        let unusable = |line, reason: String| CommandError::List {
            path: list.to_owned(),
            line,
            reason,
        };
        let text = files::read_named(list, MAX_LIST_BYTES).and_then(files::text);
        let text = text.map_err(|error| unusable(None, error.to_string()))?;
        let folder = list.parent().unwrap_or(Path::new(""));
        for (at, line) in text.lines().enumerate() {
            match parse_line(line) {
                Ok(None) => {}
                Ok(Some(ListLine::Path(path))) => self.request.paths.push(folder.join(path)),
                Ok(Some(ListLine::Crate(spec))) => self.crates.push((spec, usage)),
                Err(reason) => return Err(unusable(Some(at + 1), reason)),
            }
        }
        Ok(())
    }

    fn add_declared(&mut self, declared: &DeclaredSet) {
        self.request.paths.extend(declared.projects.iter().cloned());
        self.crates.extend(declared.crates.iter().cloned());
        let toolchains = declared.toolchains.iter().cloned();
        let named = toolchains.map(|toolchain| {
            let DeclaredToolchain {
                channel,
                profile,
                components,
                targets,
            } = toolchain;
            NamedToolchain {
                name: channel,
                profile,
                components,
                targets,
            }
        });
        self.request.toolchains.named.extend(named);
    }
}

/// The toolchains that the flags ask for, beyond those of toolchain files.
fn toolchain_options(
    settings: &Settings,
    flags: cli::Toolchains,
    targets: &[String],
) -> ToolchainOptions {
    let cli::Toolchains {
        toolchain,
        profile,
        component,
        host,
        bootstrap,
    } = flags;
    let named = toolchain.into_iter().map(|name| NamedToolchain {
        name,
        profile: profile.clone(),
        components: component.clone(),
        targets: targets.to_vec(),
    });
    ToolchainOptions {
        named: named.collect(),
        hosts: host,
        bootstrap,
        rustup_settings: settings.rustup_settings.clone(),
        rustup_toolchain: settings.client_variables.rustup_toolchain(),
        cargo_in_path: settings.client_variables.cargo_in_path(),
    }
}

/// A line of a list.
#[derive(Debug, PartialEq, Eq)]
enum ListLine {
    Path(PathBuf),
    Crate(CrateSpec),
}

/// Reads one line; `None` if it names nothing.
fn parse_line(line: &str) -> Result<Option<ListLine>, String> {
    let line = match line.split_once('#') {
        Some((before, _)) => before.trim(),
        None => line.trim(),
    };
    if line.is_empty() {
        return Ok(None);
    }
    if line.contains('/') || matches!(line, "." | "..") {
        return Ok(Some(ListLine::Path(PathBuf::from(line))));
    }
    let spec = line.parse();
    spec.map(|spec| Some(ListLine::Crate(spec)))
        .map_err(|error| format!("{error}; a path is written with `/`, such as `./{line}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_with_a_slash_are_paths_and_others_crates() {
        let line = |text| parse_line(text).unwrap();
        let path = |path: &str| Some(ListLine::Path(path.into()));
        let named = |spec: &str| Some(ListLine::Crate(spec.parse().unwrap()));
        assert_eq!(line("  # a comment"), None);
        assert_eq!(line("ripgrep  # the tool"), named("ripgrep"));
        assert_eq!(line("just@^1.2"), named("just@^1.2"));
        assert_eq!(line("./app"), path("./app"));
        assert_eq!(line("/src/app/Cargo.lock"), path("/src/app/Cargo.lock"));
        assert_eq!(line(".."), path(".."));
        let error = parse_line("Cargo.lock").unwrap_err();
        assert!(error.contains("such as `./Cargo.lock`"), "{error}");
    }
}
