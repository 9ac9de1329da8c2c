//! What operators write: the configuration, and lists of servers in files.

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::choice;
use crate::config::{Config, Environment, FileText, parse_targets};

/// Where every variable is set, and there are no files.
struct Nowhere;

impl Environment for Nowhere {
    fn variable(&self, _name: &str) -> Option<String> {
        Some("0123456789abcdef0123456789abcdef".to_owned())
    }

    fn file(&self, path: &Path) -> Result<FileText, String> {
        let text = "0123456789abcdef0123456789abcdef".to_owned();
        if path.starts_with("/run") { Ok(FileText { text, readable_by_others: false }) } else { Err("none".to_owned()) }
    }

    fn takes_files(&self, _directory: &Path) -> Result<(), String> {
        Ok(())
    }

    fn others_may_write(&self, _directory: &Path) -> bool {
        false
    }

    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000)
    }
}

/// A file is taken, or every problem of it is reported. What `homing config show` prints of it is taken for the same.
pub fn configuration(data: &[u8]) {
    match Config::parse("homing.yaml", data, &Nowhere) {
        Ok(loaded) => {
            let again = Config::parse("homing.yaml", loaded.effective(), &Nowhere);
            let again = again.unwrap_or_else(|problems| panic!("refused: {problems}\n{}", loaded.effective()));
            assert_eq!(again.effective(), loaded.effective(), "the effective configuration is another than shown");
        }
        Err(problems) => assert!(!problems.to_string().is_empty(), "refused without a reason"),
    }
}

/// Servers of a list have names of their own, and no part of a list in JSON is a list.
pub fn file_sd(data: &[u8]) {
    let (form, text) = choice(data);
    let Ok(text) = std::str::from_utf8(text) else { return };
    let yaml = form & 1 == 1;
    let Ok(servers) = parse_targets(text, yaml) else { return };
    let names: HashSet<_> = servers.iter().map(|server| &server.name).collect();
    assert_eq!(names.len(), servers.len(), "a name stands twice");
    for server in &servers {
        assert!(!server.name.is_empty() && server.name.len() <= 300, "{:?}", server.name);
        assert!(!server.name.contains(|char: char| char.is_whitespace() || char.is_control()), "{:?}", server.name);
    }
    let text = text.trim_end();
    if !yaml && let Some((last, _)) = text.char_indices().next_back() {
        assert!(parse_targets(&text[..last], false).is_err(), "half a list is one");
    }
}
