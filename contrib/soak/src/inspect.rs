//! Looks at a store on disk: what each file is, whether it is whole, and what does not belong there.
//!
//! This reader knows the documented layout (ARCHITECTURE.md, "On disk") and shares no code with larder.

use std::path::{Path, PathBuf};

use fake_upstream::sha256;
use testkit::store::files;

use crate::truth::Truth;

/// Keys of entries that record which manifests of past days upstream lacks.
const ABSENCES: &str = "rustup/absent/";
/// The body of such an entry.
const ABSENCE_BODY: &[u8] = b"upstream has no such file\n";

/// The result of a look at all files.
#[derive(Debug, Default)]
pub(crate) struct Inspection {
    pub(crate) blobs: u64,
    pub(crate) entries: u64,
    /// Files below `staging` besides locks and addresses: bodies that were arriving or being written.
    pub(crate) staged: Vec<PathBuf>,
    /// Folders of processes below `staging`.
    pub(crate) processes: usize,
    /// Damaged, wrong or unknown files.
    pub(crate) findings: Vec<String>,
}

/// Reads the whole store.
pub(crate) fn inspect(store: &Path, truth: &Truth) -> Inspection {
    let mut found = Inspection::default();
    for (path, content) in files(store) {
        let inside = path.strip_prefix(store).unwrap_or(&path);
        let parts: Vec<_> = inside.iter().map(|part| part.to_string_lossy()).collect();
        let parts: Vec<&str> = parts.iter().map(AsRef::as_ref).collect();
        let shown = inside.display();
        match *parts.as_slice() {
            ["CACHEDIR.TAG"]
            | ["v1", "last-use" | "eviction-lock" | "toolchain-format"]
            | ["v1", "indexes", _] => {}
            ["v1", "scrub.json" | "gone.json" | "recalls.json"] | ["v1", "projects", _] => {
                if serde_json::from_slice::<serde_json::Value>(&content).is_err() {
                    found.findings.push(format!("{shown} is no JSON"));
                }
            }
            ["v1", "staging", _, "lock" | "daemon.json"] => {}
            ["v1", "staging", _, ..] => found.staged.push(path.clone()),
            ["v1", "blobs", first, rest] => {
                found.blobs += 1;
                if sha256(&content) != format!("{first}{rest}") {
                    found.findings.push(format!("{shown} has another hash"));
                }
            }
            ["v1", "entries", _, .., name] => {
                found.entries += 1;
                if let Err(why) = check_entry(name, &content, truth) {
                    found.findings.push(format!("{shown}: {why}"));
                }
            }
            _ => found.findings.push(format!("{shown} does not belong here")),
        }
    }
    let staging = std::fs::read_dir(store.join("v1/staging"));
    found.processes = staging.map_or(0, Iterator::count);
    found
}

/// Checks that an entry's body is one that upstream served, or that the entry records a file that upstream lacked.
fn check_entry(name: &str, content: &[u8], truth: &Truth) -> Result<(), String> {
    let end = content.iter().position(|&byte| byte == b'\n');
    let (head, body) = content.split_at(end.map_or(content.len(), |end| end + 1));
    let head = head.strip_prefix(b"larder-entry ");
    let head = head.and_then(|head| serde_json::from_slice::<serde_json::Value>(head).ok());
    let head = head.ok_or("its first line is damaged")?;
    let hash = sha256(body);
    if head["sha256"] != hash.as_str() {
        return Err("its body has another hash".to_owned());
    }
    let key = head["key"].as_str().unwrap_or_default();
    if !key.ends_with(name) {
        return Err(format!("it belongs to {key}"));
    }
    if truth.is_known(&hash) || key.starts_with(ABSENCES) && body == ABSENCE_BODY {
        Ok(())
    } else {
        Err("upstream never had this body".to_owned())
    }
}
