//! The truth: all bodies that upstream has served so far, by the path that clients request from larder.
//!
//! An answer is right if it is one of the bodies that its path ever had. Which of them is a question of freshness,
//! which larder may answer by an older copy during an outage or after a kill.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{RwLock, RwLockReadGuard};

use bytes::Bytes;
use fake_upstream::{Crate, FakeUpstream, Toolchain, sha256};
use testkit::http::{Http, Reply};
use testkit::paths::{download, entry};

/// The text of an index line that a yank changes.
const SELECTABLE: &str = "\"yanked\":false";

/// The upstream of a run and its history.
#[derive(Debug)]
pub(crate) struct Truth {
    pub(crate) upstream: FakeUpstream,
    /// True if upstream's faults include wrong bytes. Larder passes a large body on while it arrives, and cuts it off
    /// before its end if the hash is wrong.
    pub(crate) may_begin_wrong: bool,
    known: RwLock<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// The bodies of each path, the newest last.
    bodies: HashMap<String, Vec<Bytes>>,
    /// The hashes of all bodies.
    hashes: HashSet<String>,
    /// Crates by name with their versions, the oldest first.
    crates: BTreeMap<String, Vec<String>>,
    /// Paths of manifests, their checksum files and archives.
    dist: Vec<String>,
}

/// The judgement of one answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Complete, and one of the true bodies.
    Right,
    /// Cut off, after a true beginning.
    Cut,
    /// Cut off, after a beginning that upstream had falsified.
    CutWrong,
    /// An error answer with this status.
    Refused(u16),
    /// Anything else, with the reason.
    Wrong(String),
}

impl Truth {
    pub(crate) fn new(upstream: FakeUpstream) -> Self {
        let truth = Self {
            upstream,
            may_begin_wrong: false,
            known: RwLock::default(),
        };
        let config = Http::to(&truth.upstream.url()).get("/index/config.json");
        let mut known = truth.known.write().expect("no holder of this lock panics");
        known.hashes.insert(sha256(&config.body));
        drop(known);
        truth
    }

    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().expect("no holder of this lock panics")
    }

    /// Publishes a version of a crate. Nobody judges an answer meanwhile.
    pub(crate) fn publish(&self, name: &str, version: &str, package: Crate) {
        let mut known = self.known.write().expect("no holder of this lock panics");
        self.upstream.publish(package);
        let body = self.upstream.body(name, version);
        known.add(download(name, version), body);
        known.add(entry(name), self.upstream.index_body(name));
        let versions = known.crates.entry(name.to_owned()).or_default();
        versions.push(version.to_owned());
    }

    /// Yanks a version, unless it is yanked already.
    pub(crate) fn yank(&self, name: &str, version: &str) {
        let mut known = self.known.write().expect("no holder of this lock panics");
        let text = self.upstream.index_body(name);
        let text = String::from_utf8_lossy(&text);
        let wanted = format!("\"vers\":\"{version}\"");
        let is_line = |line: &str| line.contains(&wanted) && line.contains(SELECTABLE);
        if text.lines().any(is_line) {
            self.upstream.yank(name, version);
            known.add(entry(name), self.upstream.index_body(name));
        }
    }

    /// Publishes a toolchain.
    pub(crate) fn release(&self, toolchain: &Toolchain) {
        let archives = toolchain.archives();
        let manifest = Bytes::from(toolchain.manifest(&archives));
        let mut known = self.known.write().expect("no holder of this lock panics");
        self.upstream.release(toolchain);
        let manifests = toolchain.manifest_paths().into_iter();
        let manifests = manifests.map(|path| (path, manifest.clone()));
        let archives = archives.into_iter().map(|one| (one.path, one.body));
        for (path, body) in manifests.chain(archives) {
            // As upstream makes it; a request to it could meet a fault.
            let name = path.rsplit('/').next().unwrap_or_default();
            let sidecar = format!("{}  {name}\n", sha256(&body));
            known.add_dist(format!("{path}.sha256"), sidecar.into());
            known.add_dist(path, body);
        }
    }

    /// The names of all crates with their versions.
    pub(crate) fn crates(&self) -> BTreeMap<String, Vec<String>> {
        self.read().crates.clone()
    }

    /// A path that clients request: mostly crates and index entries, and some of them much more often than others.
    pub(crate) fn random_path(&self, rng: &mut fastrand::Rng) -> String {
        let known = self.read();
        if !known.dist.is_empty() && rng.u32(0..100) < 12 {
            return known.dist[rng.usize(0..known.dist.len())].clone();
        }
        let skewed = rng.f64().powi(2) * known.crates.len() as f64;
        let nth = known.crates.iter().nth(skewed as usize);
        let (name, versions) = nth.expect("there are crates");
        if rng.u32(0..100) < 25 {
            return entry(name);
        }
        let version = &versions[rng.usize(0..versions.len())];
        download(name, version)
    }

    /// The newest body of a path.
    pub(crate) fn newest(&self, path: &str) -> Option<Bytes> {
        self.read().bodies.get(path)?.last().cloned()
    }

    /// Returns whether some path had this body.
    pub(crate) fn is_known(&self, hash: &str) -> bool {
        self.read().hashes.contains(hash)
    }

    /// Judges the answer to a GET of a whole body, or of a range if the status says so.
    pub(crate) fn judge(&self, path: &str, reply: &Reply) -> Verdict {
        match reply.status {
            200 => {}
            206 => return self.judge_range(path, reply),
            400..=499 | 502..=504 => return Verdict::Refused(reply.status),
            status => return Verdict::Wrong(format!("{path}: unexpected status {status}")),
        }
        let known = self.read();
        let bodies = known.bodies.get(path).map_or(&[][..], Vec::as_slice);
        let is_entry = !path.starts_with("/crates/") && !path.starts_with("/dist/");
        let matches = |body: &Bytes| match (reply.complete, is_entry) {
            (true, false) => reply.body == *body,
            (true, true) => reply.body == *body || is_view(&reply.body, body),
            (false, false) => body.starts_with(&reply.body),
            (false, true) => is_beginning_of_view(&reply.body, body),
        };
        if !bodies.iter().rev().any(matches) {
            if !reply.complete && self.may_begin_wrong {
                return Verdict::CutWrong;
            }
            let kind = if reply.complete { "body" } else { "beginning" };
            return Verdict::Wrong(format!(
                "{path}: wrong {kind} of {} bytes with {:?}; the true ones have {:?}",
                reply.body.len(),
                reply.headers,
                bodies.iter().map(Bytes::len).collect::<Vec<_>>()
            ));
        }
        if reply.complete {
            Verdict::Right
        } else {
            Verdict::Cut
        }
    }

    fn judge_range(&self, path: &str, reply: &Reply) -> Verdict {
        let known = self.read();
        let range = reply.header("content-range").unwrap_or_default();
        let first = range
            .strip_prefix("bytes ")
            .and_then(|range| range.split('-').next()?.parse::<usize>().ok());
        let bodies = known.bodies.get(path).map_or(&[][..], Vec::as_slice);
        let matches = |body: &Bytes| {
            let rest = first.and_then(|first| body.get(first..));
            rest.is_some_and(|rest| rest.starts_with(&reply.body))
        };
        match bodies.iter().any(matches) {
            true if reply.complete => Verdict::Right,
            true => Verdict::Cut,
            false if !reply.complete && self.may_begin_wrong => Verdict::CutWrong,
            false => Verdict::Wrong(format!("{path}: wrong range `{range}`")),
        }
    }
}

impl Known {
    fn add(&mut self, path: String, body: Bytes) {
        self.hashes.insert(sha256(&body));
        let bodies = self.bodies.entry(path).or_default();
        if bodies.last() != Some(&body) {
            bodies.push(body);
        }
    }

    fn add_dist(&mut self, path: String, body: Bytes) {
        if !self.bodies.contains_key(&path) {
            self.dist.push(path.clone());
        }
        self.add(path, body);
    }
}

/// Returns whether a path is that of a channel's manifest.
pub(crate) fn is_manifest(path: &str) -> bool {
    path.contains("/channel-rust-") && path.ends_with(".toml")
}

/// Returns whether `answer` is this entry with some versions marked as yanked: the offline view
/// (docs/decisions/0008-offline-view.md).
fn is_view(answer: &[u8], body: &[u8]) -> bool {
    let (answer, body) = (
        String::from_utf8_lossy(answer),
        String::from_utf8_lossy(body),
    );
    let (mut answered, mut lines) = (answer.lines(), body.lines());
    loop {
        match (answered.next(), lines.next()) {
            (None, None) => return true,
            (Some(answer), Some(line)) if answer == line || is_yanked(answer, line) => {}
            _ => return false,
        }
    }
}

/// Returns whether `answer` is this line with `yanked` set. The order of its fields does not matter.
fn is_yanked(answer: &str, line: &str) -> bool {
    let [answer, line] = [answer, line].map(serde_json::from_str::<serde_json::Value>);
    let (Ok(answer), Ok(mut line)) = (answer, line) else {
        return false;
    };
    line["yanked"] = true.into();
    answer == line
}

/// The same for an answer that was cut off.
fn is_beginning_of_view(answer: &[u8], body: &[u8]) -> bool {
    let answer = String::from_utf8_lossy(answer);
    let whole_lines = answer.rfind('\n').map_or(0, |end| end + 1);
    let lines = answer[..whole_lines].lines().count();
    let body = String::from_utf8_lossy(body);
    let beginning: String = body.split_inclusive('\n').take(lines).collect();
    is_view(answer[..whole_lines].as_bytes(), beginning.as_bytes())
}

/// Publishes `count` crates of two versions each: most have a few kilobytes, some `largest` bytes. A crate depends on
/// crates with higher numbers, so that cargo resolves small trees.
pub(crate) fn populate(truth: &Truth, count: usize, largest: usize) {
    for number in (0..count).rev() {
        let name = crate_name(number);
        let bytes = match number % 20 {
            7 => largest,
            3 | 11 => largest / 8,
            _ => 2_000 + 397 * (number % 50),
        };
        for version in ["1.0.0", "1.1.0"] {
            let mut package = Crate::new(&name, version).padding(bytes);
            for step in [1, 7] {
                let dependency = number + step * (1 + number % 5);
                if number % 3 == 0 && dependency < count && dependency % 20 != 7 {
                    package = package.dep(&crate_name(dependency), "1");
                }
            }
            truth.publish(&name, version, package);
        }
    }
}

/// The name of a crate of [`populate`].
pub(crate) fn crate_name(number: usize) -> String {
    format!("soak-{number:04}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str =
        "{\"vers\":\"1.0.0\",\"yanked\":false}\n{\"vers\":\"1.1.0\",\"yanked\":false}\n";

    #[test]
    fn a_view_may_only_yank_versions() {
        let view = BODY.replacen(SELECTABLE, "\"yanked\":true", 1);
        let first = view.lines().next().unwrap_or_default();
        let reordered = "{\"yanked\":true,\"vers\":\"1.0.0\"}";
        assert!(is_view(
            view.replace(first, reordered).as_bytes(),
            BODY.as_bytes()
        ));
        assert!(is_view(BODY.as_bytes(), BODY.as_bytes()));
        assert!(is_view(view.as_bytes(), BODY.as_bytes()));
        assert!(!is_view(BODY.as_bytes(), view.as_bytes()));
        assert!(!is_view(
            BODY.replace("1.1", "1.2").as_bytes(),
            BODY.as_bytes()
        ));
        let first_line = BODY.split_inclusive('\n').next().unwrap_or_default();
        assert!(!is_view(first_line.as_bytes(), BODY.as_bytes()));
        assert!(is_beginning_of_view(
            &view.as_bytes()[..50],
            BODY.as_bytes()
        ));
        assert!(!is_beginning_of_view(
            &BODY.as_bytes()[33..],
            BODY.as_bytes()
        ));
    }

    #[test]
    fn wrong_bytes_are_found_whether_or_not_the_answer_is_complete() {
        let truth = Truth::new(FakeUpstream::start());
        truth.publish("left", "1.0.0", Crate::new("left", "1.0.0").padding(5_000));
        let path = download("left", "1.0.0");
        let body = truth.upstream.body("left", "1.0.0");
        let reply = |status, body: &[u8], complete| Reply {
            status,
            headers: Vec::new(),
            body: body.to_vec(),
            complete,
            first_byte: std::time::Duration::ZERO,
        };
        assert_eq!(truth.judge(&path, &reply(200, &body, true)), Verdict::Right);
        assert_eq!(
            truth.judge(&path, &reply(200, &body[..99], false)),
            Verdict::Cut
        );
        assert_eq!(
            truth.judge(&path, &reply(424, b"", true)),
            Verdict::Refused(424)
        );
        let mut flipped = body.to_vec();
        flipped[50] ^= 1;
        for wrong in [
            reply(200, &flipped, true),
            reply(200, &flipped[..99], false),
            reply(200, &body[..99], true),
            reply(500, b"", true),
            reply(206, &body[..99], true),
        ] {
            let verdict = truth.judge(&path, &wrong);
            assert!(matches!(verdict, Verdict::Wrong(_)), "{verdict:?}");
        }
    }
}
