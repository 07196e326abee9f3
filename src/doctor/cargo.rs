//! Findings about cargo: where its settings send it, and what answers there.

use std::path::PathBuf;

use url::Url;

use super::{ClientRoute, Finding, REBUILD, Subject, bare, for_good, is_healthy, serve_command};
use crate::{
    cargo_config::{
        ConfigFault, CratesIoSource, NetOffline, ReplacingRegistry, SettingPlace, is_on_loopback,
    },
    status_client::Probe,
};

/// Commands that ask for `--registry` while crates.io is replaced.
const REGISTRY_COMMANDS: &str = "`cargo publish`, `search`, `info`, `login`, `logout`, `owner` and `yank` need \
                                 `--registry crates-io` while crates.io is replaced";

/// The facts about cargo in one folder.
#[derive(Clone, Debug)]
pub struct CargoFacts {
    /// The user named cargo, so that it must use larder.
    pub is_named: bool,
    /// Settings files that cargo refuses.
    pub faults: Vec<ConfigFault>,
    /// The source of crates.io's packages.
    pub source: CratesIoSource,
    /// The name that replaces crates.io in each file that has one, the file that wins first.
    pub replacements: Vec<(String, PathBuf)>,
    /// The proxy of `larder run` or `serve --intercept` in cargo's environment.
    pub larder_proxy: Option<LarderProxy>,
    /// The setting that keeps cargo from its registries.
    pub net_offline: Option<NetOffline>,
    /// The way to the registry that replaces crates.io, if its address is an http address.
    pub route: Option<ClientRoute>,
    /// True if larder answers at an https address of the settings over http.
    pub is_http_only: bool,
    /// The `dl` of the `config.json` that cargo gets now, or the reason why it gets none.
    pub dl: Option<Result<String, String>>,
    /// The base address of a larder that runs on this machine.
    pub running: Option<String>,
    /// The base addresses where `larder serve` listens by its settings.
    pub configured: Vec<String>,
    /// Copies of `config.json` in cargo's home for this registry, with their `dl`.
    pub cached: Vec<(PathBuf, String)>,
    /// Other registries that the project's lock file names.
    pub other_registries: Vec<OtherRegistry>,
    /// Cargo's home.
    pub home: Option<PathBuf>,
}

/// A proxy of larder that the environment names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LarderProxy {
    /// Its address, without a password.
    pub address: String,
    /// True if something listens there.
    pub is_up: bool,
}

/// A registry besides crates.io whose packages the project needs, and that cargo asks itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherRegistry {
    /// The address of its index.
    pub index: String,
    /// True if larder's settings name it.
    pub is_served: bool,
}

impl LarderProxy {
    /// The finding about it.
    pub fn judge(&self, subject: Subject, variable: &str) -> Finding {
        let Self { address, is_up } = self;
        let client = subject.client();
        if *is_up {
            let what = format!("{client} goes through larder's proxy {address} ({variable})");
            return Finding::ok(subject, "proxy", what);
        }
        let what =
            format!("nothing listens at {address}, larder's proxy for {client} ({variable})");
        let remedy = "start `larder serve --intercept`, or unset the variables of `larder client print proxy`";
        Finding::problem(subject, "proxy", what, remedy)
    }
}

/// Judges the facts.
pub fn judge(facts: &CargoFacts) -> Vec<Finding> {
    let mut findings: Vec<_> = facts.faults.iter().map(refused_file).collect();
    match (&facts.source, &facts.larder_proxy) {
        (CratesIoSource::CratesIo, Some(proxy)) => {
            findings.push(proxy.judge(Subject::Cargo, "the variable CARGO_HTTP_PROXY"));
            findings.extend(facts.net_offline.as_ref().map(offline));
            return findings;
        }
        (CratesIoSource::CratesIo, None) => {
            findings.push(unused(facts));
            return findings;
        }
        (CratesIoSource::Folder { file }, _) => {
            let what = format!(
                "cargo takes crates.io's packages from a folder ({}), and asks no registry for them",
                file.display()
            );
            findings.push(Finding::note(Subject::Cargo, "vendored", what));
        }
        (CratesIoSource::Ring { file }, _) => {
            let file = file.display();
            let what = format!("{file} replaces crates.io by itself: cargo fails");
            let remedy = format!("remove `replace-with` from {file}");
            findings.push(Finding::problem(Subject::Cargo, "settings", what, remedy));
        }
        (CratesIoSource::Undefined { name, file }, _) => {
            let what = format!(
                "{} replaces crates.io by `{name}`, which no settings describe: cargo fails",
                file.display()
            );
            let remedy = if is_larder(name) {
                format!(
                    "`{}` adds what is missing",
                    apply_command(facts, &SettingPlace::File(file.clone()))
                )
            } else {
                format!("describe it by `[source.{name}]`, or remove `replace-with`")
            };
            findings.push(Finding::problem(Subject::Cargo, "settings", what, remedy));
        }
        (CratesIoSource::Registry(registry), _) => {
            let found = judge_registry(facts, registry);
            let is_used = is_healthy(&found);
            findings.extend(found);
            if is_used {
                findings.extend(facts.net_offline.as_ref().map(offline));
                let others = facts.other_registries.iter();
                findings.extend(others.map(|registry| other_registry(facts, registry)));
            }
        }
    }
    findings
}

fn refused_file(fault: &ConfigFault) -> Finding {
    let what = format!("{} {}", fault.path.display(), fault.why);
    let remedy = "correct the file; every cargo command fails until then";
    Finding::problem(Subject::Cargo, "settings", what, remedy)
}

/// A cargo that asks crates.io itself.
fn unused(facts: &CargoFacts) -> Finding {
    let what = "cargo does not use larder";
    let remedy = "`larder client apply cargo`, or `larder run -- cargo build` for one command";
    match facts.is_named {
        true => Finding::problem(Subject::Cargo, "settings", what, remedy),
        false => Finding::note(Subject::Cargo, "settings", what).with_remedy(remedy),
    }
}

fn offline(setting: &NetOffline) -> Finding {
    let place = setting.place();
    let what = match setting {
        NetOffline::On(_) => format!(
            "cargo is told to work offline ({place}), so it builds with its own home alone and never asks larder"
        ),
        NetOffline::Invalid(_) => format!("cargo fails: {place} is neither true nor false"),
    };
    Finding::problem(Subject::Cargo, "cargo-offline", what, setting.remedy())
}

fn other_registry(facts: &CargoFacts, registry: &OtherRegistry) -> Finding {
    let index = registry.index.trim_start_matches("sparse+");
    let what = format!("packages of the project come from another registry, {index}, past larder");
    let apply = match facts.route.as_ref().map(|route| &route.base) {
        Some(base) if !is_on_loopback(base) => {
            format!("larder client apply cargo --address {}", bare(base))
        }
        Some(_) | None => "larder client apply cargo".to_owned(),
    };
    let remedy = match registry.is_served {
        true => format!("`{apply}` adds its settings"),
        false => {
            format!(
                "add `[registry.NAME]` with its index to larder's settings, restart the daemon, and run `{apply}`"
            )
        }
    };
    Finding::note(Subject::Cargo, "other-registry", what).with_remedy(remedy)
}

fn is_larder(name: &str) -> bool {
    name.starts_with("larder")
}

/// The command that writes larder's address where this setting is.
fn apply_command(facts: &CargoFacts, place: &SettingPlace) -> String {
    let folder = match place {
        SettingPlace::Variable(name) => return format!("unset {name}"),
        SettingPlace::File(file) => file.parent(),
    };
    let is_home = folder == facts.home.as_deref();
    match folder.and_then(|folder| folder.parent()) {
        Some(project) if !is_home => {
            format!("larder client apply cargo --project={}", project.display())
        }
        Some(_) | None => "larder client apply cargo".to_owned(),
    }
}

fn judge_registry(facts: &CargoFacts, registry: &ReplacingRegistry) -> Vec<Finding> {
    let place = &registry.index_place;
    let problem = |check, what: String, remedy: String| {
        vec![Finding::problem(Subject::Cargo, check, what, remedy)]
    };
    let fault = |why: &str| {
        let what = format!(
            "cargo's address for `{}` is {} ({place}): {why}",
            registry.name, registry.index
        );
        let example = facts.running.as_deref().unwrap_or("http://HOST:PORT/");
        let remedy = format!("write it as `sparse+{example}`");
        problem("address", what, remedy)
    };
    let plain = registry.index.strip_prefix("sparse+");
    let url = Url::parse(plain.unwrap_or(&registry.index)).ok();
    let is_loopback = url.as_ref().is_some_and(is_on_loopback);
    let Some(url) = url else {
        return fault("it is no URL");
    };
    let is_reached = facts.route.as_ref().is_some_and(|route| {
        matches!(route.probe, Probe::Larder(_)) || matches!(route.direct, Probe::Larder(_))
    });
    let is_meant = is_larder(&registry.name) || is_loopback || is_reached || facts.is_http_only;
    if !is_meant {
        return vec![mirror(facts, registry)];
    }
    if plain.is_none() {
        return fault("without `sparse+`, cargo speaks git");
    }
    if !registry.index.ends_with('/') {
        return fault("cargo refuses it without a final slash");
    }
    if facts.is_http_only {
        return fault("larder speaks http there");
    }
    let Some(route) = &facts.route else {
        let what = format!("cargo looks for larder at {url} ({place}); only http is checked");
        return vec![Finding::note(Subject::Cargo, "address", what), commands()];
    };
    if matches!(route.probe, Probe::Larder(_)) {
        return reached(facts, &url, place);
    }
    if let Some(finding) = route.proxy_problem(Subject::Cargo)
        && matches!(route.direct, Probe::Larder(_))
    {
        return vec![finding];
    }
    vec![unreached(facts, route, &url, place)]
}

/// The problem of a cargo that does not reach larder at `url`, also without a proxy.
fn unreached(facts: &CargoFacts, route: &ClientRoute, url: &Url, place: &SettingPlace) -> Finding {
    let apply = apply_command(facts, place);
    let why = match &route.direct {
        Probe::Other(answer) => format!("it answers {answer}"),
        Probe::Unreachable(why) => why.clone(),
        Probe::Larder(_) => "no request of cargo arrives".to_owned(),
    };
    let mut what = format!("cargo looks for larder at {url} ({place}), but {why}");
    let problem = |check, what, remedy| Finding::problem(Subject::Cargo, check, what, remedy);
    if let Probe::Other(answer) = &route.direct {
        let remedy = match &facts.running {
            Some(running) => format!("larder runs at {running}: `{apply}`; {REBUILD}"),
            None if answer.contains("--allow-host") => {
                let host = url.host_str().unwrap_or_default();
                format!("start the daemon with `--allow-host {host}`")
            }
            None if is_on_loopback(url) => {
                "if another program listens there, start larder at another address and run \
                                            `larder client apply cargo`"
                    .to_owned()
            }
            None => {
                format!("if larder moved, name its address: `{apply} --address URL`; {REBUILD}")
            }
        };
        return problem("address", what, remedy);
    }
    let serve = serve_command(&route.base, &facts.configured);
    if let Some(running) = &facts.running {
        what += &format!("; larder runs at {running}");
        let mut remedy = format!("`{apply}`; {REBUILD}");
        if let Some(serve) = serve {
            remedy += &format!(". Or start larder at the old address: `{serve}`");
        }
        return problem("address", what, remedy);
    }
    let back = match place {
        SettingPlace::File(_) => "larder client undo",
        SettingPlace::Variable(name) => &format!("unset {name}"),
    };
    let remedy = match serve {
        Some(serve) => {
            let for_good = for_good(&serve);
            format!("`{serve}` starts the daemon{for_good}; `{back}` switches cargo back")
        }
        None => {
            let host = route.base.host_str().unwrap_or_default();
            format!(
                "see that larder runs on {host} and that this machine reaches it; `{back}` switches cargo back"
            )
        }
    };
    problem("daemon", what, remedy)
}

/// A registry that is not larder.
fn mirror(facts: &CargoFacts, registry: &ReplacingRegistry) -> Finding {
    let file = registry.file.display();
    let (name, index) = (&registry.name, &registry.index);
    let mut others = facts.replacements.iter().skip(1);
    if let Some((_, larder_file)) = others.find(|(name, _)| is_larder(name)) {
        let what = format!(
            "{file} replaces crates.io by `{name}` ({index}), and wins over larder's settings in {}",
            larder_file.display()
        );
        let remedy = format!("remove `replace-with` from {file}, if this project shall use larder");
        return Finding::problem(Subject::Cargo, "mirror", what, remedy);
    }
    let what =
        format!("cargo does not use larder: {file} replaces crates.io by `{name}` ({index})");
    let remedy = "remove that, then `larder client apply cargo`";
    match facts.is_named {
        true => Finding::problem(Subject::Cargo, "mirror", what, remedy),
        false => Finding::note(Subject::Cargo, "mirror", what).with_remedy(remedy),
    }
}

fn commands() -> Finding {
    let finding = Finding::note(Subject::Cargo, "registry-commands", REGISTRY_COMMANDS);
    finding.with_remedy("below `larder run` they do not")
}

/// Findings about a larder that cargo reaches.
fn reached(facts: &CargoFacts, url: &Url, place: &SettingPlace) -> Vec<Finding> {
    let dl = match &facts.dl {
        Some(Ok(dl)) => dl,
        Some(Err(why)) => {
            let what = format!("larder at {url} ({place}) gives cargo no config.json: {why}");
            let remedy = "see the daemon's log";
            return vec![Finding::problem(Subject::Cargo, "config", what, remedy)];
        }
        None => "",
    };
    let what = format!(
        "cargo gets crates.io's packages from larder at {} ({place})",
        bare(url)
    );
    let mut findings = vec![Finding::ok(Subject::Cargo, "settings", what)];
    let stale = facts.cached.iter().filter(|(_, cached)| cached != dl);
    findings.extend(stale.map(|(file, cached)| {
        let what = format!(
            "{} is out of date: builds with a lock file download crates from {}, not from {}",
            file.display(),
            origin(cached),
            origin(dl)
        );
        let remedy = format!("`rm '{}'`; cargo fetches it again", file.display());
        Finding::problem(Subject::Cargo, "stale-config", what, remedy)
    }));
    findings.push(commands());
    findings
}

/// Scheme, host and port of a download address, or all of it if they say nothing.
fn origin(dl: &str) -> String {
    let origin = Url::parse(dl).map(|url| url.origin());
    match origin {
        Ok(origin) if origin.is_tuple() => origin.ascii_serialization(),
        Ok(_) | Err(_) => dl.to_owned(),
    }
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
    const DL: &str = "http://127.0.0.1:3263/crates/{crate}";

    fn registry(name: &str, index: &str) -> CratesIoSource {
        let file = PathBuf::from("/home/me/.cargo/config.toml");
        CratesIoSource::Registry(ReplacingRegistry {
            name: name.to_owned(),
            index: index.to_owned(),
            file: file.clone(),
            index_place: SettingPlace::File(file),
        })
    }

    /// A cargo that uses a larder in good order.
    fn facts() -> CargoFacts {
        CargoFacts {
            is_named: false,
            faults: Vec::new(),
            source: registry("larder", "sparse+http://127.0.0.1:3263/"),
            replacements: Vec::new(),
            larder_proxy: None,
            net_offline: None,
            route: Some(route(BASE, Probe::Larder(status()))),
            is_http_only: false,
            dl: Some(Ok(DL.to_owned())),
            running: Some(BASE.to_owned()),
            configured: vec![BASE.to_owned()],
            cached: vec![(PathBuf::from("/c/config.json"), DL.to_owned())],
            other_registries: Vec::new(),
            home: Some(PathBuf::from("/home/me/.cargo")),
        }
    }

    /// Checks the names and verdicts, and returns the text of all findings with their remedies.
    #[track_caller]
    fn check(change: impl FnOnce(&mut CargoFacts), expected: &[(&str, FindingVerdict)]) -> String {
        let mut facts = facts();
        change(&mut facts);
        let findings = judge(&facts);
        assert_eq!(checks(&findings), expected, "{findings:?}");
        let findings = findings.into_iter();
        findings
            .map(|finding| finding.what + "\n" + &finding.remedy.unwrap_or_default() + "\n")
            .collect()
    }

    const OK: FindingVerdict = FindingVerdict::Ok;
    const NOTE: FindingVerdict = FindingVerdict::Note;
    const PROBLEM: FindingVerdict = FindingVerdict::Problem;
    const GOOD: [(&str, FindingVerdict); 2] = [("settings", OK), ("registry-commands", NOTE)];

    #[test]
    fn cargo_that_uses_larder_passes_and_one_that_does_not_is_a_problem_only_if_named() {
        check(|_| {}, &GOOD);
        let unused = |facts: &mut CargoFacts| facts.source = CratesIoSource::CratesIo;
        let said = check(unused, &[("settings", NOTE)]);
        assert!(said.contains("`larder client apply cargo`"), "{said}");
        let named = |facts: &mut CargoFacts| {
            unused(facts);
            facts.is_named = true;
        };
        check(named, &[("settings", PROBLEM)]);
        let proxied = |is_up| {
            move |facts: &mut CargoFacts| {
                unused(facts);
                let address = "http://127.0.0.1:3264".to_owned();
                facts.larder_proxy = Some(LarderProxy { address, is_up });
            }
        };
        check(proxied(true), &[("proxy", OK)]);
        check(proxied(false), &[("proxy", PROBLEM)]);
        let file = PathBuf::from("/p/.cargo/config.toml");
        let vendored = |facts: &mut CargoFacts| {
            facts.source = CratesIoSource::Folder { file };
        };
        check(vendored, &[("vendored", NOTE)]);
    }

    #[test]
    fn daemon_that_does_not_run_and_a_changed_address_are_told_apart() {
        let down = |facts: &mut CargoFacts| {
            let nothing = Probe::Unreachable("nothing listens there".to_owned());
            facts.route = Some(route(BASE, nothing));
            facts.running = None;
        };
        let said = check(down, &[("daemon", PROBLEM)]);
        assert!(said.contains("`larder serve` starts"), "{said}");
        let moved = |facts: &mut CargoFacts| {
            down(facts);
            facts.running = Some("http://127.0.0.1:4000/".to_owned());
        };
        let said = check(moved, &[("address", PROBLEM)]);
        for part in [
            "larder runs at http://127.0.0.1:4000/",
            "compiles everything",
        ] {
            assert!(said.contains(part), "{said}");
        }
        let other = |facts: &mut CargoFacts| {
            facts.route = Some(route(BASE, Probe::Other("status 404".to_owned())));
        };
        let said = check(other, &[("address", PROBLEM)]);
        assert!(said.contains("it answers status 404"), "{said}");
        let refused = |facts: &mut CargoFacts| {
            let answer = "status 421: the host name is not allowed here; add `--allow-host h`";
            facts.route = Some(route(BASE, Probe::Other(answer.to_owned())));
            facts.running = None;
        };
        let said = check(refused, &[("address", PROBLEM)]);
        assert!(
            said.contains("start the daemon with `--allow-host"),
            "{said}"
        );
    }

    #[test]
    fn remedy_for_a_larder_on_another_machine_names_that_machine_and_the_way_back() {
        let far = "http://builder.example:3263/";
        let at = |probe: Probe| {
            move |facts: &mut CargoFacts| {
                facts.source = registry("larder", "sparse+http://builder.example:3263/");
                facts.route = Some(route(far, probe));
                facts.running = None;
            }
        };
        check(at(Probe::Larder(status())), &GOOD);
        let down = Probe::Unreachable("nothing listens there".to_owned());
        let said = check(at(down), &[("daemon", PROBLEM)]);
        for part in ["runs on builder.example", "`larder client undo` switches"] {
            assert!(said.contains(part), "{said}");
        }
        let other = Probe::Other("status 404".to_owned());
        let said = check(at(other), &[("address", PROBLEM)]);
        let remedy = "`larder client apply cargo --address URL`";
        assert!(said.contains(remedy), "{said}");
        let corp = |facts: &mut CargoFacts| {
            at(Probe::Larder(status()))(facts);
            let index = "sparse+https://corp.example/".to_owned();
            facts.other_registries = vec![OtherRegistry {
                index,
                is_served: true,
            }];
        };
        let said = check(corp, &[GOOD[0], GOOD[1], ("other-registry", NOTE)]);
        let remedy = "`larder client apply cargo --address http://builder.example:3263` adds";
        assert!(said.contains(remedy), "{said}");
    }

    #[test]
    fn addresses_that_cargo_cannot_use_are_corrected() {
        let check_index = |index: &str, part: &str| {
            let change = |facts: &mut CargoFacts| {
                facts.source = registry("larder", index);
                facts.is_http_only = index.contains("https");
            };
            let said = check(change, &[("address", PROBLEM)]);
            assert!(said.contains(part), "{said}");
            let right = "write it as `sparse+http://127.0.0.1:3263/`";
            assert!(said.contains(right), "{said}");
        };
        check_index("http://127.0.0.1:3263/", "cargo speaks git");
        check_index("sparse+http://127.0.0.1:3263", "final slash");
        check_index("sparse+https://127.0.0.1:3263/", "larder speaks http");
        check_index("sparse+127.0.0.1", "no URL");
        let undefined = |facts: &mut CargoFacts| {
            let file = PathBuf::from("/p/.cargo/config.toml");
            let name = "larder".to_owned();
            facts.source = CratesIoSource::Undefined { name, file };
        };
        let said = check(undefined, &[("settings", PROBLEM)]);
        assert!(said.contains("apply cargo --project=/p`"), "{said}");
        let invalid = |facts: &mut CargoFacts| {
            let (path, why) = (PathBuf::from("/f"), "is not valid TOML: odd".to_owned());
            facts.faults = vec![ConfigFault { path, why }];
        };
        check(invalid, &[("settings", PROBLEM), GOOD[0], GOOD[1]]);
        let ring = |facts: &mut CargoFacts| {
            let file = PathBuf::from("/p/.cargo/config.toml");
            facts.source = CratesIoSource::Ring { file };
        };
        check(ring, &[("settings", PROBLEM)]);
    }

    #[test]
    fn proxy_in_the_way_and_an_old_copy_of_config_json_are_found() {
        let proxied = |facts: &mut CargoFacts| {
            let route = facts.route.as_mut().unwrap();
            route.proxy = Some(ClientProxy::of_variable(
                "http_proxy",
                "http://10.0.0.1:3128",
            ));
            route.probe = Probe::Other("status 503".to_owned());
        };
        check(proxied, &[("proxy", PROBLEM)]);
        let stale = |facts: &mut CargoFacts| {
            let old = "http://127.0.0.1:4000/crates/{crate}".to_owned();
            facts.cached.push((PathBuf::from("/d/config.json"), old));
        };
        let expected = [GOOD[0], ("stale-config", PROBLEM), GOOD[1]];
        let said = check(stale, &expected);
        for part in [
            "/d/config.json is out of date",
            "from http://127.0.0.1:4000, not from http://127.0.0.1:3263",
            "`rm '/d/config.json'`",
        ] {
            assert!(said.contains(part), "{said}");
        }
        let refused = |facts: &mut CargoFacts| facts.dl = Some(Err("status 500".to_owned()));
        check(refused, &[("config", PROBLEM)]);
    }

    #[test]
    fn another_mirror_is_a_problem_where_it_wins_over_larder() {
        let mirror = |facts: &mut CargoFacts| {
            facts.source = registry("corp", "sparse+https://corp.example/index/");
            facts.route = None;
        };
        check(mirror, &[("mirror", NOTE)]);
        let wins = |facts: &mut CargoFacts| {
            mirror(facts);
            let file = |name: &str, path: &str| (name.to_owned(), PathBuf::from(path));
            facts.replacements = vec![file("corp", "/p/c"), file("larder", "/home/c")];
        };
        let said = check(wins, &[("mirror", PROBLEM)]);
        assert!(said.contains("wins over larder's settings"), "{said}");
        let more = |facts: &mut CargoFacts| {
            let index = "sparse+https://corp.example/index/".to_owned();
            let is_served = false;
            facts.other_registries = vec![OtherRegistry { index, is_served }];
            let place = SettingPlace::Variable("CARGO_NET_OFFLINE".to_owned());
            facts.net_offline = Some(NetOffline::On(place));
        };
        let (offline, other) = (("cargo-offline", PROBLEM), ("other-registry", NOTE));
        let said = check(more, &[GOOD[0], GOOD[1], offline, other]);
        assert!(said.contains("unset CARGO_NET_OFFLINE"), "{said}");
    }
}
