//! Sessions of the table: listed, found by their key, moved and ended.
//!
//! The table is read shard by shard: each is locked only while it is copied. Reading goes in short pieces with pauses, during
//! which traffic and other requests of the API go on. Within a shard sessions are in the order of their keyed hashes, which does
//! not change while others come and go.

use std::sync::Arc;

use http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::admin::access::Caller;
use crate::admin::problem::Problem;
use crate::admin::request::AdminRequest;
use crate::app::runtime::Runtime;
use crate::app::state::AppState;
use crate::persistence::PoolRuntime;
use crate::session::key::SessionKey;
use crate::session::source::Source;
use crate::session::token::UnixMillis;
use crate::store::targets::TargetIndex;
use crate::store::{TableEntry, TableLookup};
use crate::telemetry::events;
use crate::telemetry::move_history::SessionMove;

use super::explained::ExplainedSessions;
use super::pace::Pace;
use super::paging::{PageWriter, Paging, cursor};
use super::view::{MoveView, SessionView};

/// Where a session goes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MoveRequest {
    /// The name of a server of its pool.
    server: String,
}

/// Which sessions are wanted.
struct Filter {
    pool: Option<String>,
    server: Option<String>,
}

/// A place in the table: a shard, and the last keyed hash of it that was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    shard: usize,
    after: Option<u128>,
}

impl Position {
    const START: Self = Self { shard: 0, after: None };

    pub(super) fn parse(text: &str) -> Option<Self> {
        let (shard, after) = text.split_once('.')?;
        Some(Self { shard: shard.parse().ok()?, after: Some(u128::from_str_radix(after, 16).ok()?) })
    }
}

/// A page as JSON.
pub(crate) async fn list(app: &Arc<AppState>, request: &AdminRequest) -> Result<Vec<u8>, Problem> {
    let [pool, server, limit, from] = request.parameters(["pool", "server", "limit", "cursor"])?;
    let paging = Paging::of(limit.as_deref(), from.as_deref())?;
    let runtime = app.current.load_full();
    let filter = Filter { pool, server };
    filter.check(&runtime)?;
    let mut position = match &paging.after {
        None => Position::START,
        Some(text) => Position::parse(text).ok_or_else(|| Problem::bad_request("cursor: take it from \"next\""))?,
    };
    let (mut page, mut pace) = (PageWriter::new(), Pace::new());
    while position.shard < app.sessions.table.shards() {
        for (digest, entry) in shard(app, &runtime, position, &filter, &mut pace).await {
            page.push(&view(app, &runtime, digest, &entry))?;
            if page.items() == paging.limit {
                return page.finish(Some(&cursor(&format!("{}.{digest:x}", position.shard))));
            }
            pace.pause_when_due().await;
        }
        position = Position { shard: position.shard + 1, after: None };
    }
    page.finish(None)
}

impl Filter {
    fn check(&self, runtime: &Runtime) -> Result<(), Problem> {
        let Some(name) = &self.pool else {
            return match self.server {
                Some(_) => Err(Problem::bad_request("server: needs a pool too")),
                None => Ok(()),
            };
        };
        let pool = pool_of(runtime, name)?;
        match &self.server {
            Some(server) if pool.pool.server_named(server).is_none() => {
                Err(Problem::not_found(format!("pool {name:?} has no server {server:?}")))
            }
            _ => Ok(()),
        }
    }

    fn admits(&self, app: &AppState, target: TargetIndex) -> bool {
        app.sessions.table.target_at(target).is_some_and(|target| {
            !target.is_tombstone()
                && self.pool.as_deref().is_none_or(|pool| pool == target.pool())
                && self.server.as_deref().is_none_or(|server| *server == *target.server())
        })
    }
}

/// The live sessions of a shard behind the position, in the order of their keyed hashes.
async fn shard(
    app: &AppState,
    runtime: &Runtime,
    position: Position,
    filter: &Filter,
    pace: &mut Pace,
) -> Vec<(u128, TableEntry)> {
    let (mut copied, now) = (Vec::new(), (app.clock)());
    app.sessions.table.copy_shard(position.shard, &mut copied);
    let mut found = Vec::with_capacity(copied.len());
    for (key, entry) in copied {
        pace.pause_when_due().await;
        if !filter.admits(app, entry.target) {
            continue;
        }
        let digest = runtime.log_key.digest(key);
        let is_behind = position.after.is_none_or(|after| digest > after);
        if is_behind && matches!(app.sessions.table.find(&key, now), TableLookup::Live(_)) {
            found.push((digest, entry));
        }
    }
    found.sort_unstable_by_key(|(digest, _)| *digest);
    found
}

fn pool_of<'a>(runtime: &'a Runtime, name: &str) -> Result<&'a PoolRuntime, Problem> {
    let pool = runtime.pools.iter().find(|pool| &*pool.pool.name == name);
    pool.ok_or_else(|| Problem::not_found(format!("pool {name:?} does not exist")))
}

/// The session of a pool with this keyed hash. Reads the whole table, in pieces. One that only its token knew comes into the
/// table, as it does with a request.
async fn find(
    app: &Arc<AppState>,
    explained: &ExplainedSessions,
    runtime: &Runtime,
    (pool, digest): (&str, &str),
) -> Result<(SessionKey, u128), Problem> {
    pool_of(runtime, pool)?;
    let unknown = || Problem::not_found(format!("the table has no session {digest:?} of pool {pool:?}"));
    let wanted = u128::from_str_radix(digest, 16).ok().filter(|_| digest.len() == 32).ok_or_else(unknown)?;
    let filter = Filter { pool: Some(pool.to_owned()), server: None };
    let (mut copied, mut pace) = (Vec::new(), Pace::new());
    for index in 0..app.sessions.table.shards() {
        copied.clear();
        app.sessions.table.copy_shard(index, &mut copied);
        for (key, entry) in &copied {
            if filter.admits(app, entry.target) && runtime.log_key.digest(*key) == wanted {
                return Ok((*key, wanted));
            }
            pace.pause_when_due().await;
        }
    }
    let now = (app.clock)();
    let found = explained.find(pool, now, |key| runtime.log_key.digest(key) == wanted).ok_or_else(unknown)?;
    let target = app.sessions.table.target(pool, &found.server);
    app.sessions.table.restore(found.key, &target, found.epoch, found.created, now);
    Ok((found.key, wanted))
}

pub(crate) async fn get(
    app: &Arc<AppState>,
    explained: &ExplainedSessions,
    pool: &str,
    digest: &str,
) -> Result<SessionView, Problem> {
    let runtime = app.current.load_full();
    let (key, digest) = find(app, explained, &runtime, (pool, digest)).await?;
    one(app, &runtime, pool, key, digest)
}

fn one(app: &AppState, runtime: &Runtime, pool: &str, key: SessionKey, digest: u128) -> Result<SessionView, Problem> {
    let entry = app.sessions.entry(&key, pool_of(runtime, pool)?, (app.clock)());
    let entry = entry.ok_or_else(|| Problem::not_found("the session has ended meanwhile"))?;
    Ok(SessionView { moves: moves_of(key, entry.created), ..view(app, runtime, digest, &entry) })
}

pub(crate) async fn end(
    app: &Arc<AppState>,
    explained: &ExplainedSessions,
    (pool, digest): (&str, &str),
    caller: &Caller,
) -> Result<(), Problem> {
    let runtime = app.current.load_full();
    let (key, _) = find(app, explained, &runtime, (pool, digest)).await?;
    if app.sessions.end_by_operator(key, pool_of(&runtime, pool)?, &caller.name, (app.clock)()) {
        return Ok(());
    }
    Err(Problem::not_found("the session has ended meanwhile"))
}

pub(crate) async fn relocate(
    app: &Arc<AppState>,
    explained: &ExplainedSessions,
    (pool, digest): (&str, &str),
    MoveRequest { server }: MoveRequest,
    caller: &Caller,
) -> Result<SessionView, Problem> {
    let runtime = app.current.load_full();
    let (key, digest) = find(app, explained, &runtime, (pool, digest)).await?;
    let found = pool_of(&runtime, pool)?;
    let to = found.pool.servers.iter().position(|one| *one.name == *server);
    let to = to.ok_or_else(|| Problem::unprocessable(format!("pool {pool:?} has no server {server:?}")))?;
    let session = one(app, &runtime, pool, key, digest)?;
    if session.server == server {
        return Ok(session);
    }
    let moved = app.sessions.move_by_operator(key, to, found, &caller.name, (app.clock)()).await;
    if !moved {
        return Err(Problem::new(StatusCode::CONFLICT, "the session has moved or ended meanwhile; look at it again"));
    }
    one(app, &runtime, pool, key, digest)
}

fn view(app: &AppState, runtime: &Runtime, digest: u128, entry: &TableEntry) -> SessionView {
    let target = app.sessions.table.target_at(entry.target);
    let pool = target.map_or_else(String::new, |target| target.pool().to_owned());
    let persistence = runtime.pools.iter().find(|one| *one.pool.name == *pool).and_then(|one| one.persistence.as_ref());
    let source = match persistence.map(|persistence| persistence.sources.as_slice()) {
        Some([first, rest @ ..]) => {
            Some(Source::label(first)).filter(|label| rest.iter().all(|other| Source::label(other) == *label))
        }
        _ => None,
    };
    SessionView {
        key: format!("{digest:032x}"),
        server: target.map_or_else(String::new, |target| target.server().to_string()),
        epoch: entry.epoch,
        created: entry.created.into(),
        last_seen: entry.last_seen.into(),
        source,
        moves: Vec::new(),
        pool,
    }
}

fn moves_of(key: SessionKey, created: UnixMillis) -> Vec<MoveView> {
    let moves = events::moves().of(key.0, created.0);
    let view = |made: SessionMove| MoveView {
        at: UnixMillis(made.at).into(),
        from: made.from.as_ref().to_owned(),
        to: made.to.as_ref().to_owned(),
        reason: made.reason.as_ref().to_owned(),
    };
    moves.into_iter().map(view).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_survives_its_text() {
        let position = Position { shard: 17, after: Some(u128::MAX / 3) };
        assert_eq!(Position::parse(&format!("17.{:x}", u128::MAX / 3)), Some(position));
        for text in ["", "17", "x.1", "1.", "1.x"] {
            assert_eq!(Position::parse(text), None, "{text}");
        }
    }
}
