//! The proxy that a client uses for an address, by the rules of curl, which rustup's library shares as far as larder's
//! addresses are concerned: observed with cargo 1.95 and rustup 1.29.
//!
//! | for an http address | cargo | rustup |
//! |---|---|---|
//! | 1. `CARGO_HTTP_PROXY`, then cargo's `http.proxy`, then git's `http.proxy` | yes | no |
//! | 2. `http_proxy`, in lower case only | yes | yes |
//! | 3. `all_proxy`, `ALL_PROXY` | yes | yes |
//! | hosts in `no_proxy` or `NO_PROXY` are asked directly | yes | yes |
//!
//! For an https address `https_proxy` and `HTTPS_PROXY` take the place of `http_proxy`. An empty value means no proxy.

use hyper_util::client::proxy::matcher::Matcher;
use url::Url;

/// A proxy, and the setting that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientProxy {
    /// Its address as the setting has it; curl needs no scheme.
    pub url: String,
    /// The file or variable, in words.
    pub place: String,
}

impl ClientProxy {
    /// A proxy from an environment variable.
    pub fn of_variable(name: &str, url: &str) -> Self {
        Self {
            url: url.to_owned(),
            place: format!("the variable {name}"),
        }
    }

    /// Its address; `None` if it is no URL.
    pub fn parsed(&self) -> Option<Url> {
        match self.url.contains("://") {
            true => self.url.parse().ok(),
            false => format!("http://{}", self.url).parse().ok(),
        }
    }

    /// Its address without user name and password.
    pub fn shown(&self) -> String {
        let Some(mut url) = self.parsed() else {
            return self.url.clone();
        };
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url.as_str().trim_end_matches('/').to_owned()
    }
}

/// The settings from which one client takes its proxy.
#[derive(Clone, Debug, Default)]
pub struct ProxySources {
    /// The client's own settings, if one is made.
    pub own: Option<ClientProxy>,
    /// For http addresses.
    pub http: Option<ClientProxy>,
    /// For https addresses.
    pub https: Option<ClientProxy>,
    /// For all addresses that have no other.
    pub all: Option<ClientProxy>,
    /// Hosts that are asked directly, as in `no_proxy`.
    pub no_proxy: String,
}

impl ProxySources {
    /// The proxies of the environment. `variable` reads it.
    pub fn of_environment<'a>(variable: impl Fn(&str) -> Option<&'a str>) -> Self {
        let first = |names: &[&str]| {
            let mut set = names.iter();
            set.find_map(|name| Some(ClientProxy::of_variable(name, variable(name)?)))
        };
        let no_proxy = variable("no_proxy").or_else(|| variable("NO_PROXY"));
        Self {
            own: None,
            http: first(&["http_proxy"]),
            https: first(&["https_proxy", "HTTPS_PROXY"]),
            all: first(&["all_proxy", "ALL_PROXY"]),
            no_proxy: no_proxy.unwrap_or_default().to_owned(),
        }
    }

    /// The proxy for an address.
    pub fn proxy_for(&self, url: &Url) -> Option<&ClientProxy> {
        let by_scheme = match url.scheme() {
            "https" => &self.https,
            _ => &self.http,
        };
        let found = self.own.as_ref().or(by_scheme.as_ref());
        let found = found.or(self.all.as_ref())?;
        let is_direct = found.url.is_empty() || is_excluded(url, &self.no_proxy);
        (!is_direct).then_some(found)
    }
}

/// Tells if the list of hosts without a proxy has this address.
fn is_excluded(url: &Url, no_proxy: &str) -> bool {
    if no_proxy.trim() == "*" {
        return true;
    }
    let matcher = Matcher::builder()
        .all("http://127.0.0.1:1")
        .no(no_proxy)
        .build();
    let uri = url.as_str().parse();
    uri.is_ok_and(|uri| matcher.intercept(&uri).is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(own: Option<&str>, variables: &[(&str, &str)], url: &str, expected: Option<&str>) {
        let mut sources = ProxySources::of_environment(|name| {
            let mut variables = variables.iter();
            Some(variables.find(|(known, _)| *known == name)?.1)
        });
        sources.own = own.map(|url| ClientProxy {
            url: url.to_owned(),
            place: "a file".to_owned(),
        });
        let found = sources.proxy_for(&url.parse().unwrap());
        let found = found.map(|proxy| proxy.place.as_str());
        assert_eq!(found, expected, "{own:?} {variables:?} {url}");
    }

    #[test]
    fn client_uses_the_proxy_that_real_clients_use() {
        let larder = "http://127.0.0.1:3263/";
        let proxy = "http://127.0.0.1:9";
        let http = ("http_proxy", proxy);
        check(None, &[], larder, None);
        check(None, &[http], larder, Some("the variable http_proxy"));
        check(None, &[("HTTP_PROXY", proxy)], larder, None);
        check(None, &[("https_proxy", proxy)], larder, None);
        let all = ("ALL_PROXY", proxy);
        check(None, &[all], larder, Some("the variable ALL_PROXY"));
        check(Some(proxy), &[http], larder, Some("a file"));
        check(Some(""), &[http], larder, None);
        check(None, &[("http_proxy", ""), all], larder, None);
        for list in ["127.0.0.1", "127.0.0.0/8", "localhost, 127.0.0.1", "*"] {
            check(Some(proxy), &[("no_proxy", list)], larder, None);
            check(None, &[http, ("NO_PROXY", list)], larder, None);
        }
        check(
            None,
            &[http, ("no_proxy", "localhost")],
            larder,
            Some("the variable http_proxy"),
        );
        check(
            None,
            &[("HTTPS_PROXY", proxy), http],
            "https://larder.example/",
            Some("the variable HTTPS_PROXY"),
        );
    }

    #[test]
    fn address_without_scheme_is_http_and_passwords_are_not_shown() {
        let proxy = |url: &str| ClientProxy::of_variable("http_proxy", url);
        assert_eq!(proxy("10.0.0.1:3128").shown(), "http://10.0.0.1:3128");
        let with_password = proxy("http://me:secret@proxy.example:8080/");
        assert_eq!(with_password.shown(), "http://proxy.example:8080");
    }
}
