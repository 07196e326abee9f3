//! Where a client reaches larder, and who it is, behind a proxy that ends TLS.
//!
//! ```text
//!   client ── https://cache.example ──> proxy ── http://127.0.0.1:3263 ──> larder
//!                                         └ X-Forwarded-For, -Proto, -Host, or Forwarded (RFC 7239)
//! ```
//!
//! `config.json`, the script and the pages contain the address by which the client reaches larder: the setting
//! `public-url`, else the headers of a trusted proxy, else `Host`. These headers are ignored from other clients. A
//! proxy appends to the lists that its client sent. So larder reads the lists from their ends, as long as the address
//! there is that of a trusted proxy. If a request has both kinds of headers, `X-Forwarded-*` counts: more proxies set
//! it, and few remove the other. Pure.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, Request};
use ipnet::IpNet;
use url::Url;

use super::guard::{self, Hosts, Refused};

/// The public address, and the proxies that may tell another.
#[derive(Clone, Debug, Default)]
pub struct PublicAddress {
    /// The address for all clients.
    pub url: Option<Url>,
    /// Proxies whose headers are believed.
    pub trusted: Vec<IpNet>,
}

/// How a client addresses larder.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ClientBase<'a> {
    Url(&'a Url),
    Host {
        scheme: &'static str,
        authority: &'a str,
    },
}

/// A proxy's words about one request.
#[derive(Debug, Default, PartialEq, Eq)]
struct Forwarded<'a> {
    client: Option<IpAddr>,
    is_https: bool,
    host: Option<&'a str>,
}

impl ClientBase<'_> {
    /// The address, ending in `/`.
    pub(super) fn address(&self) -> String {
        match self {
            Self::Url(url) => url.to_string(),
            Self::Host { scheme, authority } => format!("{scheme}://{authority}/"),
        }
    }
}

impl PublicAddress {
    /// Checks a request, and tells how its client addresses larder. `peer` is the other end of the connection.
    ///
    /// # Errors
    /// [`Refused`] if the request must not be answered.
    pub(super) fn base<'a>(
        &'a self,
        request: &'a Request<()>,
        peer: IpAddr,
        hosts: &Hosts,
    ) -> Result<ClientBase<'a>, Refused> {
        let authority = guard::check(request, hosts)?;
        let forwarded = self.forwarded(peer, request.headers());
        if let Some(host) = forwarded.host {
            guard::check_authority(host, hosts)?;
        }
        Ok(match &self.url {
            Some(url) => ClientBase::Url(url),
            None => ClientBase::Host {
                scheme: if forwarded.is_https { "https" } else { "http" },
                authority: forwarded.host.unwrap_or(authority),
            },
        })
    }

    /// The client behind a trusted proxy; `None` for others.
    pub(super) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> Option<IpAddr> {
        self.forwarded(peer, headers).client
    }

    fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted
            .iter()
            .any(|network| network.contains(&address))
    }

    fn forwarded<'a>(&self, peer: IpAddr, headers: &'a HeaderMap) -> Forwarded<'a> {
        if self.trusted.is_empty() || !self.trusts(peer) {
            return Forwarded::default();
        }
        let list = |name| values(headers, name);
        let [clients, schemes, names] =
            ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"].map(list);
        if clients.is_empty() && schemes.is_empty() && names.is_empty() {
            return self.standard(&list("forwarded"));
        }
        let passed = clients
            .iter()
            .rev()
            .take_while(|client| address(client).is_some_and(|client| self.trusts(client)));
        let at = passed.count();
        // The value that the outermost trusted proxy has added.
        let of = |list: &[&'a str]| list.iter().rev().nth(at).or(list.first()).copied();
        Forwarded {
            client: of(&clients).and_then(address),
            is_https: of(&schemes).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")),
            host: of(&names),
        }
    }

    /// The same from the elements of `Forwarded`.
    fn standard<'a>(&self, elements: &[&'a str]) -> Forwarded<'a> {
        let mut found = Forwarded::default();
        for element in elements.iter().rev() {
            found = Forwarded::default();
            for pair in element.split(';') {
                let Some((name, value)) = pair.trim().split_once('=') else {
                    continue;
                };
                let value = value.trim_matches('"');
                match name.to_ascii_lowercase().as_str() {
                    "for" => found.client = address(value),
                    "proto" => found.is_https = value.eq_ignore_ascii_case("https"),
                    "host" => found.host = Some(value),
                    _ => {}
                }
            }
            if !found.client.is_some_and(|client| self.trusts(client)) {
                break;
            }
        }
        found
    }
}

/// The parts of a header that may be repeated and hold several values. A name or an address has no comma.
fn values<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    let lines = headers.get_all(name).iter();
    let values = lines.filter_map(|value| value.to_str().ok());
    let values = values.flat_map(|value| value.split(',')).map(str::trim);
    values.filter(|value| !value.is_empty()).collect()
}

/// An address with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let address = bare.unwrap_or(text).parse();
    let address = address.or_else(|_| text.parse().map(|socket: SocketAddr| socket.ip()));
    address.ok().map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn public(url: Option<&str>) -> PublicAddress {
        PublicAddress {
            url: url.map(|url| url.parse().unwrap()),
            trusted: ["127.0.0.1/32", "10.0.0.0/8", "fd00::/8"]
                .map(|net| net.parse().unwrap())
                .into(),
        }
    }

    /// The base address and the client's address, or the status of the refusal.
    fn seen(
        public: &PublicAddress,
        peer: &str,
        headers: &[(&str, &str)],
    ) -> (Result<String, u16>, Option<String>) {
        let hosts = Hosts::new(
            &["127.0.0.1:3263".parse().unwrap()],
            &["cache.example".to_owned()],
        );
        let mut request = Request::get("/config.json").header("host", "127.0.0.1:3263");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).unwrap();
        let peer = peer.parse().unwrap();
        let base = public.base(&request, peer, &hosts);
        let base = base
            .map(|base| base.address())
            .map_err(|refused| refused.status.as_u16());
        (
            base,
            public
                .client(peer, request.headers())
                .map(|client| client.to_string()),
        )
    }

    fn ok(base: &str, client: Option<&str>) -> (Result<String, u16>, Option<String>) {
        (Ok(base.to_owned()), client.map(str::to_owned))
    }

    const OWN: &str = "http://127.0.0.1:3263/";

    #[test]
    fn only_trusted_proxies_are_believed() {
        let headers = [
            ("x-forwarded-for", "203.0.113.7"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "cache.example"),
        ];
        let found = ok("https://cache.example/", Some("203.0.113.7"));
        for peer in ["127.0.0.1", "::ffff:127.0.0.1", "10.1.2.3", "fd00::1"] {
            assert_eq!(seen(&public(None), peer, &headers), found, "{peer}");
        }
        for peer in ["127.0.0.2", "203.0.113.7", "::1"] {
            assert_eq!(seen(&public(None), peer, &headers), ok(OWN, None), "{peer}");
        }
        assert_eq!(
            seen(&PublicAddress::default(), "127.0.0.1", &headers),
            ok(OWN, None)
        );
        assert_eq!(seen(&public(None), "127.0.0.1", &[]), ok(OWN, None));
    }

    #[test]
    fn client_cannot_pretend_by_headers_that_a_proxy_appends_to() {
        let headers = [
            ("x-forwarded-for", "192.0.2.66, 203.0.113.7, 10.0.0.9"),
            ("x-forwarded-proto", "https, https, http"),
            (
                "x-forwarded-host",
                "evil.example, cache.example, 127.0.0.1:3263",
            ),
            ("forwarded", "for=192.0.2.66;host=evil.example"),
        ];
        let found = ok("https://cache.example/", Some("203.0.113.7"));
        assert_eq!(seen(&public(None), "127.0.0.1", &headers), found);
        let headers = [(
            "forwarded",
            "for=192.0.2.66;host=evil.example, For=\"203.0.113.7:99\" ; Proto=HTTPS;host=cache.example, for=\"[fd00::9]\"",
        )];
        assert_eq!(seen(&public(None), "127.0.0.1", &headers), found);
    }

    #[test]
    fn name_that_is_not_allowed_is_refused_also_from_a_proxy() {
        for (host, status) in [
            ("evil.example", 421),
            ("$(id)", 400),
            ("a@cache.example", 400),
        ] {
            let headers = [("x-forwarded-host", host)];
            assert_eq!(
                seen(&public(None), "127.0.0.1", &headers).0,
                Err(status),
                "{host}"
            );
            let element = format!("for=192.0.2.1;host=\"{host}\"");
            let headers = [("forwarded", element.as_str())];
            assert_eq!(
                seen(&public(None), "127.0.0.1", &headers).0,
                Err(status),
                "{host}"
            );
        }
    }

    #[test]
    fn public_url_is_the_address_of_all_clients() {
        let public = public(Some("https://cache.example/larder/"));
        let found = ok("https://cache.example/larder/", None);
        assert_eq!(seen(&public, "203.0.113.7", &[]), found);
        let headers = [
            ("x-forwarded-for", "unknown"),
            ("x-forwarded-proto", "http"),
        ];
        assert_eq!(seen(&public, "127.0.0.1", &headers), found);
    }
}
