//! What the hooks of one request share: plain data, made when the request head is read, dropped when the response is
//! sent. Imports nothing of its siblings, so that every hook can import it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use pingora::http::RequestHeader;
use rand::RngCore;

use crate::app::runtime::Runtime;
use crate::app::state::AppState;
use crate::limits::ListenerLimits;
use crate::message::RequestView;
use crate::persistence::issue::PageRewrite;
use crate::persistence::{PoolPersistence, PoolRuntime, RequestSession, Scope, Sessions};
use crate::pool::server::Server;
use crate::session::token::UnixMillis;
use crate::telemetry::trace::TraceContext;

pub use self::attempts::Attempts;
pub(crate) use self::body_progress::BodyProgress;
pub use self::client::{Client, ForwardedChain, ReservedNames};
pub use self::client_certificate::ClientCertificate;
pub use self::dedicated::Dedicated;
pub use self::no_attempt::{NextStep, NoAttempt};
pub use self::refusal::Refusal;
pub use self::request_id::{NEW_ID_LENGTH, RequestId, Traceparent};

mod attempts;
mod body_progress;
mod client;
mod client_certificate;
mod dedicated;
mod no_attempt;
mod refusal;
mod request_id;

/// Everything that the hooks of one request share.
pub struct RequestContext {
    /// The version of the configuration that this request is served under.
    pub runtime: Arc<Runtime>,
    /// When its head was read.
    pub started: Instant,
    /// The time on the wall clock: of the request's head, and of the response's when that took long.
    pub now: UnixMillis,
    /// How much later that is than the request's head.
    pub late: Duration,
    /// Index of its listener.
    pub listener: usize,
    /// Index of its route.
    pub route: Option<usize>,
    /// Its client.
    pub client: Client,
    /// Whether it may carry header fields that servers accept from the proxy only.
    pub(crate) reserved: ReservedNames,
    /// It has no Host, as HTTP/1.0 allows.
    pub host_missing: bool,
    /// Server connections that only its own connection may use. Boxed, since it is rare.
    pub dedicated: Option<Box<Dedicated>>,
    /// Its id, as sent to servers.
    pub request_id: Option<RequestId>,
    /// Its place in its trace; `None` where traces are left alone.
    pub trace: Option<TraceContext>,
    /// The same as servers get it.
    pub traceparent: Option<Traceparent>,
    /// Its session.
    pub session: RequestSession,
    /// Its response, when that is a page whose links are rewritten. In a mutex since hooks share the context between
    /// threads, but only ever reached through `get_mut`.
    pub page: Option<Mutex<Box<PageRewrite>>>,
    /// Attempts at servers, finished and not.
    pub attempts: Attempts,
    /// It asks for another protocol on its connection, as a WebSocket does.
    pub upgrade: bool,
    /// A piece of its body, or of its response's since the response has begun, has passed that was not the last.
    pub lasts: bool,
    /// A 1xx was passed on.
    pub interim: bool,
    /// Bytes of its body so far, in this attempt.
    pub body_bytes: u64,
    /// Bytes of its body that are counted: the most that an attempt has sent.
    pub body_bytes_counted: u64,
    /// Most bytes that its body may have.
    pub max_body: Option<u64>,
    /// Its body must arrive at a rate that its connection watches.
    pub body_rate_limited: bool,
    /// How far its body has come, when it is one of HTTP/2 that was not complete with the head.
    pub(crate) body_progress: Option<BodyProgress>,
    /// Logs it when it is dropped before its end: no hook runs then.
    pub(crate) log_dropped: Option<fn(&mut Self, &RequestHeader)>,
    /// A refusal decided by a hook that cannot respond itself.
    pub refusal: Option<Refusal>,
    /// Counts it among the requests in flight.
    in_flight: InFlight,
}

/// A response is late after this time.
const LATE: Duration = Duration::from_secs(1);

struct InFlight(Arc<AppState>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for RequestContext {
    fn drop(&mut self) {
        if let Some(log) = self.log_dropped
            && let Some(progress) = self.body_progress.take()
            && let Some(head) = progress.dropped()
        {
            log(self, head);
        }
        if self.session.is_open() {
            self.in_flight.0.sessions.close(&mut self.session, wall_clock);
        }
    }
}

/// The wall clock.
pub fn wall_clock() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

impl RequestContext {
    /// A request whose head was just read: here it takes its runtime and reads the clocks, once.
    pub fn begin(app: &Arc<AppState>) -> Self {
        app.in_flight.fetch_add(1, Ordering::Relaxed);
        Self {
            runtime: app.current.load_full(),
            started: Instant::now(),
            now: wall_clock(),
            late: Duration::ZERO,
            listener: 0,
            route: None,
            client: Client::default(),
            reserved: ReservedNames::default(),
            host_missing: false,
            dedicated: None,
            request_id: None,
            trace: None,
            traceparent: None,
            session: RequestSession::default(),
            page: None,
            attempts: Attempts::default(),
            upgrade: false,
            lasts: false,
            interim: false,
            body_bytes: 0,
            body_bytes_counted: 0,
            max_body: None,
            body_rate_limited: false,
            body_progress: None,
            log_dropped: None,
            refusal: None,
            in_flight: InFlight(Arc::clone(app)),
        }
    }

    /// The response head has arrived. When that took long, its time is what counts from now on: a token of the time of the
    /// request might be old when its client gets it. Returns the time since the request began.
    pub fn note_response(&mut self, responded: Instant) -> Duration {
        self.attempts.responded = Some(responded);
        self.lasts = false;
        let waited = responded.saturating_duration_since(self.started);
        if waited >= LATE {
            self.late = waited;
            self.now = self.now.plus(waited);
        }
        waited
    }

    /// A piece of a body has passed that is not the last: the request's session is in use for as long as the request lasts.
    pub fn note_piece(&mut self, request: RequestView<'_>) {
        if self.lasts {
            return;
        }
        self.lasts = true;
        let (server, responded) = (self.attempts.server, self.attempts.responded.is_some());
        let (sessions, scope, state) = self.sessions(request);
        sessions.keep_open(server, responded, &scope, state);
    }

    /// The state of the process.
    pub fn app(&self) -> &Arc<AppState> {
        &self.in_flight.0
    }

    /// The limits of its listener.
    pub fn limits(&self) -> Option<&Arc<ListenerLimits>> {
        self.runtime.limits.get(self.listener)
    }

    /// The limits of its listener, when it limits sessions that begin.
    pub fn session_limits(&self) -> Option<Arc<ListenerLimits>> {
        self.limits().filter(|limits| limits.counts_sessions()).map(Arc::clone)
    }

    /// The pool that serves it.
    pub fn pool_runtime(&self) -> Option<&PoolRuntime> {
        self.runtime.pools.get(self.session.pool?)
    }

    /// How that pool keeps sessions.
    pub fn persistence(&self) -> Option<&PoolPersistence> {
        self.pool_runtime()?.persistence.as_ref()
    }

    /// The server of the current or last attempt.
    pub fn server(&self) -> Option<&Server> {
        self.pool_runtime()?.pool.servers.get(self.attempts.server?)
    }

    /// What the verbs of [`Sessions`] are called with: the sessions, the request in its scope, and what is known of its
    /// session.
    pub fn sessions<'c, 'r>(
        &'c mut self,
        request: RequestView<'r>,
    ) -> (&'c Sessions, Scope<'c, 'r>, &'c mut RequestSession) {
        let scope = Scope {
            pools: &self.runtime.pools,
            route: self.runtime.router.route(self.route),
            request,
            client: self.client.address,
            secure: self.client.secure,
            peer_trusted: self.client.peer_trusted,
            forwarded_host: self.client.forwarded.as_ref().and_then(|from| from.host.as_ref()?.to_str().ok()),
            certificate: self.client.certificate.as_deref().map(|certificate| &certificate.digest),
            now: self.now,
            random: |bytes| rand::thread_rng().fill_bytes(bytes),
        };
        (&self.in_flight.0.sessions, scope, &mut self.session)
    }
}
