//! Parsers of single values, as variables and the settings file give them. Those that flags share are in
//! [`crate::cli`].

use std::path::PathBuf;

use clap::ValueEnum;
use url::Url;

pub(super) fn parse_text(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

pub(super) fn parse_path(text: &str) -> Result<PathBuf, String> {
    Ok(PathBuf::from(text))
}

pub(super) fn parse_number(text: &str) -> Result<u32, String> {
    text.parse()
        .map_err(|_| format!("a number from 0 to {} is expected", u32::MAX))
}

pub(super) fn parse_entry_limit(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(limit @ 1..=64) => Ok(limit),
        Ok(_) | Err(_) => Err("a number from 1 to 64 is expected".to_owned()),
    }
}

pub(super) fn parse_jobs(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(jobs @ 1..) => Ok(jobs),
        Ok(0) | Err(_) => Err(format!("a number from 1 to {} is expected", u16::MAX)),
    }
}

/// One of the words that a flag takes.
pub(super) fn parse_choice<T: ValueEnum>(text: &str) -> Result<T, String> {
    T::from_str(text, true).map_err(|_| {
        let values = T::value_variants().iter();
        let values =
            values.filter_map(|value| Some(value.to_possible_value()?.get_name().to_owned()));
        format!("expected one of {}", values.collect::<Vec<_>>().join(", "))
    })
}

pub(super) fn parse_positive(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(number @ 1..) => Ok(number),
        Ok(0) | Err(_) => Err(format!("a number from 1 to {} is expected", u32::MAX)),
    }
}

/// An address that paths are appended to, with the final slash that this needs.
pub(super) fn base_url(text: &str) -> Result<Url, String> {
    let mut url = Url::parse(text).map_err(|error| error.to_string())?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err("it must be an http or https address".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("it must not have a query or a fragment".to_owned());
    }
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Ok(url)
}

/// The base address of an index. `sparse+` is cargo's prefix for the protocol and not part of the address.
pub(super) fn index_url(text: &str) -> Result<Url, String> {
    base_url(text.strip_prefix("sparse+").unwrap_or(text))
}

/// The address of one file.
pub(super) fn file_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    match url.scheme() {
        "http" | "https" if url.host().is_some() => Ok(url),
        _ => Err("it must be an http or https address".to_owned()),
    }
}
