//! Where several proxies share a store: whom the store must be asked for before a request's session can be recognised.

use std::sync::Arc;

use smallvec::SmallVec;

use super::Homes;
use crate::session::source::{Id, Presented};
use crate::session::token::{Token, UnixMillis};
use crate::store::Found;
use crate::store::guarded::{SharedStore, Wanted};

/// Few name more than one.
pub type AllWanted = SmallVec<[Wanted; 2]>;

/// The sessions that a request presents and that the table does not know well enough. Notes the visit of those that it
/// does.
pub fn wanted(presented: &Presented, store: &SharedStore, homes: &Homes<'_>, now: UnixMillis) -> AllWanted {
    let mut all = AllWanted::new();
    let mut want = |key, only_here| {
        let wanted = Wanted { key, pool: Arc::clone(homes.nowhere), only_here };
        let must = store.must_ask(&wanted, homes.hands_over, now);
        if must {
            all.push(wanted);
        }
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
            // One that has ended stands in nobody's way: the next may live.
            let over = |key| matches!(homes.table.find(key, now), Found::Live(known) if homes.is_over(&known));
            for id in ids {
                if want(id.key, true) {
                    all_former(id, &mut want);
                } else if !over(&id.key) {
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
fn all_former(id: &Id, want: &mut impl FnMut(crate::session::key::SessionKey, bool) -> bool) {
    for former in &id.former {
        want(*former, true);
    }
}

/// Whether the request names a session that lives, so that no further source is asked.
pub fn names_a_live_one(presented: &Presented, homes: &Homes<'_>, now: UnixMillis) -> bool {
    let lives = |key| match homes.table.find(key, now) {
        Found::Live(known) => Some(!homes.is_over(&known)),
        _ => None,
    };
    match presented {
        Presented::Token { token, .. } => lives(&token.session.into()).unwrap_or_else(|| is_in_time(token, homes, now)),
        Presented::Mark { key, .. } => lives(key).unwrap_or(true),
        Presented::Ids(ids) => ids.iter().any(|id| lives(&id.key) == Some(true)),
        Presented::Address(id) => lives(&id.key) == Some(true),
        Presented::Nobody | Presented::OtherPool | Presented::Forged(_) | Presented::Unmarked(_) => false,
    }
}

fn is_in_time(token: &Token, homes: &Homes<'_>, now: UnixMillis) -> bool {
    now.since(token.issued) < homes.limits.idle && now.since(token.created) < homes.limits.absolute
}
