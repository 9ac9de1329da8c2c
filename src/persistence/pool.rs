//! What sessions need to know of a pool, prepared from the configuration.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use http::HeaderValue;
use smallvec::SmallVec;

use crate::config;
use crate::message::WrittenName;
use crate::pool::drain::{DrainFacts, DrainProgress};
use crate::pool::rebalance::Load;
use crate::pool::server::Server;
use crate::pool::{Pool, ServerIndex};
use crate::session::binding::Limits;
use crate::session::cookie::scope::RequestUri;
use crate::session::cookie::write::SetCookie;
use crate::session::source::Source;
use crate::session::source::client_ip::ClientIpSource;
use crate::session::token::UnixMillis;
use crate::session::token::codec::PoolCodec;
use crate::store::targets::Target;
use crate::telemetry::metrics::PoolMetrics;

/// A pool and all that its requests need.
pub struct PoolRuntime {
    /// Servers and balancing.
    pub pool: Pool,
    /// What `balance: hash` hashes; `None` with another balance.
    pub hash_on: Option<config::HashOn>,
    /// Counters.
    pub metrics: PoolMetrics,
    /// How sessions stay; `None` = they do not.
    pub persistence: Option<PoolPersistence>,
    /// Names of headers go on as HTTP/1 peers wrote them.
    pub preserve_header_case: bool,
}

/// How the table of this process came to what it has.
#[derive(Debug, Clone, Copy)]
pub struct TableHistory {
    /// Time since the process started.
    pub age: Duration,
    /// The table was read from a snapshot at start.
    pub restored: bool,
    /// Bindings are in a store that other proxies share, too.
    pub shared: bool,
}

impl PoolRuntime {
    /// Whether the table has all sessions of this pool. After a start without a snapshot it has only those that have come
    /// back: the others are in tokens, or in the shared store. After an idle timeout none is left to come.
    pub fn has_all_sessions(&self, history: &TableHistory) -> bool {
        let Some(persistence) = &self.persistence else { return true };
        let kept_elsewhere = history.shared || self.has_tokens();
        history.restored || !kept_elsewhere || history.age >= persistence.limits.idle
    }

    /// Compares the servers by the sessions that the table has for them, for `rebalance`.
    pub fn compare_servers(&self, history: &TableHistory) {
        if let Some(rebalance) = &self.pool.rebalance {
            rebalance.update(self.loads(history).as_deref());
        }
    }

    /// The sessions of each server; `None` while the table does not have them all.
    fn loads(&self, history: &TableHistory) -> Option<Vec<Load>> {
        let persistence = self.persistence.as_ref().filter(|_| self.has_all_sessions(history))?;
        let load = |(server, target): (&Server, &Arc<Target>)| {
            let takes = self.pool.weight_now(server) > 0.0;
            Load { sessions: target.sessions(), weight: if takes { server.weight() } else { 0 } }
        };
        Some(self.pool.servers.iter().zip(&persistence.targets).map(load).collect())
    }

    /// How far a server has drained; `None` = it does not drain.
    pub fn drain_progress(
        &self,
        server: ServerIndex,
        history: &TableHistory,
        now: UnixMillis,
    ) -> Option<DrainProgress> {
        let (drains, persistence) = (self.pool.servers.get(server)?, self.persistence.as_ref());
        // A drain that a health check has just asked for is noted within a moment.
        let asked_for = || (drains.state_in_force() == config::ServerState::Drain).then_some(now);
        let started = drains.live.drain.started().or_else(asked_for)?;
        let facts = DrainFacts {
            started,
            drain_deadline: drains.drain_deadline,
            bound: persistence.and_then(|one| one.targets.get(server)).map_or(0, |target| target.sessions()),
            idle_timeout: persistence.map(|one| one.limits.idle),
            last_token: drains.live.drain.last_token(),
            last_earlier_token: self.last_earlier_token(started, history, now),
        };
        Some(DrainProgress::of(&facts, now))
    }

    /// When an earlier process may have given the last token that names a draining server and whose session the table does
    /// not have; `None` = there is none.
    fn last_earlier_token(
        &self,
        drain_started: UnixMillis,
        history: &TableHistory,
        now: UnixMillis,
    ) -> Option<UnixMillis> {
        let age = u64::try_from(history.age.as_millis()).unwrap_or(u64::MAX);
        let process_started = UnixMillis(now.0.saturating_sub(age));
        if !self.has_all_sessions(history) {
            return Some(process_started);
        }
        // A snapshot has those that came back. Others were given before the drain began.
        self.has_tokens().then(|| drain_started.min(process_started))
    }

    fn has_tokens(&self) -> bool {
        let sources = self.persistence.iter().flat_map(|persistence| &persistence.policy.sources);
        sources.into_iter().any(config::SourceSettings::reads_token)
    }
}

/// How the sessions of a pool stay, prepared.
pub struct PoolPersistence {
    /// What the configuration says.
    pub policy: config::Persistence,
    /// Where its sessions are named, in order of trial.
    pub sources: Vec<Source>,
    /// Idle and absolute timeout.
    pub limits: Limits,
    /// Seals and opens this pool's tokens.
    pub codec: PoolCodec,
    /// What sessions belong to besides; `None` = to nothing.
    pub bind_to: Option<config::BindTo>,
    /// Writes its cookie.
    pub set_cookie: SetCookie,
    /// Carries the token where the application's cookie has no room for it; `None` when the cookie is the proxy's own.
    pub overflow: Option<OverflowCookie>,
    /// Added to answers that set the cookie.
    pub cache_control: Option<HeaderValue>,
    /// Names new clients by their address; `None` = no hints.
    pub hint: Option<ClientIpSource>,
    /// The pool's servers in the table, by server index.
    pub targets: Vec<Arc<Target>>,
    /// The table's target of ended sessions.
    pub tombstone: Arc<Target>,
    /// Servers may hand over data of their sessions; `None` = they may not.
    pub handoff: Option<HandoffSettings>,
    /// Responses may issue ids, which are learned.
    pub learns: bool,
    /// A request is listed as use of its session from its start, since it may be silent for so long that this matters.
    pub lists_all_requests: bool,
    /// A source reads the token from a header, which is then the proxy's in responses too.
    pub has_token_header: bool,
}

/// The cookie that carries the token where the application's has no room for it, prepared.
pub struct OverflowCookie {
    /// Its name.
    pub name: Box<str>,
    /// Writes it.
    pub set_cookie: SetCookie,
    /// The minute (since 1970) of the last warning. Relaxed: the response that changes it warns.
    pub warned: AtomicU64,
}

/// How servers of a pool hand over data of their sessions, prepared.
pub struct HandoffSettings {
    /// The header that carries it, both ways.
    pub header: WrittenName,
    /// Most data of one session, in bytes.
    pub max_size: usize,
    /// The minute (since 1970) of the last warning of data that was refused. Relaxed: whoever changes it warns.
    pub warned: AtomicU64,
}

impl PoolPersistence {
    /// Tokens are read from a cookie, ours or the application's. Without that every cookie is the application's own.
    pub fn reads_cookie(&self) -> bool {
        self.sources.iter().any(|source| matches!(source, Source::Cookie(_)))
    }

    /// The Set-Cookie values that delete the client's token, wherever it is.
    pub fn clear_cookies(&self, secure: bool) -> SmallVec<[HeaderValue; 2]> {
        let overflow = self.overflow.iter().map(|overflow| &overflow.set_cookie);
        [&self.set_cookie].into_iter().chain(overflow).map(|set_cookie| set_cookie.clear(secure)).collect()
    }

    /// Whether a new session's token may be issued in the response to this request. The proxy's own cookie is set only
    /// where browsers send it back; elsewhere it would begin a session that is never continued.
    pub fn can_issue<'a>(&self, uri: impl FnOnce() -> RequestUri<'a>) -> bool {
        self.policy.issue != config::Issue::Cookie || !self.owns_cookie() || self.set_cookie.belongs_to(uri)
    }

    /// The cookie that carries the token is our own, and not the application's.
    pub fn owns_cookie(&self) -> bool {
        self.policy.cookie.mode == config::CookieMode::Insert
    }
}
