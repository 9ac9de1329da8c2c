//! The raw configuration of the store: the table of this process, and what several proxies may share.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use crate::config::units::DurationText;
use crate::store::engines::{EngineSections, StoreType};
use crate::store::shared::settings::OnError;

/// Where bindings of sessions to servers live.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("additionalProperties" = false, "x-shorthand" = "type"))]
pub(crate) struct Store {
    /// Kind of store. Several proxies that share one know each other's sessions, also those that have no token (learned
    /// ids, addresses). They need the same `keys` and the same pools, and each a `proxy.node` of its own.
    #[schemars(extend("x-restart" = true))]
    pub(crate) r#type: StoreType,
    /// Most sessions in the table of this process, which is the near copy of a shared store. When it is full the longest
    /// idle one makes room; a session with a token or in a shared store loses nothing by that.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub(crate) max_sessions: usize,
    /// The table and session data (`handoff`) on disk, so that they outlive the process: sessions without a token (learned ids,
    /// addresses), and what servers handed over for any session.
    pub(crate) snapshot: Snapshot,
    /// What to do while a shared store is out of reach.
    #[schemars(extend("x-restart" = true))]
    pub(crate) on_error: OnError,
    /// How long a request waits for a shared store, at most once. More than a network needs only makes requests slow
    /// while the store is.
    #[schemars(extend("x-restart" = true, "x-minimum" = "1ms", "x-maximum" = "10s"))]
    #[serde(with = "DurationText")]
    pub(crate) timeout: Duration,
    /// How long the table's copy of an entry of a shared store is trusted before the store is asked again. Redis,
    /// Valkey, Hazelcast and Ignite announce what moves, so that it is known sooner; memcached does not, and for so long
    /// another proxy may send a session to the server that it had before.
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
    /// Absolute path of its file, read once at start. Beside it are `.lock`, `.new` while it is written, and `.damaged` if it
    /// ever was. Each proxy needs a file of its own. It is of use with `keys` only. With `handoff` it may hold logins: only its
    /// owner can read it. null = none.
    #[schemars(extend("examples" = ["/var/lib/homing/sessions"]))]
    pub(crate) path: Option<String>,
    /// How often it is written, besides at every stop: what a crash may lose.
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "1h"))]
    #[serde(with = "DurationText")]
    pub(crate) interval: Duration,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self { path: None, interval: Duration::from_secs(30) }
    }
}
