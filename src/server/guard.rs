//! Refuses requests that larder must not answer, before any routing.
//!
//! Five attacks or mistakes end here:
//!
//! - DNS rebinding: a web page resolves its own name to a loopback address. [`Hosts`] does not list that name.
//! - Use as a proxy: `CONNECT` and absolute request targets would let clients choose where larder connects.
//! - Request smuggling: larder serves `GET` and `HEAD` without bodies and refuses everything else.
//! - Ambiguous authority: no `Host`, two of them, or one that differs from `:authority`. `config.json` repeats the
//!   authority, so only valid host names and ports get past this module.
//! - Heads larger than any client needs. HTTP/1.1 and HTTP/2 bound the bytes of a head before.
//!
//! The module is pure: a request head and the allow list in, the authority or a refusal out.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::{Method, Request, StatusCode, Version, header};

use super::connection::h2c::announces_body;

/// Bytes of the path and query of a request. The longest ones that clients use are below 300.
const MAX_TARGET_BYTES: usize = 8 << 10;
/// Header fields of a request, as many as hyper takes over HTTP/1.1. Cargo and rustup send up to ten.
const MAX_HEADER_FIELDS: usize = 100;

/// Names that container engines and virtual machines give to their host. Public name servers cannot assign them.
const HOSTS_OF_CONTAINERS: [&str; 7] = [
    "host.docker.internal",
    "gateway.docker.internal",
    "host.containers.internal",
    "host.lima.internal",
    "host.minikube.internal",
    "host.orb.internal",
    "host.rancher-desktop.internal",
];

/// The host names that clients may use for this server.
#[derive(Clone, Debug)]
pub struct Hosts {
    /// Authorities with port that need no parsing: the listening addresses and `localhost`.
    exact: Vec<String>,
    listening: Vec<IpAddr>,
    /// The machine's name, with and without its domain.
    machine: Vec<String>,
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

impl Refused {
    /// True if the head of the request exceeds a limit.
    pub fn is_too_large(&self) -> bool {
        let status = self.status;
        status == StatusCode::URI_TOO_LONG || status == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
    }
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
            machine: Vec::new(),
            allowed: allowed
                .iter()
                .map(|name| name.to_ascii_lowercase())
                .collect(),
        }
    }

    /// Allows the machine's own name too, with and without its domain.
    #[must_use]
    pub fn with_machine(mut self, name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        let short = name.split('.').next().unwrap_or_default().to_owned();
        self.machine = vec![name, short];
        self
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
                || is_local(address)
                || self.listening.contains(&address)
                || self.allowed.contains(&host);
        }
        host == "localhost"
            || host.ends_with(".localhost")
            || HOSTS_OF_CONTAINERS.contains(&host.as_str())
            || self.machine.contains(&host)
            || self.allowed.contains(&host)
    }
}

/// True for loopback, private and link-local addresses. Containers reach the host by such addresses, and a web page
/// cannot rebind an address.
fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

/// True if `authority` is a host name or an address in brackets, and at most a port. Escapes and other characters that
/// RFC 3986 allows are not used in names of machines.
fn is_valid(authority: &http::uri::Authority) -> bool {
    let host = authority.host();
    let rest = authority.as_str().strip_prefix(host);
    let has_valid_port = match rest.map(|port| port.strip_prefix(':').ok_or(port)) {
        Some(Ok(port)) => is_port(port),
        Some(Err(rest)) => rest.is_empty(),
        // User information comes before the host.
        None => false,
    };
    has_valid_port && (is_address(host) || is_name(host))
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse().is_ok_and(|port: u16| port > 0)
}

fn is_address(host: &str) -> bool {
    let v6 = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    v6.is_some_and(|host| host.parse::<Ipv6Addr>().is_ok())
}

fn is_name(host: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    // A label with a false encoding of Unicode (`xn--`) makes no URL, and `config.json` repeats the name in one.
    let makes_url = url::Host::parse(host).is_ok();
    let host = host.strip_suffix('.').unwrap_or(host);
    makes_url && host.len() <= 253 && host.split('.').all(is_label)
}

/// Refuses heads that are too large, methods other than GET and HEAD, and requests with a body.
///
/// # Errors
/// [`Refused`] if the request must not be answered.
pub(super) fn check_head<B>(request: &Request<B>) -> Result<(), Refused> {
    let target = request.uri().path_and_query();
    if target.is_some_and(|target| target.as_str().len() > MAX_TARGET_BYTES) {
        let reason = format!("the address has more than {MAX_TARGET_BYTES} bytes");
        return refuse(StatusCode::URI_TOO_LONG, &reason);
    }
    if request.headers().len() > MAX_HEADER_FIELDS {
        let reason = format!("the request has more than {MAX_HEADER_FIELDS} header fields");
        return refuse(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, &reason);
    }
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
    Ok(())
}

fn refuse<T>(status: StatusCode, reason: &str) -> Result<T, Refused> {
    Err(Refused {
        status,
        reason: reason.to_owned(),
    })
}

/// Returns the authority that the client used, with port.
///
/// # Errors
/// [`Refused`] if the request must not be answered.
pub fn check<'a, B>(request: &'a Request<B>, hosts: &Hosts) -> Result<&'a str, Refused> {
    check_head(request)?;
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
    check_authority(authority, hosts)?;
    Ok(authority)
}

/// Refuses an authority that is no host name with a port, or that is not allowed here.
///
/// # Errors
/// [`Refused`].
pub(super) fn check_authority(authority: &str, hosts: &Hosts) -> Result<(), Refused> {
    if hosts.exact.iter().any(|exact| exact == authority) {
        return Ok(());
    }
    let Ok(parsed) = authority.parse::<http::uri::Authority>() else {
        return refuse(StatusCode::BAD_REQUEST, "`Host` cannot be read");
    };
    if !is_valid(&parsed) {
        return refuse(
            StatusCode::BAD_REQUEST,
            "`Host` is no valid host name with a port from 1 to 65535",
        );
    }
    if !hosts.allows(parsed.host()) {
        let host = parsed.host();
        let reason = format!(
            "the host name `{host}` is not allowed here; if it is yours, add `--allow-host {host}`"
        );
        return Err(Refused {
            status: StatusCode::MISDIRECTED_REQUEST,
            reason,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_host(listening: &str, host: &str, expected: bool) {
        let hosts = Hosts::new(
            &[listening.parse().unwrap()],
            &["larder.corp.example".to_owned()],
        )
        .with_machine("Laptop.home.arpa");
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
            "host.docker.internal",
            "build.localhost:1",
            "laptop:3263",
            "LAPTOP.home.arpa",
            "192.168.1.2:3263",
            "10.0.2.2:65535",
            "169.254.1.3:3263",
            "[fd00::1]:3263",
        ] {
            check_host(LOOPBACK, host, true);
        }
        check_host(LOOPBACK, "larder.corp.example:3263", true);
        for host in [
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "laptop.evil.example",
            "203.0.113.1:3263",
            "",
            "a@localhost",
            "metadata.google.internal",
            "anything.internal",
            "host.docker.internal.evil.example",
        ] {
            check_host(LOOPBACK, host, false);
        }
        check_host("0.0.0.0:3263", "10.0.0.1:3263", true);
        check_host("0.0.0.0:3263", "evil.example", false);
        check_host("203.0.113.1:3263", "203.0.113.1:3263", true);
        check_host("203.0.113.1:3263", "203.0.113.2:3263", false);
    }

    #[test]
    fn a_host_that_is_no_host_name_is_refused_and_not_repeated() {
        let hosts = Hosts::new(&["0.0.0.0:1".parse().unwrap()], &["$(id)".to_owned()]);
        let label = "a".repeat(64);
        for host in [
            "$(id).localhost",
            "$(id)",
            "`id`.localhost",
            "a%41.localhost",
            "a..localhost",
            ".localhost",
            "localhost:99999",
            "localhost:0",
            "localhost:",
            "localhost:+1",
            "localhost:1:2",
            "xn--.localhost",
            "127.0.0.1:65536",
            "[::1",
            "[::g]",
            "[localhost]",
            "a@localhost",
            &format!("{label}.localhost"),
            &"a.".repeat(127).repeat(2),
        ] {
            let request = Request::get("/config.json").header("host", host);
            let Ok(request) = request.body(()) else {
                continue;
            };
            let refused = check(&request, &hosts).expect_err(host);
            assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{host}");
            assert!(!refused.reason.contains("localhost"), "{refused:?}");
        }
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
