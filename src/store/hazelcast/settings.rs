//! The settings of Hazelcast: distinct members, and valid names of cluster and map.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::address::{self, ServerAddress};
use crate::config::check_context::NodeRef;
use crate::config::diagnostics::Diagnostics;
use crate::config::suggest;
use crate::store::engine::settings::distinct_addresses;

/// The default port of a member.
const PORT: &str = "5701";

/// Hazelcast 5.3 or later; with `type: hazelcast`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Hazelcast")]
pub struct HazelcastSettings {
    /// `IP:port`, `[IPv6]:port` or `name:port` of some of its members. They report the addresses of the others, which
    /// must be reachable from here (`public-address` in their configuration where they have several).
    #[schemars(length(min = 1), extend("examples" = [["10.0.0.5:5701", "10.0.0.6:5701"]]))]
    pub members: Vec<String>,
    /// The name of the cluster (`cluster-name` of the members). It is no secret: the Community edition has neither users nor TLS.
    pub cluster_name: String,
    /// The map for bindings: the same for all proxies that share sessions, another for others on the same cluster. Give it
    /// a backup and a `time-to-live-seconds` longer than any `idle_timeout` (see the example), and no eviction.
    pub map: String,
}

impl Default for HazelcastSettings {
    fn default() -> Self {
        Self { members: vec!["127.0.0.1:5701".to_owned()], cluster_name: "dev".to_owned(), map: "homing".to_owned() }
    }
}

impl HazelcastSettings {
    /// Reports invalid and duplicate members and invalid names. Returns normalized members.
    pub(super) fn check(&self, at: NodeRef<'_>, diagnostics: &mut Diagnostics) -> Self {
        let at_list = (at.key("members"), "store.hazelcast.members");
        let members = distinct_addresses(&self.members, at_list, "a Hazelcast member", member, diagnostics);
        for (key, text, fault) in [
            ("cluster_name", &self.cluster_name, name_fault(&self.cluster_name)),
            ("map", &self.map, name_fault(&self.map).or_else(|| map_fault(&self.map))),
        ] {
            if let Some(help) = fault {
                let message = format!("\"store.hazelcast.{key}\" cannot be {}", suggest::quoted(text));
                diagnostics.problem(at.key(key).location, message, help);
            }
        }
        Self { members, ..self.clone() }
    }
}

/// Normalized `host:port`.
fn member(text: &str) -> Result<String, String> {
    const FORMS: &str = "write IP:port, [IPv6]:port or name:port";
    if text.contains("://") {
        return Err(FORMS.to_owned());
    }
    match address::server_address(text) {
        Ok(ServerAddress::Unix(_)) => Err(format!("members listen on TCP: {FORMS}")),
        Ok(ServerAddress::Ip(address)) if address.ip().is_unspecified() => {
            Err(format!("{} is no member; write the member's address", address.ip()))
        }
        Ok(address) => Ok(address.to_string()),
        Err(_) if !text.contains(':') && !text.is_empty() => Err(format!("the port is missing: write {text}:{PORT}")),
        Err(_) => Err(FORMS.to_owned()),
    }
}

fn name_fault(name: &str) -> Option<&'static str> {
    let is_plain = !name.is_empty() && name.len() <= 128 && name == name.trim() && !name.chars().any(char::is_control);
    (!is_plain).then_some("write a name of at most 128 characters, without blanks around it")
}

/// Wildcards are for the members' own configuration of maps.
fn map_fault(map: &str) -> Option<&'static str> {
    map.contains('*').then_some("write the map's own name: \"*\" is for patterns in the members' configuration")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_have_one_form() {
        for (text, form) in [
            ("10.0.0.5:5701", "10.0.0.5:5701"),
            ("Cache.Example.org:1", "cache.example.org:1"),
            ("[FD00:0::1]:5701", "[fd00::1]:5701"),
        ] {
            assert_eq!(member(text).as_deref(), Ok(form));
        }
        for text in ["", "cache:0", "fd00::1", "hazelcast://cache:1", "0.0.0.0:1", "unix:/run/x.sock", "a,b:1"] {
            assert!(member(text).is_err(), "{text}");
        }
        assert_eq!(member("cache"), Err("the port is missing: write cache:5701".to_owned()));
    }
}
