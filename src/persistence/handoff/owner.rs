//! The session to which data belongs, and what its server has not been given yet.

use http::StatusCode;

use crate::config::Issue;
use crate::persistence::outcome::Outcome;
use crate::persistence::pool::{PoolPersistence, PoolRuntime};
use crate::persistence::resolve::{IdentifiedBy, ResolvedSession};
use crate::persistence::scope::{RequestSession, Scope};
use crate::persistence::sessions::Sessions;
use crate::session::key::SessionKey;
use crate::session::source::Source;
use crate::store::TableLookup;
use crate::store::local::data::Owner;

use super::moved_header::leaving;

/// The moved header that the responding server still has to be given, by other proxies too, since it did not respond with a
/// status below 500. Only where servers hand data over.
pub(in crate::persistence) fn undelivered(
    sessions: &Sessions,
    status: StatusCode,
    state: &RequestSession,
) -> Option<String> {
    let injected = state.injected.as_ref().filter(|_| status.is_server_error() && sessions.shared.is_some())?;
    injected.payload.moved_header.as_ref()?.to_str().ok().map(str::to_owned)
}

/// The session as its client will name it after this response: by the source that is read first. Never by an address: that
/// is shared by clients, and data belongs to one.
pub(super) fn owner(sessions: &Sessions, scope: &Scope<'_, '_>, state: &RequestSession) -> Option<Owner> {
    let persistence = state.persistence(scope)?;
    let pool = persistence.tombstone.index();
    let learned = state
        .response_ids
        .learned
        .and_then(|(index, key)| Some((index, learned_owner(index, key, persistence, sessions, scope)?)));
    let issued = state.response_ids.token.and_then(|key| {
        let index = persistence.sources.iter().position(|source| carries(source, persistence.policy.issue))?;
        Some((index, Owner { key, epoch: 0, created: scope.now, pool }))
    });
    let named = named(scope, state).map(|owner| (state.lookup.source.unwrap_or(usize::MAX), owner));
    // Of two of one source the first: an id that the response issues replaces the one that the request carried.
    [learned, issued, named].into_iter().flatten().min_by_key(|(index, _)| *index).map(|(_, owner)| owner)
}

/// The session of an id that the response issues; the table knows it by now, unless its route id names its server.
fn learned_owner(
    index: usize,
    key: SessionKey,
    persistence: &PoolPersistence,
    sessions: &Sessions,
    scope: &Scope<'_, '_>,
) -> Option<Owner> {
    let pool = persistence.tombstone.index();
    match sessions.table.find(&key, scope.now) {
        TableLookup::Live(known) if known.target != pool => {
            Some(Owner { key, epoch: known.epoch, created: known.created, pool })
        }
        TableLookup::Absent if matches!(persistence.sources.get(index), Some(Source::Route(_))) => {
            Some(Owner { key, epoch: 0, created: scope.now, pool })
        }
        _ => None,
    }
}

/// New clients are given the token of this source.
const fn carries(source: &Source, issue: Issue) -> bool {
    matches!(
        (issue, source),
        (Issue::Cookie, Source::Cookie(_)) | (Issue::Query, Source::Query(_)) | (Issue::Header, Source::Header(_))
    )
}

/// The session that the request named, as it stands now, if it belongs to one client.
pub(super) fn named(scope: &Scope<'_, '_>, state: &RequestSession) -> Option<Owner> {
    // A guest of another version belongs to that version.
    let (session, runtime) = match (state.session(), state.outcome) {
        (Some(session), _) => (session, state.runtime(scope)?),
        (None, Some(Outcome::Borrowed)) => leaving(scope, state)?,
        _ => return None,
    };
    let is_own = session.identified_by != IdentifiedBy::Address && !state.response_ids.ended;
    is_own.then(|| owner_of(session, runtime)).flatten()
}

pub(super) fn owner_of(session: &ResolvedSession, runtime: &PoolRuntime) -> Option<Owner> {
    let (epoch, created) = (session.binding.epoch, session.binding.created);
    Some(Owner { key: session.key, epoch, created, pool: runtime.persistence.as_ref()?.tombstone.index() })
}
