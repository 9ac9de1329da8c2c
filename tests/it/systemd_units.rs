//! The units of conf/systemd, as systemd's own tools see them. `make test-package` runs the service under them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::world::proxy::binary;

const SERVICE: &str = "homing.service";
const SOCKET: &str = "homing.socket";

fn unit(name: &str) -> String {
    let root =
        std::env::var_os("HOMING_SOURCE").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    fs::read_to_string(root.join("conf/systemd").join(name)).expect("a unit")
}

/// The units with the program under test in the place of the installed one, which need not be there.
fn units() -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    for name in [SERVICE, SOCKET] {
        let text = unit(name).replace("/usr/bin/homing", &binary().display().to_string());
        fs::write(directory.path().join(name), text).expect("a unit");
    }
    directory
}

/// What `systemd-analyze` says, and whether it succeeded; `None` where there is no systemd.
fn analyze(arguments: &[&str], directory: &Path) -> Option<(bool, String)> {
    match Command::new("systemd-analyze").args(arguments).env("SYSTEMD_COLORS", "0").current_dir(directory).output() {
        Ok(output) => {
            let text = [output.stdout, output.stderr].concat();
            Some((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
        }
        Err(error) => {
            assert!(
                std::env::var_os("CI").is_none_or(|ci| ci != "true"),
                "systemd-analyze: {error}; scripts/test-systemd installs it"
            );
            eprintln!("the units are not checked: systemd-analyze is not installed ({error})");
            None
        }
    }
}

#[test]
fn systemd_finds_no_fault_in_the_units() {
    let directory = units();
    let Some((success, said)) = analyze(&["verify", "--man=no", SERVICE, SOCKET], directory.path()) else { return };
    assert!(success && said.trim().is_empty(), "{said}");
    // It does see faults.
    let path = directory.path().join(SERVICE);
    let broken = fs::read_to_string(&path).expect("the unit").replace("ProtectSystem=strict", "ProtectSystem=very");
    fs::write(&path, broken).expect("a unit");
    let (_, said) = analyze(&["verify", "--man=no", SERVICE], directory.path()).expect("it is there");
    assert!(said.to_lowercase().replace(' ', "").contains("protectsystem"), "{said}");
}

#[test]
fn systemd_rates_the_service_as_well_confined() {
    let directory = units();
    let arguments = ["security", "--offline=true", "--threshold=20", "--no-pager", SERVICE];
    let Some((success, said)) = analyze(&arguments, directory.path()) else { return };
    assert!(success, "an exposure of more than 2.0:\n{said}");
    assert!(said.contains("Overall exposure level"), "{said}");
    let loose = unit(SERVICE).replace("SystemCallFilter", "#");
    fs::write(directory.path().join(SERVICE), loose).expect("a unit");
    let (success, said) = analyze(&arguments, directory.path()).expect("it is there");
    assert!(!success, "without a filter of system calls it would be rated the same:\n{said}");
}
