//! The raw configuration of limits per server and per listener, which the proxy uses as it is.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use crate::config::units::{DurationText, OptionalByteRate, Size};

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

/// Limits of a listener. A client is an IPv4 address or the /64 of an IPv6 address, as `trusted_proxies` make it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ListenerLimits {
    /// Open connections. One more is closed at accept. null = no limit.
    #[schemars(range(min = 1, max = 10_000_000), extend("examples" = [20000]))]
    pub connections: Option<u32>,
    /// Open connections of one client. One more is closed at accept, or after its PROXY header. A connection of a trusted proxy
    /// itself carries many clients and does not count here. null = no limit.
    #[schemars(range(min = 1, max = 10_000_000), extend("examples" = [100]))]
    pub connections_per_client: Option<u32>,
    /// Requests of one client, in bursts of at most one second's worth. One more gets 429. null = no limit.
    #[schemars(range(min = 1, max = 1_000_000), extend("examples" = [50]))]
    pub requests_per_second: Option<u32>,
    /// Sessions that one client begins, in bursts of at most one second's worth. The request that would begin one more gets
    /// 429. null = no limit.
    #[schemars(range(min = 1, max = 1_000_000), extend("examples" = [5]))]
    pub new_sessions_per_second: Option<u32>,
    /// Clients that each of the two rates keeps account of at a time: 16 bytes of memory each, rounded up to a power of two. A
    /// client is forgotten within a second of its last request; of more clients in one second those that ask least are
    /// forgotten early, and may exceed their rate. No client is held to less than its rate.
    #[schemars(range(min = 1024, max = 16_777_216))]
    pub tracked_clients: u32,
    /// Length of a request's target: path and query. A longer one gets 414.
    #[schemars(extend("x-minimum" = "64B", "x-maximum" = "60KiB"))]
    pub max_uri_length: Size,
    /// Header fields of a request; over HTTP/2 all `cookie` fields count as one. More get 431.
    #[schemars(range(min = 1, max = 256))]
    pub max_headers: u32,
    /// Bytes a second of a request's body, as a size or a number, on average while the proxy waits for the client and no
    /// response has begun. A body that is slower after 5 seconds gets 408. null = no limit.
    #[serde(with = "OptionalByteRate")]
    #[schemars(extend("examples" = ["1KiB"]))]
    pub min_body_rate: Option<u64>,
}

impl Default for ListenerLimits {
    fn default() -> Self {
        Self {
            connections: None,
            connections_per_client: None,
            requests_per_second: None,
            new_sessions_per_second: None,
            tracked_clients: 65_536,
            max_uri_length: Size(16 * 1024),
            max_headers: 128,
            min_body_rate: None,
        }
    }
}
