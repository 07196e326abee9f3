//! Judges whether cargo and rustup reach larder, as `larder client doctor` prints it. Pure.
//!
//! ```text
//!  settings, variables, answers of servers ──> facts ──> findings ──> text or JSON, exit code
//!  └ commands/doctor                           └ cargo, rustup, daemon: one file each └ commands/doctor
//! ```
//!
//! The facts come from the settings that the clients themselves read, and from requests that take the way of the
//! clients' requests, proxies included. [`proxy`] says which proxy that is.
//!
//! A [`Finding`] is a problem only if a build or a command of rustup would fail or go past larder although the user
//! wants it. A client that plainly does not use larder is a note, unless the user named it.

pub mod cargo;
pub mod daemon;
pub mod proxy;
pub mod rustup;

use serde::Serialize;
use url::Url;

use crate::{cargo_config::is_on_loopback, status_client::Probe};
use proxy::ClientProxy;

/// The cost of another registry address, which cargo's caches and build directories contain.
const REBUILD: &str = "the next build of each project then compiles everything once, because cargo keeps its caches \
                       by registry address";

/// The subject of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// The daemon and its store.
    Larder,
    /// cargo's settings.
    Cargo,
    /// rustup's variables.
    Rustup,
}

/// The weight of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FindingVerdict {
    /// As it should be.
    Ok,
    /// Worth knowing; nothing fails.
    Note,
    /// Something fails, or goes past larder.
    Problem,
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The subject.
    pub subject: Subject,
    /// The name of the check, for programs.
    pub check: &'static str,
    /// The weight.
    pub verdict: FindingVerdict,
    /// The state, with the file or variable that causes it.
    pub what: String,
    /// The remedy.
    pub remedy: Option<String>,
}

impl Finding {
    fn ok(subject: Subject, check: &'static str, what: impl Into<String>) -> Self {
        Self {
            subject,
            check,
            verdict: FindingVerdict::Ok,
            what: what.into(),
            remedy: None,
        }
    }

    fn note(subject: Subject, check: &'static str, what: impl Into<String>) -> Self {
        Self {
            verdict: FindingVerdict::Note,
            ..Self::ok(subject, check, what)
        }
    }

    fn problem(
        subject: Subject,
        check: &'static str,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            verdict: FindingVerdict::Problem,
            ..Self::ok(subject, check, what).with_remedy(remedy)
        }
    }

    fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

/// Tells if nothing is a problem.
pub fn is_healthy(findings: &[Finding]) -> bool {
    let mut findings = findings.iter();
    findings.all(|finding| finding.verdict != FindingVerdict::Problem)
}

/// The way of a client's requests to the address where it looks for larder, and the answer at its end.
#[derive(Clone, Debug)]
pub struct ClientRoute {
    /// Base address of larder.
    pub base: Url,
    /// The proxy that the client uses for it.
    pub proxy: Option<ClientProxy>,
    /// The answer.
    pub probe: Probe,
    /// The answer without a proxy; the same if there is none.
    pub direct: Probe,
}

impl ClientRoute {
    /// The problem if a proxy stands between the client and larder.
    fn proxy_problem(&self, subject: Subject) -> Option<Finding> {
        let proxy = self.proxy.as_ref()?;
        let answer = match &self.probe {
            Probe::Larder(_) => return None,
            Probe::Other(answer) => format!("answers {answer}"),
            Probe::Unreachable(why) => format!("does not answer: {why}"),
        };
        let host = self.base.host_str().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let list = match host {
            "localhost" | "127.0.0.1" => "127.0.0.1,localhost".to_owned(),
            "::1" => "::1,localhost".to_owned(),
            other => other.to_owned(),
        };
        let client = subject.client();
        let what = format!(
            "{client}'s requests to larder go to the proxy {} ({}), which {answer}",
            proxy.shown(),
            proxy.place
        );
        // Keeps the excluded hosts. The lower-case variable hides the other one.
        let remedy = format!(
            "exclude larder's address: `export no_proxy=\"{list},${{no_proxy:-$NO_PROXY}}\"`"
        );
        Some(Finding::problem(subject, "proxy", what, remedy))
    }
}

impl Subject {
    fn client(self) -> &'static str {
        match self {
            Self::Larder => "larder",
            Self::Cargo => "cargo",
            Self::Rustup => "rustup",
        }
    }
}

/// An address without the final slash.
fn bare(url: &Url) -> &str {
    url.as_str().trim_end_matches('/')
}

/// `larder serve` for a daemon at this address.
fn serve_command(base: &Url, configured: &[String]) -> Option<String> {
    if configured.iter().any(|address| address == base.as_str()) {
        return Some("larder serve".to_owned());
    }
    let host = base.host_str()?;
    let port = base.port_or_known_default()?;
    let host = host.replace("localhost", "127.0.0.1");
    is_on_loopback(base).then(|| format!("larder serve --listen {host}:{port}"))
}

/// The way to have the daemon of [`serve_command`] without starting it by hand.
fn for_good(serve: &str) -> &'static str {
    match serve {
        "larder serve" => ", `larder service install` for good",
        _ => "",
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    /// A status of a healthy daemon.
    pub(super) fn status() -> serde_json::Value {
        json!({ "version": env!("CARGO_PKG_VERSION"), "pid": 7, "offline": false, "store_problem": null, "outages": [] })
    }

    pub(super) fn route(base: &str, probe: Probe) -> ClientRoute {
        ClientRoute {
            base: base.parse().unwrap(),
            proxy: None,
            direct: probe.clone(),
            probe,
        }
    }

    /// The verdict and the name of each finding.
    pub(super) fn checks(findings: &[Finding]) -> Vec<(&'static str, FindingVerdict)> {
        let all = findings.iter();
        all.map(|finding| (finding.check, finding.verdict))
            .collect()
    }

    #[test]
    fn daemon_is_started_where_the_client_looks_for_it() {
        let check = |base: &str, expected: Option<&str>| {
            let configured = ["http://127.0.0.1:3263/".to_owned()];
            let command = serve_command(&base.parse().unwrap(), &configured);
            assert_eq!(command.as_deref(), expected, "{base}");
        };
        check("http://127.0.0.1:3263/", Some("larder serve"));
        let other = "larder serve --listen 127.0.0.1:4000";
        check("http://127.0.0.1:4000/", Some(other));
        check("http://localhost:4000/", Some(other));
        check(
            "http://[::1]:4000/",
            Some("larder serve --listen [::1]:4000"),
        );
        check("http://builder.example:3263/", None);
    }

    #[test]
    fn proxy_between_client_and_larder_is_named_with_its_place_and_without_its_password() {
        let unreachable = Probe::Unreachable("nothing listens there".to_owned());
        let mut route = route("http://127.0.0.1:3263/", unreachable);
        assert_eq!(route.proxy_problem(Subject::Cargo), None);
        route.proxy = Some(ClientProxy {
            url: "http://me:secret@10.0.0.1:3128".to_owned(),
            place: "the variable http_proxy".to_owned(),
        });
        let finding = route.proxy_problem(Subject::Cargo).unwrap();
        assert_eq!(
            finding.what,
            "cargo's requests to larder go to the proxy http://10.0.0.1:3128 (the variable http_proxy), which does \
             not answer: nothing listens there"
        );
        let remedy = finding.remedy.unwrap();
        assert!(
            remedy.contains("no_proxy=\"127.0.0.1,localhost,${no_proxy:-$NO_PROXY}\""),
            "{remedy}"
        );
        route.probe = Probe::Larder(status());
        assert_eq!(route.proxy_problem(Subject::Cargo), None);
    }
}
