//! The raw configuration of the store: the table of this process, and what several proxies may share.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use crate::config::units::DurationText;
use crate::store::engines::{EngineSections, StoreType};
use crate::store::shared::settings::OnError;

/// Where bindings of sessions to servers are stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("additionalProperties" = false, "x-shorthand" = "type"))]
pub(crate) struct Store {
    /// Kind of store. Proxies that share one know each other's sessions, also those without a token (learned ids,
    /// addresses). They need the same `keys` and the same pools, and each its own `proxy.node`.
    #[schemars(extend("x-restart" = true))]
    pub(crate) r#type: StoreType,
    /// Capacity of the table of this process, which is the near copy of a shared store. When it is full, the longest idle
    /// session is evicted; a session with a token or in a shared store loses nothing by that.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub(crate) max_sessions: usize,
    /// The table and session data (`handoff`) on disk, so that sessions without a token (learned ids, addresses) and session
    /// data survive a restart.
    pub(crate) snapshot: Snapshot,
    /// What to do while a shared store is unreachable.
    #[schemars(extend("x-restart" = true))]
    pub(crate) on_error: OnError,
    /// How long a request waits for a shared store, at most once. More than the network needs only delays requests
    /// while the store is slow.
    #[schemars(extend("x-restart" = true, "x-minimum" = "1ms", "x-maximum" = "10s"))]
    #[serde(with = "DurationText")]
    pub(crate) timeout: Duration,
    /// How long the table's copy of an entry of a shared store is trusted before the store is queried again. Redis,
    /// Valkey, Hazelcast and Ignite announce moves, so other proxies know them at once; with memcached they may send a
    /// session to its former server for this long.
    #[schemars(extend("x-restart" = true, "x-minimum" = "100ms", "x-maximum" = "1h"))]
    #[serde(with = "DurationText")]
    pub(crate) near_ttl: Duration,
    /// A section for each engine.
    #[serde(flatten)]
    pub(crate) engines: EngineSections,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            r#type: StoreType::Memory,
            max_sessions: 1_000_000,
            snapshot: Snapshot::default(),
            on_error: OnError::Fallback,
            timeout: Duration::from_millis(50),
            near_ttl: Duration::from_secs(10),
            engines: EngineSections::default(),
        }
    }
}

/// The table and session data on disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-shorthand" = "path"))]
pub(crate) struct Snapshot {
    /// Absolute path of its file, read once at start. Next to it are `.lock`, `.new` while it is written, and `.damaged` if it
    /// was ever found damaged. Each proxy needs its own file. It needs `keys`. With `handoff` it may contain logins: only its
    /// owner can read it. null = none.
    #[schemars(extend("examples" = ["/var/lib/homing/sessions"]))]
    pub(crate) path: Option<String>,
    /// How often it is written, in addition to every stop: a crash loses at most this much.
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "1h"))]
    #[serde(with = "DurationText")]
    pub(crate) interval: Duration,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self { path: None, interval: Duration::from_secs(30) }
    }
}
