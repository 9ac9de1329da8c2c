//! What the shared store must be asked before a request's session can be resolved.

use smallvec::SmallVec;

use super::PoolSessions;
use crate::session::key::SessionKey;
use crate::session::source::{ExternalId, SessionClaim};
use crate::session::token::UnixMillis;
use crate::store::TableLookup;
use crate::store::shared::{SharedStore, StoreQuery};

/// Few requests name more than one session.
pub type StoreQueries = SmallVec<[StoreQuery; 2]>;

/// The sessions that a source presents and that the table does not know well enough.
pub fn store_queries(
    claim: &SessionClaim,
    store: &SharedStore,
    sessions: &PoolSessions<'_>,
    now: UnixMillis,
) -> StoreQueries {
    let mut all = StoreQueries::new();
    let mut want = |key, only_here| {
        let wanted = store.query_for(key, sessions.tombstone, only_here, sessions.hands_over, now);
        let must = wanted.is_some();
        all.extend(wanted);
        must
    };
    match claim {
        // A token that says that its session has expired may be wrong: an open stream keeps the session alive, perhaps on
        // another proxy.
        SessionClaim::Token { token, .. } => {
            let old = now.since(token.issued) >= sessions.limits.idle;
            let over = now.since(token.created) >= sessions.limits.absolute;
            want(token.session.into(), old && !over);
        }
        // A route id is valid unless the session was ended.
        SessionClaim::Routed { key, .. } => {
            want(*key, false);
        }
        SessionClaim::Ids(ids) => {
            for id in ids {
                if want(id.key, true) {
                    all_former(id, &mut want);
                } else if sessions.lives(&id.key, now) == Some(true) {
                    break;
                }
            }
        }
        SessionClaim::Address(id) => {
            if want(id.key, true) {
                all_former(id, &mut want);
            }
        }
        SessionClaim::Nothing
        | SessionClaim::OtherPool
        | SessionClaim::OtherClient
        | SessionClaim::Forged(_)
        | SessionClaim::Unrouted(_) => {}
    }
    all
}

/// While keys are rotated a session may still be bound under a former key.
fn all_former(id: &ExternalId, want: &mut impl FnMut(SessionKey, bool) -> bool) {
    for former in &id.former {
        want(*former, true);
    }
}

impl PoolSessions<'_> {
    /// What the table says of a session; `None` when it knows nothing.
    fn lives(&self, key: &SessionKey, now: UnixMillis) -> Option<bool> {
        match self.table.find(key, now) {
            TableLookup::Live(known) => Some(!self.is_over(&known)),
            _ => None,
        }
    }
}
