//! Apache Ignite: nodes that can be told apart, a user with a password, and TLS that can be set up.

use rustls::pki_types::ServerName;

use crate::config::address;
use crate::config::check::certificates;
use crate::config::check_context::{CheckContext, NodeRef};
use crate::config::diagnostics::Diagnostics;
use crate::config::pools::ServerAddress;
use crate::config::raw;
use crate::config::secret::Secret;
use crate::config::store::Ignite;
use crate::config::suggest;
use crate::config::tls::ClientTls;
use crate::config::yaml::Origin;

pub(super) fn ignite(
    one: &raw::Ignite,
    at: NodeRef<'_>,
    context: &CheckContext<'_>,
    diagnostics: &mut Diagnostics,
) -> Ignite {
    if !address::is_name(&one.cache) {
        let message = format!("{} is no name for a cache", suggest::quoted(&one.cache));
        let help = "use letters, digits, \"_\", \".\" and \"-\", at most 64, the first a letter or digit";
        diagnostics.problem(at.key("cache").location, message, help);
    }
    Ignite {
        addresses: addresses(&one.addresses, at.key("addresses"), diagnostics),
        cache: one.cache.clone(),
        login: login(one, at, diagnostics),
        tls: one.tls.as_ref().map(|tls| client_tls(tls, at.key("tls"), context, diagnostics)),
    }
}

fn addresses(written: &[String], at: NodeRef<'_>, diagnostics: &mut Diagnostics) -> Vec<String> {
    let mut addresses: Vec<String> = Vec::new();
    for (index, text) in written.iter().enumerate() {
        let at = at.item(index);
        match node(text) {
            Ok(node) if addresses.contains(&node) => {
                let message = format!("\"store.ignite.addresses\" holds {} twice", suggest::quoted(&node));
                diagnostics.problem(at.location, message, "remove one of them");
            }
            Ok(node) => addresses.push(node),
            Err(help) => {
                let message = format!("{} is not the address of an Ignite node", suggest::quoted(text));
                diagnostics.problem(at.location, message, help);
            }
        }
    }
    addresses
}

/// `host:port`, in one form for the same node.
fn node(text: &str) -> Result<String, String> {
    const FORMS: &str = "write IP:port, [IPv6]:port or name:port, with the port for thin clients, like 10.0.0.5:10800";
    if text.contains("://") || text.starts_with("unix:") {
        return Err(FORMS.to_owned());
    }
    match address::server_address(text).map_err(|_why| FORMS.to_owned())? {
        ServerAddress::Ip(address) if address.ip().is_unspecified() => {
            Err(format!("{} is no node; write the node's address", address.ip()))
        }
        address => Ok(address.to_string()),
    }
}

fn login(one: &raw::Ignite, at: NodeRef<'_>, diagnostics: &mut Diagnostics) -> Option<(String, Secret)> {
    match (&one.username, &one.password) {
        (Some(user), Some(password)) => {
            if user.is_empty() {
                diagnostics.problem(at.key("username").location, "the user of Ignite has no name", "write it, or null");
            }
            origin(at.key("password"), diagnostics);
            Some((user.clone(), Secret::new(&**password)))
        }
        // One that is written and could not be read was reported.
        (Some(_), None) if at.key("password").is_written() => None,
        (Some(_), None) => {
            let help = "add it: \"${file:/run/secrets/ignite}\"";
            diagnostics.problem(at.key("username").location, "the user of Ignite needs a password", help);
            None
        }
        (None, Some(_)) => {
            diagnostics.problem(at.key("password").location, "the password of Ignite needs a username", "add it");
            None
        }
        (None, None) => None,
    }
}

fn origin(at: NodeRef<'_>, diagnostics: &mut Diagnostics) {
    match at.origin() {
        Origin::Literal | Origin::Default => diagnostics.warn(
            at.location,
            "the password of Ignite stands in the configuration file",
            "keep it elsewhere: \"${file:/run/secrets/ignite}\" or \"${IGNITE_PASSWORD}\"",
        ),
        Origin::OpenFile => diagnostics.warn(
            at.location,
            "every user of this machine may read the password of Ignite",
            "chmod 600, or 640 with a group for homing",
        ),
        Origin::Expanded | Origin::Broken => {}
    }
}

fn client_tls(
    one: &raw::StoreTls,
    at: NodeRef<'_>,
    context: &CheckContext<'_>,
    diagnostics: &mut Diagnostics,
) -> ClientTls {
    if let Some(name) = one.server_name.as_deref().filter(|name| ServerName::try_from(*name).is_err()) {
        let message = format!("no certificate can be for {}", suggest::quoted(name));
        diagnostics.problem(
            at.key("server_name").location,
            message,
            "write a host name or an IP address, without port",
        );
    }
    let certificate = match (&one.client_certificate, &one.client_key) {
        (Some(cert), Some(key)) => {
            let locations = [at.key("client_certificate"), at.key("client_key")];
            certificates::client_certificate([cert, key], locations, context, diagnostics)
        }
        (Some(_), None) => {
            let message = "\"client_certificate\" needs a key";
            diagnostics.problem(at.key("client_certificate").location, message, "add client_key");
            None
        }
        (None, Some(_)) => {
            let message = "\"client_key\" needs a certificate";
            diagnostics.problem(at.key("client_key").location, message, "add client_certificate");
            None
        }
        (None, None) => None,
    };
    ClientTls {
        authorities: one
            .ca
            .as_ref()
            .and_then(|file| certificates::authorities(file, at.key("ca"), context, diagnostics)),
        server_name: one.server_name.clone(),
        certificate,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_have_one_form() {
        for (text, form) in [
            ("10.0.0.5:10800", "10.0.0.5:10800"),
            ("Ignite.Example.org:10800", "ignite.example.org:10800"),
            ("[FD00:0::1]:10800", "[fd00::1]:10800"),
        ] {
            assert_eq!(node(text).as_deref(), Ok(form));
        }
        for text in ["", "ignite", "ignite:0", "fd00::1", "ignite://a:1", "0.0.0.0:1", "unix:/run/x", "/run/x", "a,b:1"]
        {
            assert!(node(text).is_err(), "{text}");
        }
    }
}
