//! Pools and their servers, and what operators set for them.

use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use tokio::task::spawn_blocking;

use crate::admin::access::Caller;
use crate::admin::problem::Problem;
use crate::app::overrides::OverrideError;
use crate::app::runtime::Runtime;
use crate::app::state::AppState;
use crate::config::ServerState;
use crate::persistence::PoolRuntime;
use crate::pool::breaker::BreakerState;
use crate::pool::condition::Health;
use crate::pool::operator::{Override, Patch};
use crate::pool::server::Server;

use super::paging::{Paging, page_of};
use super::view::{OverrideView, Page, PoolView, ServerView};

use std::sync::Arc;

/// A change of a server: only what is named changes, `null` takes it back.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(clippy::option_option, reason = "a field that is not there differs from one that is null")]
pub(crate) struct ServerPatch {
    #[serde(default, deserialize_with = "named")]
    #[schemars(with = "Option<ServerState>")]
    state: Option<Option<ServerState>>,
    #[serde(default, deserialize_with = "named_weight")]
    #[schemars(with = "Option<u16>")]
    weight: Option<Option<u16>>,
}

/// A field that is there, though it may be `null`.
#[expect(clippy::option_option, reason = "see ServerPatch")]
fn named<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

#[expect(clippy::option_option, reason = "see ServerPatch")]
fn named_weight<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<u16>>, D::Error> {
    named(deserializer)
        .map_err(|_other_type| D::Error::custom("weight: a whole number from 0 to 65535 is expected, or null"))
}

pub(crate) fn list(app: &AppState, paging: &Paging) -> Result<Page<PoolView, Option<String>>, Problem> {
    let runtime = app.current.load_full();
    let names: Vec<&str> = runtime.pools.iter().map(|pool| &*pool.pool.name).collect();
    let (shown, next) = page_of(&names, paging)?;
    let items = shown.filter_map(|index| Some(pool_view(runtime.pools.get(index)?, &runtime, app))).collect();
    Ok(Page { items, next })
}

fn pool_view(pool: &PoolRuntime, runtime: &Runtime, app: &AppState) -> PoolView {
    let config = runtime.config.pools.iter().find(|config| config.name == *pool.pool.name);
    let indices = 0..pool.pool.servers.len();
    PoolView {
        name: pool.pool.name.to_string(),
        balance: config.map_or("round_robin", |config| config.balance.into()),
        servers: indices.filter_map(|index| server_view(pool, index, app)).collect(),
    }
}

fn server_view(pool: &PoolRuntime, index: usize, app: &AppState) -> Option<ServerView> {
    let server = pool.pool.servers.get(index)?;
    let targets = pool.persistence.as_ref().map(|persistence| &persistence.targets);
    Some(ServerView {
        name: server.name.to_string(),
        address: server.address.to_string(),
        weight: server.weight(),
        effective_weight: pool.pool.weight_now(server),
        state: server.state_in_force().into(),
        file_state: server.file_state.into(),
        r#override: server.live.operator_override().map(|set| override_view(&set)),
        health: health(server),
        breaker: server.breaker().map_or("closed", BreakerState::label),
        sessions: targets.and_then(|targets| targets.get(index)).map_or(0, |target| target.sessions()),
        sessions_complete: app.has_all_sessions(pool),
        in_flight: server.live.in_flight(),
        queued: server.live.queued(),
        streams: server.live.streams(),
        removed: server.removed,
        drain: pool.drain_progress(index, &app.table_history(), (app.clock)()).map(Into::into),
    })
}

fn override_view(set: &Override) -> OverrideView {
    OverrideView { state: set.state.map(Into::into), weight: set.weight, by: set.by.to_string(), at: set.at.into() }
}

/// Without health checks only requests tell, and what they told last is not a state.
fn health(server: &Server) -> &'static str {
    match server.live.health() {
        _ if !server.is_checked() => "unknown",
        Health::Up | Health::Draining => "up",
        Health::Down => "down",
        Health::Unknown => "unknown",
    }
}

pub(crate) async fn patch(
    app: &Arc<AppState>,
    (pool, server): (&str, &str),
    patch: ServerPatch,
    caller: &Caller,
) -> Result<ServerView, Problem> {
    set(app, (pool, server), Patch { state: patch.state, weight: patch.weight }, caller).await
}

pub(crate) async fn clear(app: &Arc<AppState>, server: (&str, &str), caller: &Caller) -> Result<ServerView, Problem> {
    set(app, server, Patch::CLEAR, caller).await
}

async fn set(
    app: &Arc<AppState>,
    (pool, server): (&str, &str),
    patch: Patch,
    caller: &Caller,
) -> Result<ServerView, Problem> {
    let (shared, names) = (Arc::clone(app), (pool.to_owned(), server.to_owned()));
    let who = caller.name.clone();
    let change = move || {
        let server = (names.0.as_str(), names.1.as_str());
        shared.overrides.patch(&shared.current, server, patch, &who, (shared.clock)())
    };
    // It may wait for a disk.
    match spawn_blocking(change).await {
        Ok(Ok(())) => {}
        Ok(Err(error @ OverrideError::NotWritten(_))) => {
            return Err(Problem::new(http::StatusCode::INTERNAL_SERVER_ERROR, format!("nothing was changed: {error}")));
        }
        Ok(Err(error)) => return Err(Problem::not_found(error.to_string())),
        Err(_) => return Err(Problem::new(http::StatusCode::INTERNAL_SERVER_ERROR, "the change was interrupted")),
    }
    let runtime = app.current.load_full();
    let gone = || Problem::not_found(format!("server {pool}/{server} was removed meanwhile"));
    let pool = runtime.pools.iter().find(|found| &*found.pool.name == pool).ok_or_else(gone)?;
    let index = pool.pool.servers.iter().position(|found| &*found.name == server).ok_or_else(gone)?;
    server_view(pool, index, app).ok_or_else(gone)
}
