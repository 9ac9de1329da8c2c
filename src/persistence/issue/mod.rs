//! What the client gets with a response: a token when it needs one, in the carrier that it understands.

mod cache_control;
mod due_token;
pub(super) mod guest_cookies;
mod links;
mod set_cookie;

use http::{HeaderValue, StatusCode};

use crate::message::{ResponseEdits, ResponseView};
use crate::pool::ServerIndex;
use crate::session::key::SessionKey;
use crate::session::source::Source;
use crate::telemetry::metrics::TokenReason;

use super::handoff;
use super::outcome::Outcome;
use super::pool::PoolPersistence;
use super::scope::{RequestSession, Scope};
use super::sessions::Sessions;

use self::due_token::{Carrier, DueToken, current_carrier, due, seal};
pub use self::links::{PageRewrite, PageRewriteError, ask_readable};

/// What is done to a response. Filled by reference: it is large to move.
#[derive(Default)]
pub struct Issued<'a> {
    /// Changes to its head.
    pub edits: ResponseEdits<'a>,
    /// It is a page whose links are rewritten while it streams through.
    pub page: Option<Box<PageRewrite>>,
}

impl Sessions {
    /// Decides what is changed in a response of a server, for each head of it, 1xx too. Afterwards the shared store may
    /// must get session data: see [`is_data_published`](Self::is_data_published).
    pub fn issue<'a>(
        &self,
        response: &ResponseView<'_>,
        server: ServerIndex,
        scope: &Scope<'a, '_>,
        state: &mut RequestSession,
        issued: &mut Issued<'a>,
    ) {
        let extracted = handoff::extract(response, scope, state, &mut issued.edits);
        if !response.is_final() {
            return;
        }
        // A 304 updates what a cache holds, and a token does not belong there; it comes with the next response. But a
        // cookie that the application sets in it would replace the one that has the token.
        if guest_cookies::is_guest(scope, state)
            && let Some(runtime) = state.runtime(scope)
        {
            guest_cookies::hold_back(response, runtime, scope, &mut issued.edits);
        }
        let carries_token =
            response.status != StatusCode::NOT_MODIFIED || set_cookie::sets_cookie_of_token(response, scope, state);
        if carries_token {
            give_token(response, server, scope, state, issued);
        }
        handoff::settle(response.status, extracted, server, self, scope, state);
    }
}

/// Puts the token into the response when it must be there.
fn give_token<'a>(
    response: &ResponseView<'_>,
    server: ServerIndex,
    scope: &Scope<'a, '_>,
    state: &mut RequestSession,
    issued: &mut Issued<'a>,
) {
    let Some(runtime) = state.runtime(scope) else { return };
    let Some(persistence) = &runtime.persistence else { return };
    if persistence.has_token_header {
        remove_token_headers(response, persistence, &mut issued.edits);
    }
    let Some(responding) = runtime.pool.servers.get(server).map(|server| server.id) else { return };
    let due = due(responding, persistence, scope, state);
    let given = match due.as_ref().map(|due| due.carrier).or_else(|| current_carrier(persistence, state)) {
        Some(Carrier::Cookie) => set_cookie::put(response, due.as_ref(), persistence, scope, state, &mut issued.edits),
        Some(Carrier::Header) => by_header(response, due.as_ref(), persistence, scope, &mut issued.edits),
        Some(Carrier::Query) => {
            match links::put(response, due.as_ref(), persistence, scope, state, &mut issued.edits) {
                Some(rewritten) => {
                    issued.page = rewritten.page;
                    true
                }
                None => false,
            }
        }
        None => false,
    };
    let Some(due) = due else { return };
    if given {
        runtime.metrics.tokens.inc(due.reason as usize);
        if let Some(server) = runtime.pool.find(due.token.server).and_then(|server| runtime.pool.servers.get(server)) {
            server.live.drain.token_issued(scope.now);
        }
        if due.reason == TokenReason::New {
            state.created = Some(SessionKey::from(due.token.session));
            state.response_ids.token = state.created;
        }
    } else if state.outcome == Some(Outcome::New) && state.created.is_none() {
        // The application set no cookie that could carry it: the client has no session.
        state.outcome = Some(Outcome::Balanced);
    }
}

/// A header that carries the proxy's token is the proxy's alone: clients keep whatever comes in it.
fn remove_token_headers(response: &ResponseView<'_>, persistence: &PoolPersistence, edits: &mut ResponseEdits<'_>) {
    for source in &persistence.sources {
        if let Source::Header(source) = source
            && let Some(name) = &source.name
            && response.fields.contains(&name.name)
        {
            edits.remove.push(name.name.clone());
        }
    }
}

fn by_header<'a>(
    response: &ResponseView<'_>,
    due: Option<&DueToken>,
    persistence: &'a PoolPersistence,
    scope: &Scope<'_, '_>,
    edits: &mut ResponseEdits<'a>,
) -> bool {
    let Some(due) = due else { return false };
    let name = persistence.sources.iter().find_map(|source| match source {
        Source::Header(source) => source.name.as_ref(),
        _ => None,
    });
    let Some(name) = name else { return false };
    let token = seal(&due.token, persistence, scope);
    // The alphabet of tokens is that of header values.
    let Ok(value) = HeaderValue::from_bytes(token.as_bytes()) else { return false };
    edits.set.push((name, value));
    cache_control::keep_private(response, persistence, edits);
    true
}
