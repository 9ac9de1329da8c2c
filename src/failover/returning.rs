//! A client comes back with a token: is its session alive, where is it at home, and where does it go from here.
//!
//! Token and table are put together by the rules of [`resolve`]; every change of a binding goes through
//! [`Returning::settle`], which lets the first of several parallel requests decide for all of them.

use std::sync::Arc;

use crate::pool::{Pool, ServerIndex};
use crate::session::binding::{Binding, Limits, Lookup, Reissue, Resolution, must_reissue, resolve};
use crate::session::key::{SessionId, SessionKey};
use crate::session::token::{Token, UnixMillis};
use crate::store::memory::Table;
use crate::store::places::Place;
use crate::store::{Found, Rebound};

/// Where the sessions of a pool may be at home.
#[derive(Clone, Copy)]
pub struct Homes<'a> {
    /// Who came back before.
    pub table: &'a Table,
    /// The servers.
    pub pool: &'a Pool,
    /// The servers in the table, by server index.
    pub places: &'a [Arc<Place>],
    /// When sessions end.
    pub limits: &'a Limits,
}

/// A session that lives.
#[derive(Debug, Clone)]
pub struct Returning {
    /// Its id.
    pub id: SessionId,
    /// Its key in the table and on the ring.
    pub key: SessionKey,
    /// The token that named it.
    pub token: Token,
    /// The token was sealed by the key that seals now.
    pub sealed_by_first: bool,
    /// Where it belongs.
    pub binding: Binding,
    /// Its server in this version of the pool; `None` when the configuration no longer has it.
    pub home: Option<ServerIndex>,
}

/// Puts together what a token says and what the table knows, and notes the visit in the table. Without a session the
/// client is new.
pub fn recognise(
    token: &Token,
    sealed_by_first: bool,
    homes: &Homes<'_>,
    now: UnixMillis,
) -> (Lookup, Option<Returning>) {
    let key = SessionKey::from(token.session);
    let known = known(homes.table, key, now);
    let (binding, lookup, adopted) = match resolve(token, known.as_ref(), homes.limits, now) {
        Resolution::Expired(lookup) => return (lookup, None),
        Resolution::Live { binding, lookup, adopted } => (binding, lookup, adopted),
    };
    let home = homes.pool.find(binding.server);
    if adopted && let Some(place) = home.and_then(|home| homes.places.get(home)) {
        homes.table.restore(key, place, binding.epoch, binding.created, now);
    }
    let lookup = if home.is_none() { Lookup::UnknownServer } else { lookup };
    (lookup, Some(Returning { id: token.session, key, token: *token, sealed_by_first, binding, home }))
}

fn known(table: &Table, key: SessionKey, now: UnixMillis) -> Option<Binding> {
    // What has expired in the table is as good as absent: the token's own times tell the rest.
    let Found::Live(known) = table.visit(&key, now) else { return None };
    Some(Binding {
        server: table.place_at(known.place)?.id(),
        epoch: known.epoch,
        created: known.created,
        last_seen: known.last_seen,
    })
}

impl Returning {
    /// Its new server has answered: the session moves there, unless another request of it has moved it first; then theirs
    /// stands, and the client follows it. True when this request moved it.
    pub fn settle(&mut self, chosen: ServerIndex, homes: &Homes<'_>, now: UnixMillis) -> bool {
        let (Some(server), Some(place)) = (homes.pool.servers.get(chosen), homes.places.get(chosen)) else {
            return false;
        };
        match homes.table.rebind(self.key, self.binding.epoch, place, self.binding.created, now) {
            Rebound::Moved { epoch } => {
                self.binding = Binding { server: server.id, epoch, ..self.binding };
                true
            }
            Rebound::Already(known) => {
                if let Some(theirs) = homes.table.place_at(known.place) {
                    self.binding = Binding { server: theirs.id(), epoch: known.epoch, ..self.binding };
                }
                false
            }
        }
    }

    /// The token that its client must be given, if any.
    pub fn token_to_give(&self, limits: &Limits, now: UnixMillis) -> Option<(Token, Reissue)> {
        let why = must_reissue(&self.token, &self.binding, self.sealed_by_first, limits, now)?;
        Some((self.binding.token(self.id, now), why))
    }
}
