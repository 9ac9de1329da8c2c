//! The process of a store's server, which may be killed, frozen and started again, and never outlives its test.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::world::apps::LONG;
use crate::world::{PATIENCE, eventually, guard};

/// A server's process, with a directory of its own.
#[derive(Debug)]
pub(super) struct Process {
    name: String,
    directory: TempDir,
    child: Mutex<Option<Child>>,
}

impl Process {
    /// Nothing runs yet.
    pub(super) fn new(name: String) -> Self {
        let directory =
            tempfile::Builder::new().prefix("homing-stores-").tempdir().expect("a directory for the server");
        Self { name, directory, child: Mutex::default() }
    }

    pub(super) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Starts it, and waits until it answers.
    #[track_caller]
    pub(super) fn spawn(&self, command: Command, answers: impl Fn() -> bool) {
        self.spawn_within(LONG, command, answers);
    }

    /// The same for a server that is slow to start.
    #[track_caller]
    pub(super) fn spawn_within(&self, patience: Duration, mut command: Command, answers: impl Fn() -> bool) {
        let log = File::options().create(true).append(true).open(self.log_file()).expect("a file for the server's log");
        let child = command
            .current_dir(self.directory())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the same file"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|e| panic!("{} does not start: {e}: {command:?}", self.name));
        guard::watch(&child);
        let before = self.child().replace(child);
        assert!(before.is_none(), "{} runs already", self.name);
        eventually(patience, &format!("{} answers", self.name), || {
            let ended = self.child().as_mut().expect("it was started").try_wait().expect("its state");
            assert!(ended.is_none(), "{} ended at its start: {ended:?}\n{}", self.name, self.log());
            answers()
        });
    }

    /// SIGKILL. Its connections are reset, its port refuses, its memory is gone.
    pub(super) fn kill(&self) {
        let child = self.child().take();
        if let Some(mut child) = child {
            guard::release(&child);
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGSTOP. Its connections stay, the kernel even accepts new ones, and nothing is answered.
    #[track_caller]
    pub(super) fn freeze(&self) {
        let pid = self.pid();
        kill(pid, Signal::SIGSTOP).expect("the process takes the signal");
        eventually(PATIENCE, &format!("{} stands still", self.name), || {
            match waitpid(pid, Some(WaitPidFlag::WUNTRACED | WaitPidFlag::WNOHANG)).expect("the process's state") {
                WaitStatus::Stopped(..) => true,
                WaitStatus::StillAlive => false,
                ended => panic!("{} ended instead of standing still: {ended:?}\n{}", self.name, self.log()),
            }
        });
    }

    /// SIGCONT. What came in meanwhile is answered.
    #[track_caller]
    pub(super) fn thaw(&self) {
        kill(self.pid(), Signal::SIGCONT).expect("the process takes the signal");
    }

    pub(super) fn is_running(&self) -> bool {
        self.child().as_mut().is_some_and(|child| child.try_wait().expect("its state").is_none())
    }

    /// What it said so far, in all its lives.
    pub(super) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_file()).unwrap_or_default()).into_owned()
    }

    #[track_caller]
    fn pid(&self) -> Pid {
        let Some(id) = self.child().as_ref().map(Child::id) else { panic!("{} does not run", self.name) };
        Pid::from_raw(i32::try_from(id).expect("a process id"))
    }

    fn log_file(&self) -> PathBuf {
        self.directory().join("log")
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("---- log of {} ----\n{}----", self.name, self.log());
        }
    }
}

/// A program that `scripts/test-stores` brought.
pub(super) fn program(name: &str) -> PathBuf {
    let program = stores().join("bin").join(name);
    assert!(program.exists(), "{} is missing: run `scripts/test-stores` or `make test`", program.display());
    program
}

/// Where `scripts/test-stores` puts what it brings: `stores` in cargo's target directory, or what `HOMING_STORES` names for a
/// test binary that was carried elsewhere.
pub(super) fn stores() -> PathBuf {
    let beside_tmp = || option_env!("CARGO_TARGET_TMPDIR").map(|tmp| Path::new(tmp).with_file_name("stores"));
    let stores = std::env::var_os("HOMING_STORES").map(PathBuf::from).or_else(beside_tmp);
    stores.expect("HOMING_STORES names the stores' directory, or cargo has built the tests")
}
