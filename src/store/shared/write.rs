//! Writing decisions to the store. Where another proxy may be deciding the same, the store is written before the table and
//! the loser adopts the winner's record; otherwise the table is changed first and the store gets its entry.
//!
//! A write that fails stays pending, and the request goes on as if there were no store.

use std::sync::Arc;

use http::HeaderValue;

use crate::session::key::SessionKey;
use crate::session::token::UnixMillis;
use crate::store::TableLookup;
use crate::store::engine::record::BindingRecord;
use crate::store::engine::{Kind, Name, Value};
use crate::store::local::data::Owner;
use crate::store::targets::{Target, TargetIndex};
use crate::telemetry::metrics::{StoreOperation, StoreResult};

use super::store::{SharedStore, StoreUnavailable};

/// How often an assignment is repeated when other proxies write the same session concurrently.
const MAX_ATTEMPTS: usize = 4;

/// A move that is about to happen.
#[derive(Debug, Clone, Copy)]
pub struct Move<'a> {
    /// The session.
    pub key: SessionKey,
    /// The new server.
    pub to: &'a Target,
    /// Its new epoch.
    pub epoch: u32,
    /// When it began.
    pub created: UnixMillis,
    /// The header `Homing-Session-Moved`, until the new server has answered below 500.
    pub moved_header: Option<&'a str>,
}

impl SharedStore {
    /// Binds a session whose first request is about to go to `target`, for all proxies, unless the store has a binding: then
    /// that is adopted.
    ///
    /// # Errors
    /// When the store did not answer. The table decides alone, and its entry must be [`write_behind`](Self::write_behind).
    pub async fn claim(&self, key: SessionKey, target: &Target, now: UnixMillis) -> Result<(), StoreUnavailable> {
        let record = BindingRecord { server: Some(target.server()), epoch: 0, created: now, moved_header: None };
        let Some(existing) = self.put(key, target, &record, now).await? else { return Ok(()) };
        if existing.server.is_some() && !Self::is_expired(&existing, target, now) {
            self.adopt(key, target, &existing, true, now);
            return Ok(());
        }
        // It has ended, so it begins again, in the table too.
        let table = &self.context.table;
        table.restore(key, &table.target(target.pool(), ""), existing.epoch, now, now);
        let next = BindingRecord { epoch: existing.epoch.saturating_add(1), ..record };
        if let Some(existing) = self.put(key, target, &next, now).await? {
            self.adopt(key, target, &existing, true, now);
        }
        Ok(())
    }

    /// Moves a session for all proxies, unless another one was first: then its record is adopted.
    ///
    /// # Errors
    /// As [`claim`](Self::claim).
    pub async fn rebind(
        &self,
        Move { key, to, epoch, created, moved_header }: Move<'_>,
        now: UnixMillis,
    ) -> Result<(), StoreUnavailable> {
        let record =
            BindingRecord { server: Some(to.server()), epoch, created, moved_header: moved_header.map(Into::into) };
        if let Some(existing) = self.put(key, to, &record, now).await? {
            self.adopt(key, to, &existing, true, now);
        }
        Ok(())
    }

    /// Writes an assignment by a server that is already in the table: it overrides the binding for all proxies.
    ///
    /// # Errors
    /// When the store did not answer. The write is pending then.
    pub async fn assign(&self, key: SessionKey, target: &Target, now: UnixMillis) -> Result<(), StoreUnavailable> {
        for _ in 0..MAX_ATTEMPTS {
            match self.publish(key, true, now).await {
                Err(StoreUnavailable) => {
                    self.assign_behind(key);
                    return Err(StoreUnavailable);
                }
                // The existing record has been adopted.
                Ok(Some(existing)) if existing.server != Some(target.server()) => {
                    self.context.table.assign(key, target, now);
                }
                Ok(_) => break,
            }
        }
        Ok(())
    }

    /// Writes the table's entry, if there is one. A conflicting record is adopted and returned. An expired record does not
    /// stand against a live session; neither does a tombstone when `assigned`: a server has assigned the session to itself.
    pub(super) async fn publish(
        &self,
        key: SessionKey,
        assigned: bool,
        now: UnixMillis,
    ) -> Result<Option<BindingRecord>, StoreUnavailable> {
        let table = &self.context.table;
        for _ in 0..MAX_ATTEMPTS {
            let TableLookup::Live(entry) = table.find(&key, now) else { return Ok(None) };
            let Some(target) = table.target_at(entry.target).map(Arc::clone) else { return Ok(None) };
            let server = (!target.is_tombstone()).then(|| target.server());
            let record = BindingRecord { server, epoch: entry.epoch, created: entry.created, moved_header: None };
            let Some(existing) = self.put(key, &target, &record, now).await? else {
                if target.is_tombstone() {
                    self.forget_data(key, now).await?;
                }
                return Ok(None);
            };
            let void = Self::is_expired(&existing, &target, now) || (assigned && existing.server.is_none());
            if !void || target.is_tombstone() {
                self.adopt(key, &target, &existing, false, now);
                return Ok(Some(existing));
            }
            table.apply_remote(&key, &target, existing.epoch.saturating_add(1), entry.created);
        }
        Ok(None)
    }

    /// Writes one record. Returns the existing one that it conflicts with.
    async fn put(
        &self,
        key: SessionKey,
        pool: &Target,
        record: &BindingRecord,
        now: UnixMillis,
    ) -> Result<Option<BindingRecord>, StoreUnavailable> {
        let name = Name::new(pool.pool(), key, Kind::Binding);
        let (value, ttl) = (record.value(&self.node), Self::ttl(pool, record.created, now));
        let conflict = if record.epoch == 0 {
            self.write(StoreOperation::Bind, self.engine.bind(&name, &value, ttl)).await
        } else {
            self.write(StoreOperation::Move, self.engine.rebind(&name, &value, ttl)).await
        };
        let conflict = conflict?;
        self.freshness.record_write(key, now);
        // A record in another format is from a later version and cannot be adopted.
        Ok(conflict.and_then(|value| BindingRecord::read(&value)))
    }

    /// Queues a write of the session's table entry, or of its data.
    pub fn write_behind(&self, key: SessionKey, kind: Kind) {
        self.add_pending(key, kind, false);
    }

    /// Queues a write after an [`assign`](Self::assign)ment by a server.
    pub fn assign_behind(&self, key: SessionKey) {
        self.add_pending(key, Kind::Binding, true);
    }

    fn add_pending(&self, key: SessionKey, kind: Kind, assigned: bool) {
        if !self.pending.add(key, kind, assigned) {
            let operation = if kind == Kind::Binding { StoreOperation::Move } else { StoreOperation::DataPut };
            self.context.metrics.store.count(operation, StoreResult::Dropped);
        }
        self.context.metrics.store.set_pending(self.pending.len());
        self.queues.wake.notify_one();
    }

    /// Whether the store is known to hold a record of the session.
    pub fn is_stored(&self, key: &SessionKey) -> bool {
        self.freshness.is_stored(key)
    }

    /// Writes the data that a server has handed over for a session (`None` = the data was removed).
    ///
    /// # Errors
    /// When the store did not answer. The write is pending then.
    pub async fn put_data(
        &self,
        owner: &Owner,
        data: Option<&HeaderValue>,
        now: UnixMillis,
    ) -> Result<(), StoreUnavailable> {
        let result = self.try_put_data(owner, data, now).await;
        if result.is_err() {
            self.write_behind(owner.key, Kind::Data);
        }
        result
    }

    pub(super) async fn try_put_data(
        &self,
        owner: &Owner,
        data: Option<&HeaderValue>,
        now: UnixMillis,
    ) -> Result<(), StoreUnavailable> {
        let Some(pool) = self.context.table.target_at(owner.pool) else { return Ok(()) };
        let name = Name::new(pool.pool(), owner.key, Kind::Data);
        let value = Value::new(owner.epoch, data.map_or(&[], |data| data.as_bytes()));
        let ttl = Self::ttl(pool, owner.created, now);
        self.write(StoreOperation::DataPut, self.engine.rebind(&name, &value, ttl)).await?;
        Ok(())
    }

    /// Removes the session's data from the store.
    pub(super) async fn forget_data(&self, key: SessionKey, now: UnixMillis) -> Result<(), StoreUnavailable> {
        let table = &self.context.table;
        let TableLookup::Live(entry) = table.find(&key, now) else { return Ok(()) };
        let Some(target) = table.target_at(entry.target) else { return Ok(()) };
        let names = [Name::new(target.pool(), key, Kind::Data)];
        Ok(self.read(StoreOperation::Forget, self.engine.forget(&names)).await?)
    }

    /// Reads the session's data from the store, unless a write of it is pending.
    ///
    /// # Errors
    /// When the store did not answer.
    pub async fn fetch_data(
        &self,
        key: SessionKey,
        created: UnixMillis,
        pool: TargetIndex,
        now: UnixMillis,
    ) -> Result<(), StoreUnavailable> {
        let table = &self.context.table;
        let Some(target) = table.target_at(pool).filter(|_| !self.pending.contains(key, Kind::Data)) else {
            return Ok(());
        };
        let names = [Name::new(target.pool(), key, Kind::Data)];
        let values = self.read(StoreOperation::DataGet, self.engine.lookup(&names)).await?;
        let Some(value) = values.into_iter().flatten().next() else { return Ok(()) };
        let owner = Owner { key, epoch: value.epoch(), created, pool };
        match HeaderValue::from_bytes(value.rest()) {
            Ok(data) if !data.is_empty() => {
                self.context.data.keep(&owner, &data, table, now);
            }
            _ => self.context.data.forget(&key),
        }
        Ok(())
    }
}
