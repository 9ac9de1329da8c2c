//! What is decided here comes into the store. Where another proxy may be deciding the same, the store is told first and
//! the loser adopts what stands; where not, the table is changed first and the store is told what the table says.
//!
//! What the store could not be told is kept for later, and the caller goes on as if there were no store.

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

use super::{SharedStore, StoreUnavailable};

/// A server that calls a session its own is heard so often, when others claim it at the same time.
const MOST_CLAIMS: usize = 4;

/// A session that is about to move.
#[derive(Debug, Clone, Copy)]
pub struct Move<'a> {
    /// The session.
    pub key: SessionKey,
    /// Where it goes.
    pub to: &'a Target,
    /// Its epoch from then on.
    pub epoch: u32,
    /// When it began.
    pub created: UnixMillis,
    /// What its new server has still to be told of it, by whichever proxy asks it next.
    pub moved_header: Option<&'a str>,
}

impl SharedStore {
    /// The first request of this key, seen from here, is about to go to `target`, and binds it there for all proxies,
    /// unless one was first or the session is bound there still: then that comes into the table.
    ///
    /// # Errors
    /// When the store did not say. The table decides alone, and must be [`write_behind`](Self::write_behind).
    pub async fn claim(&self, key: SessionKey, target: &Target, now: UnixMillis) -> Result<(), StoreUnavailable> {
        let record = BindingRecord { server: Some(target.server().into()), epoch: 0, created: now, moved_header: None };
        let Some(theirs) = self.put(key, target, &record, now).await? else { return Ok(()) };
        if theirs.server.is_some() && !Self::has_lasted(&theirs, target, now) {
            self.adopt(key, target, &theirs, true, now);
            return Ok(());
        }
        // It is over; so it begins anew, in the table too.
        let table = &self.context.table;
        table.restore(key, &table.target(target.pool(), ""), theirs.epoch, now, now);
        let anew = BindingRecord { epoch: theirs.epoch.saturating_add(1), ..record };
        if let Some(theirs) = self.put(key, target, &anew, now).await? {
            self.adopt(key, target, &theirs, true, now);
        }
        Ok(())
    }

    /// The session is about to move, for all proxies, unless one was first: then that comes into the table.
    ///
    /// # Errors
    /// As [`claim`](Self::claim).
    pub async fn rebind(
        &self,
        Move { key, to, epoch, created, moved_header }: Move<'_>,
        now: UnixMillis,
    ) -> Result<(), StoreUnavailable> {
        let record = BindingRecord {
            server: Some(to.server().into()),
            epoch,
            created,
            moved_header: moved_header.map(Into::into),
        };
        if let Some(theirs) = self.put(key, to, &record, now).await? {
            self.adopt(key, to, &theirs, true, now);
        }
        Ok(())
    }

    /// A server has said that the session is its own, and the table knows: so it is for all proxies, whatever they knew.
    ///
    /// # Errors
    /// When the store did not say. It is told later.
    pub async fn assign(&self, key: SessionKey, target: &Target, now: UnixMillis) -> Result<(), StoreUnavailable> {
        for _ in 0..MOST_CLAIMS {
            match self.publish(key, true, now).await {
                Err(StoreUnavailable) => {
                    self.assign_behind(key);
                    return Err(StoreUnavailable);
                }
                // Theirs has come into the table.
                Ok(Some(theirs)) if theirs.server.as_deref() != Some(target.server()) => {
                    self.context.table.assign(key, target, now);
                }
                Ok(_) => break,
            }
        }
        Ok(())
    }

    /// The store is told what the table says of the session, if it says anything; what stands instead comes into the table
    /// and is returned. What is as old as it may be does not stand against a session that is not; nor, when `insists`, does
    /// one that has ended: a server has called this one its own.
    pub(super) async fn publish(
        &self,
        key: SessionKey,
        insists: bool,
        now: UnixMillis,
    ) -> Result<Option<BindingRecord>, StoreUnavailable> {
        let table = &self.context.table;
        for _ in 0..MOST_CLAIMS {
            let TableLookup::Live(known) = table.find(&key, now) else { return Ok(None) };
            let Some(target) = table.target_at(known.target).map(Arc::clone) else { return Ok(None) };
            let server = (!target.is_tombstone()).then(|| target.server().into());
            let record = BindingRecord { server, epoch: known.epoch, created: known.created, moved_header: None };
            let Some(theirs) = self.put(key, &target, &record, now).await? else {
                if target.is_tombstone() {
                    self.forget_data(key, now).await?;
                }
                return Ok(None);
            };
            let void = Self::has_lasted(&theirs, &target, now) || (insists && theirs.server.is_none());
            if !void || target.is_tombstone() {
                self.adopt(key, &target, &theirs, false, now);
                return Ok(Some(theirs));
            }
            table.apply_remote(&key, &target, theirs.epoch.saturating_add(1), known.created);
        }
        Ok(None)
    }

    /// One record into the store; what stands instead is returned.
    async fn put(
        &self,
        key: SessionKey,
        pool: &Target,
        record: &BindingRecord,
        now: UnixMillis,
    ) -> Result<Option<BindingRecord>, StoreUnavailable> {
        let name = Name::new(pool.pool(), key, Kind::Binding);
        let (value, ttl) = (record.value(&self.node), Self::ttl(pool, record.created, now));
        let stands = if record.epoch == 0 {
            self.written(StoreOperation::Bind, self.engine.bind(&name, &value, ttl)).await
        } else {
            self.written(StoreOperation::Move, self.engine.rebind(&name, &value, ttl)).await
        };
        let stands = stands?;
        self.near.told(key, now);
        // Who stands there with another form of record is of a later version, and not to be understood.
        Ok(stands.and_then(|value| BindingRecord::read(&value)))
    }

    /// The store is to be told what the table says of a session, or what its server handed over, as soon as it can be.
    pub fn write_behind(&self, key: SessionKey, kind: Kind) {
        self.later(key, kind, false);
    }

    /// The same for a session that a server has called its own, see [`assign`](Self::assign).
    pub fn assign_behind(&self, key: SessionKey) {
        self.later(key, Kind::Binding, true);
    }

    fn later(&self, key: SessionKey, kind: Kind, insists: bool) {
        if !self.pending.add(key, kind, insists) {
            let operation = if kind == Kind::Binding { StoreOperation::Move } else { StoreOperation::DataPut };
            self.context.metrics.store.count(operation, StoreResult::Dropped);
        }
        self.context.metrics.store.set_pending(self.pending.len());
        self.behind.wake.notify_one();
    }

    /// Whether the store is known to keep a record of a session.
    pub fn is_stored(&self, key: &SessionKey) -> bool {
        self.near.is_stored(key)
    }

    /// A server has handed this over for a session (nothing: there is no data any more), and it is kept here: now in the
    /// store too.
    ///
    /// # Errors
    /// When the store did not say. It is told later.
    pub async fn put_data(
        &self,
        owner: &Owner,
        data: Option<&HeaderValue>,
        now: UnixMillis,
    ) -> Result<(), StoreUnavailable> {
        let told = self.try_put_data(owner, data, now).await;
        if told.is_err() {
            self.write_behind(owner.key, Kind::Data);
        }
        told
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
        self.written(StoreOperation::DataPut, self.engine.rebind(&name, &value, ttl)).await?;
        Ok(())
    }

    /// The session has nothing to hand over any more, and there is nothing here that says so.
    pub(super) async fn forget_data(&self, key: SessionKey, now: UnixMillis) -> Result<(), StoreUnavailable> {
        let table = &self.context.table;
        let TableLookup::Live(known) = table.find(&key, now) else { return Ok(()) };
        let Some(target) = table.target_at(known.target) else { return Ok(()) };
        let names = [Name::new(target.pool(), key, Kind::Data)];
        Ok(self.read(StoreOperation::Forget, self.engine.forget(&names)).await?)
    }

    /// What the session's last server handed over to any proxy comes to this one. What this one has not written yet stays.
    ///
    /// # Errors
    /// When the store did not say.
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
