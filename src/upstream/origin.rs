//! [`Origin`]: the identity of an upstream. Circuit breakers, connections and failures are kept by origin, so that a
//! problem of one upstream does not affect another one on the same machine.

use std::{borrow::Cow, fmt, sync::Arc};

use url::Url;

/// The identity of an upstream: scheme, host and port of a URL. `Display` writes it as people do: `index.example`, or
/// `127.0.0.1:8080` if the port is not the scheme's default.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    host: Arc<str>,
    port: u16,
    scheme: Cow<'static, str>,
}

impl Origin {
    /// Returns whether `name`, a host with or without a port as the user writes it, means this origin.
    pub(super) fn is_named(&self, name: &str) -> bool {
        *self.host == *name || self.to_string() == name
    }
}

impl From<&Url> for Origin {
    fn from(url: &Url) -> Self {
        Self {
            host: url.host_str().unwrap_or_default().into(),
            port: url.port_or_known_default().unwrap_or_default(),
            scheme: match url.scheme() {
                "https" => "https".into(),
                "http" => "http".into(),
                other => other.to_owned().into(),
            },
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&*self.scheme, &*self.host, self.port) {
            (scheme, "", _) => write!(f, "{scheme}:"),
            ("https", host, 443) | ("http", host, 80) | (_, host, 0) => f.write_str(host),
            (_, host, port) => write!(f, "{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(url: &str) -> Origin {
        Origin::from(&Url::parse(url).unwrap())
    }

    #[test]
    fn an_origin_prints_its_port_unless_it_is_the_default() {
        for (url, text) in [
            ("https://a.example/path", "a.example"),
            ("https://a.example:443/", "a.example"),
            ("http://a.example:443/", "a.example:443"),
            ("http://127.0.0.1:8080/", "127.0.0.1:8080"),
            ("http://[::1]:8080/", "[::1]:8080"),
            ("data:text/html,x", "data:"),
        ] {
            assert_eq!(origin(url).to_string(), text);
        }
        assert_ne!(origin("http://a.example/"), origin("https://a.example/"));
    }
}
