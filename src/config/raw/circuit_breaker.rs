//! The raw configuration of circuit breakers, which the proxy uses as it is.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use crate::config::units::DurationText;

/// When requests that fail eject a server. Failures: no connection, a connection that breaks or a timeout before the response,
/// and the statuses of `failure_status`. A client that leaves is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CircuitBreaker {
    /// Failures in a row that eject a server.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub consecutive_failures: u32,
    /// How long a server gets no requests. Then one request at a time tests it: a success brings it back, a failure ejects it
    /// again. Each ejection lasts twice as long as the one before; it starts over once the breaker was closed for as long as
    /// the last ejection lasted.
    #[schemars(extend("x-minimum" = "10ms", "x-maximum" = "24h"))]
    #[serde(with = "DurationText")]
    pub ejection_time: Duration,
    /// The longest ejection. At least `ejection_time`, which lengthens the default.
    #[schemars(extend("x-minimum" = "10ms", "x-maximum" = "24h"))]
    #[serde(with = "DurationText")]
    pub max_ejection_time: Duration,
    /// How many servers may be ejected at a time: percent of the pool's `ready` servers with a weight, rounded down. Backups
    /// are counted by themselves.
    #[schemars(range(min = 0, max = 100))]
    pub max_ejected_percent: u32,
    /// Statuses that are failures.
    #[schemars(inner(range(min = 400, max = 599)), extend("uniqueItems" = true))]
    pub failure_status: Vec<u16>,
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(600),
            max_ejected_percent: 50,
            failure_status: vec![502, 503, 504],
        }
    }
}
