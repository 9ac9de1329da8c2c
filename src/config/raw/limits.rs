//! The raw configuration of limits per server, which the proxy uses as it is.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use crate::config::units::DurationText;

/// Limits of requests in flight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PoolLimits {
    /// Requests in flight on one server, WebSockets and open streams included. null = no limit.
    #[schemars(range(min = 1, max = 1_000_000), extend("examples" = [200]))]
    pub max_requests_per_server: Option<u32>,
    /// How long a request waits while its server has that many: a session's for its own server, a new one for the first that has
    /// room. Then it gets 503.
    #[schemars(extend("x-maximum" = "1h"))]
    #[serde(with = "DurationText")]
    pub queue_timeout: Duration,
    /// How many requests wait for one server, and how many new ones for any; more get 503 at once.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub max_queued: u32,
}

impl Default for PoolLimits {
    fn default() -> Self {
        Self { max_requests_per_server: None, queue_timeout: Duration::from_secs(1), max_queued: 1000 }
    }
}
