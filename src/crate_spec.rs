//! `NAME[@VERSION]`: a crate as the user names it to `cargo install` or `cargo add`.

use std::{fmt, str::FromStr};

use semver::{Version, VersionReq};

/// Start of a requirement in the eyes of `cargo install`. It takes any other text for one exact version.
const QUALIFIERS: [char; 5] = ['<', '>', '=', '^', '~'];

/// The way in which the user will use a crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CrateUse {
    /// `cargo install --locked NAME`: the crate, and what the lock file in its archive names.
    Install,
    /// `cargo add NAME`: the crate as a dependency, and what cargo resolves for it.
    Dependency,
}

/// A crate that the user names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CrateSpec {
    name: String,
    version: Option<String>,
}

/// A text that names no crate.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CrateSpecError {
    /// No crate can have this name.
    #[error("`{0}` is no crate's name")]
    Name(String),
    /// The text after `@` is no requirement.
    #[error("`{0}` is no version and no requirement such as `^1.2`")]
    Version(String),
    /// `cargo install` refuses this text.
    #[error(
        "`cargo install` refuses the version `{0}`; say `^{0}`, or a full version such as `1.2.3`"
    )]
    Unqualified(String),
}

impl CrateSpec {
    /// A crate and, if given, its version or requirement.
    ///
    /// # Errors
    /// One of them cannot be right.
    pub fn new(name: &str, version: Option<&str>) -> Result<Self, CrateSpecError> {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if !(1..=64).contains(&name.len()) || !name.bytes().all(is_name) {
            return Err(CrateSpecError::Name(name.to_owned()));
        }
        let version = version.map(str::trim);
        if let Some(version) = version
            && VersionReq::parse(version).is_err()
        {
            return Err(CrateSpecError::Version(version.to_owned()));
        }
        Ok(Self {
            name: name.to_owned(),
            version: version.map(str::to_owned),
        })
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The versions that cargo may choose, as it reads the text for this use.
    ///
    /// # Errors
    /// [`CrateSpecError::Unqualified`].
    pub fn requirement(&self, usage: CrateUse) -> Result<VersionReq, CrateSpecError> {
        let Some(version) = &self.version else {
            return Ok(VersionReq::STAR);
        };
        let is_requirement = version.starts_with(QUALIFIERS) || version.contains('*');
        let exact = match usage {
            CrateUse::Install if !is_requirement => {
                let full = Version::parse(version);
                full.map_err(|_| CrateSpecError::Unqualified(version.clone()))?;
                Some(format!("={version}"))
            }
            CrateUse::Install | CrateUse::Dependency => None,
        };
        let text = exact.as_ref().unwrap_or(version);
        VersionReq::parse(text).map_err(|_| CrateSpecError::Version(version.clone()))
    }
}

impl FromStr for CrateSpec {
    type Err = CrateSpecError;

    fn from_str(text: &str) -> Result<Self, CrateSpecError> {
        match text.split_once('@') {
            Some((name, version)) => Self::new(name, Some(version)),
            None => Self::new(text, None),
        }
    }
}

impl fmt::Display for CrateSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match &self.version {
            Some(version) => write!(f, "@{version}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(spec: &str, usage: CrateUse, version: &str) -> bool {
        let spec: CrateSpec = spec.parse().unwrap();
        let requirement = spec.requirement(usage).unwrap();
        requirement.matches(&Version::parse(version).unwrap())
    }

    #[test]
    fn bare_version_is_exact_to_install_and_a_requirement_to_add() {
        assert!(matches("a@1.2.3", CrateUse::Install, "1.2.3"));
        assert!(!matches("a@1.2.3", CrateUse::Install, "1.3.0"));
        assert!(matches("a@1.2.3", CrateUse::Dependency, "1.3.0"));
        assert!(matches("a@^1.2", CrateUse::Install, "1.3.0"));
        assert!(matches("a@1.*", CrateUse::Install, "1.3.0"));
        assert!(matches("a", CrateUse::Install, "7.0.0"));
        assert!(!matches("a", CrateUse::Install, "7.0.0-rc.1"));
        let partial: CrateSpec = "a@1.2".parse().unwrap();
        assert_eq!(
            partial.requirement(CrateUse::Install),
            Err(CrateSpecError::Unqualified("1.2".to_owned()))
        );
    }

    #[test]
    fn texts_that_name_no_crate_are_refused() {
        for text in ["", "@1", "a b", "./a", "a@", "a@one"] {
            assert!(text.parse::<CrateSpec>().is_err(), "{text}");
        }
        assert_eq!("a_b@=1".parse::<CrateSpec>().unwrap().to_string(), "a_b@=1");
    }
}
