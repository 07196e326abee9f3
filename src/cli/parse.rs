//! Parsers of values that flags, variables and the settings file share.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;
use url::Url;

/// The daemon's default port. It must never change: cargo recompiles everything when a registry's address changes.
pub const PORT: u16 = 3263;
/// The default port of the daemon's intercepting proxy.
pub const PROXY_PORT: u16 = 3264;

/// A duration such as `90s` or `5m`. A number without a unit is in seconds.
///
/// # Errors
/// The reason why the text is none.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => humantime::parse_duration(text)
            .map_err(|error| format!("a duration such as 90s or 14d is expected ({error})")),
    }
}

/// The age from which something is removed or allowed, such as `90d`. It has a unit: seconds are hardly ever meant.
///
/// # Errors
/// The reason why the text is none.
pub fn parse_age(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(number) if number > 0 => Err(format!(
            "it has no unit; a duration such as {number}d or {number}h is expected"
        )),
        Ok(_) | Err(_) => parse_duration(text),
    }
}

/// A number of bytes such as `500MB` or `20GiB`. `kB`, `MB`, `GB` and `TB` are powers of 1000, `KiB` and so on of 1024;
/// the `B` may be left out of these. A unit is required, since bytes are hardly ever meant.
///
/// # Errors
/// The reason why the text is none.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || "a size such as 500MB or 20GiB is expected".to_owned();
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let unit = unit.trim().to_ascii_lowercase();
    if unit.is_empty() && number > 0.0 {
        return Err(format!(
            "it has no unit; a size such as {number}MB or {number}GB is expected"
        ));
    }
    let unit = unit.strip_suffix('b').unwrap_or(&unit);
    let factor: u64 = match unit {
        "" => 1,
        "k" => 1_000,
        "m" => 1_000_000,
        "g" => 1_000_000_000,
        "t" => 1_000_000_000_000,
        "ki" => 1 << 10,
        "mi" => 1 << 20,
        "gi" => 1 << 30,
        "ti" => 1 << 40,
        _ => return Err(wrong()),
    };
    Ok((number * factor as f64) as u64)
}

/// An address to listen on. Without a port it has [`PORT`], a port alone is on loopback, and `localhost` is 127.0.0.1.
///
/// # Errors
/// The reason why the text is none.
pub fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    parse_address(text, PORT)
}

/// A network, or one address.
///
/// # Errors
/// The reason why the text is none.
pub fn parse_network(text: &str) -> Result<IpNet, String> {
    let address = text
        .parse::<IpAddr>()
        .map(|one| IpNet::from(one.to_canonical()));
    let network = address.or_else(|_| text.parse::<IpNet>());
    network.map_err(|_| "an address or a network such as `10.0.0.0/8` is expected".to_owned())
}

/// The address of the intercepting proxy: as [`parse_listen`], with the default port [`PROXY_PORT`].
///
/// # Errors
/// The reason why the text is none.
pub fn parse_intercept(text: &str) -> Result<SocketAddr, String> {
    parse_address(text, PROXY_PORT)
}

fn parse_address(text: &str, default_port: u16) -> Result<SocketAddr, String> {
    let text = match text.strip_prefix("localhost") {
        Some(rest) => format!("127.0.0.1{rest}"),
        None => text.to_owned(),
    };
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if let Ok(port) = text.parse() {
        return Ok((Ipv4Addr::LOCALHOST, port).into());
    }
    let host = text.trim_start_matches('[').trim_end_matches(']');
    match host.parse::<IpAddr>() {
        Ok(host) => Ok((host, default_port).into()),
        Err(_) => Err(format!(
            "an IP address such as 127.0.0.1:{default_port} is expected"
        )),
    }
}

/// True or false, in one of the usual words.
///
/// # Errors
/// The reason why the text is none.
pub fn parse_switch(text: &str) -> Result<bool, String> {
    match text.to_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        _ => Err("true or false is expected".to_owned()),
    }
}

/// The base address of a server, such as `http://builder.example:3263`. The result ends in `/`.
///
/// # Errors
/// The reason why the text is none.
pub(super) fn parse_base_url(text: &str) -> Result<Url, String> {
    let wrong = || "an address such as http://builder.example:3263 is expected".to_owned();
    let mut url = Url::parse(text).map_err(|_| wrong())?;
    let is_plain = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    if !matches!(url.scheme(), "http" | "https") || !is_plain {
        return Err(wrong());
    }
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_need_no_port_and_ports_no_address() {
        for (text, expected) in [
            ("0.0.0.0", "0.0.0.0:3263"),
            ("::1", "[::1]:3263"),
            ("[::1]", "[::1]:3263"),
            ("localhost", "127.0.0.1:3263"),
            ("localhost:80", "127.0.0.1:80"),
            ("80", "127.0.0.1:80"),
            ("127.0.0.2:80", "127.0.0.2:80"),
        ] {
            assert_eq!(parse_listen(text), Ok(expected.parse().unwrap()), "{text}");
        }
        assert!(parse_listen("here").is_err());
        assert!(parse_listen("").is_err());
    }

    #[test]
    fn address_of_a_server_ends_in_a_slash() {
        let parsed = |text: &str| parse_base_url(text).map(|url| url.to_string());
        let expected = Ok("http://builder.example:3263/".to_owned());
        assert_eq!(parsed("http://builder.example:3263"), expected);
        let expected = Ok("https://h/larder/".to_owned());
        assert_eq!(parsed("https://h/larder"), expected);
        for text in ["builder:3263", "ftp://h/", "http://h/?a", "http://u@h/", ""] {
            assert!(parse_base_url(text).is_err(), "{text}");
        }
    }

    #[test]
    fn number_without_a_unit_is_in_seconds() {
        assert_eq!(parse_duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("5m"), Ok(Duration::from_secs(300)));
        assert!(parse_duration("soon").is_err());
    }

    #[test]
    fn age_needs_a_unit_that_is_not_zero() {
        assert_eq!(parse_age("0"), Ok(Duration::ZERO));
        assert_eq!(parse_age("2d"), Ok(Duration::from_secs(2 * 86_400)));
        let said = parse_age("90").unwrap_err();
        assert!(said.contains("no unit") && said.contains("90d"), "{said}");
    }

    #[test]
    fn sizes_have_decimal_and_binary_units() {
        for (text, expected) in [
            ("0", 0),
            ("1234B", 1_234),
            ("500MB", 500_000_000),
            ("500 mb", 500_000_000),
            ("1.5G", 1_500_000_000),
            ("20GiB", 20 << 30),
            ("2k", 2_000),
            ("2KiB", 2_048),
            ("1Ti", 1 << 40),
        ] {
            assert_eq!(parse_size(text), Ok(expected), "{text}");
        }
        for text in ["", "20", "GB", "-1", "1x", "1..2", "lots"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
