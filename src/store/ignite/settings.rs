//! The settings of Ignite: distinct nodes, a user with a password, and TLS.

use rustls::pki_types::ServerName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::address::{self, ServerAddress};
use crate::config::certificate_files::{self, ClientTls};
use crate::config::check_context::{CheckContext, NodeRef, check_name};
use crate::config::diagnostics::Diagnostics;
use crate::config::secret::Secret;
use crate::config::suggest;
use crate::config::yaml::Origin;
use crate::store::engine::settings::distinct_addresses;

/// Apache Ignite 2.15 or later; with `type: ignite`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Ignite")]
pub struct IgniteSettings {
    /// `IP:port`, `[IPv6]:port` or `name:port` of nodes, each with the port for thin clients (10800). The proxy uses one of
    /// them, and the next when that one is lost, so two or three are enough for a cluster of any size.
    #[schemars(length(min = 1), extend("examples" = [["10.0.0.5:10800", "10.0.0.6:10800"]]))]
    pub addresses: Vec<String>,
    /// The cache of bindings: letters, digits, `_`, `.`, `-`, at most 64. Session data is in a second one, of this name and
    /// `-data`. Missing caches are created: partitioned, atomic, with one backup, writes acknowledged by all copies. The same for
    /// all proxies that share sessions; another for others on the same cluster.
    pub cache: String,
    /// User, where the cluster requires one; with a password.
    #[schemars(extend("examples" = ["homing"]))]
    pub username: Option<String>,
    /// Its password. Better not written here: `"${file:/run/secrets/ignite}"` or `"${IGNITE_PASSWORD}"`.
    #[schemars(extend("x-secret" = true, "examples" = ["${file:/run/secrets/ignite}"]))]
    pub password: Option<Secret>,
    /// TLS, where the client port has it. The node's certificate is always checked. null = plain.
    pub tls: Option<StoreTls>,
    /// The contents of the files of `tls`, read by the check.
    #[serde(skip)]
    pub tls_files: Option<ClientTls>,
}

impl Default for IgniteSettings {
    fn default() -> Self {
        Self {
            addresses: vec!["127.0.0.1:10800".to_owned()],
            cache: "homing".to_owned(),
            username: None,
            password: None,
            tls: None,
            tls_files: None,
        }
    }
}

/// TLS to a store.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StoreTls {
    /// PEM file of the authorities that sign the store's certificate. A relative path is relative to the directory of the
    /// configuration file. null = those that the system trusts.
    #[schemars(extend("examples" = ["tls/ignite-ca.pem"]))]
    pub ca: Option<String>,
    /// Host name or IP address that the store's certificate is for. null = as written in the address.
    #[schemars(extend("examples" = ["ignite.internal"]))]
    pub server_name: Option<String>,
    /// PEM file with the proxy's own certificate, for a store that requires one; with `client_key`.
    #[schemars(extend("examples" = ["tls/edge.pem"]))]
    pub client_certificate: Option<String>,
    /// PEM file with its private key.
    #[schemars(extend("examples" = ["tls/edge.key"]))]
    pub client_key: Option<String>,
}

impl IgniteSettings {
    /// Reports invalid and duplicate nodes, and invalid TLS settings. Returns normalized addresses.
    pub(super) fn check(&self, at: NodeRef<'_>, context: &CheckContext<'_>, diagnostics: &mut Diagnostics) -> Self {
        check_name(&self.cache, "cache", at.key("cache").location, diagnostics);
        self.check_login(at, diagnostics);
        let at_list = (at.key("addresses"), "store.ignite.addresses");
        Self {
            addresses: distinct_addresses(&self.addresses, at_list, "an Ignite node", node, diagnostics),
            tls_files: self.tls.as_ref().map(|tls| tls.read(at.key("tls"), context, diagnostics)),
            ..self.clone()
        }
    }

    /// User and password.
    pub(super) fn login(&self) -> Option<(String, Secret)> {
        self.username.clone().zip(self.password.clone())
    }

    /// The password as it is written elsewhere.
    pub(super) fn replaced_password(&self) -> Option<&'static str> {
        self.password.as_ref().map(|_| "${HOMING_IGNITE_PASSWORD}")
    }

    fn check_login(&self, at: NodeRef<'_>, diagnostics: &mut Diagnostics) {
        match (&self.username, &self.password) {
            (Some(user), Some(_)) => {
                if user.is_empty() {
                    diagnostics.problem(
                        at.key("username").location,
                        "the user of Ignite has no name",
                        "write it, or null",
                    );
                }
                origin(at.key("password"), diagnostics);
            }
            // One that is written and could not be read was reported.
            (Some(_), None) if at.key("password").is_written() => {}
            (Some(_), None) => {
                let help = "add it: \"${file:/run/secrets/ignite}\"";
                diagnostics.problem(at.key("username").location, "the user of Ignite needs a password", help);
            }
            (None, Some(_)) => {
                diagnostics.problem(at.key("password").location, "the password of Ignite needs a username", "add it");
            }
            (None, None) => {}
        }
    }
}

impl StoreTls {
    fn read(&self, at: NodeRef<'_>, context: &CheckContext<'_>, diagnostics: &mut Diagnostics) -> ClientTls {
        if let Some(name) = self.server_name.as_deref().filter(|name| ServerName::try_from(*name).is_err()) {
            let message = format!("no certificate can be for {}", suggest::quoted(name));
            diagnostics.problem(
                at.key("server_name").location,
                message,
                "write a host name or an IP address, without port",
            );
        }
        let certificate = match (&self.client_certificate, &self.client_key) {
            (Some(cert), Some(key)) => {
                let locations = [at.key("client_certificate"), at.key("client_key")];
                certificate_files::client_certificate([cert, key], locations, context, diagnostics)
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
            authorities: self
                .ca
                .as_ref()
                .and_then(|file| certificate_files::authorities(file, at.key("ca"), context, diagnostics)),
            server_name: self.server_name.clone(),
            certificate,
        }
    }
}

/// Normalized `host:port`.
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
