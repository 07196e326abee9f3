//! Findings about rustup, which takes its servers from environment variables only.
//!
//! ```text
//!  RUSTUP_DIST_SERVER=http://127.0.0.1:3263           + /dist/channel-rust-stable.toml
//!  RUSTUP_UPDATE_ROOT=http://127.0.0.1:3263/rustup    + /release-stable.toml
//! ```

use std::path::PathBuf;

use url::Url;

use super::{ClientRoute, Finding, Subject, bare, cargo::LarderProxy, for_good, serve_command};
use crate::{cargo_config::is_on_loopback, client_config::source_line, status_client::Probe};

/// The facts about rustup.
#[derive(Clone, Debug, Default)]
pub struct RustupFacts {
    /// The user named rustup, so that it must use larder.
    pub is_named: bool,
    /// `RUSTUP_DIST_SERVER`.
    pub dist_server: Option<RustupServer>,
    /// `RUSTUP_UPDATE_ROOT`.
    pub update_root: Option<RustupServer>,
    /// The file that `larder client apply rustup` wrote, if it is there.
    pub file: Option<PathBuf>,
    /// The values in that file.
    pub applied: Vec<String>,
    /// The proxy of `larder run` or `serve --intercept` in rustup's environment.
    pub larder_proxy: Option<LarderProxy>,
    /// The reason why rustup runs no cargo in the current folder.
    pub refused_toolchain: Option<String>,
    /// The toolchain that rustup downloads before it runs cargo there.
    pub due_toolchain: Option<String>,
    /// The base addresses where `larder serve` listens by its settings.
    pub configured: Vec<String>,
    /// The base address of a larder that runs on this machine.
    pub running: Option<String>,
}

/// The value of one of the variables, and what answers there.
#[derive(Clone, Debug)]
pub struct RustupServer {
    /// The value.
    pub value: String,
    /// The way to the address, if the value is an http address.
    pub route: Option<ClientRoute>,
    /// The base address of a larder that answers over http at the same host and port, whatever scheme and path the
    /// value has.
    pub larder: Option<Url>,
}

/// One of the variables.
#[derive(Clone, Copy)]
struct Variable {
    name: &'static str,
    /// The path of its right value below larder's address.
    path: &'static str,
    /// The behaviour of rustup if the variable is wrong.
    lacks: &'static str,
}

const DIST_SERVER: Variable = Variable {
    name: "RUSTUP_DIST_SERVER",
    path: "",
    lacks: "rustup fetches toolchains past larder",
};
const UPDATE_ROOT: Variable = Variable {
    name: "RUSTUP_UPDATE_ROOT",
    path: "/rustup",
    lacks: "rustup fetches its own updates past larder, and `rustup update` fails offline",
};

/// Judges the facts.
pub fn judge(facts: &RustupFacts) -> Vec<Finding> {
    let mut findings = judge_servers(facts);
    findings.extend(judge_toolchain(facts));
    findings
}

/// Judges the toolchain of the current folder.
fn judge_toolchain(facts: &RustupFacts) -> Option<Finding> {
    let check = "toolchain";
    if let Some(why) = &facts.refused_toolchain {
        let what = format!("rustup runs no cargo in this folder: {why}");
        let remedy = "name a release or an installed toolchain (`rustup toolchain list`); `larder check` tells if a \
                      release is stored";
        return Some(Finding::problem(Subject::Rustup, check, what, remedy));
    }
    let due = facts.due_toolchain.as_ref()?;
    let what = format!("before it runs cargo in this folder, rustup downloads the toolchain {due}");
    let remedy = "`larder check` tells if that works offline";
    Some(Finding::note(Subject::Rustup, check, what).with_remedy(remedy))
}

fn judge_servers(facts: &RustupFacts) -> Vec<Finding> {
    let (dist_server, update_root) = (&facts.dist_server, &facts.update_root);
    if dist_server.is_none() && update_root.is_none() {
        return vec![unset(facts)];
    }
    let mut servers = [dist_server, update_root].into_iter().flatten();
    if servers.all(|server| is_foreign(facts, server)) {
        return vec![foreign(facts)];
    }
    let variables = [(DIST_SERVER, dist_server), (UPDATE_ROOT, update_root)];
    let found = variables.map(|(variable, server)| match server {
        Some(server) => judge_server(facts, variable, server),
        None => {
            let what = format!("{} is not set: {}", variable.name, variable.lacks);
            Err(Finding::problem(
                Subject::Rustup,
                "variables",
                what,
                set_all(facts),
            ))
        }
    });
    match found {
        [Ok(base), Ok(_)] => vec![Finding::ok(
            Subject::Rustup,
            "variables",
            format!(
                "rustup gets toolchains and its own updates from larder at {} (RUSTUP_DIST_SERVER, RUSTUP_UPDATE_ROOT)",
                bare(&base)
            ),
        )],
        // One cause.
        [Err(first), Err(second)]
            if first.check == second.check && first.remedy == second.remedy =>
        {
            vec![first]
        }
        both => both.into_iter().filter_map(Result::err).collect(),
    }
}

/// Tells if a value names a server that has nothing to do with larder.
fn is_foreign(facts: &RustupFacts, server: &RustupServer) -> bool {
    if facts.applied.contains(&server.value) {
        return false;
    }
    let is_loopback = Url::parse(&server.value).is_ok_and(|url| is_on_loopback(&url));
    let is_url = Url::parse(&server.value).is_ok_and(|url| url.has_host());
    let is_reached = server.route.as_ref().is_some_and(|route| {
        matches!(route.direct, Probe::Larder(_)) || matches!(route.probe, Probe::Larder(_))
    });
    is_url && !is_loopback && !is_reached && server.larder.is_none()
}

/// A rustup without variables.
fn unset(facts: &RustupFacts) -> Finding {
    if let Some(proxy) = &facts.larder_proxy {
        return proxy.judge(Subject::Rustup, "the variable https_proxy");
    }
    let what = "rustup does not use larder";
    if let Some(file) = &facts.file {
        let what = format!(
            "{what}: `larder client apply rustup` wrote {}, but this shell has not read it",
            file.display()
        );
        let remedy = format!(
            "put this into your shell's profile, such as ~/.profile, and start a new shell: {}",
            source_line(file)
        );
        return Finding::problem(Subject::Rustup, "variables", what, remedy);
    }
    let remedy = "`larder client apply rustup`, or `larder run -- rustup update` for one command";
    match facts.is_named {
        true => Finding::problem(Subject::Rustup, "variables", what, remedy),
        false => Finding::note(Subject::Rustup, "variables", what).with_remedy(remedy),
    }
}

/// A rustup that uses another mirror.
fn foreign(facts: &RustupFacts) -> Finding {
    let server = facts.dist_server.as_ref().or(facts.update_root.as_ref());
    let value = server.map_or("", |server| server.value.as_str());
    let what = format!("rustup does not use larder: its variables name {value}");
    let remedy = set_all(facts);
    match facts.is_named {
        true => Finding::problem(Subject::Rustup, "mirror", what, remedy),
        false => Finding::note(Subject::Rustup, "mirror", what).with_remedy(remedy),
    }
}

/// The remedy that sets both variables.
fn set_all(facts: &RustupFacts) -> String {
    let command = "`eval \"$(larder client print rustup)\"` sets both in this shell";
    match &facts.file {
        Some(_) => format!("{command}, `larder client apply rustup` in the file for your profile"),
        None => format!("{command}; `larder client apply rustup` makes a file for your profile"),
    }
}

/// The base address of the larder that rustup reaches by this variable, or the problem.
fn judge_server(
    facts: &RustupFacts,
    variable: Variable,
    server: &RustupServer,
) -> Result<Url, Finding> {
    let Variable { name, path, .. } = variable;
    let value = &server.value;
    let wrong = |why: &str| {
        let what = format!("{name} is {value}: {why}");
        let remedy = match server
            .larder
            .as_ref()
            .map(bare)
            .or(facts.running.as_deref())
        {
            Some(base) => {
                let base = base.trim_end_matches('/');
                format!("`export {name}={base}{path}`")
            }
            None => set_all(facts),
        };
        Finding::problem(Subject::Rustup, "address", what, remedy)
    };
    let Ok(url) = Url::parse(value) else {
        return Err(wrong("it is no URL"));
    };
    match url.scheme() {
        "http" => {}
        "https" if server.larder.is_some() => return Err(wrong("larder speaks http there")),
        "https" => {
            let what = format!("{name} is {value}; only http addresses are checked");
            return Err(Finding::note(Subject::Rustup, "address", what));
        }
        _ => return Err(wrong("rustup needs an http address")),
    }
    let Some(route) = &server.route else {
        return Err(wrong(&format!("it must end in `{path}`")));
    };
    if matches!(route.probe, Probe::Larder(_)) {
        return Ok(route.base.clone());
    }
    if matches!(route.direct, Probe::Larder(_))
        && let Some(problem) = route.proxy_problem(Subject::Rustup)
    {
        return Err(problem);
    }
    if server.larder.is_some() {
        return Err(wrong("the path is wrong"));
    }
    let (Probe::Other(why) | Probe::Unreachable(why)) = &route.direct else {
        return Ok(route.base.clone());
    };
    let what = format!("rustup looks for larder at {value} ({name}), but {why}");
    Err(
        match (
            &facts.running,
            serve_command(&route.base, &facts.configured),
        ) {
            (Some(running), _) => {
                let what = format!("{what}; larder runs at {running}");
                Finding::problem(Subject::Rustup, "address", what, set_all(facts))
            }
            (None, Some(serve)) => {
                let remedy = format!("`{serve}` starts the daemon{}", for_good(&serve));
                Finding::problem(Subject::Rustup, "daemon", what, remedy)
            }
            (None, None) => {
                let mut remedy =
                    "see that larder runs there and that this machine reaches it".to_owned();
                if facts.applied.contains(value) {
                    remedy += "; `larder client undo rustup` switches rustup back";
                }
                Finding::problem(Subject::Rustup, "daemon", what, remedy)
            }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            FindingVerdict,
            proxy::ClientProxy,
            tests::{checks, route, status},
        },
        *,
    };

    const BASE: &str = "http://127.0.0.1:3263/";

    /// A server at which larder answers.
    fn good(value: &str) -> RustupServer {
        RustupServer {
            value: value.to_owned(),
            route: Some(route(BASE, Probe::Larder(status()))),
            larder: Some(BASE.parse().unwrap()),
        }
    }

    /// A server at whose address larder does not answer.
    fn bad(value: &str, probe: Probe, larder: Option<&str>) -> RustupServer {
        RustupServer {
            value: value.to_owned(),
            route: Some(route(BASE, probe)),
            larder: larder.map(|url| url.parse().unwrap()),
        }
    }

    fn facts() -> RustupFacts {
        RustupFacts {
            dist_server: Some(good("http://127.0.0.1:3263")),
            update_root: Some(good("http://127.0.0.1:3263/rustup")),
            configured: vec![BASE.to_owned()],
            ..RustupFacts::default()
        }
    }

    #[track_caller]
    fn check(
        change: impl FnOnce(&mut RustupFacts),
        expected: &[(&str, FindingVerdict)],
        parts: &[&str],
    ) {
        let mut facts = facts();
        change(&mut facts);
        let findings = judge(&facts);
        assert_eq!(checks(&findings), expected, "{findings:?}");
        for part in parts {
            assert!(
                format!("{findings:?}").contains(part),
                "no {part} in {findings:?}"
            );
        }
    }

    const PROBLEM: FindingVerdict = FindingVerdict::Problem;

    #[test]
    fn variables_that_are_not_set_are_found() {
        check(
            |_| {},
            &[("variables", FindingVerdict::Ok)],
            &["127.0.0.1:3263"],
        );
        let none = |facts: &mut RustupFacts| (facts.dist_server, facts.update_root) = (None, None);
        check(
            none,
            &[("variables", FindingVerdict::Note)],
            &["apply rustup"],
        );
        let named = |facts: &mut RustupFacts| {
            none(facts);
            facts.is_named = true;
        };
        check(named, &[("variables", PROBLEM)], &[]);
        let unread = |facts: &mut RustupFacts| {
            none(facts);
            facts.file = Some("/c/env".into());
        };
        check(unread, &[("variables", PROBLEM)], &["[ ! -f '/c/env' ]"]);
        let no_root = |facts: &mut RustupFacts| facts.update_root = None;
        check(no_root, &[("variables", PROBLEM)], &["its own updates"]);
        let no_server = |facts: &mut RustupFacts| facts.dist_server = None;
        check(no_server, &[("variables", PROBLEM)], &["toolchains"]);
    }

    #[test]
    fn wrong_addresses_are_corrected_and_a_missing_daemon_is_told_apart() {
        let wrong = |value: &'static str| {
            move |facts: &mut RustupFacts| {
                let not_found = Probe::Other("status 404".to_owned());
                facts.dist_server = Some(bad(value, not_found, Some(BASE)));
            }
        };
        let address = [("address", PROBLEM)];
        let remedy = "export RUSTUP_DIST_SERVER=http://127.0.0.1:3263`";
        let path = "http://127.0.0.1:3263/dist";
        check(wrong(path), &address, &[remedy, "the path is wrong"]);
        let https = "https://127.0.0.1:3263";
        check(wrong(https), &address, &[remedy, "larder speaks http"]);
        check(wrong("127.0.0.1:3263"), &address, &[remedy]);
        let both = |facts: &mut RustupFacts| {
            wrong(path)(facts);
            let mut root = good("http://127.0.0.1:3263/");
            root.route = None;
            facts.update_root = Some(root);
        };
        let right = "export RUSTUP_UPDATE_ROOT=http://127.0.0.1:3263/rustup`";
        check(both, &[address[0], address[0]], &[remedy, right]);
        let down = |facts: &mut RustupFacts| {
            let server = |value| {
                let nothing = Probe::Unreachable("nothing listens there".to_owned());
                Some(bad(value, nothing, None))
            };
            facts.dist_server = server("http://127.0.0.1:3263");
            facts.update_root = server("http://127.0.0.1:3263/rustup");
        };
        check(down, &[("daemon", PROBLEM)], &["`larder serve` starts"]);
        let moved = |facts: &mut RustupFacts| {
            down(facts);
            facts.running = Some("http://127.0.0.1:4000/".to_owned());
        };
        check(moved, &address, &["larder runs at http://127.0.0.1:4000/"]);
        let mirror = |facts: &mut RustupFacts| {
            let other = || {
                Some(bad(
                    "https://mirror.example",
                    Probe::Other(String::new()),
                    None,
                ))
            };
            (facts.dist_server, facts.update_root) = (other(), other());
        };
        check(
            mirror,
            &[("mirror", FindingVerdict::Note)],
            &["mirror.example"],
        );
    }

    #[test]
    fn server_that_apply_wrote_is_larder_also_while_it_is_down() {
        let far = "http://builder.example:3263";
        let applied = |is_applied: bool| {
            move |facts: &mut RustupFacts| {
                let nothing = Probe::Unreachable("nothing listens there".to_owned());
                let mut dist = bad(far, nothing.clone(), None);
                let mut root = bad("http://builder.example:3263/rustup", nothing, None);
                for server in [&mut dist, &mut root] {
                    let route = server.route.as_mut().unwrap();
                    route.base = format!("{far}/").parse().unwrap();
                    if is_applied {
                        facts.applied.push(server.value.clone());
                    }
                }
                (facts.dist_server, facts.update_root) = (Some(dist), Some(root));
            }
        };
        let undo = "`larder client undo rustup` switches rustup back";
        check(applied(true), &[("daemon", PROBLEM)], &[undo]);
        check(applied(false), &[("mirror", FindingVerdict::Note)], &[far]);
    }

    #[test]
    fn proxy_in_the_way_is_found_once() {
        let proxied = |facts: &mut RustupFacts| {
            for server in [&mut facts.dist_server, &mut facts.update_root] {
                let route = server.as_mut().unwrap().route.as_mut().unwrap();
                route.proxy = Some(ClientProxy::of_variable(
                    "ALL_PROXY",
                    "http://10.0.0.1:3128",
                ));
                route.probe = Probe::Unreachable("nothing listens there".to_owned());
            }
        };
        check(proxied, &[("proxy", PROBLEM)], &["ALL_PROXY", "no_proxy"]);
    }
}
