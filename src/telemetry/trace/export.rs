//! Sends spans to a collector, by OTLP over HTTP. A request puts its span into a bounded queue and never waits; a task sends
//! them in batches. What does not fit into the queue, and what the collector does not take, is dropped and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header;
use pingora::connectors::ConnectorOptions;
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::protocols::http::client::HttpSession;
use pingora::protocols::l4::socket::SocketAddr as PeerAddr;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::telemetry::metrics::{Metrics, SpanResult};

use super::otlp::{Span, export_request};

/// Spans in the queue; at a kilobyte a span some megabytes.
const QUEUE: usize = 4096;
/// Spans of one message.
const BATCH: usize = 512;
/// A span is sent at most this long after its request.
const BATCH_INTERVAL: Duration = Duration::from_secs(1);
/// For one message and its response.
const TIMEOUT: Duration = Duration::from_secs(10);
/// For a connection to one address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The pauses before a message is sent again.
const PAUSES: [Duration; 3] = [Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];
/// No certificates are loaded for the connector: each peer with TLS has its own authorities.
const NO_CERTIFICATES: &str = "/dev/null";

/// Where spans are sent.
#[derive(Debug, Clone)]
pub struct Collector {
    /// The collector, with TLS if it has that.
    pub peer: HttpPeer,
    /// Host and port that are looked up with each connection; `None`: the peer has its address.
    pub name: Option<(String, u16)>,
    /// The value of Host.
    pub host: String,
    /// The path of traces.
    pub path: String,
}

enum Message {
    Span(Box<Span>),
    /// Everything before it is to be sent now.
    Flush(oneshot::Sender<()>),
}

/// The queue of the task that sends.
pub struct SpanExporter {
    queue: Sender<Message>,
    metrics: Arc<Metrics>,
}

impl SpanExporter {
    /// Starts the task. `node` is the proxy's name. The task ends, with what is in the queue, when the exporter is dropped.
    pub fn start(collector: Collector, node: &str, metrics: &Arc<Metrics>, executor: &Handle) -> Self {
        let (queue, messages) = channel(QUEUE);
        let mut options = ConnectorOptions::new(1);
        options.ca_file = Some(NO_CERTIFICATES.to_owned());
        let task = ExportTask {
            connector: Connector::new(Some(options)),
            collector,
            node: node.to_owned(),
            metrics: Arc::clone(metrics),
            failing: AtomicBool::new(false),
        };
        executor.spawn(task.run(messages));
        Self { queue, metrics: Arc::clone(metrics) }
    }

    /// Queues a span, or drops it when the queue is full.
    pub fn export(&self, span: Span) {
        if self.queue.try_send(Message::Span(Box::new(span))).is_err() {
            self.metrics.spans.inc(SpanResult::QueueFull);
        }
    }

    /// Waits until all that is in the queue is sent, or is given up.
    pub async fn flush(&self) {
        let (done, waiting) = oneshot::channel();
        if self.queue.send(Message::Flush(done)).await.is_ok() {
            let _ = waiting.await;
        }
    }
}

struct ExportTask {
    connector: Connector,
    collector: Collector,
    node: String,
    metrics: Arc<Metrics>,
    /// The last message was not taken: logged once.
    failing: AtomicBool,
}

impl ExportTask {
    async fn run(self, mut messages: Receiver<Message>) {
        while let Some(first) = messages.recv().await {
            let mut batch = Batch::default();
            let mut is_full = batch.add(first);
            let deadline = Instant::now() + BATCH_INTERVAL;
            while !is_full {
                match tokio::time::timeout_at(deadline, messages.recv()).await {
                    Ok(Some(message)) => is_full = batch.add(message),
                    // Time is up, or there will be no more.
                    Ok(None) | Err(_) => break,
                }
            }
            self.send(batch.spans).await;
            if let Some(done) = batch.flush {
                // The caller may have stopped waiting.
                let _ = done.send(());
            }
        }
    }

    async fn send(&self, spans: Vec<Span>) {
        if spans.is_empty() {
            return;
        }
        let count = spans.len();
        let body = Bytes::from(export_request(&self.node, spans));
        let mut pauses = PAUSES.iter();
        let result = loop {
            let sent = tokio::time::timeout(TIMEOUT, self.post(body.clone())).await;
            let outcome = sent.unwrap_or_else(|_| Error::e_explain(ErrorType::ReadTimedout, "no response in time"));
            match (outcome, pauses.next()) {
                (Ok(200..=299), _) => break Ok(()),
                // What OTLP says may be sent again.
                (Ok(429 | 502..=504) | Err(_), Some(pause)) => tokio::time::sleep(*pause).await,
                (Ok(status), _) => break Err(format!("it responded with {status}")),
                (Err(error), None) => break Err(error.to_string()),
            }
        };
        let label = if result.is_ok() { SpanResult::Exported } else { SpanResult::Failed };
        self.metrics.spans.add(label, u64::try_from(count).unwrap_or(u64::MAX));
        self.log_change(result);
    }

    fn log_change(&self, result: std::result::Result<(), String>) {
        let was_failing = self.failing.swap(result.is_err(), Ordering::Relaxed);
        match result {
            Err(why) if !was_failing => {
                tracing::warn!(collector = self.collector.host, why, "the collector takes no spans; they are dropped");
            }
            Ok(()) if was_failing => tracing::info!(collector = self.collector.host, "the collector takes spans again"),
            _ => {}
        }
    }

    /// Sends a message and returns the status of the response.
    async fn post(&self, body: Bytes) -> Result<u16> {
        let (mut session, peer) = self.connect().await?;
        let mut request = RequestHeader::build("POST", self.collector.path.as_bytes(), None)?;
        request.insert_header(header::HOST, self.collector.host.as_str())?;
        request.insert_header(header::CONTENT_TYPE, "application/x-protobuf")?;
        request.insert_header(header::CONTENT_LENGTH, body.len())?;
        request.insert_header(header::USER_AGENT, concat!("homing/", env!("CARGO_PKG_VERSION")))?;
        session.write_request_header(Box::new(request)).await?;
        session.write_request_body(body, true).await?;
        session.finish_request_body().await?;
        session.read_response_header().await?;
        let status = session.response_header().map_or(0, |response| response.status.as_u16());
        while session.read_response_body().await?.is_some() {}
        self.connector.release_http_session(session, &peer, None).await;
        Ok(status)
    }

    /// A connection that is open already, or a new one to the first of the addresses that accepts it.
    async fn connect(&self) -> Result<(HttpSession, HttpPeer)> {
        let mut peer = self.collector.peer.clone();
        peer.options.connection_timeout = Some(CONNECT_TIMEOUT);
        let Some((host, port)) = &self.collector.name else {
            return Ok((self.connector.get_http_session(&peer).await?.0, peer));
        };
        let mut last = Error::explain(ErrorType::ConnectError, "its name has no address");
        for address in tokio::net::lookup_host((host.as_str(), *port)).await.into_iter().flatten() {
            peer._address = PeerAddr::Inet(address);
            match self.connector.get_http_session(&peer).await {
                Ok((session, _)) => return Ok((session, peer)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// Spans that are sent in one message.
#[derive(Default)]
struct Batch {
    spans: Vec<Span>,
    flush: Option<oneshot::Sender<()>>,
}

impl Batch {
    /// Whether it is to be sent now.
    fn add(&mut self, message: Message) -> bool {
        match message {
            Message::Span(span) => self.spans.push(*span),
            Message::Flush(done) => self.flush = Some(done),
        }
        self.flush.is_some() || self.spans.len() >= BATCH
    }
}
