//! Small values that proxies keep for each other besides sessions. Their names are of [`Kind::Data`](crate::store::engine::Kind):
//! of two with one epoch the last stays.

use std::future::Future;
use std::time::Duration;

use tokio::time::timeout;

use super::store::{SharedStore, StoreUnavailable, result_of};
use crate::store::engine::{Name, StoreError, Value, WriteResult};
use crate::telemetry::metrics::{StoreOperation, StoreResult};

/// No client's request waits for a note, so it may take longer than `store.timeout`; nor does it tell the breaker anything.
const PATIENCE: Duration = Duration::from_secs(2);

impl SharedStore {
    /// The value of a name.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn read_note(&self, name: &Name) -> Result<Option<Value>, StoreUnavailable> {
        let found = self.patient(StoreOperation::DataGet, self.engine.lookup(std::slice::from_ref(name))).await?;
        Ok(found.into_iter().next().flatten())
    }

    /// Stores a value, unless the name has one of a higher epoch.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn put_note(&self, name: &Name, value: &Value, ttl: Duration) -> Result<(), StoreUnavailable> {
        self.patient(StoreOperation::DataPut, self.engine.rebind(name, value, ttl)).await?;
        Ok(())
    }

    /// Stores a value if the name has none. Returns the value that it then has: this one, or the one of a faster proxy.
    async fn add_note(&self, name: &Name, value: Value, ttl: Duration) -> Result<Value, StoreUnavailable> {
        Ok(match self.patient(StoreOperation::DataPut, self.engine.bind(name, &value, ttl)).await? {
            WriteResult::Stored => value,
            WriteResult::Conflict(kept) => kept,
        })
    }

    /// Takes a lock for `ttl`, or extends it when this process has it. False: another process has it.
    ///
    /// # Errors
    /// When the store does not answer; then the lock may have been taken all the same, and a repetition takes it.
    pub async fn lock(&self, name: &Name, ttl: Duration) -> Result<bool, StoreUnavailable> {
        let own = self.own_lock();
        if self.add_note(name, own.clone(), ttl).await? != own {
            return Ok(false);
        }
        self.patient(StoreOperation::Touch, self.engine.touch(&[(name.clone(), ttl)])).await?;
        Ok(true)
    }

    /// Gives a lock back, if this process has it. One that cannot be given back ends with its time.
    pub async fn unlock(&self, name: &Name) {
        if self.read_note(name).await.is_ok_and(|value| value == Some(self.own_lock())) {
            // The error has been counted.
            let _ = self.remove_note(name).await;
        }
    }

    /// Removes the value of a name.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn remove_note(&self, name: &Name) -> Result<(), StoreUnavailable> {
        self.patient(StoreOperation::Forget, self.engine.forget(std::slice::from_ref(name))).await
    }

    async fn patient<T>(
        &self,
        operation: StoreOperation,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreUnavailable> {
        let response = timeout(PATIENCE.max(self.timeout), call).await.unwrap_or(Err(StoreError::Timeout));
        let result = response.as_ref().err().map_or(StoreResult::Ok, result_of);
        self.context.metrics.store.count(operation, result);
        Ok(response?)
    }

    /// The node's name has a random word for the process.
    fn own_lock(&self) -> Value {
        Value::new(1, self.node.as_bytes())
    }
}
