//! A client comes back with a token or an id: is its session alive, where is it at home, and where does it go from here.
//!
//! Token and table are put together by the rules of [`resolve`]; every change of a binding goes through
//! [`Returning::settle`], which lets the first of several parallel requests decide for all of them.

mod store_query;

use std::sync::Arc;

use crate::pool::{Pool, ServerIndex};
use crate::session::binding::{Binding, Limits, Lookup, Reissue, Resolution, must_reissue, resolve};
use crate::session::key::SessionKey;
use crate::session::source::{Id, Presented};
use crate::session::token::{Token, UnixMillis};
use crate::store::engine::Kind;
use crate::store::local::data::SessionData;
use crate::store::local::table::Table;
use crate::store::shared::SharedStore;
use crate::store::targets::Target;
use crate::store::{RebindResult, TableEntry, TableLookup};

pub use self::store_query::{StoreQueries, names_a_live_one, wanted};

/// Where the sessions of a pool may be at home.
#[derive(Clone, Copy)]
pub struct Homes<'a> {
    /// Who came back before.
    pub table: &'a Table,
    /// The servers.
    pub pool: &'a Pool,
    /// The servers in the table, by server index.
    pub targets: &'a [Arc<Target>],
    /// Where ended sessions are.
    pub tombstone: &'a Arc<Target>,
    /// When sessions end.
    pub limits: &'a Limits,
    /// What servers handed over for them.
    pub data: &'a SessionData,
    /// The store that other proxies share with this one; the table is its near copy then.
    pub shared: Option<&'a SharedStore>,
    /// Servers hand data over.
    pub hands_over: bool,
}

/// A session that lives.
#[derive(Debug, Clone)]
pub struct Returning {
    /// Its key in the table and on the ring.
    pub key: SessionKey,
    /// How the request named it.
    pub named: Named,
    /// Where it belongs.
    pub binding: Binding,
    /// Its server in this version of the pool; `None` when the configuration no longer has it.
    pub home: Option<ServerIndex>,
}

/// How a request named its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// By its token.
    Token {
        /// What it says.
        token: Token,
        /// The token was sealed by the key that seals now.
        sealed_by_first: bool,
    },
    /// By the application's id, which the table knows.
    Id,
    /// By the application's id, which bears the mark of its server.
    Mark,
    /// By the client's address.
    Address,
}

/// A key that a client brings and that nobody is bound by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unbound {
    /// Of an application's id: it goes to its consistent-hash server, the same on every proxy, until a server hands it
    /// out.
    Id(SessionKey),
    /// Of a client's address: the first request binds it.
    Address(SessionKey),
}

/// What came of asking for a session.
#[derive(Debug, Clone)]
pub struct Recognised {
    /// For metrics and logs.
    pub lookup: Lookup,
    /// The session, when it lives.
    pub session: Option<Returning>,
    /// What the client brings else.
    pub unbound: Option<Unbound>,
}

impl Recognised {
    const fn nobody(lookup: Lookup, unbound: Option<Unbound>) -> Self {
        Self { lookup, session: None, unbound }
    }
}

/// Puts together what a request presents and what the table knows, and notes the visit in the table. Without a session
/// the client is new.
pub fn recognise(presented: &Presented, homes: &Homes<'_>, now: UnixMillis) -> Recognised {
    match presented {
        Presented::Nobody => Recognised::nobody(Lookup::None, None),
        // Sealed for another pool: our own seal, so nobody forged it, but it names nobody here.
        Presented::OtherPool => Recognised::nobody(Lookup::Unknown, None),
        Presented::Forged(_) => Recognised::nobody(Lookup::Forged, None),
        Presented::Token { token, sealed_by_first } => by_token(token, *sealed_by_first, homes, now),
        Presented::Ids(ids) => by_ids(ids, homes, now),
        Presented::Mark { key, server } => match homes.table.visit(key, now) {
            TableLookup::Live(known) if homes.is_over(&known) => {
                Recognised::nobody(Lookup::Ended, Some(Unbound::Id(*key)))
            }
            // Nothing is known of a marked id: the mark is the truth, and the application's to change.
            _ => homes.live(*key, Named::Mark, Binding::new(*server, now), Lookup::Hit),
        },
        Presented::Unmarked(key) => Recognised::nobody(Lookup::Unknown, Some(Unbound::Id(*key))),
        Presented::Address(id) => match by_id(id, Named::Address, homes, now) {
            Recognised { session: None, lookup, .. } => Recognised::nobody(lookup, Some(Unbound::Address(id.key))),
            live => live,
        },
    }
}

fn by_token(token: &Token, sealed_by_first: bool, homes: &Homes<'_>, now: UnixMillis) -> Recognised {
    let key = SessionKey::from(token.session);
    // What has expired in the table is as good as absent: the token's own times tell the rest.
    let known = match homes.table.visit(&key, now) {
        TableLookup::Live(known) if homes.is_over(&known) => return Recognised::nobody(Lookup::Ended, None),
        TableLookup::Live(known) => homes.binding(&known),
        _ => None,
    };
    let (mut binding, lookup, adopted) = match resolve(token, known.as_ref(), homes.limits, now) {
        Resolution::Expired(lookup) => return Recognised::nobody(lookup, None),
        Resolution::Live { binding, lookup, adopted } => (binding, lookup, adopted),
    };
    // Two proxies moved it while the store was away, and the other's record is in the store. The next epoch ends that for
    // all proxies; without a store nobody else would hear of it.
    if homes.shared.is_some() && known.is_some_and(|known| known.epoch == token.epoch && known.server != token.server) {
        binding.epoch = binding.epoch.saturating_add(1);
    }
    let place = homes.pool.find(binding.server).and_then(|home| homes.targets.get(home));
    if adopted && let Some(place) = place {
        homes.table.restore(key, place, binding.epoch, binding.created, now);
        // The token knows more than the store: its session moved while the store was away, or both say another server.
        if let Some(shared) = homes.shared.filter(|shared| shared.is_stored(&key)) {
            shared.write_behind(key, Kind::Binding);
        }
    }
    homes.live(key, Named::Token { token: *token, sealed_by_first }, binding, lookup)
}

/// The first id that the table knows; else the first that is there at all.
fn by_ids(ids: &[Id], homes: &Homes<'_>, now: UnixMillis) -> Recognised {
    let mut nobody = Recognised::nobody(Lookup::None, None);
    for id in ids {
        let found = by_id(id, Named::Id, homes, now);
        if found.session.is_some() {
            return found;
        }
        if nobody.unbound.is_none() {
            nobody = found;
        }
    }
    nobody
}

fn by_id(id: &Id, named: Named, homes: &Homes<'_>, now: UnixMillis) -> Recognised {
    let nobody = |lookup| Recognised::nobody(lookup, Some(Unbound::Id(id.key)));
    let known = match homes.table.visit(&id.key, now) {
        TableLookup::Live(known) => known,
        TableLookup::ExpiredIdle => return nobody(Lookup::ExpiredIdle),
        TableLookup::ExpiredAbsolute => return nobody(Lookup::ExpiredAbsolute),
        TableLookup::Absent => match under_former_key(id, homes, now) {
            Some(known) => known,
            None => return nobody(Lookup::Unknown),
        },
    };
    match homes.binding(&known) {
        Some(_) if homes.is_over(&known) => nobody(Lookup::Ended),
        Some(binding) => homes.live(id.key, named, Binding { last_seen: now, ..binding }, Lookup::Hit),
        None => nobody(Lookup::Unknown),
    }
}

/// The keyring was rotated since the session was bound: it goes on under the key of today.
fn under_former_key(id: &Id, homes: &Homes<'_>, now: UnixMillis) -> Option<TableEntry> {
    let live = |key: &SessionKey| match homes.table.visit(key, now) {
        TableLookup::Live(known) => Some(known),
        _ => None,
    };
    let Some((former, known)) = id.former.iter().find_map(|key| Some((key, live(key)?))) else {
        // Or another request of it has just taken it over.
        return id.former.first().and_then(|_| live(&id.key));
    };
    let place = homes.table.target_at(known.target)?;
    let stands = homes.table.restore(id.key, place, known.epoch, known.created, now);
    homes.table.remove_renamed(former);
    homes.data.rename(former, id.key);
    if let Some(shared) = homes.shared {
        shared.write_behind(id.key, Kind::Binding);
        shared.write_behind(id.key, Kind::Data);
    }
    Some(stands)
}

impl Homes<'_> {
    fn is_over(&self, known: &TableEntry) -> bool {
        known.target == self.tombstone.index()
    }

    fn binding(&self, known: &TableEntry) -> Option<Binding> {
        let server = self.table.target_at(known.target)?.id();
        Some(Binding { server, epoch: known.epoch, created: known.created, last_seen: known.last_seen })
    }

    fn live(&self, key: SessionKey, named: Named, binding: Binding, lookup: Lookup) -> Recognised {
        let home = self.pool.find(binding.server);
        let lookup = if home.is_none() { Lookup::UnknownServer } else { lookup };
        Recognised { lookup, session: Some(Returning { key, named, binding, home }), unbound: None }
    }

    /// The first request that brings this key is about to go to `chosen`, and binds it there. If another was first, its
    /// session is returned, and this request follows it.
    pub fn claim(&self, key: SessionKey, chosen: ServerIndex, now: UnixMillis) -> Option<Returning> {
        let known = self.table.claim(key, self.targets.get(chosen)?, now)?;
        self.live(key, Named::Address, self.binding(&known)?, Lookup::Hit).session
    }
}

impl Returning {
    /// Its new server has answered: the session moves there, unless another request of it has moved it first; then theirs
    /// stands, and the client follows it. True when this request moved it.
    pub fn settle(&mut self, chosen: ServerIndex, homes: &Homes<'_>, now: UnixMillis) -> bool {
        let (Some(server), Some(place)) = (homes.pool.servers.get(chosen), homes.targets.get(chosen)) else {
            return false;
        };
        match homes.table.rebind(self.key, self.binding.epoch, place, self.binding.created, now) {
            RebindResult::Moved { epoch } => {
                self.binding = Binding { server: server.id, epoch, ..self.binding };
                self.home = Some(chosen);
                true
            }
            RebindResult::AlreadyMoved(known) => {
                // One that another has ended meanwhile is found to be over by its next request.
                if let Some(theirs) = homes.table.target_at(known.target).filter(|theirs| !theirs.is_tombstone()) {
                    self.binding = Binding { server: theirs.id(), epoch: known.epoch, ..self.binding };
                    self.home = homes.pool.find(theirs.id());
                }
                false
            }
        }
    }

    /// The session is over, and its client begins anew. What a client will show again, since nothing takes it away from
    /// there, is remembered as ended; what only the table knows is forgotten.
    pub fn end(&self, homes: &Homes<'_>, now: UnixMillis) {
        homes.data.forget(&self.key);
        let created = self.binding.created;
        match (self.named, homes.shared) {
            (Named::Token { .. } | Named::Mark, _) => {
                homes.table.insert_tombstone(self.key, homes.tombstone, Table::FINAL_EPOCH, created, now);
            }
            (Named::Id | Named::Address, None) => {
                homes.table.end(&self.key);
            }
            // Other proxies know it too. Its next server may still call it its own again.
            (Named::Id | Named::Address, Some(_)) => {
                let epoch = self.binding.epoch.saturating_add(1);
                homes.table.insert_tombstone(self.key, homes.tombstone, epoch, created, now);
            }
        }
        if let Some(shared) = homes.shared {
            shared.write_behind(self.key, Kind::Binding);
        }
    }

    /// The token that its client must be given, if any.
    pub fn token_to_give(&self, limits: &Limits, now: UnixMillis) -> Option<(Token, Reissue)> {
        let Named::Token { token, sealed_by_first } = &self.named else { return None };
        let why = must_reissue(token, &self.binding, *sealed_by_first, limits, now)?;
        Some((self.token_now(now)?, why))
    }

    /// The token that says what stands now; `None` for a session that has none.
    pub fn token_now(&self, now: UnixMillis) -> Option<Token> {
        match &self.named {
            Named::Token { token, .. } => Some(self.binding.token(token.session, now)),
            _ => None,
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
