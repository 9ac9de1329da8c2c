//! The access log: one JSON object a request. A request puts its line into a bounded queue and never waits for a disk; a
//! separate thread writes. Lines that do not fit into the queue are dropped and counted.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::trace::context::encode;

/// Lines in the queue; at a kilobyte a line this is at most some tens of MiB.
const QUEUE_LINES: usize = 16 * 1024;
/// A line is on disk at most this long after its request.
const FLUSH_INTERVAL: Duration = Duration::from_millis(200);

/// How long a stop waits for the last lines.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// One line. Field order is the order in the file.
#[derive(Debug, Serialize)]
pub struct Line<'a> {
    /// RFC 3339, UTC, milliseconds.
    pub ts: String,
    /// X-Request-Id as sent to the server.
    pub request_id: &'a str,
    /// The client, behind trusted proxies.
    pub client_ip: Option<std::net::IpAddr>,
    /// Method.
    pub method: &'a str,
    /// Host, without port.
    pub host: &'a str,
    /// Path without query: queries carry session ids and other secrets.
    pub path: &'a str,
    /// `HTTP/1.1`, `HTTP/2.0`, …
    pub protocol: &'a str,
    /// Status sent; 0 = the client disconnected before.
    pub status: u16,
    /// Bytes of the request's body.
    pub bytes_in: usize,
    /// Bytes of the response's body.
    pub bytes_out: usize,
    /// Milliseconds from the request's headers to the end of the response.
    pub duration_ms: f64,
    /// Milliseconds from the start of the last attempt to the server's headers.
    pub upstream_ms: Option<f64>,
    /// Route; null when there are no routes, or none matched.
    pub route: Option<&'a str>,
    /// Pool.
    pub pool: Option<&'a str>,
    /// Server that responded, or of the last attempt.
    pub server: Option<&'a str>,
    /// Attempts at servers.
    pub attempts: u32,
    /// First 8 characters of the keyed hash of the session's id.
    pub session: Option<&'a str>,
    /// Source that identified the session.
    pub source: Option<&'a str>,
    /// Result of the session's lookup.
    pub lookup: Option<&'a str>,
    /// What happened to the session.
    pub outcome: Option<&'a str>,
    /// Why the session moved, or why the request failed.
    pub reason: Option<&'a str>,
    /// Epoch of the session's binding.
    pub epoch: Option<u32>,
    /// Name of this proxy.
    pub node: &'a str,
    /// The request's trace; null with `propagate: none`.
    pub trace_id: Option<TraceId>,
}

/// The id of a trace, written as 32 hexadecimal digits.
#[derive(Debug, Clone, Copy)]
pub struct TraceId(pub [u8; 16]);

impl Serialize for TraceId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = [0; 32];
        encode(&self.0, &mut text);
        serializer.serialize_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

enum Message {
    Line(Vec<u8>),
    Reopen,
    Flush(SyncSender<()>),
    Stop,
}

/// Where lines are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// A file, appended to.
    File(PathBuf),
}

/// The queue of the writer's thread.
pub struct AccessLog {
    queue: SyncSender<Message>,
    writer: Option<JoinHandle<()>>,
}

impl AccessLog {
    /// Opens the target and starts the writer.
    ///
    /// # Errors
    /// When the file cannot be opened or the thread cannot be started.
    pub fn start(target: Target) -> io::Result<Self> {
        let sink = Sink::open(target)?;
        let (queue, lines) = sync_channel(QUEUE_LINES);
        let writer = std::thread::Builder::new().name("access log".into()).spawn(move || write_lines(&lines, sink))?;
        Ok(Self { queue, writer: Some(writer) })
    }

    /// Queues a line; false when it is dropped: the queue is full or the writer is gone.
    pub fn write(&self, line: &Line<'_>) -> bool {
        let mut text = Vec::with_capacity(512);
        if serde_json::to_writer(&mut text, line).is_err() {
            return false;
        }
        text.push(b'\n');
        self.queue.try_send(Message::Line(text)).is_ok()
    }

    /// Waits until all queued lines are written, at most two seconds: a stop waits for the last lines, but not for a disk that
    /// hangs.
    pub fn flush(&self) {
        let (done, waiting) = sync_channel(1);
        if self.queue.send(Message::Flush(done)).is_ok() {
            let _ = waiting.recv_timeout(FLUSH_TIMEOUT);
        }
    }

    /// Reopens the file, after logrotate moved it.
    pub fn reopen(&self) {
        // The queue is full. The operator can repeat the signal.
        if self.queue.try_send(Message::Reopen).is_err() {
            tracing::warn!("the access log is too busy to reopen; send USR1 again");
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        let _ = self.queue.send(Message::Stop);
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

struct Sink {
    target: Target,
    out: BufWriter<Box<dyn Write + Send>>,
    failing: bool,
}

impl Sink {
    fn open(target: Target) -> io::Result<Self> {
        let out: Box<dyn Write + Send> = match &target {
            Target::Stdout => Box::new(io::stdout()),
            Target::File(path) => Box::new(append(path)?),
        };
        Ok(Self { target, out: BufWriter::with_capacity(64 * 1024, out), failing: false })
    }

    fn reopen(&mut self) {
        self.flush();
        let Target::File(path) = &self.target else { return };
        match append(path) {
            Ok(file) => self.out = BufWriter::with_capacity(64 * 1024, Box::new(file)),
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "the access log cannot be reopened; writing to the old file");
            }
        }
    }

    /// Success only means that the line is in the buffer.
    fn line(&mut self, line: &[u8]) {
        if let Err(error) = self.out.write_all(line) {
            self.log_failure(&error);
        }
    }

    fn flush(&mut self) {
        match self.out.flush() {
            Ok(()) if self.failing => {
                self.failing = false;
                tracing::info!("the access log is written again");
            }
            Ok(()) => {}
            Err(error) => self.log_failure(&error),
        }
    }

    /// Logs an error once, until the lines are written.
    fn log_failure(&mut self, error: &io::Error) {
        if !self.failing {
            self.failing = true;
            tracing::error!(%error, "the access log cannot be written; lines are lost");
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn write_lines(lines: &Receiver<Message>, mut sink: Sink) {
    let mut flushed = Instant::now();
    loop {
        match lines.recv_timeout(FLUSH_INTERVAL) {
            Ok(Message::Line(line)) => sink.line(&line),
            Ok(Message::Reopen) => sink.reopen(),
            Ok(Message::Flush(done)) => {
                sink.flush();
                // The caller may have stopped waiting.
                let _ = done.send(());
            }
            Err(RecvTimeoutError::Timeout) => {}
            Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => break,
        }
        if flushed.elapsed() >= FLUSH_INTERVAL {
            sink.flush();
            flushed = Instant::now();
        }
    }
    sink.flush();
}
