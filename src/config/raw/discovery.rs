//! The raw configuration of discovery: where a pool's servers come from when the file does not list them.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::units::DurationText;

/// Where the servers come from: `dns` or `file`. The pool follows while the proxy runs, without a reload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[derive(Default)]
pub(crate) struct Discovery {
    /// Records of a DNS name. Errors and timeouts keep the last answer; that the name does not exist, or has no such record, is
    /// believed after 60 seconds.
    #[schemars(extend("examples" = [{"name": "app.internal", "port": 8080}]))]
    pub(crate) dns: Option<DnsDiscovery>,
    /// A file with a list of targets, as Prometheus reads it (`file_sd_configs`): JSON, or YAML if it ends in `.yaml` or `.yml`.
    /// The labels `name`, `weight` and `state` are a server's; others mean nothing. Only a whole, valid file counts: else the last
    /// list stays. A relative path is relative to the directory of the configuration file.
    #[schemars(extend("examples" = ["servers.json"]))]
    pub(crate) file: Option<String>,
}

/// Records of a DNS name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-shorthand" = "name"))]
pub(crate) struct DnsDiscovery {
    /// The name.
    #[schemars(extend("examples" = ["app.internal"]))]
    pub(crate) name: String,
    /// The records. Servers are named by address and port, with SRV by target and port. The lowest priority of SRV records serves,
    /// the others are backups; their weights are the servers'.
    #[serde(default)]
    pub(crate) r#type: RecordType,
    /// The servers' port, with `type: A` and `AAAA`.
    #[schemars(range(min = 1), extend("examples" = [8080]))]
    #[serde(default)]
    pub(crate) port: Option<u16>,
    /// Name servers, `IP` or `IP:port`. [] = those of the system.
    #[schemars(extend("examples" = [["10.0.0.2"]]))]
    #[serde(default)]
    pub(crate) resolvers: Vec<String>,
    /// The name is not asked for again sooner, however short the records' TTL is.
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "1h", "default" = "5s"))]
    #[serde(default = "DnsDiscovery::min_ttl", with = "DurationText")]
    pub(crate) min_ttl: Duration,
}

impl DnsDiscovery {
    const fn min_ttl() -> Duration {
        Duration::from_secs(5)
    }
}

/// Kinds of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum RecordType {
    /// IPv4 addresses.
    #[default]
    A,
    /// IPv6 addresses.
    #[serde(rename = "AAAA")]
    Aaaa,
    /// Targets with their ports.
    #[serde(rename = "SRV")]
    Srv,
}
