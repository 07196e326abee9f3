//! Values as the user wrote them, and the place where each stands.
//!
//! ```text
//!   flag ─────────────────────────────┐
//!   LARDER_MAX_AGE ──┐                 ├─ the first that is given ─> parse ─> value
//!   max-age = "5m" ──┴─> Given(text, place)                          └──────> error that begins with the place
//! ```
//!
//! A variable that is set but empty counts as not set. A fault in a setting that the command does not use is ignored.

use std::collections::BTreeMap;

use super::{ConfigError, file::SettingsFile, given::Given, place::Place};

/// The variables and the file of one command.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// Variables that are set and not empty, by the key of their setting.
    pub(super) variables: BTreeMap<&'static str, Given>,
    pub(super) file: SettingsFile,
    /// The keys of the settings that the command uses.
    pub(super) used: Vec<&'static str>,
}

impl Sources {
    /// A setting with one value whose flag clap has parsed.
    pub(super) fn one<T>(
        &self,
        key: &'static str,
        flag: Option<T>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        match flag {
            Some(flag) => Ok(Some(flag)),
            None => self.single(key, self.given(key), parse),
        }
    }

    /// A setting with one value whose flag is text.
    pub(super) fn text<T>(
        &self,
        key: &'static str,
        flag: Option<&str>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        let flag = flag.map(|text| Given {
            texts: Ok(vec![text.to_owned()]),
            place: Place::Flag(key),
        });
        self.single(key, flag.as_ref().or(self.given(key)), parse)
    }

    /// A setting with any number of values.
    pub(super) fn many<T: Clone>(
        &self,
        key: &'static str,
        flags: &[T],
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, ConfigError> {
        match self.given(key) {
            Some(given) if flags.is_empty() => self.if_used(key, given.parse(parse)),
            Some(_) | None => Ok(flags.to_vec()),
        }
    }

    /// A setting with any number of values whose flags are texts.
    pub(super) fn many_texts<T>(
        &self,
        key: &'static str,
        flags: &[String],
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, ConfigError> {
        let flags = (!flags.is_empty()).then(|| Given {
            texts: Ok(flags.to_vec()),
            place: Place::Flag(key),
        });
        match flags.as_ref().or(self.given(key)) {
            Some(given) => self.if_used(key, given.parse(parse)),
            None => Ok(Vec::new()),
        }
    }

    /// A faulty value of a setting that the command does not use counts as not given.
    pub(super) fn if_used<T: Default>(
        &self,
        key: &str,
        value: Result<T, ConfigError>,
    ) -> Result<T, ConfigError> {
        match value {
            Err(_) if !self.used.contains(&key) => Ok(T::default()),
            value => value,
        }
    }

    fn given(&self, key: &str) -> Option<&Given> {
        let variable = self.variables.get(key);
        variable.or_else(|| self.file.values.get(key))
    }

    fn single<T>(
        &self,
        key: &str,
        given: Option<&Given>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(given) = given else {
            return Ok(None);
        };
        self.if_used(key, given.one(parse).map(Some))
    }
}
