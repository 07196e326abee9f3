//! The authority of a daemon that intercepts (`larder serve --intercept`): it outlives the process, so that clients
//! which were set up before a restart keep working.
//!
//! ```text
//!   FOLDER/authorities.json   keys, hosts, begin        mode 0600, of this user alone
//!   FOLDER/roots.pem          for clients: the system's roots and the authorities' certificates
//!
//!   day 0 ─────────── day 15 ─────────── day 25 ─── day 30
//!   first authority signs ────────────────┤ ends ─────┘
//!                     second one in roots.pem ─┴ signs ...
//! ```
//!
//! Clients read `roots.pem` for each command. One that reads a copy has ten days for the next copy.
//!
//! Another authority voids all copies. So a clock before its begin does not replace it, nor do fewer hosts than it is
//! for: a computer may start with an old clock, and a daemon with an empty store and no network knows fewer hosts.

use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rcgen::KeyPair;
use serde::{Deserialize, Serialize};

use super::{CertificateError, Certificates, bundle, certificates::authority_of};
use crate::{
    clock::{now, seconds},
    files::{self, MAX_CERTIFICATES_BYTES, MAX_SETTINGS_BYTES},
};

/// Age at which the next authority is shown to clients.
const SUCCESSOR_AFTER: Duration = Duration::from_secs(15 * 86_400);
/// Age at which the next authority signs.
const REPLACED_AFTER: Duration = Duration::from_secs(25 * 86_400);

/// One authority, as the file has it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct SavedAuthority {
    /// Seconds since 1970.
    begin: u64,
    hosts: BTreeSet<String>,
    /// PEM.
    key: String,
    /// PEM. Kept, because a new signature would change the clients' file at each start.
    certificate: String,
}

/// The file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct SavedAuthorities {
    current: Option<SavedAuthority>,
    next: Option<SavedAuthority>,
}

/// The folder with the authorities.
#[derive(Clone, Debug)]
pub struct AuthorityFolder(PathBuf);

impl AuthorityFolder {
    /// Creates the folder. Other users may read `roots.pem`; the keys are in a file of mode 0600.
    ///
    /// # Errors
    /// The system's error.
    pub fn open(folder: PathBuf) -> io::Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&folder)?;
        Ok(Self(folder))
    }

    /// The file of root certificates for clients.
    pub fn roots(&self) -> PathBuf {
        self.0.join("roots.pem")
    }

    /// Certificates for these hosts, from the authority of the folder if it fits, else from a new one. Writes both
    /// files. `system_roots` is the file of the system's roots, if the user has named one.
    ///
    /// # Errors
    /// The files cannot be written, or no certificate can be made.
    pub fn certificates(
        &self,
        hosts: &BTreeSet<String>,
        system_roots: Option<&Path>,
    ) -> Result<Certificates, CertificateError> {
        let saved = self.load();
        let authorities = advance(saved, hosts, now())?;
        let file = |error| CertificateError::File(self.0.clone(), error);
        let text = serde_json::to_vec(&authorities).unwrap_or_default();
        replace(&self.0, "authorities.json", &text).map_err(file)?;
        let Some(current) = &authorities.current else {
            return Certificates::issue(hosts);
        };
        let certificates = Certificates::signed_by(&current.authority()?, hosts, current.begin())?;
        let mut roots = current.certificate.clone();
        if let Some(next) = &authorities.next {
            roots += &next.certificate;
        }
        let roots = bundle(system_roots, &roots)?;
        write(&self.roots(), 0o644, roots.as_bytes()).map_err(file)?;
        Ok(certificates)
    }

    /// The authorities in the file. A file that cannot be read counts as empty.
    fn load(&self) -> SavedAuthorities {
        let text = files::read(&self.0.join("authorities.json"), MAX_SETTINGS_BYTES);
        let saved = text
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok());
        saved.unwrap_or_default()
    }
}

impl SavedAuthority {
    fn new(hosts: &BTreeSet<String>, now: SystemTime) -> Result<Self, CertificateError> {
        let begin = seconds(now);
        let key = KeyPair::generate()?;
        let text = key.serialize_pem();
        let authority = authority_of(
            key,
            hosts,
            SystemTime::UNIX_EPOCH + Duration::from_secs(begin),
        )?;
        Ok(Self {
            begin,
            hosts: hosts.clone(),
            key: text,
            certificate: authority.pem(),
        })
    }

    fn begin(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.begin)
    }

    fn authority(&self) -> Result<rcgen::CertifiedIssuer<'static, KeyPair>, CertificateError> {
        authority_of(KeyPair::from_pem(&self.key)?, &self.hosts, self.begin())
    }

    /// True if it is for these hosts, its key can be read, and it began less than `age` ago or begins in the future.
    fn serves(&self, hosts: &BTreeSet<String>, age: Duration, now: SystemTime) -> bool {
        let is_young = now
            .duration_since(self.begin())
            .map_or(true, |passed| passed < age);
        is_young && hosts.is_subset(&self.hosts) && self.authority().is_ok()
    }
}

/// The authorities that a daemon for these hosts has at this time.
fn advance(
    saved: SavedAuthorities,
    hosts: &BTreeSet<String>,
    now: SystemTime,
) -> Result<SavedAuthorities, CertificateError> {
    let is_usable = |one: &SavedAuthority| one.serves(hosts, REPLACED_AFTER, now);
    let mut usable = [saved.current, saved.next]
        .into_iter()
        .flatten()
        .filter(is_usable);
    let current = match usable.next() {
        Some(current) => current,
        None => SavedAuthority::new(hosts, now)?,
    };
    let next = match usable.next() {
        None if !current.serves(hosts, SUCCESSOR_AFTER, now) => {
            Some(SavedAuthority::new(hosts, now)?)
        }
        next => next,
    };
    Ok(SavedAuthorities {
        current: Some(current),
        next,
    })
}

/// Replaces the file of keys in `folder`, unless it is the same: a full disk or a crash leaves the old keys.
#[expect(
    clippy::disallowed_methods,
    reason = "the daemon's authority is not in the store"
)]
fn replace(folder: &Path, name: &str, text: &[u8]) -> io::Result<()> {
    let path = folder.join(name);
    if files::read(&path, MAX_SETTINGS_BYTES).is_ok_and(|old| old == text) {
        return Ok(());
    }
    // Its mode is 0600.
    let mut new = tempfile::Builder::new()
        .prefix(".larder-")
        .suffix(".tmp")
        .tempfile_in(folder)?;
    new.write_all(text)?;
    new.as_file().sync_all()?;
    new.persist(&path).map_err(|error| error.error)?;
    fs::File::open(folder)?.sync_all()
}

/// Writes in place, unless the file is the same: a file that is mounted into a container stays the same file.
fn write(path: &Path, mode: u32, text: &[u8]) -> io::Result<()> {
    if files::read(path, MAX_CERTIFICATES_BYTES).is_ok_and(|old| old == text) {
        return Ok(());
    }
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(mode);
    let mut file = options.open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;

    fn hosts(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn an_authority_survives_restarts_and_is_replaced_with_notice() {
        let hosts = hosts(&["a.example"]);
        let at = |days: u64| SystemTime::UNIX_EPOCH + Duration::from_secs((20_000 + days) * 86_400);
        let keys = |saved: &SavedAuthorities| {
            let key = |one: &Option<SavedAuthority>| one.as_ref().map(|one| one.key.clone());
            (key(&saved.current), key(&saved.next))
        };
        let new = advance(SavedAuthorities::default(), &hosts, at(0)).unwrap();
        let (first, none) = keys(&new);
        assert!(first.is_some() && none.is_none());
        let later = advance(new, &hosts, at(14)).unwrap();
        assert_eq!(keys(&later), (first.clone(), None));
        let announced = advance(later, &hosts, at(16)).unwrap();
        let (still, second) = keys(&announced);
        assert_eq!(still, first);
        assert!(second.is_some() && second != first);
        let same = advance(announced, &hosts, at(24)).unwrap();
        assert_eq!(keys(&same), (first, second.clone()));
        let replaced = advance(same, &hosts, at(26)).unwrap();
        assert_eq!(keys(&replaced), (second, None));
    }

    #[test]
    fn other_hosts_get_another_authority() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(86_400 * 20_000);
        let one = advance(SavedAuthorities::default(), &hosts(&["a.example"]), at).unwrap();
        let key = one.current.clone().unwrap().key;
        let other = advance(one, &hosts(&["b.example"]), at).unwrap();
        assert_ne!(other.current.unwrap().key, key);
        assert!(other.next.is_none());
    }

    #[test]
    fn an_old_clock_and_fewer_hosts_keep_the_authority_and_more_hosts_do_not() {
        let at = |days: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(days * 86_400);
        let both = hosts(&["a.example", "b.example"]);
        let one = advance(SavedAuthorities::default(), &both, at(20_000)).unwrap();
        let key = one.current.clone().unwrap().key;
        let old = advance(one, &both, at(1)).unwrap();
        assert_eq!(old.current.clone().unwrap().key, key, "an old clock");
        let fewer = advance(old, &hosts(&["a.example"]), at(20_001)).unwrap();
        assert_eq!(fewer.current.clone().unwrap().key, key, "fewer hosts");
        let same = advance(fewer, &both, at(20_002)).unwrap();
        assert_eq!(same.current.clone().unwrap().key, key, "all hosts again");
        assert!(same.next.is_none());
        let more = hosts(&["a.example", "b.example", "c.example"]);
        let other = advance(same, &more, at(20_003)).unwrap();
        assert_ne!(other.current.unwrap().key, key);
    }

    #[test]
    fn keys_are_replaced_in_one_step() {
        let place = tempfile::tempdir().unwrap();
        let folder = AuthorityFolder::open(place.path().to_owned()).unwrap();
        folder.certificates(&hosts(&["a.example"]), None).unwrap();
        let file = place.path().join("authorities.json");
        let mut old = fs::File::open(&file).unwrap();
        let roots = fs::metadata(folder.roots()).unwrap();
        folder.certificates(&hosts(&["b.example"]), None).unwrap();
        let mut text = String::new();
        io::Read::read_to_string(&mut old, &mut text).unwrap();
        assert!(
            text.contains("a.example"),
            "the old file is untouched: {text}"
        );
        let same = fs::metadata(folder.roots()).unwrap();
        assert_eq!(roots.ino(), same.ino(), "it is mounted into containers");
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 2);
    }

    #[test]
    fn only_this_user_can_read_the_key_and_clients_get_certificates_alone() {
        let place = tempfile::tempdir().unwrap();
        let folder = AuthorityFolder::open(place.path().join("a/b")).unwrap();
        let hosts = hosts(&["a.example"]);
        folder.certificates(&hosts, None).unwrap();
        let key = fs::read_to_string(place.path().join("a/b/authorities.json")).unwrap();
        assert!(key.contains("PRIVATE KEY"));
        let mode = |name: &str| {
            let metadata = fs::metadata(place.path().join("a/b").join(name)).unwrap();
            metadata.permissions().mode() & 0o777
        };
        assert_eq!(mode("authorities.json"), 0o600);
        let roots = fs::read_to_string(folder.roots()).unwrap();
        assert!(roots.contains("BEGIN CERTIFICATE") && !roots.contains("PRIVATE KEY"));
        folder.certificates(&hosts, None).unwrap();
        let again = fs::read_to_string(place.path().join("a/b/authorities.json")).unwrap();
        assert_eq!(again, key);
    }
}
