//! What has been learned of a request so far. Made when its headers are read, dropped when its answer is done.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use parking_lot::Mutex;
use rand::RngCore;
use smallvec::SmallVec;

use crate::app::runtime::Runtime;
use crate::app::state::AppState;
use crate::message::RequestView;
use crate::persistence::issue::PageRewrite;
use crate::persistence::{PoolPersistence, PoolRuntime, RequestSession, Scope, Sessions};
use crate::pool::ServerIndex;
use crate::pool::server::{InFlight, Server};
use crate::routing::Target;
use crate::session::token::UnixMillis;

use crate::proxy::request::header_scan::Suspects;

/// Everything that the hooks of one request share.
pub struct RequestContext {
    /// The version of the configuration that this request is served under.
    pub runtime: Arc<Runtime>,
    /// When its head was read.
    pub started: Instant,
    /// The same moment on the wall clock.
    pub now: UnixMillis,
    /// Index of its route.
    pub route: Option<usize>,
    /// The client, behind trusted proxies.
    pub client: Client,
    /// Names of its headers that servers may not get to see.
    pub(crate) suspects: Suspects,
    /// As sent to the server.
    pub request_id: Option<HeaderValue>,
    /// Its session.
    pub session: RequestSession,
    /// Its response, when that is a page whose links are rewritten. In a mutex since hooks share the context between
    /// threads, but only ever reached through `get_mut`.
    pub page: Option<Box<Mutex<PageRewrite>>>,
    /// Attempts at servers, finished and not.
    pub tries: Tries,
    /// It asks for another protocol on its connection, as a WebSocket does.
    pub upgrade: bool,
    /// Bytes of its body so far, in this attempt.
    pub body_bytes: u64,
    /// Most bytes that its body may have.
    pub max_body: Option<u64>,
    /// A refusal decided by a hook that cannot respond itself.
    pub refusal: Option<Refusal>,
    /// Counts it among the requests under way.
    under_way: UnderWay,
}

/// The client, as far as the connection and trusted proxies tell.
#[derive(Debug, Clone, Default)]
pub struct Client {
    /// Who connected to us; `None` over a unix socket.
    pub peer: Option<IpAddr>,
    /// Its address as a header's value, where the connection has it written already.
    pub peer_text: Option<HeaderValue>,
    /// The client itself.
    pub address: Option<IpAddr>,
    /// The peer is a proxy whose forwarded headers are believed.
    pub peer_trusted: bool,
    /// The client came by TLS.
    pub secure: bool,
    /// What trusted proxies said in Forwarded; boxed, since it is rare.
    pub told: Option<Box<Told>>,
}

/// What Forwarded came to, for the X-Forwarded headers.
#[derive(Debug, Clone)]
pub struct Told {
    /// The client, then the proxies behind it, without the peer.
    pub chain: SmallVec<[IpAddr; 4]>,
    /// The host that the client asked for.
    pub host: Option<HeaderValue>,
}

/// Tries of one request at servers.
#[derive(Default)]
pub struct Tries {
    /// How many were begun.
    pub count: u32,
    /// The server of the current or last one.
    pub server: Option<ServerIndex>,
    /// A reset on a reused connection was followed by one more try at the same server.
    pub same_server_again: bool,
    /// The next try goes to this server, whatever the rules say.
    pub next: Option<ServerIndex>,
    /// When the current one was begun.
    pub began: Option<Instant>,
    /// When the answer's headers came.
    pub answered: Option<Instant>,
    /// Counts it at its server.
    pub in_flight: Option<InFlight>,
}

/// An answer of the proxy itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Status.
    pub status: u16,
    /// For the body and the access log.
    pub why: &'static str,
    /// The client's token is worth nothing any more and is taken away.
    pub clear_token: bool,
}

impl Refusal {
    /// With a status and a reason.
    pub const fn new(status: u16, why: &'static str) -> Self {
        Self { status, why, clear_token: false }
    }
}

struct UnderWay(Arc<AppState>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
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
            route: None,
            client: Client::default(),
            suspects: Suspects::default(),
            request_id: None,
            session: RequestSession::default(),
            page: None,
            tries: Tries::default(),
            upgrade: false,
            body_bytes: 0,
            max_body: None,
            refusal: None,
            under_way: UnderWay(Arc::clone(app)),
        }
    }

    /// What outlives every request.
    pub fn app(&self) -> &Arc<AppState> {
        &self.under_way.0
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
        self.pool_runtime()?.pool.servers.get(self.tries.server?)
    }

    /// What the verbs of [`Sessions`] are called with: the sessions, the request in its scope, and what is known of its
    /// session.
    pub fn sessions<'c, 'r>(
        &'c mut self,
        request: RequestView<'r>,
    ) -> (&'c Sessions, Scope<'c, 'r>, &'c mut RequestSession) {
        let route = self.runtime.router.plan(self.route);
        let scope = Scope {
            pools: &self.runtime.pools,
            split: route.and_then(|route| match &route.target {
                Target::Split(split) => Some(split),
                _ => None,
            }),
            request,
            client: self.client.address,
            secure: self.client.secure,
            now: self.now,
            random: |bytes| rand::thread_rng().fill_bytes(bytes),
        };
        (&self.under_way.0.sessions, scope, &mut self.session)
    }
}
