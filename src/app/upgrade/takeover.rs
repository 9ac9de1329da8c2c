//! The new process: takes the listeners and sessions of the old one.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::channel::Channel;
use super::message::{Hello, Message, PROTOCOL};
use super::replication::Replication;
use crate::app::error::RunError;
use crate::app::state::AppState;
use crate::app::state_file::{Entry, SavedOverride};

/// How long a process waits for the one that it takes over from.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the old process may take for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The process that this one takes over from.
pub(in crate::app) struct Predecessor {
    channel: Channel,
    /// Seals tokens when the configuration has no keys.
    pub(in crate::app) generated_secret: [u8; 32],
}

/// What this process gets from the other one.
pub(in crate::app) struct Inheritance {
    /// The listening sockets with their names.
    pub(in crate::app) sockets: Vec<(String, OwnedFd)>,
    /// The sessions, as a snapshot.
    pub(in crate::app) sessions: File,
    /// How long the table has been filled.
    pub(in crate::app) table_age: Duration,
    /// The table was complete when that began.
    pub(in crate::app) table_restored: bool,
    /// What operators set for servers.
    pub(in crate::app) overrides: Vec<SavedOverride>,
}

/// Tells the old process why this one ends.
pub(in crate::app) struct FailureReport(Channel);

/// The socket on which this process waits, until it is dropped.
struct WaitingSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl Drop for WaitingSocket {
    fn drop(&mut self) {
        // An error means that it is gone already.
        let _ = fs::remove_file(&self.path);
    }
}

impl WaitingSocket {
    fn open(path: &Path) -> io::Result<Self> {
        if UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(ErrorKind::AddrInUse, "another process waits there"));
        }
        // Left by an earlier process. Another file is not ours.
        if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
            fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        let socket = Self { listener, path: path.to_owned() };
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        socket.listener.set_nonblocking(true)?;
        Ok(socket)
    }

    /// The first connection of a process that says hello; others only looked whether somebody waits.
    fn accept(&self) -> io::Result<(Channel, Hello)> {
        let deadline = Instant::now() + WAIT_TIMEOUT;
        while Instant::now() < deadline {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false)?;
                    match greet(stream) {
                        Ok(greeted) => return Ok(greeted),
                        Err(error) => tracing::debug!(%error, "a connection to proxy.upgrade_socket was closed"),
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(POLL_INTERVAL),
                Err(error) => return Err(error),
            }
        }
        let why = "no process passed its sockets on within a minute; send QUIT to the one that serves";
        Err(io::Error::new(ErrorKind::TimedOut, why))
    }
}

fn greet(stream: UnixStream) -> io::Result<(Channel, Hello)> {
    let mut channel = Channel::new(stream)?;
    match channel.receive(Some(ANSWER_TIMEOUT))? {
        Message::Hello(hello) => Ok((channel, hello)),
        _ => Err(io::Error::other("no hello")),
    }
}

impl Predecessor {
    /// Waits until the old process passes its sockets and sessions on.
    pub(in crate::app) fn receive(path: Option<&Path>) -> Result<(Self, Inheritance), RunError> {
        let Some(path) = path else {
            return Err(RunError::Internal("--upgrade needs proxy.upgrade_socket in the configuration".to_owned()));
        };
        let failed = || RunError::system(format!("proxy.upgrade_socket: {}", path.display()));
        let socket = WaitingSocket::open(path).map_err(failed())?;
        tracing::info!(path = %path.display(), "waiting for the sockets of the process that serves");
        let (channel, hello) = socket.accept().map_err(failed())?;
        drop(socket);
        tracing::info!(pid = hello.pid, version = hello.version, "taking over from a running process");
        if hello.protocol != PROTOCOL {
            let why = format!(
                "the running process speaks version {} of the upgrade protocol, not {PROTOCOL}",
                hello.protocol
            );
            FailureReport(channel).send(&why);
            return Err(RunError::Internal(why));
        }
        Self::read(channel, hello).map_err(failed())
    }

    fn read(channel: Channel, hello: Hello) -> io::Result<(Self, Inheritance)> {
        let mut sockets = Vec::with_capacity(hello.listeners.len());
        for name in hello.listeners {
            sockets.push((name, channel.receive_descriptor()?));
        }
        let sessions = File::from(channel.receive_descriptor()?);
        let secret = <[u8; 32]>::try_from(hello.generated_secret.0);
        let generated_secret = secret.map_err(|_other| io::Error::other("the secret has another length"))?;
        let inheritance = Inheritance {
            sockets,
            sessions,
            table_age: Duration::from_millis(hello.table_age),
            table_restored: hello.table_restored,
            overrides: hello.overrides.into_iter().filter_map(Entry::saved).collect(),
        };
        Ok((Self { channel, generated_secret }, inheritance))
    }

    /// For what fails from now on.
    pub(in crate::app) fn failure_report(&self) -> Option<FailureReport> {
        self.channel.try_clone().ok().map(FailureReport)
    }

    /// This process could serve: waits until it may.
    pub(in crate::app) fn await_go(mut self, app: &Arc<AppState>) -> Result<Takeover, RunError> {
        let failed = || RunError::system("the process to take over from");
        let subscription = app.sessions.table.journal().subscribe();
        let (pid, version) = (std::process::id(), env!("CARGO_PKG_VERSION").to_owned());
        self.channel.send(&Message::Ready { pid, version }).map_err(failed())?;
        let replication = Replication::start(app, self.channel, subscription).map_err(failed())?;
        // Clients may come to either process as soon as this one listens.
        replication.subscription().set_confirming(true);
        match replication.receive(ANSWER_TIMEOUT).map_err(failed())? {
            Message::Go => Ok(Takeover { replication }),
            other => Err(refused(&other)),
        }
    }
}

fn refused(message: &Message) -> RunError {
    RunError::Internal(match message {
        Message::Failure(why) => format!("the old process serves on: {why}"),
        _ => "the old process does not keep to the protocol".to_owned(),
    })
}

impl FailureReport {
    pub(in crate::app) fn send(mut self, why: &dyn std::fmt::Display) {
        // It may be gone.
        let _ = self.0.send(&Message::Failure(why.to_string()));
        self.0.close();
    }
}

/// This process opens its listeners, and the old one still has them too.
pub(in crate::app) struct Takeover {
    replication: Replication,
}

impl Takeover {
    /// This process accepts connections: the old one accepts no more.
    ///
    /// # Errors
    /// When the old process serves on.
    pub(in crate::app) fn complete(self) -> Result<Replication, RunError> {
        let answer = self.replication.send(&Message::Serving).and_then(|()| self.replication.receive(ANSWER_TIMEOUT));
        match answer {
            Ok(Message::Done) => {}
            Ok(other) => return Err(refused(&other)),
            // It was killed: all sockets are here.
            Err(error) => tracing::warn!(%error, "the process to take over from has ended early"),
        }
        // What is left there are requests in flight, and connections that may have one more.
        self.replication.subscription().set_confirming(false);
        Ok(self.replication)
    }
}
