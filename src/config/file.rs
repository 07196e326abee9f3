//! The settings file: TOML whose keys are the flags' names, a table for each further registry, and tables of what to
//! warm.
//!
//! The file is read without types: a value becomes text with its line, and is parsed like the text of a variable. So a
//! fault can be reported with its line, and only to commands that use the setting.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    ConfigError,
    declared::{TABLES, WarmTable},
    given::Given,
    place::Place,
    spelling::closest,
};
use crate::{
    cli,
    files::{self, MAX_SETTINGS_BYTES},
};

/// The tables of further registries.
const REGISTRY_TABLES: &str = "registry";
/// The keys of such a table.
const REGISTRY_KEYS: [&str; 2] = ["index", "min-age"];

/// The tables of what to warm.
const WARM_TABLES: &str = "warm";

/// The contents of a settings file.
#[derive(Debug, Default)]
pub(super) struct SettingsFile {
    /// Values by key.
    pub(super) values: BTreeMap<&'static str, Given>,
    /// Registries besides crates.io, by name.
    pub(super) registries: BTreeMap<String, RegistryTable>,
    /// The declared set, in the order of kinds.
    pub(super) warm: Vec<WarmTable>,
}

/// The table of one registry.
#[derive(Debug)]
pub(super) struct RegistryTable {
    /// The address of its index.
    pub(super) index: Given,
    /// The age that its versions must have.
    pub(super) min_age: Option<Given>,
}

impl SettingsFile {
    /// Reads `named`, which must exist, or else the file in `folder`, which need not.
    pub(super) fn load(named: Option<&Path>, folder: Option<&Path>) -> Result<Self, ConfigError> {
        let usual = folder.map(|folder| folder.join("larder/config.toml"));
        match (named, usual) {
            (Some(path), _) => Self::read(path),
            (None, Some(path)) if path.exists() => Self::read(&path),
            (None, _) => Ok(Self::default()),
        }
    }

    fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = files::read_named(path, MAX_SETTINGS_BYTES)
            .and_then(files::text)
            .map_err(|source| ConfigError::File {
                path: path.to_owned(),
                source,
            })?;
        let reader = Reader { path, text: &text };
        let table = DeTable::parse(&text).map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            line: error.span().map(|span| reader.line(span.start)),
            message: error.message().lines().collect::<Vec<_>>().join(", "),
        })?;
        let keys = cli::all_settings();
        let mut file = Self::default();
        for (key, value) in table.get_ref() {
            let line = reader.line(key.span().start);
            match (key.get_ref().as_ref(), value.get_ref()) {
                (REGISTRY_TABLES, DeValue::Table(tables)) => {
                    file.registries = reader.registries(tables)?
                }
                (WARM_TABLES, DeValue::Table(tables)) => file.warm = reader.warm_tables(tables)?,
                (name, value) => {
                    let key = reader.known(name, line, &keys)?;
                    let given = reader.given(key, line, value);
                    file.values.insert(key, given);
                }
            }
        }
        Ok(file)
    }
}

/// Reads the parts of one file.
struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Reader<'_> {
    /// The line of an offset in bytes, from 1.
    fn line(&self, offset: usize) -> usize {
        let before = self.text.get(..offset).unwrap_or(self.text);
        before.matches('\n').count() + 1
    }

    /// The key of this name among `keys`. An unknown one is an error: it is most likely misspelt.
    fn known(
        &self,
        name: &str,
        line: usize,
        keys: &[&'static str],
    ) -> Result<&'static str, ConfigError> {
        let name = match name {
            "patience" => "upstream-timeout",
            name => name,
        };
        let known = keys.iter().copied().find(|key| *key == name);
        known.ok_or_else(|| ConfigError::UnknownKey {
            path: self.path.to_owned(),
            line,
            key: name.to_owned(),
            closest: closest(name, keys),
        })
    }

    fn given(&self, key: &str, line: usize, value: &DeValue<'_>) -> Given {
        let texts = match value.as_array() {
            Some(values) => values.iter().map(|value| text(value.get_ref())).collect(),
            None => text(value).map(|text| vec![text]),
        };
        Given {
            texts: texts.ok_or("a text, a number, true, false or a list of texts is expected here"),
            place: Place::File {
                path: self.path.to_owned(),
                line,
                key: key.to_owned(),
            },
        }
    }

    /// The tables `[[warm.KIND]]`.
    fn warm_tables(&self, tables: &DeTable<'_>) -> Result<Vec<WarmTable>, ConfigError> {
        let mut found = Vec::new();
        for (name, list) in tables {
            let line = self.line(name.span().start);
            let name = self.known(name.get_ref(), line, &TABLES.map(|kind| kind.name))?;
            let fault = |line, message| ConfigError::Syntax {
                path: PathBuf::from(self.path),
                line: Some(line),
                message,
            };
            let lists = list.get_ref().as_array().ok_or_else(|| {
                fault(
                    line,
                    format!("`warm.{name}` is written as `[[warm.{name}]]`"),
                )
            })?;
            let kinds = TABLES.iter().filter(|kind| kind.name == name);
            let keys = kinds.flat_map(|kind| kind.keys).copied();
            let keys: Vec<_> = keys.collect();
            for table in lists.iter() {
                let line = self.line(table.span().start);
                let mut values = BTreeMap::new();
                if let DeValue::Table(table) = table.get_ref() {
                    for (key, value) in table {
                        let line = self.line(key.span().start);
                        let key = self.known(key.get_ref(), line, &keys)?;
                        let title = format!("warm.{name}.{key}");
                        values.insert(key, self.given(&title, line, value.get_ref()));
                    }
                }
                if let Some(required) = keys.first().filter(|key| !values.contains_key(*key)) {
                    let message = format!("a table `[[warm.{name}]]` has no `{required}`");
                    return Err(fault(line, message));
                }
                found.push(WarmTable { kind: name, values });
            }
        }
        Ok(found)
    }

    fn registries(
        &self,
        tables: &DeTable<'_>,
    ) -> Result<BTreeMap<String, RegistryTable>, ConfigError> {
        let mut registries = BTreeMap::new();
        for (name, table) in tables {
            let line = self.line(name.span().start);
            let name = name.get_ref().to_string();
            let given = self.registry(&name, line, table)?;
            registries.insert(name, given);
        }
        Ok(registries)
    }

    /// The table of one registry.
    fn registry(
        &self,
        name: &str,
        line: usize,
        table: &Spanned<DeValue<'_>>,
    ) -> Result<RegistryTable, ConfigError> {
        let (mut index, mut min_age) = (None, None);
        if let DeValue::Table(table) = table.get_ref() {
            for (key, value) in table {
                let line = self.line(key.span().start);
                let key = self.known(key.get_ref(), line, &REGISTRY_KEYS)?;
                let title = format!("registry.{name}.{key}");
                let given = self.given(&title, line, value.get_ref());
                match key {
                    "index" => index = Some(given),
                    _ => min_age = Some(given),
                }
            }
        }
        match index {
            Some(index) => Ok(RegistryTable { index, min_age }),
            None => Err(ConfigError::Syntax {
                path: PathBuf::from(self.path),
                line: Some(line),
                message: format!("registry `{name}` has no `index`"),
            }),
        }
    }
}

/// The text of a single value.
fn text(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Boolean(switch) => Some(switch.to_string()),
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}
