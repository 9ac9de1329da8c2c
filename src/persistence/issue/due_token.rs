//! Whether the client must be given a token, which one, and in what.

use crate::config::Issue;
use crate::persistence::outcome::Outcome;
use crate::persistence::pool::PoolPersistence;
use crate::persistence::resolve::IdentifiedBy;
use crate::persistence::scope::{RequestSession, Scope};
use crate::session::binding::{Binding, Reissue};
use crate::session::key::{ServerId, SessionId};
use crate::session::source::Source;
use crate::session::token::{Token, TokenText};
use crate::telemetry::metrics::TokenReason;

/// What brings a token to its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carrier {
    Cookie,
    Query,
    Header,
}

/// A token that the client must be given.
pub(super) struct DueToken {
    pub(super) token: Token,
    pub(super) reason: TokenReason,
    pub(super) carrier: Carrier,
}

/// How the client's own token came.
pub(super) fn current_carrier(persistence: &PoolPersistence, state: &RequestSession) -> Option<Carrier> {
    match (state.session()?.identified_by, state.source(persistence)?) {
        (IdentifiedBy::Token { .. }, Source::Cookie(_)) => Some(Carrier::Cookie),
        (IdentifiedBy::Token { .. }, Source::Query(_)) => Some(Carrier::Query),
        (IdentifiedBy::Token { .. }, Source::Header(_)) => Some(Carrier::Header),
        _ => None,
    }
}

/// The token that the client must be given, if any.
pub(super) fn due(
    responding: ServerId,
    persistence: &PoolPersistence,
    scope: &Scope<'_, '_>,
    state: &RequestSession,
) -> Option<DueToken> {
    match (state.session(), state.outcome?) {
        (None, Outcome::New | Outcome::Moved) => first_token(responding, persistence, scope),
        // An address is shared: its client still gets its own token, for the server of the address.
        (Some(session), _) if session.identified_by == IdentifiedBy::Address => {
            first_token(session.binding.server, persistence, scope)
        }
        (Some(session), _) => {
            let (token, why) = session.token_to_give(&persistence.limits, scope.now)?;
            let reason = match why {
                Reissue::Moved => TokenReason::Moved,
                Reissue::KeyRotated => TokenReason::KeyRotated,
                Reissue::Refreshed => TokenReason::Refreshed,
            };
            Some(DueToken { token, reason, carrier: current_carrier(persistence, state)? })
        }
        (None, _) => None,
    }
}

/// The token of a new session.
fn first_token(server: ServerId, persistence: &PoolPersistence, scope: &Scope<'_, '_>) -> Option<DueToken> {
    let carrier = match persistence.policy.issue {
        Issue::Cookie => Carrier::Cookie,
        Issue::Query => Carrier::Query,
        Issue::Header => Carrier::Header,
        Issue::None => return None,
    };
    if !persistence.can_issue(|| scope.uri()) {
        return None;
    }
    let mut random = [0; 16];
    (scope.random)(&mut random);
    let session = match persistence.identity(scope) {
        Some(identity) => identity.session_id(random),
        None => SessionId::from_random(random),
    };
    let token = Binding::new(server, scope.now).token(session, scope.now);
    Some(DueToken { token, reason: TokenReason::New, carrier })
}

pub(super) fn seal(token: &Token, persistence: &PoolPersistence, scope: &Scope<'_, '_>) -> TokenText {
    let mut nonce = [0; 24];
    (scope.random)(&mut nonce);
    persistence.codec.seal(token, nonce)
}

/// The token that is due, else the one that says what stands now.
pub(super) fn current_token(due: Option<&DueToken>, scope: &Scope<'_, '_>, state: &RequestSession) -> Option<Token> {
    due.map(|due| due.token).or_else(|| state.session()?.token_now(scope.now))
}
