//! The program that an upgrade starts: what now lies where this one was started from, with the same arguments.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use std::{env, io, thread};

use crate::app::socket_activation::VARIABLES;

/// The argument by which a process waits for its predecessor.
const UPGRADE: &str = "--upgrade";
/// How long a program may check the configuration.
const CHECK_TIMEOUT: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// How this process was started.
#[derive(Debug, Clone)]
pub(in crate::app) struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
    config: Option<PathBuf>,
}

impl Program {
    /// Found when the process starts: later its file has another name, or none.
    pub(in crate::app) fn current(config: Option<&Path>) -> io::Result<Self> {
        let mut arguments = env::args_os();
        let name = arguments.next().unwrap_or_default();
        let arguments = arguments.filter(|argument| argument != UPGRADE).collect();
        let path = match find(&name, env::var_os("PATH").as_deref()) {
            Some(path) => path,
            None => env::current_exe()?,
        };
        let config = config.map(std::path::absolute).transpose()?;
        Ok(Self { path: std::path::absolute(path)?, arguments, config })
    }

    /// Its path, for messages.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the program that would be started takes the configuration.
    ///
    /// # Errors
    /// What it prints.
    pub(super) fn check(&self) -> Result<(), String> {
        let Some(config) = &self.config else { return Ok(()) };
        let mut command = Command::new(&self.path);
        command.arg("check").arg("--config").arg(config).env("NO_COLOR", "1");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let shown = self.path.display();
        let mut child = command.spawn().map_err(|error| format!("{shown} cannot be started: {error}"))?;
        // Read while it runs: it may write more than a pipe holds.
        let reader = child.stderr.take().map(|output| thread::spawn(move || io::read_to_string(output)));
        let status = wait(&mut child).map_err(|error| format!("\"{shown} check\": {error}"))?;
        if status.success() {
            return Ok(());
        }
        let text = reader.and_then(|reader| reader.join().ok()?.ok()).unwrap_or_default();
        let text = text.trim();
        let separator = if text.is_empty() { "" } else { ":\n" };
        Err(format!("\"{shown} check\" ended with {status}{separator}{text}"))
    }

    /// Starts it. It logs where this process logs.
    pub(super) fn start(&self) -> io::Result<Child> {
        let mut command = Command::new(&self.path);
        // Its sockets come from this process, not from the service manager.
        for name in VARIABLES {
            command.env_remove(name);
        }
        command.args(&self.arguments).arg(UPGRADE).stdin(Stdio::null()).spawn()
    }
}

/// Waits for the end of a process, or ends it.
fn wait(child: &mut Child) -> io::Result<ExitStatus> {
    let deadline = Instant::now() + CHECK_TIMEOUT;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it did not end in time"));
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// The file that a shell would have started. A symbolic link is kept, since an upgrade may point it elsewhere.
fn find(name: &OsStr, path: Option<&OsStr>) -> Option<PathBuf> {
    let named = Path::new(name);
    if named.components().count() > 1 {
        return Some(named.to_owned());
    }
    env::split_paths(path?).map(|directory| directory.join(named)).find(|file| !name.is_empty() && file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_where_a_shell_found_it() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("homing-1"), folder.path().join("homing"));
        std::fs::write(&real, "").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let path = env::join_paths(["/nowhere".as_ref(), folder.path()]).unwrap();
        assert_eq!(find("homing".as_ref(), Some(&path)), Some(link));
        assert_eq!(find("/opt/homing".as_ref(), Some(&path)), Some("/opt/homing".into()));
        assert_eq!(find("other".as_ref(), Some(&path)), None);
        assert_eq!(find("".as_ref(), Some(&path)), None);
    }
}
