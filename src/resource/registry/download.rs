//! Download addresses, read backwards: which crate does upstream's `config.json` place at an address?
//!
//! ```text
//!  template   https://files.example/{crate}/{crate}-{version}.crate
//!  address    https://files.example/a-b/a-b-1.0.0-rc.1.crate
//!             literal, {crate} = "a-b", literal, the same name, literal, {version} = "1.0.0-rc.1", literal
//! ```
//!
//! Clients that keep crates.io's own addresses ask for these (`crate::server::upstream_address`). A result is accepted
//! only if the template, filled with it, is the address again.

use std::sync::Arc;

use percent_encoding::percent_decode_str;
use url::Url;

use super::{
    CrateFile, Registry,
    config::{ConfigFields, complete_template, fill_template},
};
use crate::{hash::Sha256, resource::Resource};

/// Longest address that is compared with a template, in bytes.
const MAX_ADDRESS: usize = 1024;

/// The known parts of a crate while its address is read from left to right.
#[derive(Clone, Debug, Default)]
struct AddressFields<'a> {
    name: Option<&'a str>,
    version: Option<&'a str>,
    checksum: Option<&'a str>,
    prefix: Option<&'a str>,
    lower_prefix: Option<&'a str>,
}

/// A part of a template that each crate fills with its own text.
#[derive(Clone, Copy, Debug)]
enum Marker {
    Name,
    Version,
    Checksum,
    Prefix,
    LowerPrefix,
}

impl Marker {
    const TEXTS: [(&'static str, Self); 5] = [
        ("{crate}", Self::Name),
        ("{version}", Self::Version),
        ("{sha256-checksum}", Self::Checksum),
        ("{prefix}", Self::Prefix),
        ("{lowerprefix}", Self::LowerPrefix),
    ];

    fn field<'f, 'a>(self, fields: &'f mut AddressFields<'a>) -> &'f mut Option<&'a str> {
        match self {
            Self::Name => &mut fields.name,
            Self::Version => &mut fields.version,
            Self::Checksum => &mut fields.checksum,
            Self::Prefix => &mut fields.prefix,
            Self::LowerPrefix => &mut fields.lower_prefix,
        }
    }

    fn allows(self, byte: u8) -> bool {
        match self {
            Self::Name => byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'),
            Self::Version => byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'+'),
            Self::Checksum => byte.is_ascii_hexdigit(),
            Self::Prefix | Self::LowerPrefix => {
                byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'/')
            }
        }
    }
}

/// The crate whose file is at `url`, if `config`, the body of upstream's `config.json`, places one there.
pub fn crate_at(registry: &Arc<Registry>, config: &[u8], url: &Url) -> Option<Resource> {
    let config: ConfigFields<'_> = serde_json::from_slice(config).ok()?;
    registry.check_download_template(&config.dl).ok()?;
    // The parser writes addresses in one way, and escapes the braces.
    let template = Url::parse(&complete_template(&config.dl)).ok()?;
    let template = percent_decode_str(template.as_str()).decode_utf8().ok()?;
    let address = percent_decode_str(url.as_str()).decode_utf8().ok()?;
    if !address.is_ascii() || address.len() > MAX_ADDRESS {
        return None;
    }
    let fields = solve(
        &template,
        &template,
        &address,
        &address,
        &AddressFields::default(),
    )?;
    let checksum = match fields.checksum {
        Some(digits) => Some(Sha256::parse(digits)?),
        None => None,
    };
    CrateFile::of(registry, fields.name?, fields.version?, checksum)
}

/// An address below which the config's downloads are: its origin is that of all downloads.
pub fn download_address(registry: &Registry, config: &[u8]) -> Option<Url> {
    let config: ConfigFields<'_> = serde_json::from_slice(config).ok()?;
    registry.check_download_template(&config.dl).ok()?;
    Url::parse(&config.dl).ok()
}

/// Reads `rest`, the end of `address`, by `pattern`, the end of `template`. Tries every length of a marker's text, the
/// longest first.
fn solve<'a>(
    template: &str,
    pattern: &str,
    address: &str,
    rest: &'a str,
    fields: &AddressFields<'a>,
) -> Option<AddressFields<'a>> {
    let next = Marker::TEXTS
        .iter()
        .filter_map(|(text, marker)| Some((pattern.find(text)?, *text, *marker)))
        .min_by_key(|(at, ..)| *at);
    let Some((at, text, marker)) = next else {
        return (pattern == rest && fields.fill(template)? == address).then(|| fields.clone());
    };
    let rest = rest.strip_prefix(&pattern[..at])?;
    let pattern = &pattern[at + text.len()..];
    if let Some(known) = *marker.field(&mut fields.clone()) {
        return solve(
            template,
            pattern,
            address,
            rest.strip_prefix(known)?,
            fields,
        );
    }
    let longest = rest.bytes().take_while(|byte| marker.allows(*byte)).count();
    (1..=longest).rev().find_map(|len| {
        let (value, rest) = rest.split_at(len);
        let mut fields = fields.clone();
        *marker.field(&mut fields) = Some(value);
        solve(template, pattern, address, rest, &fields)
    })
}

impl AddressFields<'_> {
    /// The address of this crate by the template; `None` if it has no name or no version.
    fn fill(&self, template: &str) -> Option<String> {
        let version = self.version?;
        semver::Version::parse(version).ok()?;
        let checksum = self.checksum.and_then(Sha256::parse);
        Some(fill_template(template, self.name?, version, checksum))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::Registries;

    const SUM: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[track_caller]
    fn check(template: &str, address: &str, expected: Option<&str>) {
        let registries = Registries::new(Url::parse("https://i.example/").unwrap(), []);
        let config = serde_json::json!({ "dl": template }).to_string();
        let url = Url::parse(address).unwrap();
        let found = crate_at(registries.crates_io(), config.as_bytes(), &url);
        let found = found.map(|found| found.to_string());
        assert_eq!(found.as_deref(), expected, "{address} by {template}");
    }

    #[test]
    fn every_usual_template_is_read_backwards() {
        let crate_file = "https://f.example/crates/{crate}/{crate}-{version}.crate";
        for (template, address, expected) in [
            (
                "https://f.example/crates",
                "https://f.example/crates/a/1.0.0/download",
                "crate `a 1.0.0`",
            ),
            (
                "https://f.example/crates/",
                "https://f.example/crates/a/1.0.0/download",
                "crate `a 1.0.0`",
            ),
            (
                crate_file,
                "https://f.example/crates/a-b/a-b-1.0.0.crate",
                "crate `a-b 1.0.0`",
            ),
            (
                crate_file,
                "https://f.example/crates/a/a-1.0.0-1.0.0.crate",
                "crate `a 1.0.0-1.0.0`",
            ),
            (
                crate_file,
                "https://f.example/crates/a-1/a-1-0.1.0.crate",
                "crate `a-1 0.1.0`",
            ),
            (
                crate_file,
                "https://f.example/crates/a/a-1.0.0+b.crate",
                "crate `a 1.0.0+b`",
            ),
            (
                crate_file,
                "https://f.example/crates/a/a-1.0.0%2Bb.crate",
                "crate `a 1.0.0+b`",
            ),
            (
                "https://f.example/{crate}-{version}",
                "https://f.example/a-2-1.0.0",
                "crate `a-2 1.0.0`",
            ),
            (
                "https://f.example/{prefix}/{crate}/{version}",
                "https://f.example/Se/rd/Serde/1.0.0",
                "crate `Serde 1.0.0`",
            ),
            (
                "https://f.example/{lowerprefix}/{crate}/{version}",
                "https://f.example/3/l/Log/1.0.0",
                "crate `Log 1.0.0`",
            ),
            (
                "https://f.example:443/d?c={crate}&v={version}",
                "https://f.example/d?c=a&v=1.0.0",
                "crate `a 1.0.0`",
            ),
        ] {
            check(template, address, Some(expected));
        }
        let template = "https://f.example/{crate}/{version}/{sha256-checksum}";
        let address = format!("https://f.example/a/1.0.0/{SUM}");
        check(template, &address, Some("crate `a 1.0.0`"));
    }

    #[test]
    fn other_addresses_are_no_crates() {
        let template = "https://f.example/crates/{crate}/{crate}-{version}.crate";
        for address in [
            "https://f.example/crates/a/b-1.0.0.crate",
            "https://f.example/crates/a/a-1.0.crate",
            "https://f.example/crates/a/a-1.0.0.crate?x",
            "https://f.example/crates/a/a-1.0.0.crates",
            "https://f.example/api/v1/crates?q=a",
            "https://other.example/crates/a/a-1.0.0.crate",
            "http://f.example/crates/a/a-1.0.0.crate",
        ] {
            check(template, address, None);
        }
        check(
            "https://f.example/{prefix}/{crate}/{version}",
            "https://f.example/x/serde/1.0.0",
            None,
        );
    }

    #[test]
    fn long_addresses_end_soon() {
        let long = format!("https://f.example/{}", "a-1.0.0-".repeat(200));
        check("https://f.example/{crate}-{version}-{crate}", &long, None);
        let address = format!("https://f.example/{}", "a".repeat(900));
        check("https://f.example/{crate}{version}{crate}", &address, None);
    }
}
