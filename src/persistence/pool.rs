//! What sessions need to know of a pool, prepared from the configuration.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use http::HeaderValue;

use crate::config;
use crate::message::WrittenName;
use crate::pool::Pool;
use crate::session::binding::Limits;
use crate::session::cookie::write::SetCookie;
use crate::session::source::Source;
use crate::session::source::client_ip::ClientIpSource;
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
    /// Writes its cookie.
    pub set_cookie: SetCookie,
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

    /// The cookie that carries the token is our own, and not the application's.
    pub fn owns_cookie(&self) -> bool {
        self.policy.cookie.mode == config::CookieMode::Insert
    }
}
