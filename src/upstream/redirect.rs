//! Redirects: which ones larder follows. The settings name the upstreams, and no redirect widens that list. The first
//! row that fits decides:
//!
//! | the target | followed |
//! |---|---|
//! | another scheme than http and https, or http after https | never |
//! | an origin of the settings, or one given with `--redirect-host` | yes |
//! | the origin that redirects (another path) | yes |
//! | an address inside: loopback, private, link-local | if a configured upstream named it, and the request went to such an address, too |
//! | an origin that a configured upstream named, such as the download address in `config.json` | yes |
//! | the same host, now with https on its default port | yes |
//! | anything else | no |
//!
//! The fourth row keeps a public server from using larder to probe the machine or the network that it runs in.

use std::{
    collections::{HashSet, VecDeque},
    net::Ipv4Addr,
};

use parking_lot::RwLock;
use reqwest::{Response, header};
use url::{Host, Url};

use super::origin::Origin;

/// Redirects followed for one request. Downloads that hop to a storage bucket take one or two.
pub(super) const MAX_REDIRECTS: usize = 5;
/// Origins remembered that upstreams named. A registry names one and seldom changes it.
const MAX_NAMED_ORIGINS: usize = 64;

/// The origins that redirects may lead to.
#[derive(Debug)]
pub(super) struct RedirectPolicy {
    /// Origins of the configured upstreams.
    configured: HashSet<Origin>,
    /// Hosts that the user allowed, with or without a port.
    allowed_hosts: Vec<String>,
    /// Origins that configured upstreams named, oldest first.
    named: RwLock<VecDeque<Origin>>,
}

impl RedirectPolicy {
    pub(super) fn new<'a>(
        configured: impl IntoIterator<Item = &'a Url>,
        allowed_hosts: Vec<String>,
    ) -> Self {
        Self {
            configured: configured.into_iter().map(Origin::from).collect(),
            allowed_hosts,
            named: RwLock::default(),
        }
    }

    /// Remembers the origin of `url`, which a configured upstream named. Evicts the oldest of [`MAX_NAMED_ORIGINS`].
    pub(super) fn allow(&self, url: &Url) {
        let origin = Origin::from(url);
        if self.configured.contains(&origin) || self.named.read().contains(&origin) {
            return;
        }
        let mut named = self.named.write();
        if named.contains(&origin) {
            return;
        }
        if named.len() >= MAX_NAMED_ORIGINS {
            named.pop_front();
        }
        named.push_back(origin);
    }

    /// Returns whether a request for `requested` follows the redirect of `from` to `to`.
    pub(super) fn permits(&self, requested: &Url, from: &Url, to: &Url) -> bool {
        let is_web = matches!(to.scheme(), "http" | "https");
        let is_downgrade = from.scheme() == "https" && to.scheme() == "http";
        if !is_web || is_downgrade {
            return false;
        }
        let target = Origin::from(to);
        let is_configured = self.configured.contains(&target)
            || self.allowed_hosts.iter().any(|host| target.is_named(host));
        if is_configured || target == Origin::from(from) {
            return true;
        }
        let is_named = self.named.read().contains(&target);
        let is_upgrade = from.host() == to.host() && to.scheme() == "https" && to.port().is_none();
        if is_internal(to) {
            is_named && is_internal(requested)
        } else {
            is_named || is_upgrade
        }
    }
}

/// The target of a redirect; `None` for any other response.
pub(super) fn redirect_target(from: &Url, response: &Response) -> Option<Url> {
    let is_redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let location = response.headers().get(header::LOCATION);
    let location = location.filter(|_| is_redirect)?;
    from.join(location.to_str().ok()?).ok()
}

/// Returns whether the host is an address of this machine or of a private network. Names are not resolved.
fn is_internal(url: &Url) -> bool {
    let is_internal_v4 = |ip: Ipv4Addr| {
        ip.is_loopback() || ip.is_private() || ip.is_link_local() || ip.is_unspecified()
    };
    match url.host() {
        Some(Host::Ipv4(ip)) => is_internal_v4(ip),
        Some(Host::Ipv6(ip)) => match ip.to_ipv4_mapped() {
            Some(ip) => is_internal_v4(ip),
            None => {
                ip.is_loopback()
                    || ip.is_unique_local()
                    || ip.is_unicast_link_local()
                    || ip.is_unspecified()
            }
        },
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[track_caller]
    fn check(from: &str, to: &str, expected: bool) {
        let configured = [url("https://index.example/"), url("http://127.0.0.1:80/")];
        let allowed_hosts = vec!["cdn.example".into(), "10.0.0.7:81".into()];
        let policy = RedirectPolicy::new(&configured, allowed_hosts);
        for named in ["http://192.168.0.9:82/", "https://dl.example/"] {
            policy.allow(&url(named));
        }
        let from = url(from);
        let is_permitted = policy.permits(&from, &from, &url(to));
        assert_eq!(is_permitted, expected, "{from} {to}");
    }

    #[test]
    fn the_oldest_named_origin_is_evicted() {
        let from = url("https://index.example/");
        let policy = RedirectPolicy::new([&from], Vec::new());
        let named = |number| url(&format!("https://dl-{number}.example/"));
        for number in 0..=MAX_NAMED_ORIGINS {
            policy.allow(&named(number));
            policy.allow(&named(number));
        }
        let permits = |number| policy.permits(&from, &from, &named(number));
        assert!(!permits(0));
        assert!((1..=MAX_NAMED_ORIGINS).all(permits));
    }

    #[test]
    fn redirects_stay_within_known_hosts_and_never_lose_tls() {
        check("https://index.example/a", "https://index.example/b", true);
        check("https://index.example/a", "https://cdn.example/b", true);
        check("https://index.example/a", "https://other.example/b", false);
        check("https://index.example/a", "http://index.example/b", false);
        check("http://127.0.0.1/a", "http://127.0.0.1:8080/b", false);
        check("https://index.example/a", "ftp://index.example/b", false);
        check("https://index.example/a", "https://dl.example/b", true);
        check("http://other.example:80/a", "https://other.example/b", true);
    }

    #[test]
    fn public_hosts_cannot_redirect_to_internal_addresses() {
        for to in [
            "http://127.0.0.1:81/",
            "http://2130706433:81/",
            "http://0.0.0.0/",
            "http://[::]/",
            "http://[::1]/",
            "http://[::ffff:10.0.0.7]/",
            "http://[fd00::1]/",
            "http://[fe80::1]/",
            "http://10.0.0.7/",
            "http://169.254.169.254/",
            "http://172.16.0.1/",
            "http://192.168.0.9:82/",
            "http://localhost/",
        ] {
            check("http://index.example/a", to, false);
        }
    }

    #[test]
    fn internal_addresses_are_followed_if_the_user_or_an_internal_upstream_named_them() {
        check("http://index.example/a", "http://127.0.0.1:80/", true);
        check("http://index.example/a", "http://10.0.0.7:81/", true);
        check("http://127.0.0.1/a", "http://192.168.0.9:82/", true);
        check("http://127.0.0.1/a", "http://192.168.0.9:83/", false);
        check("http://10.0.0.8/a", "http://10.0.0.8/b", true);
        check("http://10.0.0.8:81/a", "https://10.0.0.8/b", false);
    }
}
