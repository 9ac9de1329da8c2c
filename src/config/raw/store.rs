//! The raw configuration of the store: the table of this process, and what several proxies may share.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use super::not_supported;
use super::not_supported::NotSupported;
use crate::config::units::DurationText;

/// Where bindings of sessions to servers live.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Store {
    /// Kind of store. Several proxies that share one know each other's sessions, also those that have no token (learned
    /// ids, addresses). They need the same `keys` and the same pools, and each a `proxy.node` of its own.
    #[schemars(extend("x-restart" = true, "x-later" = ["hazelcast"]))]
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
    /// Valkey and Ignite announce what moves, so that it is known sooner; memcached does not, and for so long another proxy may send
    /// a session to the server that it had before.
    #[schemars(extend("x-restart" = true, "x-minimum" = "100ms", "x-maximum" = "1h"))]
    #[serde(with = "DurationText")]
    pub(crate) near_ttl: Duration,
    /// Redis 6.2 or later, or Valkey 7.2 or later; with `type: redis`.
    #[schemars(extend("x-restart" = true))]
    pub(crate) redis: Redis,
    /// memcached 1.6 or later; with `type: memcached`.
    #[schemars(extend("x-restart" = true))]
    pub(crate) memcached: Memcached,
    /// Hazelcast.
    #[serde(skip_serializing_if = "NotSupported::unwritten")]
    pub(crate) hazelcast: not_supported::Hazelcast,
    /// Apache Ignite 2.15 or later; with `type: ignite`.
    #[schemars(extend("x-restart" = true))]
    pub(crate) ignite: Ignite,
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
            redis: Redis::default(),
            memcached: Memcached::default(),
            hazelcast: not_supported::Hazelcast::default(),
            ignite: Ignite::default(),
        }
    }
}

/// The table and session data on disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
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

/// Kind of store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(crate) enum StoreType {
    /// A table in this process.
    Memory,
    /// Redis or Valkey, shared by several proxies.
    Redis,
    /// memcached, shared by several proxies.
    Memcached,
    /// Apache Ignite, shared by several proxies.
    Ignite,
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

/// Redis or Valkey.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Redis {
    /// With `standalone` the server, with `sentinel` the sentinels, with `cluster` some of its nodes:
    /// `redis://USER:PASSWORD@HOST:PORT/DATABASE`, or `rediss://` for TLS, whose certificate is checked. All but the host may
    /// be absent: port 6379 (sentinels have none by default), database 0. With `standalone` also a unix socket:
    /// `unix:/run/redis.sock?user=USER&pass=PASSWORD&db=0`. In users and passwords `/`, `?`, `#`, `%` and blanks are written
    /// `%2F`, `%3F`, `%23`, `%25` and `%20`. Several URLs have the same user, password and database, and all or none of them TLS;
    /// with `sentinel` these are of the servers, and of the sentinels if they ask for a password. Better not written here:
    /// `"redis://homing:${file:/run/secrets/redis}@10.0.0.5"` or `"${REDIS_URL}"`.
    #[schemars(length(min = 1), extend("x-secret" = true, "examples" = [["rediss://homing:${REDIS_PASSWORD}@redis.example.org:6380/0"]]))]
    pub(crate) urls: Vec<String>,
    /// How it is set up.
    pub(crate) mode: RedisMode,
    /// What the sentinels call the server, with `mode: sentinel`.
    #[schemars(extend("examples" = ["mymaster"]))]
    pub(crate) master_name: Option<String>,
    /// What all names in it begin with, followed by a colon: letters, digits, `_`, `.`, `-`, and `:` between them, at most 64.
    /// Proxies that share sessions have the same; others that use the same server another.
    pub(crate) key_prefix: String,
}

impl Default for Redis {
    fn default() -> Self {
        Self {
            urls: vec!["redis://127.0.0.1:6379".to_owned()],
            mode: RedisMode::Standalone,
            master_name: None,
            key_prefix: "homing".to_owned(),
        }
    }
}

/// How Redis or Valkey is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(crate) enum RedisMode {
    /// One server.
    Standalone,
    /// One server of several, which the sentinels know; a failover is followed.
    Sentinel,
    /// Names spread over several servers.
    Cluster,
}

/// memcached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Memcached {
    /// `IP:port`, `[IPv6]:port`, `name:port` or `unix:/path` (the path alone too), one for each server. Every proxy must
    /// write them alike, for what is written decides which server keeps what; their order does not matter.
    #[schemars(length(min = 1), extend("examples" = [["10.0.0.5:11211", "10.0.0.6:11211"]]))]
    pub(crate) servers: Vec<String>,
    /// What all names in it begin with, followed by a colon: letters, digits, `_`, `.`, `-`, and `:` between them, at most 64.
    /// Proxies that share sessions have the same; others that use the same servers another.
    pub(crate) key_prefix: String,
}

impl Default for Memcached {
    fn default() -> Self {
        Self { servers: vec!["127.0.0.1:11211".to_owned()], key_prefix: "homing".to_owned() }
    }
}

/// Apache Ignite.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Ignite {
    /// `IP:port`, `[IPv6]:port` or `name:port` of nodes, each with the port for thin clients (10800). One is connected to, and
    /// the next when that one is lost, so two or three are enough for a cluster of any size.
    #[schemars(length(min = 1), extend("examples" = [["10.0.0.5:10800", "10.0.0.6:10800"]]))]
    pub(crate) addresses: Vec<String>,
    /// The cache of bindings: letters, digits, `_`, `.`, `-`, at most 64. Session data are in a second one, of this name and
    /// `-data`. What is absent is made: partitioned, atomic, with one backup, writes acknowledged by all copies. Proxies that
    /// share sessions have the same; others that use the same cluster another.
    pub(crate) cache: String,
    /// User, where the cluster asks for one; with a password.
    #[schemars(extend("examples" = ["homing"]))]
    pub(crate) username: Option<String>,
    /// Its password. Better not written here: `"${file:/run/secrets/ignite}"` or `"${IGNITE_PASSWORD}"`.
    #[schemars(extend("x-secret" = true, "examples" = ["${file:/run/secrets/ignite}"]))]
    pub(crate) password: Option<String>,
    /// TLS, where the client port speaks it. The node's certificate is always checked. null = plain.
    pub(crate) tls: Option<StoreTls>,
}

impl Default for Ignite {
    fn default() -> Self {
        Self {
            addresses: vec!["127.0.0.1:10800".to_owned()],
            cache: "homing".to_owned(),
            username: None,
            password: None,
            tls: None,
        }
    }
}

/// TLS to a store.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct StoreTls {
    /// PEM file of the authorities that sign the store's certificate. A relative path begins at the folder of the configuration
    /// file. null = those that the system trusts.
    #[schemars(extend("examples" = ["tls/ignite-ca.pem"]))]
    pub(crate) ca: Option<String>,
    /// Host name or IP address that the store's certificate is for. null = as written in the address.
    #[schemars(extend("examples" = ["ignite.internal"]))]
    pub(crate) server_name: Option<String>,
    /// PEM file with the proxy's own certificate, for a store that asks for one; with `client_key`.
    #[schemars(extend("examples" = ["tls/edge.pem"]))]
    pub(crate) client_certificate: Option<String>,
    /// PEM file with its private key.
    #[schemars(extend("examples" = ["tls/edge.key"]))]
    pub(crate) client_key: Option<String>,
}
