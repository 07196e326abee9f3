//! Cargo's settings in the `.cargo` folders of a project and above it: the few that decide where packages come from.
//!
//! ```text
//!  /home/user/src/app/.cargo/config.toml    [source.crates-io]  replace-with = "vendored-sources"    wins
//!  /home/user/.cargo/config.toml            [source.crates-io]  replace-with = "larder"              is overridden
//! ```
//!
//! A file may include others; [`files`] has the rules.
//!
//! `cargo vendor` copies packages into a folder and prints settings that replace their sources by it. What comes from
//! a replaced source needs nothing from a registry, so larder neither fetches it nor waits for it.

mod files;
mod local_sources;
mod source_tables;

use std::path::{Path, PathBuf};

pub use files::{ConfigFault, Includes, SETTINGS_FILES, included_settings};
use files::{ConfigFile, merge, read_folder, text_with_file};
pub use local_sources::{LocalSourceError, LocalSources};
pub use source_tables::parse_registry;
use source_tables::{source_fault, source_names};

use crate::lockfile::{PackageSource, canonical_index};

/// Sources that replace each other are followed so far, so that rings end.
const MAX_REPLACEMENTS: usize = 16;

/// The settings that cargo reads in one folder, nearest file first.
#[derive(Debug, Default)]
pub struct CargoConfig {
    files: Vec<ConfigFile>,
    faults: Vec<ConfigFault>,
    includes: Includes,
}

/// A place on this machine that replaces a source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum LocalSource {
    /// A folder of unpacked packages, as `cargo vendor` makes it.
    Directory(PathBuf),
    /// A folder of `.crate` files.
    Registry(PathBuf),
}

/// The source of crates.io's packages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CratesIoSource {
    /// crates.io itself.
    CratesIo,
    /// A folder on this machine.
    Folder {
        /// The file with `replace-with`.
        file: PathBuf,
    },
    /// Another registry.
    Registry(ReplacingRegistry),
    /// Itself, by way of `replace-with`, so that cargo fails.
    Ring {
        /// The file with `replace-with`.
        file: PathBuf,
    },
    /// A name that nothing defines, so that cargo fails.
    Undefined {
        /// The name.
        name: String,
        /// The file with `replace-with`.
        file: PathBuf,
    },
}

/// A registry that replaces crates.io.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplacingRegistry {
    /// Its name in the settings.
    pub name: String,
    /// The address of its index as the settings have it, `sparse+` included.
    pub index: String,
    /// The file with `replace-with`.
    pub file: PathBuf,
    /// The file or the variable with the address.
    pub index_place: SettingPlace,
}

/// The place of a setting of cargo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingPlace {
    /// A settings file.
    File(PathBuf),
    /// An environment variable, by its name.
    Variable(String),
}

/// A `net.offline` that keeps cargo from its registries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetOffline {
    /// Cargo asks no server, larder included.
    On(SettingPlace),
    /// The value is neither true nor false, so that cargo fails when it would ask.
    Invalid(SettingPlace),
}

/// The variable that wins over `net.offline`.
const OFFLINE_VARIABLE: &str = "CARGO_NET_OFFLINE";

impl NetOffline {
    /// The place of the setting, for people.
    pub fn place(&self) -> String {
        match self.setting_place() {
            SettingPlace::File(path) => format!("`net.offline` in {}", path.display()),
            SettingPlace::Variable(name) => format!("the variable {name}"),
        }
    }

    /// The way to switch it off.
    pub fn remedy(&self) -> String {
        match self.setting_place() {
            SettingPlace::File(path) => format!("remove `net.offline` from {}", path.display()),
            SettingPlace::Variable(name) => format!("unset {name}"),
        }
    }

    fn setting_place(&self) -> &SettingPlace {
        match self {
            Self::On(place) | Self::Invalid(place) => place,
        }
    }
}

impl std::fmt::Display for SettingPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Variable(name) => write!(f, "the variable {name}"),
        }
    }
}

impl CargoConfig {
    /// Reads the settings in the `.cargo` folders of `folder` and above, without those of cargo's home. Blocking. A file
    /// that cargo refuses counts as empty.
    pub fn of(folder: &Path) -> Self {
        Self::read(folder, None, Includes::Followed)
    }

    /// Reads all settings for work in `folder`: also those in cargo's home, which lose to all others. `includes` is the
    /// treatment of `include` by that cargo. Blocking. A file that cargo refuses counts as empty.
    pub fn read(folder: &Path, home: Option<&Path>, includes: Includes) -> Self {
        let mut config = Self {
            includes,
            ..Self::default()
        };
        let mut is_home_above = false;
        if let Ok(folder) = std::path::absolute(folder) {
            let real_home = home.and_then(|home| home.canonicalize().ok());
            for base in folder.ancestors() {
                let folder = base.join(".cargo");
                is_home_above |= real_home.is_some() && folder.canonicalize().ok() == real_home;
                config.add(&folder);
            }
        }
        if let Some(home) = home.filter(|_| !is_home_above) {
            config.add(home);
        }
        let fault = source_fault(&config.files);
        config.faults.extend(fault);
        config
    }

    /// [`CargoConfig::read`] for a cargo that follows `include`.
    pub fn with_home(folder: &Path, home: Option<&Path>) -> Self {
        Self::read(folder, home, Includes::Followed)
    }

    fn add(&mut self, folder: &Path) {
        let fault = read_folder(folder, self.includes, &mut self.files).err();
        self.faults
            .extend(fault.filter(|fault| !self.faults.contains(fault)));
    }

    /// The settings file whose `include` makes a difference to where packages or the lock file come from, for work in
    /// `folder` with this home of cargo. Blocking.
    pub fn deciding_include(folder: &Path, home: Option<&Path>) -> Option<PathBuf> {
        let followed = Self::with_home(folder, home);
        let mut files = followed.files.iter();
        let file = files.find(|file| file.settings.contains_key("include"))?;
        let ignored = Self::read(folder, home, Includes::Ignored);
        let is_same = followed.faults == ignored.faults
            && followed.decisive_settings() == ignored.decisive_settings();
        (!is_same).then(|| file.path.clone())
    }

    /// The merged tables that decide where packages and the lock file come from, without the base of their paths.
    fn decisive_settings(&self) -> toml::Table {
        let mut merged = toml::Table::new();
        for file in &self.files {
            let tables = ["source", "registries", "resolver"].into_iter();
            let tables = tables.filter_map(|key| {
                let value = file.settings.get(key)?.clone();
                Some((key.to_owned(), value))
            });
            merge(&mut merged, tables.collect());
        }
        merged
    }

    /// Tells if both were read from the same files.
    pub fn is_same(&self, other: &Self) -> bool {
        let real = |config: &Self| -> Vec<_> {
            let files = config.files.iter();
            let files = files.map(|file| file.path.canonicalize().ok());
            files.collect()
        };
        self.faults == other.faults && real(self) == real(other)
    }

    /// The files that cargo refuses.
    pub fn faults(&self) -> &[ConfigFault] {
        &self.faults
    }

    /// The file of root certificates that cargo uses, `http.cainfo`, and the file that sets it.
    pub fn http_roots(&self) -> Option<(PathBuf, PathBuf)> {
        let (path, file) = self.text_with_file(&["http", "cainfo"])?;
        Some((file.base.join(path), file.path.clone()))
    }

    /// Cargo's own proxy, `http.proxy`.
    pub fn http_proxy(&self) -> Option<String> {
        let (proxy, _) = self.text(&["http", "proxy"])?;
        Some(proxy.to_owned())
    }

    /// [`CargoConfig::http_proxy`], and the file that sets it.
    pub fn http_proxy_with_file(&self) -> Option<(String, PathBuf)> {
        let (proxy, file) = self.text_with_file(&["http", "proxy"])?;
        Some((proxy.to_owned(), file.path.clone()))
    }

    /// The setting that keeps cargo from its registries. `variable` reads the environment, which wins over the files.
    pub fn net_offline(&self, variable: impl Fn(&str) -> Option<String>) -> Option<NetOffline> {
        if let Some(value) = variable(OFFLINE_VARIABLE) {
            let place = SettingPlace::Variable(OFFLINE_VARIABLE.to_owned());
            return match value.as_str() {
                "true" => Some(NetOffline::On(place)),
                "false" => None,
                _ => Some(NetOffline::Invalid(place)),
            };
        }
        let (value, file) = self.files.iter().find_map(|file| {
            let value = file.settings.get("net")?.get("offline")?;
            Some((value, file))
        })?;
        let place = SettingPlace::File(file.path.clone());
        match value.as_bool() {
            Some(true) => Some(NetOffline::On(place)),
            Some(false) => None,
            None => Some(NetOffline::Invalid(place)),
        }
    }

    /// The source of crates.io's packages. `variable` reads the environment: `CARGO_REGISTRIES_NAME_INDEX` wins over
    /// the files.
    pub fn crates_io_source(&self, variable: impl Fn(&str) -> Option<String>) -> CratesIoSource {
        let Some((_, file)) = self.text_with_file(&["source", "crates-io", "replace-with"]) else {
            return self.own_crates_io();
        };
        let file = file.path.clone();
        let Some(name) = self.last_replacement("crates-io") else {
            return CratesIoSource::Ring { file };
        };
        if self.local(name).is_some() {
            return CratesIoSource::Folder { file };
        }
        let source = self.text_with_file(&["source", name, "registry"]);
        let from_variable = || {
            let name = name.to_uppercase().replace('-', "_");
            let name = format!("CARGO_REGISTRIES_{name}_INDEX");
            Some((variable(&name)?, SettingPlace::Variable(name)))
        };
        let from_file = |(index, file): (&str, &ConfigFile)| {
            (index.to_owned(), SettingPlace::File(file.path.clone()))
        };
        let registry = || self.text_with_file(&["registries", name, "index"]);
        let found = source.map(from_file).or_else(from_variable);
        let found = found.or_else(|| registry().map(from_file));
        let name = name.to_owned();
        match found {
            Some((index, index_place)) => CratesIoSource::Registry(ReplacingRegistry {
                name,
                index,
                file,
                index_place,
            }),
            None => CratesIoSource::Undefined { name, file },
        }
    }

    /// The name that takes the place of crates.io in each file that replaces it, the file that wins first.
    pub fn crates_io_replacements(&self) -> Vec<(String, PathBuf)> {
        let files = self.files.iter().filter_map(|file| {
            let crates_io = file.settings.get("source")?.get("crates-io")?;
            let name = crates_io.get("replace-with")?.as_str()?;
            Some((name.to_owned(), file.path.clone()))
        });
        files.collect()
    }

    /// Tells if another source takes the place of this one.
    pub fn is_replaced(&self, source: &PackageSource) -> bool {
        let is_replaced = |name: &str| self.text(&["source", name, "replace-with"]).is_some();
        match source {
            PackageSource::Local => false,
            PackageSource::CratesIo => is_replaced("crates-io"),
            PackageSource::Registry(_) | PackageSource::Git(_) => {
                let names = source_names(&self.files);
                let mut names = names.iter().filter(|name| self.is_source(name, source));
                names.any(|name| is_replaced(name))
            }
        }
    }

    /// The names of the tables `[source.NAME]` that describe the registry with this index. `None` if a folder on this
    /// machine replaces it.
    pub fn replaceable_names(&self, index: &str) -> Option<Vec<&str>> {
        let source = PackageSource::Registry(canonical_index(index)?);
        if self.replacement(&source).is_some() {
            return None;
        }
        let names = source_names(&self.files).into_iter();
        Some(names.filter(|name| self.is_source(name, &source)).collect())
    }

    /// The folders that serve as sources by the settings of this folder and of those above.
    pub fn source_folders(&self) -> Vec<PathBuf> {
        let names = source_names(&self.files).into_iter();
        let folders = names.flat_map(|name| {
            let keys = ["directory", "local-registry"].into_iter();
            keys.filter_map(move |key| {
                let (path, base) = self.text(&["source", name, key])?;
                Some(base.join(path))
            })
        });
        folders.collect()
    }

    /// Tells if crates.io is replaced by a folder on this machine.
    pub fn has_local_crates_io(&self) -> bool {
        self.local("crates-io").is_some()
    }

    /// A file that replaces single packages, and the key that does so.
    pub fn patching_file(&self) -> Option<(&Path, &'static str)> {
        self.files.iter().find_map(|file| {
            let mut keys = ["patch", "paths"].into_iter();
            let key = keys.find(|key| file.settings.contains_key(*key))?;
            Some((file.path.as_path(), key))
        })
    }

    /// The lock file that `resolver.lockfile-path` asks for. Whether cargo does as asked depends on its version.
    pub fn lockfile_path(&self) -> Option<PathBuf> {
        let (path, base) = self.text(&["resolver", "lockfile-path"])?;
        Some(base.join(path))
    }

    /// The nearest file that makes a nightly cargo compile the standard library, as `-Zbuild-std` does.
    pub fn build_std_file(&self) -> Option<&Path> {
        let mut files = self.files.iter();
        let file = files.find(|file| {
            let unstable = file.settings.get("unstable");
            unstable.is_some_and(|table| table.get("build-std").is_some())
        });
        Some(&file?.path)
    }

    /// The source of crates.io's packages without `replace-with`: `[source.crates-io]` may have another address.
    fn own_crates_io(&self) -> CratesIoSource {
        let Some((index, file)) = self.text_with_file(&["source", "crates-io", "registry"]) else {
            return CratesIoSource::CratesIo;
        };
        if parse_registry(index) == Some(PackageSource::CratesIo) {
            return CratesIoSource::CratesIo;
        }
        CratesIoSource::Registry(ReplacingRegistry {
            name: "crates-io".to_owned(),
            index: index.to_owned(),
            file: file.path.clone(),
            index_place: SettingPlace::File(file.path.clone()),
        })
    }

    /// The last source in the chain of those that replace the source of this name. `None` if it has no end.
    fn last_replacement<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        let mut name = name;
        for _ in 0..MAX_REPLACEMENTS {
            match self.text(&["source", name, "replace-with"]) {
                Some((next, _)) => name = next,
                None => return Some(name),
            }
        }
        None
    }

    /// The value at `keys` in the nearest file that has it, and that file's base folder.
    fn text(&self, keys: &[&str]) -> Option<(&str, &Path)> {
        let (value, file) = self.text_with_file(keys)?;
        Some((value, file.base.as_path()))
    }

    /// The value at `keys` in the nearest file that has it, and that file.
    fn text_with_file(&self, keys: &[&str]) -> Option<(&str, &ConfigFile)> {
        text_with_file(&self.files, keys)
    }

    /// The local source that replaces the source of this name.
    fn local(&self, name: &str) -> Option<LocalSource> {
        let mut name = name;
        for _ in 0..MAX_REPLACEMENTS {
            if let Some((next, _)) = self.text(&["source", name, "replace-with"]) {
                name = next;
                continue;
            }
            let path = |key| {
                let (path, base) = self.text(&["source", name, key])?;
                Some(base.join(path))
            };
            let directory = path("directory").map(LocalSource::Directory);
            return directory.or_else(|| path("local-registry").map(LocalSource::Registry));
        }
        None
    }

    /// The local source that replaces the source of a locked package.
    fn replacement(&self, source: &PackageSource) -> Option<LocalSource> {
        match source {
            PackageSource::Local => None,
            PackageSource::CratesIo => self.local("crates-io"),
            PackageSource::Registry(_) | PackageSource::Git(_) => {
                let names = source_names(&self.files);
                let name = names.iter().find(|name| self.is_source(name, source))?;
                self.local(name)
            }
        }
    }

    /// The registry that `registry = "NAME"` in a manifest means. `None` if no settings file names it.
    pub fn registry(&self, name: &str) -> Option<PackageSource> {
        if name == "crates-io" {
            return Some(PackageSource::CratesIo);
        }
        parse_registry(self.text(&["registries", name, "index"])?.0)
    }

    /// Tells if the table `[source.NAME]` describes this source.
    fn is_source(&self, name: &str, source: &PackageSource) -> bool {
        let text = |key| Some(self.text(&["source", name, key])?.0);
        match source {
            PackageSource::Registry(_) => {
                text("registry").is_some_and(|url| parse_registry(url).as_ref() == Some(source))
            }
            PackageSource::Git(locked) => {
                let (repository, reference) = git_parts(locked);
                let wanted = ["branch", "tag", "rev"].iter().find_map(|key| {
                    let value = text(key)?;
                    Some(format!("{key}={value}"))
                });
                text("git").is_some_and(|url| plain_git(url) == repository) && wanted == reference
            }
            PackageSource::Local | PackageSource::CratesIo => false,
        }
    }
}

/// Tells if an index is reached without network.
pub fn is_on_this_machine(index: &str) -> bool {
    let url = index.strip_prefix("sparse+").unwrap_or(index);
    url::Url::parse(url).is_ok_and(|url| url.host().is_none() || is_on_loopback(&url))
}

/// Tells if a URL has a host of this machine's loopback interface.
pub fn is_on_loopback(url: &url::Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// The repository and the `branch=`, `tag=` or `rev=` of a locked git source.
fn git_parts(locked: &str) -> (String, Option<String>) {
    let url = locked.strip_prefix("git+").unwrap_or(locked);
    let url = url.split_once('#').map_or(url, |(url, _)| url);
    match url.split_once('?') {
        Some((url, reference)) => (plain_git(url), Some(reference.to_owned())),
        None => (plain_git(url), None),
    }
}

/// The form in which git URLs are compared: cargo's rule, `CanonicalUrl::new` in `src/cargo/util/canonical_url.rs`.
fn plain_git(url: &str) -> String {
    let plain = url.trim_end_matches('/');
    let plain = plain.strip_suffix(".git").unwrap_or(plain);
    if plain.contains("://github.com/") {
        plain.to_lowercase()
    } else {
        plain.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::lockfile::parse_source;

    /// The local source of a package from `source`, for work in `app` below a folder with these settings.
    #[track_caller]
    fn check(files: &[(&str, &str)], source: &str, expected: Option<&str>) {
        let top = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = top.path().join(path).join(".cargo/config.toml");
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let config = CargoConfig::of(&top.path().join("app"));
        let found = config.replacement(&parse_source(source).unwrap());
        let found = found.map(|found| match found {
            LocalSource::Directory(path) | LocalSource::Registry(path) => {
                path.strip_prefix(top.path()).unwrap().display().to_string()
            }
        });
        assert_eq!(found.as_deref(), expected, "{source}: {files:?}");
    }

    const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

    #[test]
    fn the_nearest_settings_decide_and_replacements_are_followed() {
        let vendored = "[source.crates-io]\nreplace-with = 'v'\n[source.v]\ndirectory = 'vendor'\n";
        let larder = "[source.crates-io]\nreplace-with = 'larder'\n[source.larder]\nregistry = 'sparse+http://x/'\n";
        check(&[], CRATES_IO, None);
        check(&[("app", vendored)], CRATES_IO, Some("app/vendor"));
        check(&[("", vendored)], CRATES_IO, Some("vendor"));
        check(
            &[("", larder), ("app", vendored)],
            CRATES_IO,
            Some("app/vendor"),
        );
        check(&[("", vendored), ("app", larder)], CRATES_IO, None);
        let chain = "[source.crates-io]\nreplace-with = 'a'\n[source.a]\nreplace-with = 'b'\n\
            [source.b]\nlocal-registry = '../crates'\n";
        check(&[("app", chain)], CRATES_IO, Some("app/../crates"));
        let ring =
            "[source.crates-io]\nreplace-with = 'a'\n[source.a]\nreplace-with = 'crates-io'\n";
        check(&[("app", ring)], CRATES_IO, None);
        check(&[("app", "not toml")], CRATES_IO, None);
    }

    #[test]
    fn cargo_that_ignores_a_list_of_included_files_refuses_anything_else() {
        let top = tempfile::tempdir().unwrap();
        let app = top.path().join("app");
        for (folder, settings) in [
            (&app, "include = ['replacement.toml']\n"),
            (&top.path().to_owned(), "include = 'other.toml'\n"),
        ] {
            fs::create_dir_all(folder.join(".cargo")).unwrap();
            fs::write(folder.join(".cargo/config.toml"), settings).unwrap();
        }
        let replacement = "[source.crates-io]\nreplace-with = 'a'\n";
        fs::write(app.join(".cargo/replacement.toml"), replacement).unwrap();
        assert!(CargoConfig::deciding_include(&app, None).is_some());
        let config = CargoConfig::read(&app, None, Includes::Ignored);
        let [fault] = config.faults() else {
            panic!("{:?}", config.faults());
        };
        assert_eq!(fault.why, "has an `include` that is no list");
    }

    #[test]
    fn included_files_are_followed_and_lose_to_the_file_that_includes_them() {
        let top = tempfile::tempdir().unwrap();
        let app = top.path().join("app");
        let write = |path: &str, text: &str| {
            let path = app.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let replaced = |by: &str| format!("[source.crates-io]\nreplace-with = '{by}'\n");
        let name = || {
            let config = CargoConfig::of(&app);
            let names = config.crates_io_replacements();
            (
                names.first().map(|(name, _)| name.clone()),
                config.faults().len(),
            )
        };
        let first = |name: &str| (Some(name.to_owned()), 0);
        let main = |includes: &str, own: &str| {
            write(
                ".cargo/config.toml",
                &format!("include = {includes}\n{own}"),
            )
        };
        write(".cargo/a.toml", &replaced("a"));
        write(
            ".cargo/b.toml",
            &format!("include = ['../shared/deep.toml']\n{}", replaced("b")),
        );
        write(
            "shared/deep.toml",
            &format!("{}[source.v]\ndirectory = 'v'\n", replaced("deep")),
        );
        main("['a.toml', 'b.toml']", &replaced("own"));
        assert_eq!(name(), first("own"));
        main("['a.toml', 'b.toml']", "");
        assert_eq!(name(), first("b"));
        main("['b.toml', { path = 'a.toml' }]", "");
        assert_eq!(name(), first("a"));
        main(
            "['../shared/deep.toml', { path = 'none.toml', optional = true }]",
            "",
        );
        assert_eq!(name(), first("deep"));
        main("['b.toml']", &replaced("v"));
        let source = parse_source(CRATES_IO).unwrap();
        let found = CargoConfig::of(&app).replacement(&source);
        let folder = app.join(".cargo/../v");
        assert_eq!(found, Some(LocalSource::Directory(folder)));
        for refused in [
            "['none.toml']",
            "'a.toml'",
            "['config.toml']",
            "['b.toml', '../shared/deep.toml', 'b.toml']",
            "['a.txt']",
            "['*.toml']",
            "[1]",
            "[{ optional = true }]",
        ] {
            main(refused, "");
            assert_eq!(name().1, 1, "{refused}");
        }
    }

    #[test]
    fn source_of_crates_io_names_the_registry_its_address_and_the_places_of_both() {
        let top = tempfile::tempdir().unwrap();
        let app = top.path().join("app");
        for folder in [top.path().join(".cargo"), app.join(".cargo")] {
            fs::create_dir_all(folder).unwrap();
        }
        let (outer, inner) = (
            top.path().join(".cargo/config.toml"),
            app.join(".cargo/config.toml"),
        );
        let source = |in_outer: &str, in_inner: &str, variable: Option<&str>| {
            fs::write(&outer, in_outer).unwrap();
            fs::write(&inner, in_inner).unwrap();
            let variable = |name: &str| {
                let is_asked = name == "CARGO_REGISTRIES_MY_LARDER_INDEX";
                Some(variable?.to_owned()).filter(|_| is_asked)
            };
            CargoConfig::of(&app).crates_io_source(variable)
        };
        let replaced = "[source.crates-io]\nreplace-with = 'my-larder'\n";
        let index = "[registries.my-larder]\nindex = 'sparse+http://a/'\n";
        let registry = |index: &str, index_place| {
            CratesIoSource::Registry(ReplacingRegistry {
                name: "my-larder".to_owned(),
                index: index.to_owned(),
                file: inner.clone(),
                index_place,
            })
        };
        assert_eq!(source(index, "", None), CratesIoSource::CratesIo);
        let in_outer = SettingPlace::File(outer.clone());
        let expected = registry("sparse+http://a/", in_outer);
        assert_eq!(source(index, replaced, None), expected);
        let name = "CARGO_REGISTRIES_MY_LARDER_INDEX".to_owned();
        let expected = registry("sparse+http://b/", SettingPlace::Variable(name));
        let variable = Some("sparse+http://b/");
        assert_eq!(source(index, replaced, variable), expected);
        assert_eq!(source("", replaced, variable), expected);
        let table = format!("{replaced}[source.my-larder]\nregistry = 'sparse+http://c/'\n");
        let expected = registry("sparse+http://c/", SettingPlace::File(inner.clone()));
        assert_eq!(source(index, &table, variable), expected);
        let (name, file) = ("my-larder".to_owned(), inner.clone());
        let expected = CratesIoSource::Undefined { name, file };
        assert_eq!(source("", replaced, None), expected);
        let vendored = format!("{replaced}[source.my-larder]\ndirectory = 'v'\n");
        let expected = CratesIoSource::Folder {
            file: inner.clone(),
        };
        assert_eq!(source("", &vendored, None), expected);
        source("not toml", replaced, None);
        let config = CargoConfig::of(&app);
        let [fault] = config.faults() else {
            panic!("{:?}", config.faults());
        };
        assert_eq!(fault.path, outer);
    }

    #[test]
    fn git_and_other_registries_are_replaced_by_their_address() {
        let settings = "[source.v]\ndirectory = 'vendor'\n\
            [source.\"git+https://host/a\"]\ngit = 'https://host/a.git'\nbranch = 'main'\nreplace-with = 'v'\n\
            [source.corp]\nregistry = 'sparse+https://corp.example/index/'\nreplace-with = 'v'\n";
        let check = |source, expected| check(&[("app", settings)], source, expected);
        check("git+https://host/a?branch=main#0123", Some("app/vendor"));
        check("git+https://host/a?branch=next#0123", None);
        check("git+https://host/a#0123", None);
        check("git+https://host/b?branch=main#0123", None);
        check("sparse+https://corp.example/index/", Some("app/vendor"));
        check("registry+https://corp.example/index", None);
        check(CRATES_IO, None);
    }
}
