//! Bind and rebind: the first writer, and the higher epoch.

use std::time::Duration;

use super::connection::Connection;
use super::protocol::request::{Cache, Request};
use super::protocol::response;
use super::stored::{Life, Stored};
use crate::store::engine::{Kind, Name, StoreError, Value, WriteResult};

/// How often a write is tried against concurrent writes of the same name.
const MAX_ATTEMPTS: usize = 256;

/// A value to write, and where.
pub(super) struct Write<'a> {
    connection: &'a Connection,
    cache: Cache,
    name: &'a Name,
    kind: Kind,
    life: Life,
    ours: Stored,
}

impl<'a> Write<'a> {
    /// # Errors
    /// When Ignite cannot store the value.
    pub(super) fn new(
        connection: &'a Connection,
        cache: Cache,
        name: &'a Name,
        value: &Value,
        ttl: Duration,
    ) -> Result<Self, StoreError> {
        let (kind, life) = (name.kind(), Life::new(ttl));
        Ok(Self { connection, cache, name, kind, life, ours: Stored::new(value, kind, life)? })
    }

    /// Stores the value if there is none: one round trip for the winner and for the others.
    pub(super) async fn bind(&self) -> Result<WriteResult, StoreError> {
        Ok(match self.add().await? {
            Some(kept) if kept.value != self.ours.value => WriteResult::Conflict(kept.value),
            _ => WriteResult::Stored,
        })
    }

    /// Stores the value unless the existing one wins: one round trip where there is none, otherwise two.
    pub(super) async fn rebind(&self) -> Result<WriteResult, StoreError> {
        for _ in 0..MAX_ATTEMPTS {
            let Some(kept) = self.add().await? else { return Ok(WriteResult::Stored) };
            // The same text is written again too, to extend its time to live.
            if kept.value != self.ours.value && !self.ours.value.supersedes(&kept.value, self.kind) {
                return Ok(WriteResult::Conflict(kept.value));
            }
            if replace(self.connection, self.cache, self.name, [&kept, &self.ours], self.life).await? {
                return Ok(WriteResult::Stored);
            }
        }
        Err(StoreError::Refused(format!("others wrote the same name {MAX_ATTEMPTS} times meanwhile")))
    }

    /// The existing value, or `None`: then ours is stored.
    async fn add(&self) -> Result<Option<Stored>, StoreError> {
        let request =
            Request::get_and_put_if_absent(self.cache, self.name.as_str(), self.ours.datum(), self.life.duration());
        Stored::read(self.connection.ask_for(request, response::value).await?)
    }
}

/// Replaces the first by the second, if the first is still stored.
pub(super) async fn replace(
    connection: &Connection,
    cache: Cache,
    name: &Name,
    [before, after]: [&Stored; 2],
    life: Life,
) -> Result<bool, StoreError> {
    let values = [before.datum(), after.datum()];
    let request = Request::replace_if_equals(cache, name.as_str(), values, life.duration());
    connection.ask_for(request, response::done).await
}
