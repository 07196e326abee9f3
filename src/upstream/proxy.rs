//! Names the proxy in the text of a failed connection. reqwest reads the same variables and reports only what failed.
//!
//! reqwest ignores a variable whose value is no address, and connects without a proxy. The text says that too.

use hyper_util::client::proxy::matcher::Matcher;
use url::Url;

/// The variables that name proxies, and what replaces them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyVariables {
    /// Name and value for http upstreams.
    pub http: Option<(String, String)>,
    /// Name and value for https upstreams.
    pub https: Option<(String, String)>,
    /// Name and value for all others.
    pub all: Option<(String, String)>,
    /// Hosts that are reached without a proxy.
    pub no_proxy: String,
    /// Cargo's own proxy, for all hosts, instead of those that the variables name.
    pub replacement: Option<String>,
}

/// The setting that [`ProxyVariables::replacement`] comes from.
const REPLACEMENT_SETTING: &str = "cargo's http.proxy";

impl ProxyVariables {
    /// The text of a failed connection to `url`, with the proxy that was used or should have been.
    pub(super) fn explain(&self, url: &Url, cause: String) -> String {
        let for_scheme = match url.scheme() {
            "https" => &self.https,
            _ => &self.http,
        };
        let variables = for_scheme.iter().chain(&self.all);
        let variables = variables.map(|(name, value)| (name.as_str(), value));
        let set: Vec<_> = match &self.replacement {
            Some(value) => vec![(REPLACEMENT_SETTING, value)],
            None => variables.collect(),
        };
        let set: Vec<_> = set.iter().filter(|(_, value)| !value.is_empty()).collect();
        let proxy = |value: &str| {
            let matcher = Matcher::builder().all(value).no(self.no_proxy.as_str());
            matcher.build().intercept(&url.as_str().parse().ok()?)
        };
        let mut usable = set
            .iter()
            .filter_map(|(name, value)| Some((name, proxy(value)?)));
        if let Some((name, proxy)) = usable.next() {
            let address = proxy.uri().to_string();
            let address = address.trim_end_matches('/');
            return if cause.contains("refused") {
                format!("the proxy {address} (from {name}) refused the connection")
            } else {
                format!("through the proxy {address} (from {name}): {cause}")
            };
        }
        // Exempt hosts are reached directly, whatever the value.
        let is_exempt = proxy("http://127.0.0.1/").is_none();
        match set.first() {
            Some((name, _)) if !is_exempt => {
                format!("{cause} (without a proxy: {name} is no address of a proxy)")
            }
            Some(_) | None => cause,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: &str, no_proxy: &str, cause: &str, expected: &str) {
        let variables = ProxyVariables {
            https: Some(("HTTPS_PROXY".to_owned(), value.to_owned())),
            no_proxy: no_proxy.to_owned(),
            ..ProxyVariables::default()
        };
        let url = Url::parse("https://files.example/a").unwrap();
        assert_eq!(variables.explain(&url, cause.to_owned()), expected);
        let other = Url::parse("http://files.example/a").unwrap();
        assert_eq!(variables.explain(&other, cause.to_owned()), cause);
    }

    #[test]
    fn the_proxy_that_replaces_the_variables_is_named() {
        let variables = ProxyVariables {
            https: Some(("HTTPS_PROXY".to_owned(), "http://127.0.0.1:9".to_owned())),
            replacement: Some("me:secret@127.0.0.1:8".to_owned()),
            ..ProxyVariables::default()
        };
        let url = Url::parse("https://files.example/a").unwrap();
        assert_eq!(
            variables.explain(&url, "Connection refused".to_owned()),
            "the proxy http://127.0.0.1:8 (from cargo's http.proxy) refused the connection"
        );
    }

    #[test]
    fn the_proxy_of_a_failed_connection_is_named_with_its_variable() {
        let refused = "Connection refused (os error 111)";
        let expected = "the proxy http://127.0.0.1:9 (from HTTPS_PROXY) refused the connection";
        check("http://127.0.0.1:9", "", refused, expected);
        check("http://me:secret@127.0.0.1:9/", "", refused, expected);
        let expected = "through the proxy http://p.example:1 (from HTTPS_PROXY): no such host";
        check("p.example:1", "", "no such host", expected);
        let expected = "no route (without a proxy: HTTPS_PROXY is no address of a proxy)";
        check("htp://127.0.0.1:9", "", "no route", expected);
        check("http://127.0.0.1:9", "files.example", refused, refused);
        check("", "", refused, refused);
    }
}
