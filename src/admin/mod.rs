//! The operator's listener: probes, metrics, the API and the dashboard.
//!
//! | path | response |
//! |---|---|
//! | `GET /healthz` | 200 as long as the process answers |
//! | `GET /readyz` | 200 when it serves clients; 503 while it starts and from the moment it stops |
//! | `GET /metrics` | Prometheus text |
//! | `/api/v1/…` | the API ([`api`]), JSON |
//! | `GET /` | the dashboard |
//!
//! `admin` answers only requests for a host of `admin.allowed_hosts`; others get 421. Probes, metrics and the dashboard's files
//! need no token. `metrics`, a separate listener for Prometheus, answers its one path for any host.

mod access;
mod api;
mod dashboard;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod problem;
mod readiness;
mod request;
mod response;
mod unix_peer;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, Response, StatusCode};
use pingora::apps::{HttpPersistentSettings, HttpServerApp, ReusedHttpStream};
use pingora::http::ResponseHeader;
use pingora::protocols::http::{HttpTask, ServerSession};
use pingora::server::ShutdownWatch;

use crate::config::{Admin, ListenAddress};
use crate::telemetry::events::{self, cause};

use self::access::Access;
use self::api::{Api, ApiResponse, EventQuery, ExplainedSessions, event_view, frame};
use self::problem::Problem;
use self::request::AdminRequest;

pub use self::readiness::Readiness;

/// What a listener answers.
enum Purpose {
    /// Everything.
    Admin(Access),
    /// The metrics, at this path.
    Metrics(String),
}

/// One admin listener.
pub struct AdminEndpoint {
    readiness: Arc<Readiness>,
    purpose: Purpose,
    /// Requests in progress, streams of events included.
    in_progress: AtomicUsize,
    explained: ExplainedSessions,
    /// It listens on a unix socket, whose peers have a user id.
    unix: bool,
}

/// Where the API is.
const API: &str = "/api/v1/";
/// Requests of the API that are in progress at once. Each may hold a stream, and the table is read for some.
const MOST_IN_PROGRESS: usize = 256;
/// Seconds that a connection waits for its next request.
const KEEPALIVE: u64 = 60;
/// A stream of events says so often that it lives, so that a client that is gone is noticed.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// A response, or what it goes on with.
enum Reply {
    /// The client has left.
    None,
    Whole(Response<Vec<u8>>),
    Events(EventQuery),
}

/// Counts a request in progress, until it is dropped.
struct InProgress<'a>(&'a AtomicUsize);

impl Drop for InProgress<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[async_trait]
impl HttpServerApp for AdminEndpoint {
    async fn process_new_http(
        self: &Arc<Self>,
        mut exchange: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        // A head that is malformed, or a client that has left.
        if !exchange.read_request().await.ok()? {
            return None;
        }
        exchange.set_keepalive(Some(KEEPALIVE));
        let (reply, _in_progress) = match self.admit(exchange.req_header().uri.path()) {
            Ok(in_progress) => (self.reply(&mut exchange).await, in_progress),
            Err(problem) => (Reply::Whole(response::problem(&problem)), None),
        };
        match reply {
            Reply::None => None,
            Reply::Whole(mut response) => {
                if exchange.req_header().method == Method::HEAD {
                    response.body_mut().clear();
                }
                if !exchange.is_body_done() {
                    exchange.set_keepalive(None);
                }
                write(&mut exchange, response).await?;
                let settings = HttpPersistentSettings::for_session(&exchange);
                let stream = exchange.finish().await.ok()??;
                Some(ReusedHttpStream::from_reusable_stream(stream, settings))
            }
            Reply::Events(query) => {
                exchange.set_keepalive(None);
                self.stream_events(exchange, query, shutdown.clone()).await;
                None
            }
        }
    }
}

/// `None`: the client has left.
async fn write(exchange: &mut ServerSession, response: Response<Vec<u8>>) -> Option<()> {
    let (parts, body) = response.into_parts();
    exchange.write_response_header(Box::new(ResponseHeader::from(parts))).await.ok()?;
    if !body.is_empty() {
        exchange.write_response_body(Bytes::from(body), true).await.ok()?;
    }
    Some(())
}

impl AdminEndpoint {
    /// The listener `admin`.
    pub fn admin(admin: &Admin, readiness: &Arc<Readiness>) -> Self {
        let unix = matches!(admin.address, ListenAddress::Unix(_));
        Self { unix, ..Self::new(Purpose::Admin(Access::of(admin)), readiness) }
    }

    /// The listener `metrics`.
    pub fn metrics(path: &str, readiness: &Arc<Readiness>) -> Self {
        Self::new(Purpose::Metrics(path.to_owned()), readiness)
    }

    fn new(purpose: Purpose, readiness: &Arc<Readiness>) -> Self {
        Self {
            readiness: Arc::clone(readiness),
            purpose,
            in_progress: AtomicUsize::new(0),
            explained: ExplainedSessions::default(),
            unix: false,
        }
    }

    /// Counts a request of the API; probes are always answered.
    fn admit(&self, path: &str) -> Result<Option<InProgress<'_>>, Problem> {
        if !path.starts_with(API) {
            return Ok(None);
        }
        let before = self.in_progress.fetch_add(1, Ordering::Relaxed);
        let in_progress = InProgress(&self.in_progress);
        if before < MOST_IN_PROGRESS {
            return Ok(Some(in_progress));
        }
        Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many requests of the API are in progress"))
    }

    async fn reply(&self, exchange: &mut ServerSession) -> Reply {
        let mut request = AdminRequest::head(exchange);
        let replied = match &self.purpose {
            Purpose::Metrics(path) if request.path == *path => self.only_reads(&request, Self::metrics_text),
            Purpose::Metrics(_) => Err(Problem::not_found("no resource here")),
            Purpose::Admin(access) => match self.administer(access, &mut request, exchange).await {
                Ok(reply) => return reply,
                Err(problem) => Err(problem),
            },
        };
        Reply::Whole(replied.unwrap_or_else(|problem| response::problem(&problem)))
    }

    async fn administer(
        &self,
        access: &Access,
        request: &mut AdminRequest,
        exchange: &mut ServerSession,
    ) -> Result<Reply, Problem> {
        access.check_host(&request.host)?;
        if !request.path.starts_with(API) {
            return self.only_reads(request, |this| this.file(&request.path)).map(Reply::Whole);
        }
        let caller = access.authorize(request, || self.local_name(exchange))?;
        request.read_body(exchange).await?;
        let segments = request.segments()?;
        let segments: Vec<&str> = segments.iter().skip(2).map(String::as_str).collect();
        let (readiness, explained) = (&self.readiness, &self.explained);
        let api = Api { app: &readiness.app, readiness, caller: &caller, explained };
        let responded = tokio::select! {
            responded = api.respond(request, &segments) => responded?,
            // The client of a long poll has left.
            _ = exchange.read_body_or_idle(true) => return Ok(Reply::None),
        };
        Ok(match responded {
            ApiResponse::Json(status, body) => Reply::Whole(response::json(status, body)),
            ApiResponse::NoContent => Reply::Whole(response::no_content()),
            ApiResponse::EventStream(query) => Reply::Events(query),
        })
    }

    /// What a caller without a token is called in the event list.
    fn local_name(&self, exchange: &ServerSession) -> String {
        let socket = exchange.stream().filter(|_| self.unix).map(|stream| stream.id());
        match socket.and_then(|socket| unix_peer::peer_uid(socket).ok()) {
            Some(uid) => uid.to_string(),
            None => cause::LOCAL.to_owned(),
        }
    }

    fn only_reads(
        &self,
        request: &AdminRequest,
        respond: impl FnOnce(&Self) -> Response<Vec<u8>>,
    ) -> Result<Response<Vec<u8>>, Problem> {
        match request.method {
            Method::GET | Method::HEAD => Ok(respond(self)),
            _ => Err(Problem::method_not_allowed("GET, HEAD")),
        }
    }

    /// What needs no token.
    fn file(&self, path: &str) -> Response<Vec<u8>> {
        match path {
            "/healthz" => response::text(StatusCode::OK, "ok\n"),
            "/readyz" => match self.readiness.state() {
                "ready" => response::text(StatusCode::OK, "ready\n"),
                state => response::text(StatusCode::SERVICE_UNAVAILABLE, &format!("{state}\n")),
            },
            "/metrics" => self.metrics_text(),
            path => match dashboard::asset(path) {
                Some(asset) => response::asset(asset),
                None => response::problem(&Problem::not_found(format!("no resource at {path:?}"))),
            },
        }
    }

    fn metrics_text(&self) -> Response<Vec<u8>> {
        match self.readiness.app.render_metrics() {
            Ok(metrics) => response::metrics(metrics),
            Err(error) => {
                tracing::error!(%error, "metrics cannot be encoded");
                response::text(StatusCode::INTERNAL_SERVER_ERROR, "500 metrics cannot be encoded\n")
            }
        }
    }

    /// Until the client leaves or the process stops.
    async fn stream_events(&self, mut exchange: ServerSession, query: EventQuery, mut shutdown: ShutdownWatch) {
        let list = events::list();
        let mut after = query.after;
        let (head, _) = response::event_stream().into_parts();
        let mut task = HttpTask::Header(Box::new(ResponseHeader::from(head)), false);
        // Unlike a body that is written whole, tasks are flushed one by one.
        while exchange.response_duplex_vec(vec![task]).await.is_ok() {
            if list.after(after).is_empty() {
                tokio::select! {
                    () = list.grown(after) => {}
                    () = tokio::time::sleep(HEARTBEAT) => {}
                    _ = shutdown.changed() => return,
                }
            }
            let fresh = list.after(after);
            after = fresh.last().map_or(after, |last| last.id);
            let text = if fresh.is_empty() {
                ": \n\n".to_owned()
            } else {
                fresh.iter().map(|event| frame(&event_view(event, &self.readiness.app))).collect()
            };
            task = HttpTask::Body(Some(Bytes::from(text)), false);
        }
    }
}
