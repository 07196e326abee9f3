//! [`Given`]: a setting's value as text, with its place.

use super::{ConfigError, place::Place};

/// A setting's value as text.
#[derive(Clone, Debug)]
pub(super) struct Given {
    /// The values, more than one for a list; an error if the file has a value of another type.
    pub(super) texts: Result<Vec<String>, &'static str>,
    /// Where it stands.
    pub(super) place: Place,
}

impl Given {
    /// Parses the only value.
    pub(super) fn one<T>(
        &self,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        let mut values = self.parse(parse)?;
        match (values.pop(), values.is_empty()) {
            (Some(value), true) => Ok(value),
            (_, _) => Err(ConfigError::Value {
                place: self.place.clone(),
                text: String::new(),
                reason: "one value is expected here".to_owned(),
            }),
        }
    }

    /// Parses every value.
    pub(super) fn parse<T>(
        &self,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, ConfigError> {
        let fault = |text: &str, reason: String| ConfigError::Value {
            place: self.place.clone(),
            text: text.to_owned(),
            reason,
        };
        let texts = self.texts.as_ref();
        let texts = texts.map_err(|reason| fault("", (*reason).to_owned()))?;
        let values = texts
            .iter()
            .map(|text| parse(text).map_err(|reason| fault(text, reason)));
        values.collect()
    }
}
