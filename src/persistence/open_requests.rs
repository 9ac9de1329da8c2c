//! A request in flight is use of its session: a WebSocket, a stream that is open for hours, a long upload, a slow response.
//! It brings no visit and its client can be given no newer token meanwhile, so the background extends the session for it.
//! The table remembers that the session is alive, and a shared store does for other proxies; what the token says of its age
//! counts for less than that.
//!
//! A request that ends before a quarter of the idle timeout has passed has nothing to extend, and nearly all do. So a request is
//! listed from its start only where its silence alone may last that long (`lists_all_requests` of a pool's persistence);
//! elsewhere once it shows that it lasts, by a piece of a body that is not the last, or by an upgrade.

use std::time::Duration;

use crate::pool::ServerIndex;
use crate::session::key::SessionKey;
use crate::session::token::UnixMillis;
use crate::store::TableLookup;
use crate::store::local::open_requests::OpenSession;
use crate::store::targets::Target;

use super::outcome::Outcome;
use super::pool::PoolRuntime;
use super::resolve::{IdentifiedBy, ResolvedSession};
use super::scope::{RequestSession, Scope};
use super::sessions::Sessions;

/// A session is extended this often in its idle timeout, so that it is never nearly over while it is in use.
const EXTENSIONS: u32 = 4;
/// The pause between two passes over the requests in flight, at least and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

impl Sessions {
    /// The request's session is known: it is in use from now on, until [`close`](Self::close). Called when the session has been
    /// resolved, and again when a server was selected, since a first request binds its address then.
    pub fn open(&self, selected: Option<ServerIndex>, scope: &Scope<'_, '_>, state: &mut RequestSession) {
        if lists_all_requests(scope, state) {
            self.list_request(selected, scope, state);
        }
    }

    /// The response has begun: sessions that it begins are in use too, and the one that the request named may have moved.
    /// `upgraded`: the connection goes on with another protocol.
    pub fn reopen(&self, server: ServerIndex, upgraded: bool, scope: &Scope<'_, '_>, state: &mut RequestSession) {
        if upgraded || state.is_open() || lists_all_requests(scope, state) {
            self.list_response(server, scope, state);
        }
    }

    /// A piece of a body has passed, and it is not the last. `responded`: the response has begun.
    pub fn keep_open(
        &self,
        server: Option<ServerIndex>,
        responded: bool,
        scope: &Scope<'_, '_>,
        state: &mut RequestSession,
    ) {
        match server {
            Some(server) if responded => self.list_response(server, scope, state),
            _ => self.list_request(server, scope, state),
        }
    }

    fn list_request(&self, selected: Option<ServerIndex>, scope: &Scope<'_, '_>, state: &mut RequestSession) {
        if state.is_open() {
            return;
        }
        let Some(runtime) = state.runtime(scope) else { return };
        let session = match (state.session(), state.created.zip(selected)) {
            (Some(session), _) => named(session, runtime),
            (None, Some((key, server))) => open_session(key, server, false, (0, scope.now), runtime),
            (None, None) => return,
        };
        state.open.extend(session.and_then(|session| self.open.insert(session, scope.now)));
    }

    fn list_response(&self, server: ServerIndex, scope: &Scope<'_, '_>, state: &mut RequestSession) {
        if !state.renames_session() {
            self.list_request(Some(server), scope, state);
            return;
        }
        for slot in state.open.drain(..) {
            self.open.remove(&slot);
        }
        let (former, learned, issued) =
            (former(scope, state), learned(server, scope, state), issued(server, scope, state));
        let sessions = [former, learned, issued].into_iter().flatten();
        state.open.extend(sessions.filter_map(|session| self.open.insert(session, scope.now)));
    }

    /// The request is over. The clock is read only for one that took long.
    pub fn close(&self, state: &mut RequestSession, clock: fn() -> UnixMillis) {
        for slot in state.open.drain(..) {
            if let Some(session) = self.open.remove(&slot) {
                self.extend(&session, clock());
            }
        }
    }

    /// Extends the sessions of requests in flight where that is due. Returns the pause until the next pass.
    pub fn extend_open(&self, now: UnixMillis) -> Duration {
        let interval = |target| self.table.target_at(target).map_or(Duration::MAX, |target| interval(target));
        self.open.extend_due(now, interval, |session| self.extend(session, now));
        let shortest = self.table.shortest_limit().unwrap_or(Duration::MAX);
        (shortest / (4 * EXTENSIONS)).clamp(PAUSE.0, PAUSE.1)
    }

    fn extend(&self, session: &OpenSession, now: UnixMillis) {
        let Some(target) = self.table.target_at(session.target) else { return };
        match self.table.visit(&session.key, now) {
            // Also a session that has ended: its tombstone stays, so that the token does not bring it back.
            TableLookup::Live(_) => {}
            // Not in the table yet, or evicted. What has no token may have ended, and begins again with a request.
            TableLookup::Absent | TableLookup::ExpiredIdle
                if session.has_token && now.since(session.created) < target.absolute() =>
            {
                self.table.restore(session.key, target, session.epoch, session.created, now);
            }
            _ => return,
        }
        if let Some(store) = &self.shared {
            store.extend(session.key, target, session.has_token, session.has_handoff, now);
        }
    }
}

fn interval(target: &Target) -> Duration {
    target.idle() / EXTENSIONS
}

fn lists_all_requests(scope: &Scope<'_, '_>, state: &RequestSession) -> bool {
    state.persistence(scope).is_some_and(|persistence| persistence.lists_all_requests)
}

/// Whether a request that is silent for this long, in an exchange that goes well, may be due for an extension.
pub fn outlasts_interval(silence: Duration, idle_timeout: Duration) -> bool {
    silence >= idle_timeout / EXTENSIONS
}

/// The session that a request named, as it stands.
fn named(session: &ResolvedSession, runtime: &PoolRuntime) -> Option<OpenSession> {
    let has_token = matches!(session.identified_by, IdentifiedBy::Token { .. });
    let (epoch, created) = (session.binding.epoch, session.binding.created);
    open_session(session.key, session.home?, has_token, (epoch, created), runtime)
}

/// The session that the request named, unless it has ended. A guest of another pool belongs to the pool that it left.
fn former(scope: &Scope<'_, '_>, state: &RequestSession) -> Option<OpenSession> {
    if state.response_ids.ended {
        return None;
    }
    if let (None, Some(split), Some(Outcome::Borrowed)) = (state.session(), &state.split, state.outcome) {
        return named(split.session.as_ref()?, scope.pools.get(split.pool)?);
    }
    named(state.session()?, state.runtime(scope)?)
}

/// The session of an id that the server issues. The table has it.
fn learned(server: ServerIndex, scope: &Scope<'_, '_>, state: &RequestSession) -> Option<OpenSession> {
    let learned = state.response_ids.learned.map(|(_, key)| key);
    let key = learned.or(state.created.filter(|key| state.response_ids.token != Some(*key)))?;
    let same = state.session().is_some_and(|session| session.key == key) && !state.response_ids.ended;
    if same { None } else { open_session(key, server, false, (0, scope.now), state.runtime(scope)?) }
}

/// The session of the token that the client is given.
fn issued(server: ServerIndex, scope: &Scope<'_, '_>, state: &RequestSession) -> Option<OpenSession> {
    let key = state.response_ids.token?;
    // The client of an address is given a token for the server of the address.
    let server = state.session().and_then(|session| session.home).unwrap_or(server);
    open_session(key, server, true, (0, scope.now), state.runtime(scope)?)
}

fn open_session(
    key: SessionKey,
    server: ServerIndex,
    has_token: bool,
    (epoch, created): (u32, UnixMillis),
    runtime: &PoolRuntime,
) -> Option<OpenSession> {
    let persistence = runtime.persistence.as_ref()?;
    let target = persistence.targets.get(server)?.index();
    Some(OpenSession { key, target, epoch, created, has_token, has_handoff: persistence.handoff.is_some() })
}
