//! What a response says of the application's own session id. Read when its head arrives, so that the next request of a
//! client that already has its id finds its server while the body still streams.

use http::StatusCode;

use crate::message::ResponseView;
use crate::pool::ServerIndex;
use crate::session::key::SessionKey;
use crate::session::source::Source;

use super::issue::guest_cookies::{is_guest, sends_cookie};
use super::outcome::Outcome;
use super::resolve::{IdentifiedBy, ResolvedSession};
use super::scope::{RequestSession, Scope};
use super::sessions::Sessions;

/// Binds the ids that the response issues, and ends the session that it ends. What must be written to the shared store is left
/// in `state.learned`.
pub(super) fn learn(
    sessions: &Sessions,
    response: &ResponseView<'_>,
    server: ServerIndex,
    scope: &Scope<'_, '_>,
    state: &mut RequestSession,
) {
    let Some(persistence) = state.persistence(scope) else { return };
    let status = response.status;
    let granted = status.is_success() || matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE);
    let guest = is_guest(scope, state);
    for (index, source) in persistence.sources.iter().enumerate() {
        match source {
            // The client keeps the id of its own server: the guest's is held back.
            Source::Learn(learn)
                if guest && learn.cookie_name().is_some_and(|name| sends_cookie(name.as_bytes(), scope)) => {}
            Source::Learn(learn) => {
                let mut ids = learn.learned(response.fields, &scope.uri(), scope.now);
                if let Some(identity) = persistence.identity(scope) {
                    ids = ids.bound_to(&identity);
                }
                let ends = granted && learn.ends_on(scope.request.method);
                // An id for another path is not the name of a session that the request has named.
                let elsewhere = ids.issued.last().filter(|_| state.session().is_none());
                let issued = ids.current.or(elsewhere.copied()).map(|id| (index, id));
                state.response_ids.learned = state.response_ids.learned.or(issued);
                for id in &ids.issued {
                    if bind(*id, server, sessions, scope, state) && sessions.shared.is_some() {
                        state.learned.push(*id);
                    }
                }
                // The same id for another path: the client keeps its session.
                let stays = state.session().is_some_and(|session| ids.issued.contains(&session.key));
                if ends || (ids.expired && !stays) {
                    end(index, sessions, scope, state);
                }
            }
            // The route id names the server; the key says whose session data comes with it.
            Source::Route(route) if persistence.handoff.is_some() => {
                let issued = route.issued(response.fields, &scope.uri(), scope.now).map(|id| (index, id));
                state.response_ids.learned = state.response_ids.learned.or(issued);
            }
            _ => {}
        }
    }
}

/// Ends the request's session, if the source of this index named it: no other source can end it.
fn end(index: usize, sessions: &Sessions, scope: &Scope<'_, '_>, state: &mut RequestSession) {
    if state.lookup.source == Some(index)
        && let (Some(session), Some(runtime)) = (state.session(), state.runtime(scope))
        && session.identified_by == IdentifiedBy::Id
    {
        sessions.end(session, runtime, scope.now);
        state.response_ids.ended = true;
    }
}

/// The server that responds issues this id. True when that is news, or may be news to the shared store: a client without a
/// session is issued an id that is bound here already, by an entry that may be old, when the session has ended on another
/// proxy and begins again.
fn bind(
    id: SessionKey,
    server: ServerIndex,
    sessions: &Sessions,
    scope: &Scope<'_, '_>,
    state: &mut RequestSession,
) -> bool {
    let is_same = |session: &&ResolvedSession| session.identified_by == IdentifiedBy::Id && session.key == id;
    let same = state.session().filter(is_same);
    let (Some(runtime), Some(persistence)) = (state.runtime(scope), state.persistence(scope)) else { return false };
    let (Some(responding), Some(target)) = (runtime.pool.servers.get(server), persistence.targets.get(server)) else {
        return false;
    };
    if same.is_some_and(|session| session.binding.server == responding.id || state.outcome == Some(Outcome::Borrowed)) {
        // It is bound there already; or it is a guest there, and its own server keeps it.
        return false;
    }
    let begins = same.is_none();
    let news = sessions.table.assign(id, target, scope.now);
    if news && begins {
        state.created = Some(id);
        if state.outcome == Some(Outcome::Balanced) {
            state.outcome = Some(Outcome::New);
        }
    }
    news || state.lookup.session.is_none()
}
