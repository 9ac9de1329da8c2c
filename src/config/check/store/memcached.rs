//! memcached: servers that can be told apart.

use crate::config::address;
use crate::config::check_context::NodeRef;
use crate::config::diagnostics::Diagnostics;
use crate::config::key_prefix::check_key_prefix;
use crate::config::pools::ServerAddress;
use crate::config::raw;
use crate::config::store::Memcached;
use crate::config::suggest;

pub(super) fn memcached(one: &raw::Memcached, at: NodeRef<'_>, diagnostics: &mut Diagnostics) -> Memcached {
    let mut servers: Vec<String> = Vec::new();
    for (index, text) in one.servers.iter().enumerate() {
        let at = at.key("servers").item(index);
        match server(text) {
            Ok(server) if servers.contains(&server) => {
                let message = format!("\"store.memcached.servers\" holds {} twice", suggest::quoted(&server));
                diagnostics.problem(at.location, message, "remove one of them");
            }
            Ok(server) => servers.push(server),
            Err(help) => {
                let message = format!("{} is not the address of a memcached", suggest::quoted(text));
                diagnostics.problem(at.location, message, help);
            }
        }
    }
    Memcached { servers, key_prefix: check_key_prefix(&one.key_prefix, at.key("key_prefix"), diagnostics) }
}

/// `host:port`, in one form for the same server, or the path of a socket.
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
