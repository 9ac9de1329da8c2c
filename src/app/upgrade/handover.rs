//! The old process: passes its listeners and sessions on, and goes on serving when that fails.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Child;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::mpsc::Receiver;

use super::channel::{Channel, is_timeout};
use super::message::{Bytes, Hello, Message, PROTOCOL};
use super::program::Program;
use super::replication::Replication;
use crate::app::atomic_file::beside;
use crate::app::overrides;
use crate::app::signals::{Stop, StopSwitch};
use crate::app::snapshot_task::SnapshotTask;
use crate::app::sockets::Sockets;
use crate::app::state::AppState;
use crate::app::state_file::Entry;
use crate::app::systemd;
use crate::app::upgrade_trigger::{UpgradeError, UpgradeReport, UpgradeTrigger};
use crate::proxy::context::wall_clock;
use crate::store::disk::{self, LocalStore};

/// How long a program that was started may take until it waits for the sockets.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the new process may take to load the sessions and to check the servers.
const READY_TIMEOUT: Duration = Duration::from_secs(120);
/// How long it may take to accept connections on sockets that are open.
const SERVING_TIMEOUT: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Hands this process's sockets and sessions to another one.
pub(in crate::app) struct Handover {
    pub(in crate::app) app: Arc<AppState>,
    pub(in crate::app) stop: StopSwitch,
    pub(in crate::app) snapshots: Arc<SnapshotTask>,
    pub(in crate::app) sockets: Sockets,
    pub(in crate::app) program: Program,
    /// The process that this one took over from. Its last changes reach the newest process through this one.
    pub(in crate::app) predecessor: Mutex<Option<Replication>>,
    /// The process that has taken over from this one.
    pub(in crate::app) successor: Mutex<Option<Replication>>,
}

impl Handover {
    /// Runs for as long as the process does.
    pub(in crate::app) async fn run(self: Arc<Self>, mut triggers: Receiver<UpgradeTrigger>) {
        while let Some(trigger) = triggers.recv().await {
            let this = Arc::clone(&self);
            // It waits for the other process: not on the thread that checks servers.
            let _ = tokio::task::spawn_blocking(move || this.answer(trigger)).await;
        }
    }

    fn answer(&self, trigger: UpgradeTrigger) {
        match trigger {
            UpgradeTrigger::Quit => {
                if let Err(error) = self.check().and_then(|()| self.hand_over(None)) {
                    tracing::warn!(why = %error, "QUIT: no upgrade; this process serves on");
                }
            }
            UpgradeTrigger::Operator { who, reply } => {
                tracing::info!(who, program = %self.program.path().display(), "upgrade: starting the new process");
                let result = self.check().and_then(|()| self.start_and_hand_over());
                if let Err(error) = &result {
                    tracing::error!(why = %error, "upgrade failed; this process serves on");
                }
                // The operator may have left.
                drop(reply.send(result));
            }
        }
    }

    fn check(&self) -> Result<(), UpgradeError> {
        if self.stop.is_handed_over() {
            return Err(UpgradeError::Unavailable("another process has taken over already".to_owned()));
        }
        if self.stop.current() != Stop::No {
            return Err(UpgradeError::Unavailable("the proxy is stopping".to_owned()));
        }
        Ok(())
    }

    fn start_and_hand_over(&self) -> Result<UpgradeReport, UpgradeError> {
        // Before a process is started for nothing.
        let config = Arc::clone(&self.app.current.load().config);
        socket_path(config.proxy.upgrade_socket.as_deref())?;
        self.program.check().map_err(UpgradeError::Failed)?;
        let failed =
            |error| UpgradeError::Failed(format!("{} cannot be started: {error}", self.program.path().display()));
        let mut child = self.program.start().map_err(failed)?;
        let result = self.hand_over(Some(&mut child));
        if result.is_err() {
            let _ = child.kill();
            let _ = child.wait();
        }
        result
    }

    /// With a child: it may not be waiting yet.
    fn hand_over(&self, mut child: Option<&mut Child>) -> Result<UpgradeReport, UpgradeError> {
        let config = Arc::clone(&self.app.current.load().config);
        let path = socket_path(config.proxy.upgrade_socket.as_deref())?;
        let stream = connect(path, child.as_deref_mut())?;
        self.transfer(stream, path).map_err(|error| {
            // A reset: it ended before it had read everything.
            let gone =
                [ErrorKind::UnexpectedEof, ErrorKind::BrokenPipe, ErrorKind::ConnectionReset].contains(&error.kind());
            let status = child.filter(|_| gone).and_then(exit_status);
            UpgradeError::Failed(match status {
                Some(status) => format!("the new process ended with {status}; its log says why"),
                None if gone => "the new process ended before it could serve".to_owned(),
                None if is_timeout(&error) => "the new process was not ready in time".to_owned(),
                None => error.to_string(),
            })
        })
    }

    /// From the first message to the last; see the protocol in this folder's `mod.rs`.
    fn transfer(&self, stream: UnixStream, path: &Path) -> io::Result<UpgradeReport> {
        let mut channel = Channel::new(stream)?;
        let subscription = self.app.sessions.table.journal().subscribe();
        self.send_state(&mut channel, path)?;
        let report = match channel.receive(Some(READY_TIMEOUT))? {
            Message::Ready { pid, version } => UpgradeReport { pid, version },
            other => return Err(unexpected(other)),
        };
        let replication = Replication::start(&self.app, channel, subscription)?;
        // The new process writes the file from now on.
        self.snapshots.pause();
        if let Err(error) = self.commit(&replication, &report) {
            self.snapshots.resume();
            let _ = replication.send(&Message::Failure(error.to_string()));
            replication.finish();
            return Err(error);
        }
        *self.successor.lock() = Some(replication);
        tracing::info!(pid = report.pid, version = report.version, "upgrade: the new process serves");
        Ok(report)
    }

    fn commit(&self, replication: &Replication, report: &UpgradeReport) -> io::Result<()> {
        // First it catches up, while no request waits for it: it may hang.
        let subscription = replication.subscription();
        if !subscription.await_all(READY_TIMEOUT) {
            return Err(ErrorKind::TimedOut.into());
        }
        // Clients may come to either process from now on.
        subscription.set_confirming(true);
        if !subscription.await_all(SERVING_TIMEOUT) {
            return Err(ErrorKind::TimedOut.into());
        }
        replication.send(&Message::Go)?;
        match replication.receive(SERVING_TIMEOUT)? {
            Message::Serving => {}
            other => return Err(unexpected(other)),
        }
        // From the process that the service manager knows.
        systemd::notify(&format!("MAINPID={}", report.pid));
        self.stop.hand_over();
        // The new process serves, whether it gets this or not.
        let _ = replication.send(&Message::Done);
        Ok(())
    }

    fn send_state(&self, channel: &mut Channel, path: &Path) -> io::Result<()> {
        let sockets = self.sockets.list();
        let runtime = self.app.current.load_full();
        let history = self.app.table_history();
        channel.send(&Message::Hello(Hello {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            listeners: sockets.iter().map(|(name, _)| name.clone()).collect(),
            generated_secret: Bytes(self.app.generated_secret.to_vec()),
            table_age: u64::try_from(history.age.as_millis()).unwrap_or(u64::MAX),
            table_restored: history.restored,
            overrides: overrides::in_force(&runtime).iter().map(Entry::from).collect(),
        }))?;
        for (_, socket) in &sockets {
            channel.send_descriptor(*socket)?;
        }
        // A file, since the sessions are read twice when they exceed the capacity; it has no name from the start.
        let path = beside(path, ".sessions");
        let _ = fs::remove_file(&path);
        let file = OpenOptions::new().create_new(true).read(true).write(true).mode(0o600).open(&path)?;
        fs::remove_file(&path)?;
        let store = LocalStore { table: &self.app.sessions.table, data: &self.app.sessions.data };
        disk::write(store, wall_clock(), &file)?;
        channel.send_descriptor(file.as_raw_fd())
    }

    /// Whether the process that this one took over from has ended.
    pub(in crate::app) fn is_predecessor_gone(&self) -> bool {
        self.predecessor.lock().as_ref().is_none_or(Replication::is_over)
    }

    /// The process ends: tells the others what is left.
    pub(in crate::app) fn finish(&self) {
        let others = [self.successor.lock().take(), self.predecessor.lock().take()];
        others.into_iter().flatten().for_each(Replication::finish);
    }
}

fn unexpected(message: Message) -> io::Error {
    match message {
        Message::Failure(why) => io::Error::other(format!("the new process cannot start: {why}")),
        _ => io::Error::other("the new process does not keep to the protocol"),
    }
}

fn socket_path(path: Option<&Path>) -> Result<&Path, UpgradeError> {
    path.ok_or_else(|| UpgradeError::Unavailable("proxy.upgrade_socket is not set".to_owned()))
}

/// Connects to the new process. One that was just started is given time, as long as it runs.
fn connect(path: &Path, mut child: Option<&mut Child>) -> Result<UnixStream, UpgradeError> {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        let error = match UnixStream::connect(path) {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        let absent = matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused);
        let shown = path.display();
        match &mut child {
            _ if !absent => return Err(UpgradeError::Failed(format!("{shown}: {error}"))),
            None => return Err(UpgradeError::NotWaiting(shown.to_string())),
            Some(child) => {
                if let Ok(Some(status)) = child.try_wait() {
                    return Err(UpgradeError::Failed(format!("the new process ended with {status}; its log says why")));
                }
                if Instant::now() >= deadline {
                    return Err(UpgradeError::Failed(format!("the new process does not listen on {shown}")));
                }
            }
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// How a process ended that has closed its connection.
fn exit_status(child: &mut Child) -> Option<std::process::ExitStatus> {
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        match child.try_wait() {
            Ok(None) if Instant::now() < deadline => thread::sleep(POLL_INTERVAL),
            result => return result.ok().flatten(),
        }
    }
}
