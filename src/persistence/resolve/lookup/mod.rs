//! What a token, an id or an address names: the session, when it lives, with its server and the binding that stands.
//!
//! Token and table are put together by the rules of [`resolve`]; every change of a binding goes through
//! [`ResolvedSession::settle`], which lets the first of several parallel requests decide for all of them.

use std::sync::Arc;

use crate::pool::{Pool, ServerIndex};
use crate::session::binding::{Binding, Limits, Lookup, Reissue, Resolution, must_reissue, resolve};
use crate::session::key::{ServerId, SessionKey};
use crate::session::source::{ExternalId, SessionClaim};
use crate::session::token::{Token, UnixMillis};
use crate::store::engine::Kind;
use crate::store::local::data::SessionData;
use crate::store::local::table::Table;
use crate::store::shared::SharedStore;
use crate::store::targets::Target;
use crate::store::{EndReason, RebindResult, TableEntry, TableLookup};

/// The sessions of one pool.
#[derive(Clone, Copy)]
pub struct PoolSessions<'a> {
    /// Bindings.
    pub table: &'a Table,
    /// The servers.
    pub pool: &'a Pool,
    /// The servers in the table, by server index.
    pub targets: &'a [Arc<Target>],
    /// The table's target of ended sessions.
    pub tombstone: &'a Arc<Target>,
    /// When sessions end.
    pub limits: &'a Limits,
    /// What servers handed over for them.
    pub data: &'a SessionData,
    /// The store that other proxies share with this one; the table is its near copy then.
    pub shared: Option<&'a SharedStore>,
    /// Servers hand data over.
    pub hands_over: bool,
    /// An operator asks: nothing is noted, restored or renamed.
    pub looks_only: bool,
}

/// A session that lives.
#[derive(Debug, Clone)]
pub struct ResolvedSession {
    /// Its key in the table and on the ring.
    pub key: SessionKey,
    /// How the request named it.
    pub identified_by: IdentifiedBy,
    /// Where it belongs.
    pub binding: Binding,
    /// Its server in this version of the pool; `None` when the configuration no longer has it.
    pub home: Option<ServerIndex>,
    /// Its last request before this one.
    pub last_seen: UnixMillis,
}

/// How a request named its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentifiedBy {
    /// By its token.
    Token {
        /// What it says.
        token: Token,
        /// The token was sealed by the key that seals now.
        sealed_by_first: bool,
    },
    /// By the application's id, which is bound in the table.
    Id,
    /// By the application's id, which contains the route id of its server.
    RouteId,
    /// By the client's address.
    Address,
}

/// A key that a request carries and that is not bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnboundKey {
    /// Of an application's id: it goes to its consistent-hash server, the same on every proxy, until a server hands it
    /// out.
    Id(SessionKey),
    /// Of a client's address: the first request binds it.
    Address(SessionKey),
}

/// What a source's name comes to.
#[derive(Debug, Clone)]
pub struct Recognition {
    /// For metrics and logs.
    pub lookup: Lookup,
    /// The session, when it lives.
    pub session: Option<ResolvedSession>,
    /// The key, when it is not bound.
    pub unbound: Option<UnboundKey>,
}

impl Recognition {
    const fn none(lookup: Lookup, unbound: Option<UnboundKey>) -> Self {
        Self { lookup, session: None, unbound }
    }
}

/// Puts together what a request presents and what the table knows, and notes the visit in the table. Without a session
/// the client is new.
pub fn recognize(claim: &SessionClaim, sessions: &PoolSessions<'_>, now: UnixMillis) -> Recognition {
    match claim {
        SessionClaim::Nothing => Recognition::none(Lookup::None, None),
        // Sealed for another pool: our own seal, so it is not forged, but it names no session of this pool.
        SessionClaim::OtherPool => Recognition::none(Lookup::Unknown, None),
        SessionClaim::Forged(_) => Recognition::none(Lookup::Forged, None),
        SessionClaim::OtherClient => Recognition::none(Lookup::OtherClient, None),
        SessionClaim::Token { token, sealed_by_first } => by_token(token, *sealed_by_first, sessions, now),
        SessionClaim::Ids(ids) => by_ids(ids, sessions, now),
        SessionClaim::Routed { key, server } => match sessions.visit(key, now) {
            TableLookup::Live(known) if sessions.is_over(&known) => {
                Recognition::none(Lookup::Ended, Some(UnboundKey::Id(*key)))
            }
            // No record of an id with a route id: the route id decides, and only the application changes it.
            _ => sessions.live((*key, IdentifiedBy::RouteId), Binding::new(*server, now), now, Lookup::Hit),
        },
        SessionClaim::Unrouted(key) => Recognition::none(Lookup::Unknown, Some(UnboundKey::Id(*key))),
        SessionClaim::Address(id) => match by_id(id, IdentifiedBy::Address, sessions, now) {
            Recognition { session: None, lookup, .. } => Recognition::none(lookup, Some(UnboundKey::Address(id.key))),
            live => live,
        },
    }
}

fn by_token(token: &Token, sealed_by_first: bool, sessions: &PoolSessions<'_>, now: UnixMillis) -> Recognition {
    let key = SessionKey::from(token.session);
    // What has expired in the table is as good as absent: the token's own times tell the rest.
    let known = match sessions.visit(&key, now) {
        TableLookup::Live(known) if sessions.is_over(&known) => return Recognition::none(Lookup::Ended, None),
        TableLookup::Live(known) => sessions.binding(&known),
        _ => None,
    };
    let (mut binding, lookup, adopted) = match resolve(token, known.as_ref(), sessions.limits, now) {
        Resolution::Expired(lookup) => return Recognition::none(lookup, None),
        Resolution::FromTheFuture => return Recognition::none(Lookup::Unknown, None),
        Resolution::Live { binding, lookup, adopted } => (binding, lookup, adopted),
    };
    // Two proxies moved it while the store was away, and the other's record is in the store. The next epoch ends that for
    // all proxies; without a store no other proxy would hear of it.
    if sessions.shared.is_some()
        && known.is_some_and(|known| known.epoch == token.epoch && known.server != token.server)
    {
        binding.epoch = binding.epoch.saturating_add(1);
    }
    let last_seen = known.map_or(token.issued, |known| known.last_seen.max(token.issued));
    let place = sessions.home(binding.server, last_seen).and_then(|home| sessions.targets.get(home));
    if adopted
        && !sessions.looks_only
        && let Some(place) = place
    {
        sessions.table.restore(key, place, binding.epoch, binding.created, now);
        // The token knows more than the store: its session moved while the store was away, or both say another server.
        if let Some(shared) = sessions.shared.filter(|shared| shared.is_stored(&key)) {
            shared.write_behind(key, Kind::Binding);
        }
    }
    sessions.live((key, IdentifiedBy::Token { token: *token, sealed_by_first }), binding, last_seen, lookup)
}

/// The first id that the table knows; else the first that is there at all.
fn by_ids(ids: &[ExternalId], sessions: &PoolSessions<'_>, now: UnixMillis) -> Recognition {
    let mut first = Recognition::none(Lookup::None, None);
    for id in ids {
        let found = by_id(id, IdentifiedBy::Id, sessions, now);
        if found.session.is_some() {
            return found;
        }
        if first.unbound.is_none() {
            first = found;
        }
    }
    first
}

fn by_id(id: &ExternalId, identified_by: IdentifiedBy, sessions: &PoolSessions<'_>, now: UnixMillis) -> Recognition {
    let none = |lookup| Recognition::none(lookup, Some(UnboundKey::Id(id.key)));
    let known = match sessions.visit(&id.key, now) {
        TableLookup::Live(known) => known,
        TableLookup::ExpiredIdle => return none(Lookup::ExpiredIdle),
        TableLookup::ExpiredAbsolute => return none(Lookup::ExpiredAbsolute),
        TableLookup::Absent => match under_former_key(id, sessions, now) {
            Some(known) => known,
            None => return none(Lookup::Unknown),
        },
    };
    match sessions.binding(&known) {
        Some(_) if sessions.is_over(&known) => none(Lookup::Ended),
        Some(binding) => {
            let last_seen = binding.last_seen;
            sessions.live((id.key, identified_by), Binding { last_seen: now, ..binding }, last_seen, Lookup::Hit)
        }
        None => none(Lookup::Unknown),
    }
}

/// The keyring was rotated since the session was bound: it goes on under the key of today.
fn under_former_key(id: &ExternalId, sessions: &PoolSessions<'_>, now: UnixMillis) -> Option<TableEntry> {
    let live = |key: &SessionKey| match sessions.visit(key, now) {
        TableLookup::Live(known) => Some(known),
        _ => None,
    };
    let Some((former, known)) = id.former.iter().find_map(|key| Some((key, live(key)?))) else {
        // Or another request of it has just taken it over.
        return id.former.first().and_then(|_| live(&id.key));
    };
    if sessions.looks_only {
        return Some(known);
    }
    let place = sessions.table.target_at(known.target)?;
    let stands = sessions.table.restore(id.key, place, known.epoch, known.created, now);
    sessions.table.remove_renamed(former);
    sessions.data.rename(former, id.key);
    if let Some(shared) = sessions.shared {
        shared.write_behind(id.key, Kind::Binding);
        shared.write_behind(id.key, Kind::Data);
    }
    Some(stands)
}

impl PoolSessions<'_> {
    pub(super) fn is_over(&self, known: &TableEntry) -> bool {
        known.target == self.tombstone.index()
    }

    /// What the table says of a session; a visit, unless it is only looked at.
    fn visit(&self, key: &SessionKey, now: UnixMillis) -> TableLookup {
        if self.looks_only { self.table.find(key, now) } else { self.table.visit(key, now) }
    }

    fn binding(&self, known: &TableEntry) -> Option<Binding> {
        let server = self.table.target_at(known.target)?.id();
        Some(Binding { server, epoch: known.epoch, created: known.created, last_seen: known.last_seen })
    }

    /// The server of a session that was last seen then; not one that has come to the address since.
    fn home(&self, server: ServerId, last_seen: UnixMillis) -> Option<ServerIndex> {
        let home = self.pool.find(server)?;
        self.pool.servers.get(home).filter(|server| last_seen >= server.since).map(|_| home)
    }

    fn live(
        &self,
        (key, identified_by): (SessionKey, IdentifiedBy),
        binding: Binding,
        last_seen: UnixMillis,
        lookup: Lookup,
    ) -> Recognition {
        let home = self.home(binding.server, last_seen);
        let lookup = if home.is_none() { Lookup::UnknownServer } else { lookup };
        let session = ResolvedSession { key, identified_by, binding, home, last_seen };
        Recognition { lookup, session: Some(session), unbound: None }
    }

    /// The first request that brings this key is about to go to `chosen`, and binds it there. If another was first, its
    /// session is returned, and this request follows it.
    pub fn claim(&self, key: SessionKey, chosen: ServerIndex, now: UnixMillis) -> Option<ResolvedSession> {
        let known = self.table.claim(key, self.targets.get(chosen)?, now)?;
        self.live((key, IdentifiedBy::Address), self.binding(&known)?, now, Lookup::Hit).session
    }
}

impl ResolvedSession {
    /// Its new server has answered: the session moves there, unless another request of it has moved it first; then that
    /// move stands, and the client follows it. True when this request moved it.
    pub fn settle(&mut self, chosen: ServerIndex, sessions: &PoolSessions<'_>, now: UnixMillis) -> bool {
        let (Some(server), Some(place)) = (sessions.pool.servers.get(chosen), sessions.targets.get(chosen)) else {
            return false;
        };
        match sessions.table.rebind(self.key, self.binding.epoch, place, self.binding.created, now) {
            RebindResult::Moved { epoch } => {
                self.binding = Binding { server: server.id, epoch, ..self.binding };
                self.home = Some(chosen);
                true
            }
            RebindResult::AlreadyMoved(known) => {
                // One that another has ended meanwhile is found to be over by its next request.
                if let Some(target) = sessions.table.target_at(known.target).filter(|target| !target.is_tombstone()) {
                    self.binding = Binding { server: target.id(), epoch: known.epoch, ..self.binding };
                    self.home = sessions.pool.find(target.id());
                }
                false
            }
        }
    }

    /// The session is over; its client begins a new one. What a client will show again, since nothing takes it away from
    /// there, is remembered as ended; what only the table knows is forgotten.
    pub fn end(&self, sessions: &PoolSessions<'_>, now: UnixMillis) {
        sessions.data.forget(&self.key);
        let times = (self.binding.created, now);
        match (self.identified_by, sessions.shared) {
            (IdentifiedBy::Token { .. } | IdentifiedBy::RouteId, _) => {
                sessions.table.insert_tombstone(
                    self.key,
                    sessions.tombstone,
                    Table::FINAL_EPOCH,
                    times,
                    EndReason::Ended,
                );
            }
            (IdentifiedBy::Id | IdentifiedBy::Address, None) => {
                sessions.table.end(&self.key);
            }
            // Other proxies know it too. Its next server may still call it its own again.
            (IdentifiedBy::Id | IdentifiedBy::Address, Some(_)) => {
                let epoch = self.binding.epoch.saturating_add(1);
                sessions.table.insert_tombstone(self.key, sessions.tombstone, epoch, times, EndReason::Ended);
            }
        }
        if let Some(shared) = sessions.shared {
            shared.write_behind(self.key, Kind::Binding);
        }
    }

    /// The token that its client must be given, if any.
    pub fn token_to_give(&self, limits: &Limits, now: UnixMillis) -> Option<(Token, Reissue)> {
        let IdentifiedBy::Token { token, sealed_by_first } = &self.identified_by else { return None };
        let why = must_reissue(token, &self.binding, *sealed_by_first, limits, now)?;
        Some((self.token_now(now)?, why))
    }

    /// The token that says what stands now; `None` for a session that has none.
    pub fn token_now(&self, now: UnixMillis) -> Option<Token> {
        match &self.identified_by {
            IdentifiedBy::Token { token, .. } => Some(self.binding.token(token.session, now)),
            _ => None,
        }
    }
}

#[cfg(test)]
pub(in crate::persistence) mod tests;
