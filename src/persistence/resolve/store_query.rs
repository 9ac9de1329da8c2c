//! Where several proxies share a store: whom the store must be asked for before a request's session can be recognised.

use smallvec::SmallVec;

use super::Homes;
use crate::session::key::SessionKey;
use crate::session::source::{Id, Presented};
use crate::session::token::{Token, UnixMillis};
use crate::store::TableLookup;
use crate::store::shared::{SharedStore, StoreQuery};

/// Few name more than one.
pub type StoreQueries = SmallVec<[StoreQuery; 2]>;

/// The sessions that a request presents and that the table does not know well enough. Notes the visit of those that it
/// does.
pub fn wanted(presented: &Presented, store: &SharedStore, homes: &Homes<'_>, now: UnixMillis) -> StoreQueries {
    let mut all = StoreQueries::new();
    let mut want = |key, without_token| {
        let wanted = store.query_for(key, homes.tombstone, without_token, homes.hands_over, now);
        let must = wanted.is_some();
        all.extend(wanted);
        must
    };
    match presented {
        Presented::Token { token, .. } => {
            want(token.session.into(), false);
        }
        // What a mark says stands, unless the session was ended.
        Presented::Mark { key, .. } => {
            want(*key, false);
        }
        Presented::Ids(ids) => {
            for id in ids {
                if want(id.key, true) {
                    all_former(id, &mut want);
                } else if homes.lives(&id.key, now) == Some(true) {
                    break;
                }
            }
        }
        Presented::Address(id) => {
            if want(id.key, true) {
                all_former(id, &mut want);
            }
        }
        Presented::Nobody | Presented::OtherPool | Presented::Forged(_) | Presented::Unmarked(_) => {}
    }
    all
}

/// While keys are rotated a session may still be bound under a former key.
fn all_former(id: &Id, want: &mut impl FnMut(SessionKey, bool) -> bool) {
    for former in &id.former {
        want(*former, true);
    }
}

/// Whether the request names a session that lives, so that no further source is asked.
pub fn names_a_live_one(presented: &Presented, homes: &Homes<'_>, now: UnixMillis) -> bool {
    match presented {
        Presented::Token { token, .. } => {
            homes.lives(&token.session.into(), now).unwrap_or_else(|| is_in_time(token, homes, now))
        }
        Presented::Mark { key, .. } => homes.lives(key, now).unwrap_or(true),
        Presented::Ids(ids) => ids.iter().any(|id| homes.lives(&id.key, now) == Some(true)),
        Presented::Address(id) => homes.lives(&id.key, now) == Some(true),
        Presented::Nobody | Presented::OtherPool | Presented::Forged(_) | Presented::Unmarked(_) => false,
    }
}

impl Homes<'_> {
    /// What the table says of a session; `None` when it knows nothing.
    fn lives(&self, key: &SessionKey, now: UnixMillis) -> Option<bool> {
        match self.table.find(key, now) {
            TableLookup::Live(known) => Some(!self.is_over(&known)),
            _ => None,
        }
    }
}

fn is_in_time(token: &Token, homes: &Homes<'_>, now: UnixMillis) -> bool {
    now.since(token.issued) < homes.limits.idle && now.since(token.created) < homes.limits.absolute
}
