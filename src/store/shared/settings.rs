//! The settings of a store that several proxies share.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::store::engines::RemoteEngine;

/// An engine that several proxies share. Needs a restart to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// Its kind and addresses.
    pub engine: RemoteEngine,
    /// What a request that needs it does while it is unreachable.
    pub on_error: OnError,
    /// How long a request waits for it, at most once.
    pub timeout: Duration,
    /// How old the table's copy may be before the engine is queried again.
    pub near_ttl: Duration,
}

/// What to do while a shared store is unreachable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum OnError {
    /// Tokens, the table and the consistent hash decide.
    Fallback,
    /// 503 for requests whose session only the store knows.
    Refuse,
}
