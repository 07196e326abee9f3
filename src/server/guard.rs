//! Refuses requests that larder must not answer, before any routing.
//!
//! Four attacks or mistakes end here:
//!
//! - DNS rebinding: a web page resolves its own name to a loopback address. [`Hosts`] does not list that name.
//! - Use as a proxy: `CONNECT` and absolute request targets would let clients choose where larder connects.
//! - Request smuggling: larder serves `GET` and `HEAD` without bodies and refuses everything else.
//! - Ambiguous authority: no `Host`, two of them, or one that differs from `:authority`.
//!
//! The module is pure: a request head and the allow list in, the authority or a refusal out.

use std::net::{IpAddr, SocketAddr};

use http::{Method, Request, StatusCode, Version, header};

use super::connection::h2c::announces_body;

/// The host names that clients may use for this server.
#[derive(Clone, Debug)]
pub struct Hosts {
    /// Authorities with port that need no parsing: the listening addresses and `localhost`.
    exact: Vec<String>,
    listening: Vec<IpAddr>,
    allowed: Vec<String>,
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Status of the answer.
    pub status: StatusCode,
    /// Reason, as shown to the client.
    pub reason: String,
}

impl Hosts {
    /// Allows the listening addresses, and the names that the user configured.
    pub fn new(listening: &[SocketAddr], allowed: &[String]) -> Self {
        Self {
            exact: listening
                .iter()
                .flat_map(|address| [address.to_string(), format!("localhost:{}", address.port())])
                .collect(),
            listening: listening.iter().map(SocketAddr::ip).collect(),
            allowed: allowed
                .iter()
                .map(|name| name.to_ascii_lowercase())
                .collect(),
        }
    }

    /// True if clients may use `host`, given without port.
    fn allows(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(&host);
        if let Ok(address) = bare.parse::<IpAddr>() {
            let everywhere = self.listening.iter().any(IpAddr::is_unspecified);
            return everywhere
                || address.is_loopback()
                || self.listening.contains(&address)
                || self.allowed.contains(&host);
        }
        // Public name servers cannot assign these: `localhost`, and container engines' names for their host.
        host == "localhost"
            || host.ends_with(".localhost")
            || host.ends_with(".internal")
            || self.allowed.contains(&host)
    }
}

/// Returns the authority that the client used, with port.
///
/// # Errors
/// [`Refused`] if the request must not be answered.
pub fn check<'a, B>(request: &'a Request<B>, hosts: &Hosts) -> Result<&'a str, Refused> {
    let refuse = |status, reason: &str| {
        Err(Refused {
            status,
            reason: reason.to_owned(),
        })
    };
    if request.method() == Method::CONNECT {
        return refuse(
            StatusCode::METHOD_NOT_ALLOWED,
            "larder is no proxy: CONNECT is not served",
        );
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return refuse(
            StatusCode::METHOD_NOT_ALLOWED,
            "only GET and HEAD are served",
        );
    }
    if announces_body(request.headers()) {
        return refuse(
            StatusCode::BAD_REQUEST,
            "a request with a body is not served",
        );
    }
    let is_h2 = request.version() == Version::HTTP_2;
    if !is_h2 && request.uri().authority().is_some() {
        return refuse(
            StatusCode::BAD_REQUEST,
            "larder is no proxy: request a path, not an absolute address",
        );
    }
    let mut named = request
        .headers()
        .get_all(header::HOST)
        .iter()
        .map(|host| host.to_str().unwrap_or_default());
    let in_uri = request.uri().authority().map(http::uri::Authority::as_str);
    let authority = match (in_uri, named.next(), named.next()) {
        (_, _, Some(_)) => return refuse(StatusCode::BAD_REQUEST, "more than one `Host`"),
        (Some(uri), Some(host), None) if uri != host => {
            return refuse(StatusCode::BAD_REQUEST, "`Host` and `:authority` differ");
        }
        (Some(authority), _, None) | (None, Some(authority), None) => authority,
        (None, None, None) => return refuse(StatusCode::BAD_REQUEST, "no `Host`"),
    };
    if hosts.exact.iter().any(|exact| exact == authority) {
        return Ok(authority);
    }
    let Ok(parsed) = authority.parse::<http::uri::Authority>() else {
        return refuse(StatusCode::BAD_REQUEST, "`Host` cannot be read");
    };
    if authority.contains('@') || !hosts.allows(parsed.host()) {
        let reason = format!(
            "the host name `{}` is not allowed here; if it is yours, add `--allow-host {}`",
            parsed.host().escape_default(),
            parsed.host().escape_default()
        );
        return Err(Refused {
            status: StatusCode::MISDIRECTED_REQUEST,
            reason,
        });
    }
    Ok(authority)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_host(listening: &str, host: &str, expected: bool) {
        let hosts = Hosts::new(
            &[listening.parse().unwrap()],
            &["larder.corp.example".to_owned()],
        );
        let request = Request::get("/config.json")
            .header("host", host)
            .body(())
            .unwrap();
        let found = check(&request, &hosts);
        assert_eq!(found.is_ok(), expected, "{host}: {found:?}");
    }

    #[test]
    fn only_local_and_configured_host_names_are_allowed() {
        const LOOPBACK: &str = "127.0.0.1:3263";
        for host in [
            "127.0.0.1:3263",
            "localhost",
            "LOCALHOST.:3263",
            "[::1]:3263",
            "host.containers.internal:3263",
        ] {
            check_host(LOOPBACK, host, true);
        }
        check_host(LOOPBACK, "larder.corp.example:3263", true);
        for host in [
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "10.0.0.1",
            "",
            "a@localhost",
        ] {
            check_host(LOOPBACK, host, false);
        }
        check_host("0.0.0.0:3263", "10.0.0.1:3263", true);
        check_host("0.0.0.0:3263", "evil.example", false);
        check_host("10.0.0.1:3263", "10.0.0.1:3263", true);
        check_host("10.0.0.1:3263", "10.0.0.2:3263", false);
    }

    #[track_caller]
    fn check_refused(request: http::request::Builder, status: u16) {
        let hosts = Hosts::new(&["127.0.0.1:1".parse().unwrap()], &[]);
        let request = request.body(()).unwrap();
        let found = check(&request, &hosts).map_err(|refused| refused.status.as_u16());
        assert_eq!(found, Err(status));
    }

    #[test]
    fn proxy_requests_and_bodies_are_refused() {
        check_refused(
            Request::get("http://other.example/").header("host", "localhost"),
            400,
        );
        check_refused(
            Request::connect("other.example:443").header("host", "localhost"),
            405,
        );
        check_refused(
            Request::post("/config.json").header("host", "localhost"),
            405,
        );
        check_refused(
            Request::get("/")
                .header("host", "localhost")
                .header("content-length", "5"),
            400,
        );
        check_refused(
            Request::get("/")
                .header("host", "localhost")
                .header("transfer-encoding", "chunked"),
            400,
        );
        check_refused(Request::get("/"), 400);
        check_refused(
            Request::get("/")
                .header("host", "localhost")
                .header("host", "localhost"),
            400,
        );
        check_refused(Request::get("/").header("host", "evil.example"), 421);
    }
}
