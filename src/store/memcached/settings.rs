//! The settings of memcached: a list of distinct servers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::address::{self, ServerAddress};
use crate::config::check_context::NodeRef;
use crate::config::diagnostics::Diagnostics;
use crate::config::key_prefix::check_key_prefix;
use crate::store::engine::settings::distinct_addresses;

/// memcached 1.6 or later; with `type: memcached`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Memcached")]
pub struct MemcachedSettings {
    /// `IP:port`, `[IPv6]:port`, `name:port` or `unix:/path` (the path alone too), one for each server. Every proxy must
    /// write them the same way, since a name's server is chosen by a hash with its address; the order does not matter.
    #[schemars(length(min = 1), extend("examples" = [["10.0.0.5:11211", "10.0.0.6:11211"]]))]
    pub servers: Vec<String>,
    /// Prefix of all names, followed by a colon: letters, digits, `_`, `.`, `-`, and `:` between them, at most 64.
    /// The same for all proxies that share sessions; another for others on the same servers.
    pub key_prefix: String,
}

impl Default for MemcachedSettings {
    fn default() -> Self {
        Self { servers: vec!["127.0.0.1:11211".to_owned()], key_prefix: "homing".to_owned() }
    }
}

impl MemcachedSettings {
    /// Reports invalid and duplicate servers. Returns normalized addresses, as every proxy must use them.
    pub(super) fn check(&self, at: NodeRef<'_>, diagnostics: &mut Diagnostics) -> Self {
        let at_list = (at.key("servers"), "store.memcached.servers");
        let servers = distinct_addresses(&self.servers, at_list, "a memcached", server, diagnostics);
        check_key_prefix(&self.key_prefix, at.key("key_prefix"), diagnostics);
        Self { servers, key_prefix: self.key_prefix.clone() }
    }
}

/// Normalized `host:port`, or the path of a socket.
fn server(text: &str) -> Result<String, String> {
    const FORMS: &str = "write IP:port, [IPv6]:port, name:port or unix:/path";
    if text.contains("://") {
        return Err(FORMS.to_owned());
    }
    let socket = if text.starts_with('/') { format!("unix:{text}") } else { text.to_owned() };
    match address::server_address(&socket)? {
        ServerAddress::Unix(path) => Ok(path.display().to_string()),
        ServerAddress::Ip(address) if address.ip().is_unspecified() => {
            Err(format!("{} is no server; write the server's address", address.ip()))
        }
        address => Ok(address.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_have_one_form() {
        for (text, form) in [
            ("10.0.0.5:11211", "10.0.0.5:11211"),
            ("Cache.Example.org:1", "cache.example.org:1"),
            ("[FD00:0::1]:1", "[fd00::1]:1"),
            ("/run/memcached.sock", "/run/memcached.sock"),
            ("unix:/run/memcached.sock", "/run/memcached.sock"),
        ] {
            assert_eq!(server(text).as_deref(), Ok(form));
        }
        for text in ["", "cache", "cache:0", "fd00::1", "memcached://cache:1", "0.0.0.0:1", "run/x.sock", "/", "a,b:1"]
        {
            assert!(server(text).is_err(), "{text}");
        }
    }
}
