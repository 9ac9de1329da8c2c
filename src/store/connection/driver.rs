//! The task that owns the socket of a connection: it writes requests as they come, hands out responses, and probes the server, since
//! one that is frozen or cut off causes no error by itself.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::codec::{Codec, Invalid, Message};
use super::handle::{Reply, Request, Requests};
use crate::store::engine::StoreError;

/// Why a connection ended.
#[derive(Debug)]
pub(in crate::store) struct ConnectionEnd {
    /// For logs, with the server's label.
    pub(in crate::store) reason: String,
    /// A probe was answered, so the connection lasted for at least a second.
    pub(in crate::store) proven: bool,
}

/// Between two probes.
pub(super) const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// Requests taken from the queue at once.
const MAX_DEQUEUED: usize = 128;
/// Batches waiting for their responses.
const MAX_WAITING: usize = 16 * 1024;
/// Unwritten bytes above which no further request is taken from the queue.
const MAX_OUTGOING: usize = 256 * 1024;
/// Free space for one read.
const READ_BUFFER: usize = 16 * 1024;

/// Runs a connection until it ends; then all waiting requests fail.
pub(in crate::store) async fn drive<C: Codec>(
    stream: impl AsyncRead + AsyncWrite,
    requests: Requests<C>,
    codec: C,
    label: &str,
) -> ConnectionEnd {
    let Requests { mut queue, abandoned } = requests;
    let mut driver = Driver {
        codec,
        incoming: BytesMut::new(),
        outgoing: BytesMut::new(),
        waiting: HashMap::new(),
        serial: 0,
        probe: None,
        late: 0,
        proven: false,
        abandoned,
    };
    let end = driver.run(stream, &mut queue).await;
    let reason = format!("{label}: {end}");
    driver.fail(&mut queue, &end, &reason);
    ConnectionEnd { reason, proven: driver.proven }
}

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
enum CloseReason {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it closed the connection")]
    Closed,
    #[error("no response to a probe for {} s", .0.as_secs())]
    Silent(Duration),
    #[error("{0}")]
    Invalid(#[from] Invalid),
    #[error("response without a request")]
    Unsolicited,
    #[error("the connection is not used any more")]
    Unused,
}

/// The state of a connection's task.
struct Driver<C: Codec> {
    codec: C,
    incoming: BytesMut,
    outgoing: BytesMut,
    /// By number of the batch.
    waiting: HashMap<i64, Waiting<C::Response>>,
    /// Of the last batch.
    serial: i64,
    /// The number of the unanswered probe.
    probe: Option<i64>,
    /// How many times it was due again.
    late: u32,
    proven: bool,
    /// Shared with the handles.
    abandoned: Arc<AtomicU32>,
}

/// A batch that has been or is about to be written.
struct Waiting<R> {
    responses: Vec<Option<R>>,
    missing: usize,
    /// `None` for a probe.
    reply: Option<Reply<R>>,
}

impl<C: Codec> Driver<C> {
    async fn run(
        &mut self,
        stream: impl AsyncRead + AsyncWrite,
        queue: &mut mpsc::Receiver<Request<C>>,
    ) -> CloseReason {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut taken = Vec::with_capacity(MAX_DEQUEUED);
        let mut unflushed = false;
        let mut probe = tokio::time::interval(PROBE_INTERVAL);
        probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
        probe.reset();
        loop {
            self.make_room();
            unflushed |= !self.outgoing.is_empty();
            // Reads first: after a pause of this process the responses have arrived, and must be seen before the probe is late.
            let result = tokio::select! {
                biased;
                read = reader.read_buf(&mut self.incoming) => match read {
                    Ok(0) => Err(CloseReason::Closed),
                    Ok(_) => self.deliver(),
                    Err(error) => Err(error.into()),
                },
                count = queue.recv_many(&mut taken, MAX_DEQUEUED), if self.has_room() => {
                    self.enqueue(&mut taken);
                    if count == 0 { Err(CloseReason::Unused) } else { Ok(()) }
                }
                written = write(&mut writer, &mut self.outgoing), if unflushed => {
                    unflushed = false;
                    written.map_err(CloseReason::from)
                }
                _ = probe.tick() => self.probe(),
            };
            if let Err(end) = result {
                return end;
            }
        }
    }

    fn has_room(&self) -> bool {
        self.outgoing.len() < MAX_OUTGOING && self.waiting.len() < MAX_WAITING
    }

    /// `read_buf` fills the free space, and adds very little by itself.
    fn make_room(&mut self) {
        if self.incoming.capacity() - self.incoming.len() < READ_BUFFER / 4 {
            self.incoming.reserve(READ_BUFFER);
        }
    }

    fn enqueue(&mut self, taken: &mut Vec<Request<C>>) {
        // Requests whose callers have given up are not sent.
        for Request { batch, reply } in taken.drain(..).filter(|request| !request.reply.is_closed()) {
            self.send(batch, Some(reply));
        }
    }

    /// Returns the number of the batch.
    fn send(&mut self, batch: C::Batch, reply: Option<Reply<C::Response>>) -> i64 {
        self.serial += 1;
        let missing = self.codec.write(self.serial, batch, &mut self.outgoing);
        let responses = std::iter::repeat_with(|| None).take(missing).collect();
        self.waiting.insert(self.serial, Waiting { responses, missing, reply });
        self.serial
    }

    fn probe(&mut self) -> Result<(), CloseReason> {
        if self.probe.is_none() {
            self.probe = Some(self.send(C::probe(), None));
            return Ok(());
        }
        self.late += 1;
        if self.late < C::MAX_LATE { Ok(()) } else { Err(CloseReason::Silent(PROBE_INTERVAL * C::MAX_LATE)) }
    }

    /// Hands out the complete messages.
    fn deliver(&mut self) -> Result<(), CloseReason> {
        while let Some(message) = self.codec.read(&mut self.incoming)? {
            if let Message::Response { serial, index, response } = message {
                self.respond(serial, index, response)?;
            }
        }
        Ok(())
    }

    fn respond(&mut self, serial: i64, index: usize, response: C::Response) -> Result<(), CloseReason> {
        let waiting = self.waiting.get_mut(&serial).ok_or(CloseReason::Unsolicited)?;
        let slot = waiting.responses.get_mut(index).ok_or(CloseReason::Unsolicited)?;
        if slot.replace(response).is_some() {
            return Err(CloseReason::Unsolicited);
        }
        waiting.missing -= 1;
        if self.abandoned.load(Relaxed) > 0 {
            self.abandoned.store(0, Relaxed);
        }
        if waiting.missing == 0 {
            self.complete(serial);
        }
        Ok(())
    }

    fn complete(&mut self, serial: i64) {
        let Some(Waiting { responses, reply, .. }) = self.waiting.remove(&serial) else { return };
        if let Some(reply) = reply {
            // The caller may have given up.
            drop(reply.send(Ok(responses.into_iter().flatten().collect())));
        } else {
            (self.probe, self.late) = (None, 0);
            self.proven = true;
        }
    }

    /// Fails all waiting requests: those whose response was invalid as unreadable, the others as unreachable.
    fn fail(&mut self, queue: &mut mpsc::Receiver<Request<C>>, end: &CloseReason, reason: &str) {
        let unreadable = match end {
            CloseReason::Invalid(invalid) => invalid.serial,
            _ => None,
        };
        let unreachable = || StoreError::Unreachable(reason.to_owned());
        for (serial, waiting) in self.waiting.drain() {
            let is_unreadable = unreadable == Some(serial);
            let error = if is_unreadable { StoreError::Unreadable(reason.to_owned()) } else { unreachable() };
            waiting.reply.map(|reply| reply.send(Err(error)));
        }
        queue.close();
        while let Ok(request) = queue.try_recv() {
            drop(request.reply.send(Err(unreachable())));
        }
    }
}

/// TLS may hold written bytes back until it is flushed.
async fn write(writer: &mut (impl AsyncWrite + Unpin), outgoing: &mut BytesMut) -> io::Result<()> {
    while !outgoing.is_empty() {
        writer.write_buf(outgoing).await?;
    }
    writer.flush().await
}
