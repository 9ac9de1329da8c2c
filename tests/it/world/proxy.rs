//! The real program as a process: started with a file, waited for, signalled, watched, and gone when the test is.

use std::cell::RefCell;
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

pub(crate) use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::Value;

use super::browser::Browser;
use super::client::{Response, Wire};
use super::guard;
use super::metrics::Metrics;
use super::net::Address;
use super::{PATIENCE, eventually};

/// The program under test.
pub(crate) fn binary() -> PathBuf {
    let built =
        std::env::var_os("HOMING_BINARY").map(PathBuf::from).or(option_env!("CARGO_BIN_EXE_homing").map(PathBuf::from));
    built.expect("HOMING_BINARY names the program, or cargo has built it")
}

/// A command line of the program, free of what the caller's environment might say to it.
pub(crate) fn command() -> Command {
    command_of(&binary())
}

fn command_of(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("NO_COLOR", "1").env("RUST_BACKTRACE", "1");
    for name in ["HOMING_CONFIG", "HOMING_ADMIN", "HOMING_ADMIN_TOKEN", "RUST_LOG"] {
        command.env_remove(name);
    }
    command
}

/// The same under `ulimit -n`.
fn limited_command(program: &Command, descriptors: u64) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit -n {descriptors} && exec \"$@\""), "sh"]).arg(program.get_program());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
}

fn inherited(listener: &TcpListener) -> Stdio {
    OwnedFd::from(listener.try_clone().expect("a second descriptor")).into()
}

/// A running proxy.
#[derive(Debug)]
pub(crate) struct Proxy {
    child: Mutex<Child>,
    /// Where clients connect; the test's configuration may have more listeners.
    pub(crate) address: Address,
    pub(crate) admin: Address,
    /// The file it was started with.
    pub(crate) config: PathBuf,
    output: PathBuf,
    log: PathBuf,
    pub(crate) access_log: PathBuf,
}

/// What a proxy is started with.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    pub(crate) address: Address,
    pub(crate) admin: Address,
    pub(crate) config: PathBuf,
    pub(crate) access_log: PathBuf,
    pub(crate) environment: Vec<(String, String)>,
    /// Instead of `run --config FILE`.
    pub(crate) arguments: Option<Vec<String>>,
    /// Instead of the program under test.
    pub(crate) program: Option<PathBuf>,
    /// How many files it may have open, `ulimit -n`.
    pub(crate) descriptors: Option<u64>,
    /// Standard input, in place of an empty one.
    pub(crate) stdin: Option<Arc<TcpListener>>,
}

thread_local! {
    /// Distinguishes the output files of the proxies of one test.
    static STARTED: RefCell<usize> = const { RefCell::new(0) };
}

impl Proxy {
    /// Starts the program and waits until it is ready.
    pub(crate) fn start(launch: &Launch, directory: &Path) -> Self {
        let proxy = Self::spawn(launch, directory);
        proxy.wait_until_ready();
        proxy
    }

    /// Starts the program without waiting.
    pub(crate) fn spawn(launch: &Launch, directory: &Path) -> Self {
        let number = STARTED.with_borrow_mut(|n| {
            *n += 1;
            *n
        });
        let output = directory.join(format!("proxy-{number}.out"));
        let log = directory.join(format!("proxy-{number}.log"));
        let program = command_of(&launch.program.clone().unwrap_or_else(binary));
        let limited = launch.descriptors.map(|descriptors| limited_command(&program, descriptors));
        let mut command = limited.unwrap_or(program);
        match &launch.arguments {
            Some(arguments) => command.args(arguments),
            None => command.arg("run").arg("--config").arg(&launch.config),
        };
        let child = command
            .envs(launch.environment.iter().map(|(n, v)| (n, v)))
            .stdin(launch.stdin.as_deref().map_or_else(Stdio::null, inherited))
            .stdout(File::create(&output).expect("a file for stdout"))
            .stderr(File::create(&log).expect("a file for stderr"))
            .spawn()
            .unwrap_or_else(|e| panic!("{} does not start: {e}", binary().display()));
        guard::watch(&child);
        Self {
            child: Mutex::new(child),
            address: launch.address.clone(),
            admin: launch.admin.clone(),
            config: launch.config.clone(),
            output,
            log,
            access_log: launch.access_log.clone(),
        }
    }

    fn wait_until_ready(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.readiness() != Some(200) {
            let exited = self.child().try_wait().expect("the child's state");
            assert!(exited.is_none(), "the proxy ended at start ({exited:?}):\n{}{}", self.log(), self.stdout());
            assert!(Instant::now() < deadline, "the proxy is not ready: {:?}\n{}", self.readiness(), self.log());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// The status of `/readyz`; `None` without a response.
    pub(crate) fn readiness(&self) -> Option<u16> {
        self.try_admin("/readyz").map(|answer| answer.status)
    }

    /// An answer of the admin listener.
    #[track_caller]
    pub(crate) fn admin(&self, path: &str) -> Response {
        // On a busy machine a connection may not be served in time; what counts is that the door answers.
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(answer) = self.try_admin(path) {
                return answer;
            }
            assert!(Instant::now() < deadline, "the admin listener does not answer {path}:\n{}", self.log());
        }
    }

    fn try_admin(&self, path: &str) -> Option<Response> {
        let mut wire = Wire::try_connect(&self.admin).ok()?;
        wire.try_send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")).ok()?;
        wire.try_receive("GET").ok()
    }

    pub(crate) fn metrics(&self) -> Metrics {
        Metrics::parse(&self.admin("/metrics").expect(200).text())
    }

    /// The sum of a metric's samples that carry these labels.
    #[track_caller]
    pub(crate) fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.metrics().sum(name, labels)
    }

    /// Waits until a metric has a value (metrics are written after the answer).
    #[track_caller]
    pub(crate) fn expect_metric(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let metrics = self.metrics();
            let is = metrics.sum(name, labels);
            if (is - value).abs() < 0.001 {
                return;
            }
            if Instant::now() > deadline {
                let family: Vec<_> = metrics.text.lines().filter(|l| l.starts_with(name)).collect();
                panic!("{name}{labels:?} is {is}, not {value}; the whole family:\n{}", family.join("\n"));
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        nix::sys::signal::kill(self.pid(), signal).expect("the process takes the signal");
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child().id()).expect("a process id"))
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&self) -> bool {
        self.child().try_wait().expect("the child's state").is_none()
    }

    /// How it ended, and after how long.
    #[track_caller]
    pub(crate) fn wait_for_exit(&self, patience: Duration) -> (ExitStatus, Duration) {
        let start = Instant::now();
        loop {
            let status = self.child().try_wait().expect("the child's state");
            if let Some(status) = status {
                return (status, start.elapsed());
            }
            assert!(start.elapsed() < patience, "the proxy still runs after {patience:?}:\n{}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// TERM, and its end.
    #[track_caller]
    pub(crate) fn stop(&self) {
        self.signal(Signal::SIGTERM);
        self.wait_for_exit(PATIENCE);
    }

    /// What it said on stderr so far.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// What it said on stdout so far.
    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.output).unwrap_or_default()).into_owned()
    }

    /// The lines of the access log so far.
    pub(crate) fn access_log(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.access_log).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let lines = whole.lines();
        lines
            .map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("no JSON in the access log ({e}): {l}")))
            .collect()
    }

    /// The first access-log line for a path, once it is there.
    #[track_caller]
    pub(crate) fn access_line(&self, path: &str) -> Value {
        let mut found = None;
        eventually(PATIENCE, &format!("an access-log line for {path}"), || {
            let of_path = |line: &Value| line["path"].as_str().is_some_and(|p| p.split('?').next() == Some(path));
            found = self.access_log().into_iter().find(of_path);
            found.is_some()
        });
        found.expect("just seen")
    }

    pub(crate) fn browser(&self) -> Browser {
        Browser::new(self.address.clone())
    }

    pub(crate) fn wire(&self) -> Wire {
        Wire::connect(&self.address)
    }

    /// Memory that the process has in use, in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        self.memory_kib("VmRSS:")
    }

    /// The most memory that it ever had in use, in KiB.
    pub(crate) fn peak_resident_kib(&self) -> u64 {
        self.memory_kib("VmHWM:")
    }

    fn memory_kib(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the process's state");
        let line = status.lines().find_map(|l| l.strip_prefix(field)).expect("its memory");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// How many reloads were tried.
    pub(crate) fn reloads(&self) -> f64 {
        self.metric("homing_config_reloads_total", &[])
    }

    /// Replaces the file as editors do (written aside, renamed), without a signal.
    pub(crate) fn write_config(&self, text: &str) {
        let aside = self.config.with_extension("new");
        fs::write(&aside, text).expect("a configuration file");
        fs::rename(&aside, &self.config).expect("to replace the configuration");
    }

    /// Replaces the file, sends HUP, and waits until a reload was tried.
    #[track_caller]
    pub(crate) fn try_reload(&self, text: &str) {
        let before = self.reloads();
        self.write_config(text);
        self.signal(Signal::SIGHUP);
        eventually(4 * PATIENCE, "a reload", || self.reloads() > before);
    }

    /// Replaces the file by one that differs, sends HUP, and waits until it is in force.
    #[track_caller]
    pub(crate) fn reload(&self, text: &str) {
        let before = self.configuration_hash();
        self.write_config(text);
        self.signal(Signal::SIGHUP);
        // A reload has a lower priority than the other tests.
        let deadline = Instant::now() + 4 * PATIENCE;
        while self.configuration_hash() == before {
            assert!(
                Instant::now() < deadline,
                "the new configuration is not in force; success={}\n{}",
                self.metrics().sum("homing_config_last_reload_success", &[]),
                self.log()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The label of `homing_config_info`.
    pub(crate) fn configuration_hash(&self) -> String {
        let mut hash = None;
        eventually(PATIENCE, "homing_config_info{hash}", || {
            let metrics = self.metrics();
            let current = metrics.matching("homing_config_info", &[]).find(|s| s.value > 0.0);
            hash = current.and_then(|s| s.labels.get("hash").cloned());
            hash.is_some()
        });
        hash.expect("just seen")
    }

    fn child(&self) -> std::sync::MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        {
            let mut child = self.child();
            guard::release(&child);
            let _ = child.kill();
            let _ = child.wait();
        }
        let log = self.log();
        if thread::panicking() {
            let access = fs::read_to_string(&self.access_log).unwrap_or_default();
            let skipped = access.lines().count().saturating_sub(20);
            let latest: String = access.lines().skip(skipped).flat_map(|line| [line, "\n"]).collect();
            eprintln!("---- log of the proxy at {} ----\n{log}{}{latest}----", self.address, self.stdout());
        } else {
            assert!(!log.contains("panicked at"), "the proxy panicked during the test:\n{log}");
        }
    }
}
