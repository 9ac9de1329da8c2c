//! The settings of a store that several proxies share.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::store::engines::RemoteEngine;

/// An engine that several proxies share. Needs a restart to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// Which, and where.
    pub engine: RemoteEngine,
    /// What a request that needs it does while it is out of reach.
    pub on_error: OnError,
    /// How long a request waits for it, at most once.
    pub timeout: Duration,
    /// How old what the table says may be before the engine is asked again.
    pub near_ttl: Duration,
}

/// What to do while a shared store is out of reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum OnError {
    /// Tokens, the table and the consistent hash carry on.
    Fallback,
    /// 503 for requests whose session only the store knows.
    Refuse,
}
