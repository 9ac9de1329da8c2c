//! What an operator does to one session: move it, end it.

use std::sync::Arc;

use http::HeaderValue;

use crate::pool::ServerIndex;
use crate::session::key::SessionKey;
use crate::session::token::UnixMillis;
use crate::store::engine::Kind;
use crate::store::local::data::Owner;
use crate::store::local::table::Table;
use crate::store::shared::Move;
use crate::store::{EndReason, RebindResult, TableEntry, TableLookup};
use crate::telemetry::events::{self, Change, EventKind};

use super::outcome::Reason;
use super::pool::PoolRuntime;
use super::sessions::Sessions;

impl Sessions {
    /// The session of a pool that has this key, when it lives: its entry in the table.
    pub fn entry(&self, key: &SessionKey, runtime: &PoolRuntime, now: UnixMillis) -> Option<TableEntry> {
        let TableLookup::Live(entry) = self.table.find(key, now) else { return None };
        let target = self.table.target_at(entry.target)?;
        (!target.is_tombstone() && target.pool() == &*runtime.pool.name).then_some(entry)
    }

    /// Moves a session to another server, on all proxies of a shared store. What its server handed over follows it with its
    /// next request. False when it has ended or moved meanwhile.
    pub async fn move_by_operator(
        &self,
        key: SessionKey,
        to: ServerIndex,
        runtime: &PoolRuntime,
        who: &str,
        now: UnixMillis,
    ) -> bool {
        let Some((entry, persistence)) = self.entry(&key, runtime, now).zip(runtime.persistence.as_ref()) else {
            return false;
        };
        let Some((target, server)) = persistence.targets.get(to).zip(runtime.pool.servers.get(to)) else {
            return false;
        };
        let from = self.table.target_at(entry.target).map_or_else(|| Arc::from("unknown"), |target| target.server());
        let epoch = entry.epoch.saturating_add(1);
        let moved_header = persistence
            .handoff
            .as_ref()
            .map(|_| format!("from={from}; reason={}; epoch={epoch}", Reason::Admin.label()));
        let mut stored = true;
        if let Some(store) = &self.shared {
            let moved_header = moved_header.as_deref();
            let change = Move { key, to: target, epoch, created: entry.created, moved_header };
            stored = store.rebind(change, now).await.is_ok();
        }
        if !matches!(self.table.rebind(key, entry.epoch, target, entry.created, now), RebindResult::Moved { .. }) {
            return false;
        }
        if let (false, Some(store)) = (stored, &self.shared) {
            store.write_behind(key, Kind::Binding);
        }
        if let Some(header) = moved_header.and_then(|header| HeaderValue::try_from(header).ok()) {
            let owner = Owner { key, epoch, created: entry.created, pool: persistence.tombstone.index() };
            self.data.record_move(&owner, entry.epoch, Some(header), &self.table, now);
        }
        runtime.metrics.moves.inc(Reason::Admin as usize);
        runtime.metrics.server_moves.inc(&from, &server.name);
        tracing::info!(pool = %runtime.pool.name, %from, to = %server.name, reason = "admin", who, "session moved");
        let change = Change::new(EventKind::Move).pool(&runtime.pool.name).values(&from, &server.name);
        events::record(change.reason(Reason::Admin.label()).who(who).session(key.0));
        true
    }

    /// Ends a session on all proxies of a shared store. A token of it is not honoured any more. False when it has ended
    /// already.
    pub fn end_by_operator(&self, key: SessionKey, runtime: &PoolRuntime, who: &str, now: UnixMillis) -> bool {
        let Some((entry, persistence)) = self.entry(&key, runtime, now).zip(runtime.persistence.as_ref()) else {
            return false;
        };
        self.data.forget(&key);
        // The table does not know whether a client has a token of it. With this epoch none can bring it back; an id that a
        // server issues again begins anew above it.
        self.table.insert_tombstone(
            key,
            &persistence.tombstone,
            Table::FINAL_EPOCH,
            (entry.created, now),
            EndReason::Admin,
        );
        if let Some(store) = &self.shared {
            store.write_behind(key, Kind::Binding);
        }
        let server = self.table.target_at(entry.target).map_or_else(|| Arc::from("unknown"), |target| target.server());
        tracing::info!(pool = %runtime.pool.name, %server, who, "session ended");
        let change = Change::new(EventKind::SessionEnded).pool(&runtime.pool.name).server(&server);
        events::record(change.reason("admin").who(who).session(key.0));
        true
    }
}
