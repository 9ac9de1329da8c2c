//! A shell as an operator's: in the test's directory, with `homing` in its `PATH` and the proxy's admin address in its
//! environment.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use super::net::Address;
use super::proxy::{binary, command};

/// Runs a line of a shell script.
pub(crate) fn shell(admin: &Address, directory: &Path, line: &str) -> Command {
    let link = directory.join("homing");
    if !link.exists() {
        symlink(binary(), link).expect("a name for the program");
    }
    let path = format!("{}:{}", directory.display(), std::env::var("PATH").unwrap_or_default());
    let mut shell = Command::new("sh");
    shell.args(["-c", line]).current_dir(directory).stdin(Stdio::null());
    for (name, value) in command().get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell.env("PATH", path).env("HOMING_ADMIN", admin.to_string());
    shell
}
