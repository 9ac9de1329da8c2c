//! From a checked configuration to a runtime. `homing check` runs it too, so that a configuration that cannot be built is
//! found before it is needed.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue};
use parking_lot::Mutex;

use crate::config::{self, Config};
use crate::limits::ListenerLimits;
use crate::message::WrittenName;
use crate::pool::Pool;
use crate::pool::tls::{PoolTls, SystemAuthorities, TlsBuildError};
use crate::routing::Router;
use crate::session::binding::Limits;
use crate::session::cookie::overflow;
use crate::session::cookie::write::{InvalidCookie, SetCookie};
use crate::session::source::client_ip::ClientIpSource;
use crate::session::source::{PoolContext, Source};
use crate::session::token::codec::PoolCodec;
use crate::session::token::keyring::{Keyring, KeyringError};
use crate::store::local::table::Table;
use crate::telemetry::metrics::{Metrics, RouteMetrics};
use crate::telemetry::trace::Sampling;

use crate::persistence::open_requests::outlasts_interval;
use crate::persistence::{HandoffSettings, OverflowCookie, PoolPersistence, PoolRuntime, Pools};

use crate::proxy::fast_path::FastPathPlan;

use super::acme::live::LiveCertificates;
use super::runtime::Runtime;
use super::tls;

/// One client: an IPv4 address, or the IPv6 network that a provider gives to one customer.
const HINT_PREFIXES: (u8, u8) = (32, 64);

/// A part that cannot be built although the check accepted it.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The keys.
    #[error("keys: {0}")]
    Keys(#[from] KeyringError),
    /// A cookie's attributes.
    #[error("persistence.cookie: {0}")]
    Cookie(#[from] InvalidCookie),
    /// `cache_control`.
    #[error("persistence.cookie.cache_control: {0}")]
    CacheControl(#[from] http::header::InvalidHeaderValue),
    /// The header of session data.
    #[error("persistence.handoff.header: {0}")]
    Handoff(#[from] http::header::InvalidHeaderName),
    /// Certificates.
    #[error("listeners[].tls: {0}")]
    Tls(#[from] rustls::Error),
    /// TLS to the servers of a pool.
    #[error("pools.{pool}.connection.tls: {why}")]
    ServerTls {
        /// The pool.
        pool: String,
        /// The reason.
        why: TlsBuildError,
    },
}

/// What a runtime is built on.
pub struct BuildContext<'a> {
    /// Has the targets of servers.
    pub table: &'a Table,
    /// Has the counters.
    pub metrics: &'a Metrics,
    /// Used when the configuration names no keys.
    pub generated_keys: &'a Keyring,
    /// Certificates that the proxy orders itself, which listeners show.
    pub acme: &'a Arc<LiveCertificates>,
    /// The runtime of the configuration before, whose live state is carried over.
    pub previous: Option<&'a Runtime>,
}

/// The keys of a configuration; `None` when it has none.
///
/// # Errors
/// When they make no keyring; the check excludes that.
pub fn keyring(config: &Config) -> Result<Option<Keyring>, KeyringError> {
    if config.keys.is_empty() {
        return Ok(None);
    }
    Keyring::new(config.keys.iter().map(|key| (key.id.as_str(), key.secret.expose().as_bytes()))).map(Some)
}

/// Builds the runtime of a configuration. Changes nothing that runs; new counters appear at zero.
///
/// # Errors
/// When something that the check accepted cannot be built, which is a bug of the check.
pub fn build(mut config: Config, context: &BuildContext<'_>) -> Result<Runtime, BuildError> {
    let configured = keyring(&config)?;
    let keys = configured.as_ref().unwrap_or(context.generated_keys);
    let routes = routes(&mut config, context);
    let system = SystemAuthorities::default();
    let before = context.previous.map(Runtime::pools_by_name).unwrap_or_default();
    let one = |pool: &config::Pool| {
        let previous = before.get(pool.name.as_str()).copied();
        let tls = server_tls(pool, &system, previous)?;
        build_pool(pool, tls, &config.listeners, keys, (context, previous))
    };
    let pools: Pools = config.pools.iter().map(one).collect::<Result<_, _>>()?;
    let tls = tls::build(&config, configured.as_ref(), context.acme, context.previous)?;
    let limits = config.listeners.iter().map(|listener| listener_limits(listener, context)).collect();
    Ok(Runtime {
        limits,
        log_key: keys.log_key().clone(),
        secret_parameters: secret_parameters(&config.pools),
        tracing: sampling(&config.tracing),
        router: routes.router,
        routes: routes.metrics,
        pools,
        tls,
        fast_path: FastPathPlan::new(&config),
        answers_challenges: answers_challenges(&config.listeners),
        config: Arc::new(config),
        of_streams: Mutex::default(),
    })
}

struct Routes {
    router: Arc<Router>,
    metrics: Arc<[RouteMetrics]>,
}

/// Routes that a reload leaves as they are stay the same objects: there may be ten thousand, and requests of the configuration
/// before may last for days.
fn routes(config: &mut Config, context: &BuildContext<'_>) -> Routes {
    let before = context
        .previous
        .filter(|before| before.config.routes == config.routes && before.config.pool_names() == config.pool_names());
    if let Some(before) = before {
        config.routes = Arc::clone(&before.config.routes);
        return Routes { router: Arc::clone(&before.router), metrics: Arc::clone(&before.routes) };
    }
    Routes {
        router: Arc::new(Router::build(&config.routes, &config.pool_names())),
        metrics: config.routes.iter().map(|route| context.metrics.route(&route.name)).collect(),
    }
}

/// A certificate is ordered with the challenge http-01.
fn answers_challenges(listeners: &[config::Listener]) -> bool {
    let acme = listeners.iter().filter_map(|listener| listener.tls.as_ref()?.acme.as_ref());
    acme.into_iter().any(|acme| acme.challenge == config::AcmeChallenge::Http01)
}

/// Without a collector no trace is recorded.
fn sampling(tracing: &config::Tracing) -> Option<Sampling> {
    let share = tracing.otlp.as_ref().map_or(0.0, |otlp| otlp.sample);
    tracing.propagates.then(|| Sampling::of(share))
}

/// The limits of a listener; what clients have used of them is kept over a reload.
fn listener_limits(listener: &config::Listener, context: &BuildContext<'_>) -> Arc<ListenerLimits> {
    let previous = context.previous.and_then(|runtime| {
        let index = runtime.config.listeners.iter().position(|before| before.address == listener.address)?;
        runtime.limits.get(index)
    });
    Arc::new(ListenerLimits::build(
        listener,
        previous.map(|one| &**one),
        context.metrics,
        rand::random(),
        Instant::now(),
    ))
}

/// Query parameters that name sessions, which logs must not show.
fn secret_parameters(pools: &[config::Pool]) -> Vec<Box<str>> {
    let policies = pools.iter().filter_map(|pool| pool.persistence.as_ref());
    let sources = policies.flat_map(|policy| policy.sources.iter().map(|source| source.carriers(&policy.cookie)));
    let mut names: Vec<Box<str>> = sources.filter_map(|carriers| carriers.query).map(Into::into).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// TLS to the servers of a pool; unchanged, it stays the same object.
fn server_tls(
    config: &config::Pool,
    system: &SystemAuthorities,
    previous: Option<&PoolRuntime>,
) -> Result<Option<Arc<PoolTls>>, BuildError> {
    let Some(tls) = &config.tls else { return Ok(None) };
    let built = PoolTls::build(tls, system, previous.and_then(|previous| previous.pool.tls.as_ref()));
    built.map(Some).map_err(|why| BuildError::ServerTls { pool: config.name.clone(), why })
}

fn build_pool(
    config: &config::Pool,
    tls: Option<Arc<PoolTls>>,
    listeners: &[config::Listener],
    keys: &Keyring,
    (context, previous): (&BuildContext<'_>, Option<&PoolRuntime>),
) -> Result<PoolRuntime, BuildError> {
    let pool = Pool::build(config, tls, previous.map(|previous| &previous.pool), context.metrics);
    let mut persistence =
        config.persistence.as_ref().map(|policy| persistence_plan(policy, config, keys, context.table)).transpose()?;
    if let Some(persistence) = &mut persistence {
        let silence = longest_silence(config, &persistence.policy, listeners);
        // A session is not moved to an emptier server while a request of it is in flight, however short.
        persistence.lists_all_requests =
            config.rebalance.is_some() || outlasts_interval(silence, persistence.limits.idle);
    }
    let sources: Vec<_> = persistence.iter().flat_map(|persistence| &persistence.sources).map(Source::label).collect();
    Ok(PoolRuntime {
        hash_on: (config.balance == config::Balance::Hash).then(|| config.hash_on.clone()),
        metrics: context.metrics.pool(&config.name, &sources),
        preserve_header_case: config.connection.preserve_header_case,
        persistence,
        pool,
    })
}

fn persistence_plan(
    policy: &config::Persistence,
    pool: &config::Pool,
    keys: &Keyring,
    table: &Table,
) -> Result<PoolPersistence, BuildError> {
    let servers: Vec<_> = pool.servers.iter().map(|server| (server.name.as_str(), server.route.as_str())).collect();
    let context = PoolContext { name: &pool.name, servers: &servers, cookie: &policy.cookie, keys };
    let sources: Vec<Source> = policy.sources.iter().map(|source| source.build(&context)).collect();
    let handoff = policy.handoff.enabled;
    Ok(PoolPersistence {
        learns: sources.iter().any(|source| match source {
            Source::Route(_) => handoff,
            source => matches!(source, Source::Learn(_)),
        }),
        has_token_header: sources.iter().any(|source| matches!(source, Source::Header(_))),
        sources,
        limits: Limits { idle: policy.idle_timeout, absolute: policy.absolute_timeout },
        codec: PoolCodec::new(keys, &pool.name),
        bind_to: policy.bind_to.as_deref().and_then(config::BindTo::parse),
        set_cookie: SetCookie::new(&policy.cookie, policy.absolute_timeout)?,
        overflow: overflow_plan(policy)?,
        cache_control: policy.cookie.cache_control.as_deref().map(HeaderValue::from_str).transpose()?,
        hint: (policy.new_session_hint == config::NewSessionHint::ClientIp)
            .then(|| ClientIpSource::new(HINT_PREFIXES, &pool.name, keys)),
        tombstone: table.target(&pool.name, ""),
        targets: pool.servers.iter().map(|server| table.target(&pool.name, &server.name)).collect(),
        lists_all_requests: true,
        handoff: policy.handoff.enabled.then(|| handoff_plan(&policy.handoff)).transpose()?,
        policy: policy.clone(),
    })
}

/// How long a request may be under way without a byte of its body or of its response, at most: it waits for its server, and
/// each of its attempts for a connection and for the response.
fn longest_silence(pool: &config::Pool, policy: &config::Persistence, listeners: &[config::Listener]) -> Duration {
    let connection = &pool.connection;
    let attempt =
        connection.connect_timeout.saturating_add(connection.write_timeout).saturating_add(connection.read_timeout);
    let attempts = attempt.saturating_mul(pool.retries.attempts.saturating_add(1));
    let body = listeners.iter().map(|listener| listener.timeouts.request_body).max().unwrap_or_default();
    attempts.saturating_add(pool.limits.queue_timeout).saturating_add(policy.hold).saturating_add(body)
}

/// In the modes prefix and rewrite.
fn overflow_plan(policy: &config::Persistence) -> Result<Option<OverflowCookie>, BuildError> {
    let reads_cookie = policy.sources.iter().any(|source| matches!(source, config::SourceSettings::Cookie(_)));
    if policy.cookie.mode == config::CookieMode::Insert || !reads_cookie {
        return Ok(None);
    }
    let cookie = config::Cookie { name: overflow::name_for(&policy.cookie.name), ..policy.cookie.clone() };
    Ok(Some(OverflowCookie {
        set_cookie: SetCookie::new(&cookie, policy.absolute_timeout)?,
        name: cookie.name.into(),
        warned: AtomicU64::new(0),
    }))
}

fn handoff_plan(handoff: &config::Handoff) -> Result<HandoffSettings, BuildError> {
    Ok(HandoffSettings {
        header: WrittenName {
            name: HeaderName::from_bytes(handoff.header.as_bytes())?,
            written: handoff.header.clone().into(),
        },
        max_size: handoff.max_size.bytes(),
        warned: AtomicU64::new(0),
    })
}
