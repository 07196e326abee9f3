//! Findings about the daemon that the clients use, and about this user's store.

use serde_json::Value;

use super::{Finding, Subject};

/// The state of the daemon and of the store.
#[derive(Clone, Debug, Default)]
pub struct DaemonFacts {
    /// Base address and `/-/status.json` of the daemon that the clients use, or that runs here.
    pub daemon: Option<(String, Value)>,
    /// True if that daemon works on this user's store.
    pub is_on_own_store: bool,
    /// The folder of this user's store.
    pub store: String,
    /// The reason why this user cannot use that store.
    pub store_error: Option<String>,
    /// True if a client looks for larder or for its proxy, so that what is missing is reported there.
    pub is_wanted: bool,
}

/// Judges the facts.
pub fn judge(facts: &DaemonFacts) -> Vec<Finding> {
    let mut findings = Vec::new();
    match &facts.daemon {
        Some((address, status)) => findings.extend(daemon(facts, address, status)),
        None if facts.is_wanted => {}
        None => findings.push(
            Finding::note(Subject::Larder, "daemon", "no larder is running")
                .with_remedy("`larder serve` starts the daemon; `larder run -- CMD` needs none"),
        ),
    }
    if let Some(error) = &facts.store_error {
        let remedy = "until then, `larder warm` and `larder serve` of this user cannot work";
        findings.push(Finding::problem(Subject::Larder, "store", error, remedy));
    }
    findings
}

fn daemon(facts: &DaemonFacts, address: &str, status: &Value) -> Vec<Finding> {
    let subject = Subject::Larder;
    let (version, own) = (status["version"].as_str(), env!("CARGO_PKG_VERSION"));
    let running = format!(
        "larder {} runs at {address}, process {}",
        version.unwrap_or_default(),
        status["pid"]
    );
    let mut findings = vec![Finding::ok(subject, "daemon", running)];
    if version != Some(own) {
        let what = format!("this command is larder {own}, the daemon is another version");
        let finding = Finding::note(subject, "version", what);
        findings.push(finding.with_remedy("restart the daemon after an upgrade"));
    }
    if let Some(problem) = status["store_problem"].as_str() {
        let what = format!("the daemon stores nothing: {problem}");
        let remedy = "see the daemon's log, mend its store, and restart it";
        findings.push(Finding::problem(subject, "store-writable", what, remedy));
    }
    let outages = status["outages"].as_array();
    for outage in outages.into_iter().flatten() {
        findings.push(judge_outage(outage));
    }
    if status["offline"] == true {
        let what = "the daemon runs with `--offline`: builds get what is stored, and nothing else";
        let finding = Finding::note(subject, "offline", what);
        findings.push(finding.with_remedy("`larder check` says whether a project is ready"));
    } else if outages.is_none_or(Vec::is_empty) {
        findings.push(Finding::ok(subject, "upstream", "no upstream is down"));
    }
    if !facts.is_on_own_store {
        let what = format!(
            "the daemon uses another store than this user's, {}: `larder warm` and `check` do not see what it serves",
            facts.store
        );
        let remedy = "run them as the daemon's user, or with the daemon's `--store`";
        findings.push(Finding::note(subject, "other-store", what).with_remedy(remedy));
    }
    findings
}

fn judge_outage(outage: &Value) -> Finding {
    let text = |key: &str| outage[key].as_str().unwrap_or_default();
    let what = format!(
        "upstream {} is {} since {}: {}",
        text("upstream"),
        text("state"),
        text("since"),
        text("cause")
    );
    if text("state") == "slow" {
        return Finding::note(Subject::Larder, "upstream", what);
    }
    let remedy = "builds of ready projects work (`larder check`), others fail until it is back; larder notices that \
                  by itself";
    Finding::problem(Subject::Larder, "upstream", what, remedy)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        super::{
            FindingVerdict,
            tests::{checks, status},
        },
        *,
    };

    #[track_caller]
    fn check(change: impl FnOnce(&mut DaemonFacts), expected: &[(&str, FindingVerdict)]) {
        let mut facts = DaemonFacts {
            daemon: Some(("http://127.0.0.1:3263/".to_owned(), status())),
            is_on_own_store: true,
            ..DaemonFacts::default()
        };
        change(&mut facts);
        assert_eq!(checks(&judge(&facts)), expected);
    }

    #[test]
    fn trouble_of_the_daemon_and_of_the_store_is_found() {
        let (ok, note, problem) = (
            FindingVerdict::Ok,
            FindingVerdict::Note,
            FindingVerdict::Problem,
        );
        let with = |key: &'static str, value: Value| {
            move |facts: &mut DaemonFacts| {
                if let Some((_, status)) = &mut facts.daemon {
                    status[key] = value;
                }
            }
        };
        let (runs, online) = (("daemon", ok), ("upstream", ok));
        check(|_| {}, &[runs, online]);
        let version = with("version", json!("0.0.1"));
        check(version, &[runs, ("version", note), online]);
        let offline = with("offline", json!(true));
        check(offline, &[runs, ("offline", note)]);
        let outage = |state: &str| {
            let outage =
                json!({ "state": state, "upstream": "h:1", "since": "now", "cause": "refused" });
            with("outages", json!([outage]))
        };
        check(outage("down"), &[runs, ("upstream", problem)]);
        check(outage("slow"), &[runs, ("upstream", note)]);
        let store = with("store_problem", json!("its folder was replaced"));
        check(store, &[runs, ("store-writable", problem), online]);
        let foreign = |facts: &mut DaemonFacts| facts.is_on_own_store = false;
        check(foreign, &[runs, online, ("other-store", note)]);
        let unusable = |facts: &mut DaemonFacts| facts.store_error = Some("no".to_owned());
        check(unusable, &[runs, online, ("store", problem)]);
        check(|facts| facts.daemon = None, &[("daemon", note)]);
        let wanted = |facts: &mut DaemonFacts| {
            facts.daemon = None;
            facts.is_wanted = true;
        };
        check(wanted, &[]);
    }
}
