//! What is kept on disk for one directory: the account, a file for each certificate, and until when orders must wait. Files are
//! replaced as a whole, and only the user of the proxy may read them. A damaged one is put aside with a warning.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, Permissions, TryLockError};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use instant_acme::AccountCredentials;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use crate::app::atomic_file;
use crate::config::Acme;

use super::certificate::IssuedCertificate;

/// The version of the formats.
const VERSION: u32 = 1;
/// More than a chain of certificates takes. A larger file is none of ours.
const MAX_BYTES: u64 = 1024 * 1024;

/// The files of one directory.
#[derive(Debug, Clone)]
pub(super) struct Storage {
    root: PathBuf,
    folder: PathBuf,
}

/// An account at the authority.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedAccount {
    version: u32,
    /// What the authority knows.
    pub(super) contact: Vec<String>,
    pub(super) credentials: AccountCredentials,
}

impl SavedAccount {
    pub(super) fn new(contact: &[String], credentials: AccountCredentials) -> Self {
        Self { version: VERSION, contact: contact.to_vec(), credentials }
    }
}

/// Until when orders must wait, in seconds since 1970, as the authority has said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RateLimits {
    version: u32,
    /// All orders.
    pub(super) all: u64,
    /// Those of a host.
    pub(super) hosts: BTreeMap<String, u64>,
}

impl RateLimits {
    /// Until when orders of a host must wait.
    pub(super) fn until(&self, host: &str) -> u64 {
        self.all.max(self.hosts.get(host).copied().unwrap_or(0))
    }

    /// Notes what the authority has said about a host, or without one about all. A second host that is limited while the first
    /// one still is, tells that the account is.
    pub(super) fn note(&mut self, host: Option<&str>, until: u64, now: u64) {
        self.hosts.retain(|_, until| *until > now);
        match host {
            Some(host) if self.hosts.keys().all(|other| other == host) => {
                self.hosts.insert(host.to_owned(), until);
            }
            _ => self.all = self.all.max(until),
        }
    }
}

impl Storage {
    pub(super) fn of(acme: &Acme) -> Self {
        Self { root: acme.storage.clone(), folder: acme.folder() }
    }

    /// Makes the directories.
    pub(super) fn prepare(&self) -> Result<(), String> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.folder);
        made.and_then(|()| fs::set_permissions(&self.folder, Permissions::from_mode(0o700)))
            .and_then(|()| File::open(&self.root)?.sync_all())
            .map_err(|error| format!("{}: {error}", self.folder.display()))
    }

    /// Held while this process orders: another one with these files, as during an upgrade, waits. `None`: it is held.
    pub(super) fn lock(&self) -> Result<Option<File>, String> {
        let path = self.folder.join("lock");
        let open = File::options().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = open.map_err(|error| format!("{}: {error}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(format!("{}: {error}", path.display())),
        }
    }

    pub(super) fn certificate(&self, host: &str) -> Option<IssuedCertificate> {
        let path = self.certificate_file(host);
        Self::load(&path, |text| IssuedCertificate::parse(host, text))
    }

    pub(super) fn write_certificate(&self, host: &str, certificate: &IssuedCertificate) -> Result<(), String> {
        write(&self.certificate_file(host), certificate.pem.as_bytes())
    }

    fn certificate_file(&self, host: &str) -> PathBuf {
        self.folder.join(format!("{host}.pem"))
    }

    pub(super) fn account(&self) -> Option<SavedAccount> {
        Self::load(&self.account_file(), |text| {
            parse(text).and_then(|account: SavedAccount| known(account.version, account))
        })
    }

    pub(super) fn write_account(&self, account: &SavedAccount) -> Result<(), String> {
        write_json(&self.account_file(), account)
    }

    /// The authority does not know the account any more.
    pub(super) fn forget_account(&self) {
        // An error means that there is none.
        let _ = fs::remove_file(self.account_file());
    }

    fn account_file(&self) -> PathBuf {
        self.folder.join("account.json")
    }

    pub(super) fn rate_limits(&self) -> RateLimits {
        let read = |text: &str| parse(text).and_then(|limits: RateLimits| known(limits.version, limits));
        Self::load(&self.limits_file(), read).unwrap_or_default()
    }

    pub(super) fn write_rate_limits(&self, limits: &RateLimits) -> Result<(), String> {
        write_json(&self.limits_file(), &RateLimits { version: VERSION, ..limits.clone() })
    }

    fn limits_file(&self) -> PathBuf {
        self.folder.join("rate-limits.json")
    }

    fn load<T>(path: &Path, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let why = match read(path).and_then(|text| text.map(|text| parse(&text)).transpose()) {
            Ok(found) => return found,
            Err(why) => why,
        };
        let aside = atomic_file::set_aside(path);
        let aside = aside.map_or_else(|error| error.to_string(), |aside| aside.display().to_string());
        tracing::warn!(path = %path.display(), why, %aside, "a file of tls.acme was put aside");
        None
    }
}

fn known<T>(version: u32, value: T) -> Result<T, String> {
    if version == VERSION { Ok(value) } else { Err(format!("version {version} is not known")) }
}

fn parse<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

fn read(path: &Path) -> Result<Option<Zeroizing<String>>, String> {
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
        // Opening a pipe would wait for a writer.
        Ok(metadata) if !metadata.is_file() => return Err("not a file".to_owned()),
        Ok(metadata) if metadata.len() > MAX_BYTES => return Err("too large".to_owned()),
        Ok(_) => {}
    }
    fs::read_to_string(path).map(|text| Some(Zeroizing::new(text))).map_err(|error| error.to_string())
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), String> {
    let text = serde_json::to_vec_pretty(value).map(Zeroizing::new).map_err(|error| error.to_string())?;
    write(path, &text)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    let written = atomic_file::replace(path, |mut file| file.write_all(bytes));
    written.map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use tempfile::{TempDir, tempdir};

    use super::super::certificate::tests::pem;
    use super::*;

    fn storage(directory: &TempDir) -> Storage {
        let root = directory.path().join("acme");
        let storage = Storage { folder: root.join("ca"), root };
        storage.prepare().unwrap();
        storage
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_certificate_that_was_written_is_found_and_only_its_owner_may_read_it() {
        let directory = tempdir().unwrap();
        let storage = storage(&directory);
        assert!(storage.certificate("a.example").is_none());
        let issued = IssuedCertificate::parse("a.example", &pem("a.example")).unwrap();
        storage.write_certificate("a.example", &issued).unwrap();
        assert_eq!(storage.certificate("a.example").unwrap().certified.cert, issued.certified.cert);
        assert_eq!(mode(&storage.folder.join("a.example.pem")), 0o600);
        assert_eq!((mode(&storage.folder), mode(&storage.root)), (0o700, 0o700));
    }

    #[test]
    fn a_file_damaged_in_any_way_is_put_aside() {
        let directory = tempdir().unwrap();
        let storage = storage(&directory);
        for name in ["a.example.pem", "account.json", "rate-limits.json"] {
            let path = storage.folder.join(name);
            for bytes in [&b""[..], b"{}", b"[]", b"\xff\xfe", b"{\"version\": 9, \"all\": 0, \"hosts\": {}}"] {
                fs::write(&path, bytes).unwrap();
                assert!(storage.certificate("a.example").is_none() && storage.account().is_none());
                assert_eq!(storage.rate_limits(), RateLimits::default());
                assert!(!path.exists(), "{name}");
                assert_eq!(fs::read(storage.folder.join(format!("{name}.damaged"))).unwrap(), bytes);
            }
            fs::create_dir(&path).unwrap();
            assert!(storage.certificate("a.example").is_none() && storage.account().is_none());
            fs::remove_dir_all(storage.folder.join(format!("{name}.damaged"))).ok();
        }
    }

    #[test]
    fn rate_limits_are_kept_and_a_second_limited_host_limits_all() {
        let directory = tempdir().unwrap();
        let storage = storage(&directory);
        let mut limits = storage.rate_limits();
        limits.note(Some("a.example"), 500, 100);
        limits.note(Some("a.example"), 600, 110);
        assert_eq!((limits.until("a.example"), limits.until("b.example")), (600, 0));
        storage.write_rate_limits(&limits).unwrap();
        let mut limits = storage.rate_limits();
        assert_eq!(limits.until("a.example"), 600);
        limits.note(Some("b.example"), 900, 120);
        assert_eq!((limits.until("a.example"), limits.until("c.example")), (900, 900));
        let mut later = RateLimits::default();
        later.note(Some("a.example"), 500, 100);
        later.note(Some("b.example"), 900, 500);
        assert_eq!((later.until("b.example"), later.until("c.example")), (900, 0), "the first is over");
        later.note(None, 1000, 501);
        assert_eq!(later.until("c.example"), 1000);
    }

    #[test]
    fn one_process_orders_at_a_time() {
        let directory = tempdir().unwrap();
        let storage = storage(&directory);
        let held = storage.lock().unwrap();
        assert!(held.is_some() && storage.lock().unwrap().is_none());
        drop(held);
        assert!(storage.lock().unwrap().is_some());
    }
}
