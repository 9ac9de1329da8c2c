//! What would happen to a request's session now, and why, step by step. Nothing is changed: no visit is noted and no server
//! is told.

use crate::pool::condition::Condition;
use crate::session::binding::Lookup;
use crate::session::client_identity::ClientIdentity;
use crate::session::key::SessionKey;
use crate::session::source::SessionClaim;
use crate::session::token::{TokenError, UnixMillis};
use crate::store::TableLookup;

use super::outcome::{Outcome, Reason};
use super::pool::{PoolPersistence, PoolRuntime};
use super::resolve::lookup::{PoolSessions, ResolvedSession, UnboundKey, recognize};
use super::resolve::store_queries;
use super::scope::Scope;
use super::select::placement::{Choice, History, Placement, choose};
use super::sessions::Sessions;

/// One step: what was asked, and what it said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// A source, `table`, `store`, `server`, `policy` or `choice`.
    pub subject: String,
    /// What it said.
    pub said: String,
}

/// No certificate and no user is named.
const UNNAMED_CLIENT: &str = "sessions belong to clients, and none is named (certificate, user): a token counts as its own \
                              client's, and an id of the application is not found";

/// What would happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The steps, in their order.
    pub steps: Vec<Step>,
    /// The result of the lookup.
    pub lookup: Lookup,
    /// The label of the source that decided.
    pub source: Option<&'static str>,
    /// The session's key, also of one that does not live.
    pub key: Option<SessionKey>,
    /// The server that the session is bound to.
    pub server: Option<String>,
    /// How often it has moved.
    pub epoch: Option<u32>,
    /// When it began.
    pub created: Option<UnixMillis>,
    /// The server that would get the request; `None` when it is refused, or balanced.
    pub chosen: Option<String>,
    /// What that would mean to the session.
    pub outcome: Option<Outcome>,
    /// Why the session would not stay.
    pub reason: Option<Reason>,
}

impl Sessions {
    /// Explains a request of this pool. `identity`: of its client, where sessions are bound to one (`bind_to`). Reads the shared store where a request would.
    pub async fn explain(
        &self,
        runtime: &PoolRuntime,
        identity: Option<ClientIdentity>,
        scope: &Scope<'_, '_>,
    ) -> Explanation {
        let mut explanation = Explanation {
            steps: Vec::new(),
            lookup: Lookup::None,
            source: None,
            key: None,
            server: None,
            epoch: None,
            created: None,
            chosen: None,
            outcome: None,
            reason: None,
        };
        let session = if let Some((persistence, sessions)) = runtime.persistence.as_ref().zip(self.of(runtime)) {
            let sessions = PoolSessions { looks_only: true, ..sessions };
            self.explain_sources((persistence, identity.as_ref()), &sessions, scope, &mut explanation).await
        } else {
            explanation.step("policy", "the pool has no persistence: every request is balanced");
            None
        };
        explain_choice(session.as_ref(), runtime, scope.now, &mut explanation);
        explanation
    }

    async fn explain_sources(
        &self,
        (persistence, identity): (&PoolPersistence, Option<&ClientIdentity>),
        sessions: &PoolSessions<'_>,
        scope: &Scope<'_, '_>,
        explanation: &mut Explanation,
    ) -> Option<ResolvedSession> {
        if identity.is_none() && persistence.bind_to.is_some() {
            explanation.step("bind_to", UNNAMED_CLIENT);
        }
        for source in &persistence.sources {
            let mut claim = source.claim(&scope.input(), &persistence.codec);
            if let Some(identity) = identity {
                claim = claim.bound_to(identity);
            }
            explanation.step(source.label(), claim_text(&claim));
            if let Some(key) = key_of(&claim) {
                explanation.key = explanation.key.or(Some(key));
                self.explain_store(&claim, sessions, scope, explanation).await;
                explanation.step("table", table_text(sessions, &key, scope));
            }
            let recognition = recognize(&claim, sessions, scope.now);
            if recognition.session.is_some() || (explanation.source.is_none() && recognition.lookup != Lookup::None) {
                (explanation.lookup, explanation.source) = (recognition.lookup, Some(source.label()));
            }
            if let Some(UnboundKey::Id(key) | UnboundKey::Address(key)) = recognition.unbound {
                explanation.key = Some(key);
            }
            if let Some(session) = recognition.session {
                explanation.key = Some(session.key);
                explanation.epoch = Some(session.binding.epoch);
                explanation.created = Some(session.binding.created);
                return Some(session);
            }
        }
        None
    }

    async fn explain_store(
        &self,
        claim: &SessionClaim,
        sessions: &PoolSessions<'_>,
        scope: &Scope<'_, '_>,
        explanation: &mut Explanation,
    ) {
        let Some(store) = &self.shared else { return };
        let queries = store_queries(claim, store, sessions, scope.now);
        if queries.is_empty() {
            explanation.step("store", "not asked: the table has its word");
            return;
        }
        let said = match store.query(&queries, scope.now).await {
            Ok(()) => "asked; the table has what it said",
            Err(_) => "does not answer: the token and the table decide",
        };
        explanation.step("store", said);
    }
}

impl Explanation {
    fn step(&mut self, subject: impl Into<String>, said: impl Into<String>) {
        self.steps.push(Step { subject: subject.into(), said: said.into() });
    }
}

fn key_of(claim: &SessionClaim) -> Option<SessionKey> {
    match claim {
        SessionClaim::Token { token, .. } => Some(token.session.into()),
        SessionClaim::Ids(ids) => ids.first().map(|id| id.key),
        SessionClaim::Routed { key, .. } | SessionClaim::Unrouted(key) => Some(*key),
        SessionClaim::Address(id) => Some(id.key),
        SessionClaim::Nothing | SessionClaim::OtherPool | SessionClaim::OtherClient | SessionClaim::Forged(_) => None,
    }
}

fn token_error_text(error: TokenError) -> &'static str {
    match error {
        TokenError::Length => "it has not the length of a token",
        TokenError::Encoding => "it is not written as a token",
        TokenError::Version => "its version is unknown",
        TokenError::UnknownKey => "its key is not configured",
        TokenError::Seal => "its seal is broken",
    }
}

fn condition_text(condition: Condition) -> &'static str {
    match condition {
        Condition::Accepting => "takes new and bound sessions",
        Condition::Full => "full: new and bound sessions wait for it",
        Condition::BoundOnly => "takes bound sessions only",
        Condition::Maint => "in maint, takes none",
        Condition::Down => "down, takes none",
        Condition::Ejected => "ejected by its circuit breaker, takes none",
    }
}

fn claim_text(claim: &SessionClaim) -> String {
    match claim {
        SessionClaim::Nothing => "names no session".to_owned(),
        SessionClaim::OtherPool => "has a token of another pool".to_owned(),
        SessionClaim::OtherClient => {
            "has a token that opens, of a session that belongs to another client (bind_to): it is not honoured"
                .to_owned()
        }
        SessionClaim::Forged(error) => format!("has a token that does not open: {}", token_error_text(*error)),
        SessionClaim::Token { token, sealed_by_first } => {
            let key = if *sealed_by_first { "the key that seals now" } else { "an older key" };
            format!("has a token that opens with {key}; it says epoch {}", token.epoch)
        }
        SessionClaim::Ids(_) => "has an id of the application".to_owned(),
        SessionClaim::Routed { .. } => "has an id with the route id of a server".to_owned(),
        SessionClaim::Unrouted(_) => "has an id without the route id of any server".to_owned(),
        SessionClaim::Address(_) => "names the client by its address".to_owned(),
    }
}

fn table_text(sessions: &PoolSessions<'_>, key: &SessionKey, scope: &Scope<'_, '_>) -> String {
    match sessions.table.find(key, scope.now) {
        TableLookup::Live(entry) => match sessions.table.target_at(entry.target) {
            Some(target) if target.is_tombstone() => "the session was ended".to_owned(),
            Some(target) => format!("bound to {}, epoch {}", target.server(), entry.epoch),
            None => "bound to a server that is not known".to_owned(),
        },
        TableLookup::ExpiredIdle => "idle for longer than idle_timeout".to_owned(),
        TableLookup::ExpiredAbsolute => "older than absolute_timeout".to_owned(),
        TableLookup::Absent => "does not know it".to_owned(),
    }
}

/// Which server the request would get. A balanced request is not balanced for this: that would change the order of the next.
fn explain_choice(
    session: Option<&ResolvedSession>,
    runtime: &PoolRuntime,
    now: UnixMillis,
    explanation: &mut Explanation,
) {
    let name = |index: usize| runtime.pool.servers.get(index).map(|server| server.name.to_string());
    let policy = runtime.persistence.as_ref().map(|persistence| &persistence.policy);
    let Some(session) = session else {
        let issues = policy.is_some_and(|policy| policy.issue != crate::config::Issue::None);
        explanation.outcome = Some(if issues { Outcome::New } else { Outcome::Balanced });
        explanation.step("choice", "no session: the request is balanced over the servers that take new sessions");
        return;
    };
    match session.home.and_then(|home| runtime.pool.servers.get(home)) {
        Some(server) => {
            explanation.server = Some(server.name.to_string());
            explanation.step("server", format!("{}: {}", server.name, condition_text(server.condition())));
        }
        None => explanation.step("server", "the configuration does not have the session's server"),
    }
    match choose(&runtime.pool, policy, Some(session), &History::default(), Placement::Balanced(&[]), now) {
        Choice::To { server, outcome, reason } => {
            explanation.chosen = name(server);
            (explanation.outcome, explanation.reason) = (Some(outcome), reason);
            let why = reason.map_or_else(String::new, |reason| format!(", because of {}", reason.label()));
            let server = explanation.chosen.clone().unwrap_or_default();
            explanation.step("choice", format!("{server}: {}{why}", outcome.label()));
        }
        Choice::Refuse(reason) => {
            (explanation.outcome, explanation.reason) = (Some(Outcome::Refused), Some(reason));
            explanation.step("policy", format!("refused, because of {}", reason.label()));
        }
        Choice::Hold(_) => explanation.step("policy", "waits for the server (hold), then chooses again"),
        Choice::Full(_) => explanation.step("choice", "waits for the first server that has room"),
        Choice::Fail | Choice::NoServer { .. } => explanation.step("choice", "no server may take it now"),
    }
}
