//! What the verbs are given of a request, and what they keep of it from one to the next.

use std::net::IpAddr;

use http::HeaderName;
use smallvec::SmallVec;

use crate::message::RequestView;
use crate::pool::ServerIndex;
use crate::routing::{RouteRuntime, RouteTarget, Split};
use crate::session::cookie::scope::RequestUri;
use crate::session::key::SessionKey;
use crate::session::source::{Source, SourceInput};
use crate::session::token::UnixMillis;
use crate::store::local::open_requests::OpenSlots;

use super::handoff::state::{DataChanges, InjectedHandoff, ResponseIds};
use super::outcome::{Outcome, Reason};
use super::pool::{PoolPersistence, PoolRuntime};
use super::pools::Pools;
use super::resolve::lookup::ResolvedSession;
use super::resolve::session_lookup::{PendingLookup, SessionLookup};
use super::select::placement::History;

/// A request (`'r`), and the configuration under which it is served (`'c`).
#[derive(Clone, Copy)]
pub struct Scope<'c, 'r> {
    /// All pools; once a stream has begun, its own.
    pub pools: &'c Pools,
    /// The request's route.
    pub route: Option<&'c RouteRuntime>,
    /// The request's head.
    pub request: RequestView<'r>,
    /// The client's address, as trusted proxies report it.
    pub client: Option<IpAddr>,
    /// The client came by TLS.
    pub secure: bool,
    /// The peer is a proxy whose forwarded headers are believed.
    pub peer_trusted: bool,
    /// The host that the client asked for, as a trusted proxy's `Forwarded` says.
    pub forwarded_host: Option<&'c str>,
    /// SHA-256 of the certificate that the client has presented.
    pub certificate: Option<&'c [u8; 32]>,
    /// When the request began.
    pub now: UnixMillis,
    /// Fills a buffer with random bytes.
    pub random: fn(&mut [u8]),
}

const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

impl<'c, 'r> Scope<'c, 'r> {
    /// The split of the route, if it has one.
    pub(super) fn split(&self) -> Option<&'c Split> {
        match &self.route?.target {
            RouteTarget::Split(split) => Some(split),
            RouteTarget::Pool(_) | RouteTarget::Redirect(_) => None,
        }
    }

    /// What sources read.
    pub fn input(&self) -> SourceInput<'r> {
        SourceInput { request: self.request, client: self.client }
    }

    /// Host and path as the client knows them, by which it keeps cookies.
    pub fn uri(&self) -> RequestUri<'_> {
        let told = || {
            let hosts = self.request.fields.get_str(&X_FORWARDED_HOST).filter(|_| self.peer_trusted)?;
            hosts.split(',').next().map(str::trim)
        };
        let host = self.forwarded_host.or_else(told).unwrap_or_else(|| self.request.host());
        RequestUri::new(host, self.request.path())
    }

    /// A random number.
    pub(super) fn random_number(&self) -> u64 {
        let mut bytes = [0; 8];
        (self.random)(&mut bytes);
        u64::from_ne_bytes(bytes)
    }
}

/// What is known of a request's session.
#[derive(Default)]
pub struct RequestSession {
    /// Index of the pool that serves the request.
    pub pool: Option<usize>,
    /// The session that the request names in that pool.
    pub lookup: SessionLookup,
    /// What became of earlier attempts.
    pub history: History,
    /// What the request means to its session.
    pub outcome: Option<Outcome>,
    /// Why the session does not stay on its server.
    pub reason: Option<Reason>,
    /// The session that the request began.
    pub created: Option<SessionKey>,
    /// When it does, it counts against its client's limit: the request alone did not show that it would.
    pub counts_when_created: bool,
    /// Position of the request in a split: random, or from what its client carries.
    pub(super) point: u64,
    /// The pool of a split that could not serve the request.
    pub(super) split: Option<Box<SplitFailover>>,
    /// What `balance: hash` hashes; empty with another balance.
    pub(super) hash_key: SmallVec<[u8; 32]>,
    /// How the response names the session.
    pub(super) response_ids: ResponseIds,
    /// What the current attempt's server was given of the session's data.
    pub(super) injected: Option<Box<InjectedHandoff>>,
    /// The shared store did not respond to this request, which does not wait for it again.
    pub(super) store_unavailable: bool,
    /// The request has waited for the shared store.
    pub(super) has_asked_store: bool,
    /// Where the lookup of the session goes on once the shared store has responded.
    pub(super) pending_lookup: Option<Box<PendingLookup>>,
    /// A first request's key, and the server to bind it to.
    pub(super) pending_bind: Option<(SessionKey, ServerIndex)>,
    /// Learned sessions to write to the shared store.
    pub(super) learned: SmallVec<[SessionKey; 1]>,
    /// Changes of session data to write to the shared store.
    pub(super) data_changes: DataChanges,
    /// The sessions that are in use by the request.
    pub(super) open: OpenSlots,
}

impl RequestSession {
    /// The pool that serves the request.
    pub fn runtime<'a>(&self, scope: &Scope<'a, '_>) -> Option<&'a PoolRuntime> {
        scope.pools.get(self.pool?)
    }

    /// The pools that the request may still have to do with once a server has responded.
    pub fn pools(&self) -> SmallVec<[usize; 2]> {
        self.pool.into_iter().chain(self.split.as_ref().map(|split| split.pool)).collect()
    }

    /// How that pool keeps sessions.
    pub fn persistence<'a>(&self, scope: &Scope<'a, '_>) -> Option<&'a PoolPersistence> {
        self.runtime(scope)?.persistence.as_ref()
    }

    /// The source that named the session, else the first that named anything.
    pub fn source<'a>(&self, persistence: &'a PoolPersistence) -> Option<&'a Source> {
        persistence.sources.get(self.lookup.source?)
    }

    /// The session that the request named.
    pub fn session(&self) -> Option<&ResolvedSession> {
        self.lookup.session.as_ref()
    }

    /// The request belongs to a session, known or begun by it, or what it carries decides its server.
    pub fn has_key(&self) -> bool {
        self.session().is_some() || self.created.is_some() || self.carried_key().is_some()
    }

    /// The request has waited, for its server or for the shared store, so that the time since its head was read is not
    /// that of an attempt.
    pub fn has_waited(&self) -> bool {
        self.history.held || self.history.queued || self.has_asked_store
    }

    /// Whether a response of a server changes nothing here: the session does not move, and there are no ids to learn.
    pub fn has_nothing_to_commit(&self, persistence: Option<&PoolPersistence>) -> bool {
        self.outcome != Some(Outcome::Moved) && !persistence.is_some_and(|persistence| persistence.learns)
    }

    /// Whether the request lists sessions as in use.
    pub fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Whether the response begins, moves or ends a session, or is of another pool than the session's.
    pub(super) fn renames_session(&self) -> bool {
        let ids = &self.response_ids;
        let begins = self.created.is_some() || ids.token.is_some() || ids.learned.is_some();
        begins || ids.ended || self.outcome == Some(Outcome::Moved) || self.split.is_some()
    }

    /// The server is back: what it failed before does not count any more.
    pub fn forget_failure_of(&mut self, server: ServerIndex) {
        self.history.failed.retain(|(failed, _)| *failed != server);
    }

    /// The key that places a request without a session, so that all requests with it go to one server: of the session
    /// that had to leave its pool, or of an application's id that is not bound.
    pub(super) fn carried_key(&self) -> Option<SessionKey> {
        let left = self.split.as_ref().and_then(|split| split.session.as_ref());
        left.map(|session| session.key).or(self.lookup.unknown_id)
    }
}

/// A pool of a split that could not serve the request.
pub(super) struct SplitFailover {
    /// Index of the pool that was tried first.
    pub(super) pool: usize,
    /// The session that the client has there.
    pub(super) session: Option<ResolvedSession>,
    /// What the pool's policy made of it.
    pub(super) outcome: Outcome,
    /// Why it does not stay.
    pub(super) reason: Option<Reason>,
    /// The pools of the split that are left, the next one last.
    pub(super) others: SmallVec<[usize; 4]>,
}
