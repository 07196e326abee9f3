//! [`Channel`]: the name of a toolchain that a dist server has.
//!
//! ```text
//!  nightly-2026-01-15-x86_64-unknown-linux-gnu  ──>  dist/2026-01-15/channel-rust-nightly.toml
//!  release  date       host, or parts of it
//!
//!  1.95                                         ──>  dist/channel-rust-1.95.toml      changes with 1.95.1
//!  1.95.0                                       ──>  dist/channel-rust-1.95.0.toml    never changes
//! ```
//!
//! Names come from toolchain files of any project, and parts of them become parts of URLs and of file names. So the
//! parser accepts only what cannot contain a slash or `..`.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime},
};

use super::triple::PartialTriple;

/// The name of a released toolchain: a channel or version, optionally a date, optionally a host or parts of it.
///
/// `Display` gives the parsed name back, except for `1.0` to `1.8`, which become `1.0.0` to `1.8.0`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Channel {
    /// `stable`, `beta`, `nightly`, or a version.
    release: String,
    /// `YYYY-MM-DD`, the folder of the release on the server.
    date: Option<String>,
    /// Parts of the host triple.
    host: Option<PartialTriple>,
}

/// A name that no dist server has. It may be a toolchain of the user's own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no release channel, version or dated channel")]
pub struct ChannelError(String);

impl FromStr for Channel {
    type Err = ChannelError;

    /// Accepts the names that rustup accepts (`PartialToolchainDesc::from_str` in `src/dist/mod.rs`).
    fn from_str(name: &str) -> Result<Self, ChannelError> {
        parse_channel(name).ok_or_else(|| ChannelError(name.to_owned()))
    }
}

impl Channel {
    /// The path of the manifest below the root of a dist server, for example
    /// `dist/2026-01-15/channel-rust-nightly.toml` (`ToolchainDesc::manifest_v2_url` in rustup's `src/dist/mod.rs`).
    /// It always stays below `dist/`.
    pub fn manifest_path(&self) -> String {
        let day = self.date.as_ref().map(|date| format!("{date}/"));
        format!(
            "dist/{}channel-rust-{}.toml",
            day.unwrap_or_default(),
            self.release
        )
    }

    /// `true` if the manifest never changes: it has a date, or names a full version (the negation of
    /// `ToolchainDesc::is_tracking` in rustup's `src/dist/mod.rs`).
    pub fn is_immutable(&self) -> bool {
        let is_moving_version =
            self.release.matches('.').count() < 2 || self.release.ends_with("-beta");
        self.date.is_some() || !is_moving_version
    }

    /// `true` for `nightly` without a date. If a component is missing there, rustup goes back day by day
    /// (docs/client-behaviour.md R-12).
    pub fn is_undated_nightly(&self) -> bool {
        self.release == "nightly" && self.date.is_none()
    }

    /// `true` for nightlies, whose cargo knows unstable features.
    pub fn is_nightly(&self) -> bool {
        self.release == "nightly"
    }

    /// The minor version if the name is that of a release 1.x, for example 90 for `1.90.0`.
    pub fn minor(&self) -> Option<u64> {
        self.release
            .strip_prefix("1.")?
            .split(['.', '-'])
            .next()?
            .parse()
            .ok()
    }

    /// The same channel as it was on `date`, `YYYY-MM-DD`.
    ///
    /// # Panics
    /// In debug builds, if `date` is no date.
    #[must_use]
    pub fn on_date(&self, date: &str) -> Self {
        debug_assert!(is_date(date), "`{date}` is no date");
        Self {
            date: Some(date.to_owned()),
            ..self.clone()
        }
    }

    /// The date in the name, `YYYY-MM-DD`.
    pub fn date(&self) -> Option<&str> {
        self.date.as_deref()
    }

    /// `true` if the name contains a host or parts of it.
    pub fn names_host(&self) -> bool {
        self.host.is_some()
    }

    /// The name without its host, and the whole host triple. `default` is the user's default host.
    ///
    /// # Errors
    /// The parts in the name cannot be completed by the default host.
    pub fn resolve(self, default: &str) -> Result<(Self, String), UnknownHost> {
        let host = match &self.host {
            None => default.to_owned(),
            Some(parts) => parts
                .resolve(default)
                .ok_or_else(|| UnknownHost(default.to_owned()))?,
        };
        Ok((Self { host: None, ..self }, host))
    }
}

/// A default host that cannot complete a toolchain's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rustup does not know the default host `{0}`")]
pub struct UnknownHost(String);

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.release)?;
        if let Some(date) = &self.date {
            write!(f, "-{date}")?;
        }
        if let Some(host) = &self.host {
            write!(f, "-{host}")?;
        }
        Ok(())
    }
}

fn parse_channel(name: &str) -> Option<Channel> {
    let named = ["nightly", "beta", "stable"]
        .into_iter()
        .find(|channel| name.starts_with(channel));
    let length = named.map_or_else(|| version_length(name), |channel| Some(channel.len()))?;
    let (release, rest) = name.split_at(length);
    let (date, rest) = match rest.strip_prefix('-').and_then(|rest| rest.get(..10)) {
        Some(date) if is_date(date) => (Some(date.to_owned()), &rest[11..]),
        _ => (None, rest),
    };
    let host = match rest.strip_prefix('-') {
        Some(host) => Some(PartialTriple::parse(host)?),
        None if rest.is_empty() => None,
        None => return None,
    };
    // 1.0 to 1.8 have no point releases, and rustup knows them by their full version only.
    let is_ancient = release.len() == 3 && release.starts_with("1.") && release != "1.9";
    Some(Channel {
        release: format!("{release}{}", if is_ancient { ".0" } else { "" }),
        date,
        host,
    })
}

/// Length in bytes of the version at the start: `1.95`, `1.95.0`, `1.95.0-beta`, `1.95.0-beta.3`.
fn version_length(name: &str) -> Option<usize> {
    let digits = |from: usize| {
        let rest = name.get(from..).unwrap_or_default();
        rest.bytes().take_while(u8::is_ascii_digit).count()
    };
    // A dot and a number without leading zeros, of at most `at_most` digits.
    let number = |from: usize, at_most: usize| {
        let count = digits(from + 1);
        let is_number = name[from..].starts_with('.')
            && (1..=at_most).contains(&count)
            && (count == 1 || !name[from + 1..].starts_with('0'));
        is_number.then_some(from + 1 + count)
    };
    let mut length = (digits(0) == 1).then_some(1)?;
    length = number(length, 3)?;
    length = number(length, 2).unwrap_or(length);
    if name[length..].starts_with("-beta") {
        length += "-beta".len();
        let count = digits(length + 1);
        if name[length..].starts_with('.') && (1..=2).contains(&count) {
            length += 1 + count;
        }
    }
    Some(length)
}

/// `true` if the text has the form `YYYY-MM-DD`.
pub(crate) fn is_date(text: &str) -> bool {
    let digit_or_dash = |(at, byte): (usize, u8)| match at {
        4 | 7 => byte == b'-',
        _ => byte.is_ascii_digit(),
    };
    text.len() == 10 && text.bytes().enumerate().all(digit_or_dash)
}

/// The beginning of the day `date`, `YYYY-MM-DD`, in UTC. `None` if `date` is no date.
pub(crate) fn midnight(date: &str) -> Option<SystemTime> {
    humantime::parse_rfc3339(&format!("{date}T00:00:00Z")).ok()
}

/// The day before `date`; both are `YYYY-MM-DD`. `None` if `date` is no date, or the result is before 1970.
pub fn day_before(date: &str) -> Option<String> {
    let before = midnight(date)?.checked_sub(Duration::from_secs(24 * 60 * 60))?;
    let before = before.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let text = humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + before).to_string();
    text.get(..10).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toolchain::fixture::LINUX;

    #[test]
    fn channel_names_map_to_manifest_paths() {
        for (name, path, is_immutable) in [
            ("stable", "dist/channel-rust-stable.toml", false),
            ("beta", "dist/channel-rust-beta.toml", false),
            ("nightly", "dist/channel-rust-nightly.toml", false),
            (
                "nightly-2026-01-15",
                "dist/2026-01-15/channel-rust-nightly.toml",
                true,
            ),
            (
                "beta-2026-01-15-aarch64-apple-darwin",
                "dist/2026-01-15/channel-rust-beta.toml",
                true,
            ),
            ("1.95", "dist/channel-rust-1.95.toml", false),
            ("1.95.0", "dist/channel-rust-1.95.0.toml", true),
            ("1.95-beta", "dist/channel-rust-1.95-beta.toml", false),
            ("1.95.0-beta", "dist/channel-rust-1.95.0-beta.toml", false),
            (
                "1.95.0-beta.3",
                "dist/channel-rust-1.95.0-beta.3.toml",
                true,
            ),
            (
                "1.95.0-beta.3-x86_64-unknown-linux-gnu",
                "dist/channel-rust-1.95.0-beta.3.toml",
                true,
            ),
            (
                "1.95.0-x86_64-pc-windows-msvc",
                "dist/channel-rust-1.95.0.toml",
                true,
            ),
            ("stable-gnu", "dist/channel-rust-stable.toml", false),
            ("stable-x86_64", "dist/channel-rust-stable.toml", false),
        ] {
            let channel: Channel = name.parse().unwrap();
            assert_eq!(channel.manifest_path(), path, "{name}");
            assert_eq!(channel.is_immutable(), is_immutable, "{name}");
            assert_eq!(channel.to_string(), name);
        }
        let ancient: Channel = "1.8".parse().unwrap();
        assert_eq!(ancient.manifest_path(), "dist/channel-rust-1.8.0.toml");
        let with_host: Channel = format!("nightly-2026-01-15-{LINUX}").parse().unwrap();
        assert!(with_host.names_host() && !with_host.is_undated_nightly());
        let (nightly, host) = with_host.resolve("aarch64-apple-darwin").unwrap();
        assert_eq!(
            (nightly.to_string().as_str(), host.as_str()),
            ("nightly-2026-01-15", LINUX)
        );
        assert!(
            "nightly-x86_64-unknown-linux-gnu"
                .parse::<Channel>()
                .unwrap()
                .is_undated_nightly()
        );
    }

    #[test]
    fn malformed_channel_names_are_refused() {
        for name in [
            "",
            "mine",
            "Stable",
            "stable ",
            "stablest",
            "stable-",
            "stable-mine",
            "stable-gnu-x86_64",
            "stable/../../x",
            "stable-../../../x-y",
            "stable-a-b-c",
            "stable-a-b-c/d",
            "stable-a-b-c%2fd",
            "stable-a--b-c",
            "stable-..-..-..",
            "nightly-2026-1-5",
            "nightly-2026-01-15x",
            "nightly-2026-01-15-",
            "nightly-2026-01-1\u{e9}",
            "nightly-\u{0662}026-01-15",
            "1",
            "1.",
            "1.095",
            "1.9555",
            "12.1",
            "1.95.",
            "1.95.00",
            "1.95.123",
            "1.95.0.1",
            "1.95.0-beta.",
            "1.95.0-beta.123",
            "1.95.0-rc.1",
            "+stable",
            "/opt/rust",
            "stable\n",
            "stable\0",
        ] {
            let error = name.parse::<Channel>().unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn day_before_crosses_months_and_leap_years() {
        assert_eq!(day_before("2026-03-01").as_deref(), Some("2026-02-28"));
        assert_eq!(day_before("2024-03-01").as_deref(), Some("2024-02-29"));
        assert_eq!(day_before("2026-01-01").as_deref(), Some("2025-12-31"));
        assert_eq!(day_before("2026-13-01"), None);
        assert_eq!(day_before("1970-01-01"), None);
    }
}
