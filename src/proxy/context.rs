//! What has been learned of a request so far. Made when its headers are read, dropped when its answer is done.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::app::runtime::{PoolPersistence, PoolRuntime, Runtime};
use crate::app::state::AppState;
use crate::persistence::resolve::{Homes, Returning};
use crate::persistence::select::History;
use crate::persistence::{Outcome, Reason};
use crate::pool::ServerIndex;
use crate::pool::server::{InFlight, Server};
use crate::session::key::SessionKey;
use crate::session::source::Source;
use crate::session::token::UnixMillis;

use crate::proxy::handoff::{Handed, Renamed};
use crate::proxy::identify::{Seen, Who};
use crate::proxy::request::header_scan::Suspects;
use crate::proxy::response::link_rewrite::Page;

/// Everything that the hooks of one request share.
pub struct RequestContext {
    /// The version of the configuration that this request lives under.
    pub runtime: Arc<Runtime>,
    /// When its headers were read.
    pub started: Instant,
    /// The same moment on the wall.
    pub now: UnixMillis,
    /// Index of its route.
    pub route: Option<usize>,
    /// Index of its pool.
    pub pool: Option<usize>,
    /// The client, behind trusted proxies.
    pub client: Client,
    /// Names of its headers that servers may not get to see.
    pub(crate) suspects: Suspects,
    /// As sent to the server.
    pub request_id: Option<HeaderValue>,
    /// Whom it names.
    pub who: Who,
    /// What the last source presents that was looked at before the shared store was asked.
    pub seen: Option<Box<Seen>>,
    /// The shared store did not answer it: it waits for it no more.
    pub store_unanswered: bool,
    /// Where it stands in a split, as a number: random, or made of what its client carries.
    pub point: u64,
    /// It had to leave the pool of its session, or of its choice.
    pub left: Option<Box<Left>>,
    /// Its answer, when that is a page whose links are rewritten. In a mutex since hooks share the context between
    /// threads, but only ever reached through `get_mut`.
    pub page: Option<Box<Mutex<Page>>>,
    /// The session that it began.
    pub begun: Option<SessionKey>,
    /// What its answer calls the session.
    pub renamed: Renamed,
    /// What its server was given of a session that was elsewhere.
    pub handed: Option<Box<Handed>>,
    /// Tries at servers, finished and not.
    pub tries: Tries,
    /// Where it goes, seen from its session.
    pub outcome: Option<Outcome>,
    /// Why it does not stay.
    pub reason: Option<Reason>,
    /// It asks for another protocol on its connection, as a WebSocket does.
    pub upgrade: bool,
    /// What `balance: hash` hashes of it; empty with another balance.
    pub hash_key: SmallVec<[u8; 32]>,
    /// Bytes of its body so far, in this try.
    pub body_bytes: u64,
    /// Most bytes that its body may have.
    pub max_body: Option<u64>,
    /// A refusal decided by a hook that cannot answer itself.
    pub refusal: Option<Refusal>,
    /// Its place among the requests under way.
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

/// A pool of a split that could not serve the request.
pub struct Left {
    /// Index of the pool that was asked first.
    pub pool: usize,
    /// The session that the client has there.
    pub session: Option<Returning>,
    /// What the pool's policy made of it.
    pub outcome: Outcome,
    /// Why it does not stay.
    pub reason: Option<Reason>,
    /// The pools of the split that are still to be asked, the next one last.
    pub others: SmallVec<[usize; 4]>,
}

/// Tries of one request at servers.
#[derive(Default)]
pub struct Tries {
    /// How many were begun.
    pub count: u32,
    /// The server of the current or last one.
    pub server: Option<ServerIndex>,
    /// Servers that failed it, and whether it has waited for its own.
    pub history: History,
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
    /// A request whose headers were just read: here it takes its snapshot and looks at the wall clock, once.
    pub fn begin(app: &Arc<AppState>) -> Self {
        app.in_flight.fetch_add(1, Ordering::Relaxed);
        Self {
            runtime: app.current.load_full(),
            started: Instant::now(),
            now: wall_clock(),
            route: None,
            pool: None,
            client: Client::default(),
            suspects: Suspects::default(),
            request_id: None,
            who: Who::default(),
            seen: None,
            store_unanswered: false,
            point: 0,
            left: None,
            page: None,
            begun: None,
            renamed: Renamed::default(),
            handed: None,
            tries: Tries::default(),
            outcome: None,
            reason: None,
            upgrade: false,
            hash_key: SmallVec::new(),
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

    /// Its pool.
    pub fn plan(&self) -> Option<&PoolRuntime> {
        self.runtime.pools.get(self.pool?)
    }

    /// How its pool keeps sessions.
    pub fn persistence(&self) -> Option<&PoolPersistence> {
        self.plan()?.persistence.as_ref()
    }

    /// Where the sessions of its pool may be at home.
    pub fn homes(&self) -> Option<Homes<'_>> {
        self.homes_in(self.plan()?)
    }

    /// Where the sessions of a pool may be at home.
    pub fn homes_in<'a>(&'a self, plan: &'a PoolRuntime) -> Option<Homes<'a>> {
        plan.persistence.as_ref().map(|persistence| Homes {
            table: &self.app().table,
            pool: &plan.pool,
            targets: &persistence.targets,
            tombstone: &persistence.tombstone,
            limits: &persistence.limits,
            data: &self.app().data,
            shared: self.app().shared.as_deref(),
            hands_over: persistence.handoff.is_some(),
        })
    }

    /// The source that named its session, or else the first that named anything.
    pub fn source(&self) -> Option<&Source> {
        self.persistence()?.sources.get(self.who.source?)
    }

    /// What a request without a session is spread by, so that all that carry it agree: the session that had to leave its
    /// pool, or an application's id that nobody knows.
    pub fn carried_key(&self) -> Option<SessionKey> {
        let left = self.left.as_ref().and_then(|left| left.session.as_ref());
        left.map(|session| session.key).or(self.who.unknown_id)
    }

    /// The server of the current or last try.
    pub fn server(&self) -> Option<&Server> {
        self.plan()?.pool.servers.get(self.tries.server?)
    }
}
