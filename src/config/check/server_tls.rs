//! TLS to servers: the name that their certificates are for, the authorities, the proxy's own certificate.

use rustls::pki_types::ServerName;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::config::address::ServerAddress;
use crate::config::certificate_files::{self, ClientCa, ClientCertificate, ClientTls, not_a_certificate, validity};
use crate::config::check_context::{CheckContext, NodeRef};
use crate::config::diagnostics::Diagnostics;
use crate::config::pools::Server;
use crate::config::raw::{Connection, ConnectionTls, UpstreamProtocol};
use crate::config::suggest::quoted;
use crate::config::tls::ServerTls;

/// `at`: the pool. It means something only if no problem was found.
pub(super) fn server_tls(
    connection: &Connection,
    servers: &[Server],
    at: NodeRef<'_>,
    context: &CheckContext<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<ServerTls> {
    let connection_at = at.key("connection");
    let Some(tls) = &connection.tls else {
        if connection.protocol == UpstreamProtocol::Auto {
            let message = "without tls, protocol: auto is HTTP/1.1";
            diagnostics.warn(
                connection_at.key("protocol").location,
                message,
                "write http1, or h2 for HTTP/2 without TLS",
            );
        }
        return None;
    };
    let tls_at = connection_at.key("tls");
    names(tls, servers, [at.key("servers"), tls_at], diagnostics);
    if !tls.verify {
        let message = "servers' certificates are not verified: whatever answers at an address gets its requests";
        diagnostics.warn(
            tls_at.key("verify").location,
            message,
            "write verify: true, and the servers' authority in ca",
        );
        if tls.ca.is_some() {
            diagnostics.warn(
                tls_at.key_location("ca"),
                "\"ca\" means nothing with verify: false",
                "remove one of them",
            );
        }
    }
    Some(ServerTls {
        verify: tls.verify,
        client: ClientTls {
            authorities: tls.ca.as_ref().and_then(|file| authorities(file, tls_at.key("ca"), context, diagnostics)),
            server_name: tls.sni.clone(),
            certificate: certificate(tls, tls_at, context, diagnostics),
        },
    })
}

/// Each server needs a name that a certificate can be for.
fn names(
    tls: &ConnectionTls,
    servers: &[Server],
    [servers_at, tls_at]: [NodeRef<'_>; 2],
    diagnostics: &mut Diagnostics,
) {
    const HELP: &str = "write a host name or an IP address, without port";
    if let Some(sni) = &tls.sni {
        if ServerName::try_from(sni.as_str()).is_err() || is_changed_by_pingora(sni) {
            let message = format!("no certificate can be for {}", quoted(sni));
            diagnostics.problem(tls_at.key("sni").location, message, HELP);
        }
        return;
    }
    for (index, server) in servers.iter().enumerate() {
        let location = servers_at.item(index).key("address").location;
        match &server.address {
            ServerAddress::Unix(_) if tls.verify => {
                let message = format!("no certificate can be for the unix socket of server {}", quoted(&server.name));
                diagnostics.problem(location, message, "write in connection.tls.sni which name its certificate has");
            }
            ServerAddress::Name { host, .. }
                if ServerName::try_from(host.as_str()).is_err() || is_changed_by_pingora(host) =>
            {
                let message = format!("no certificate can be for {}", quoted(host));
                diagnostics.problem(location, message, "write in connection.tls.sni which name its certificate has");
            }
            _ => {}
        }
    }
}

/// Pingora 0.9.1 replaces each underscore in the first of three or more labels by a hyphen, which is another host's name.
fn is_changed_by_pingora(host: &str) -> bool {
    host.split_once('.').is_some_and(|(first, rest)| first.contains('_') && rest.contains('.'))
}

fn authorities(
    file: &str,
    at: NodeRef<'_>,
    context: &CheckContext<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<ClientCa> {
    let found = certificate_files::authorities(file, at, context, diagnostics)?;
    for authority in &found.authorities {
        let Ok((_, authority)) = X509Certificate::from_der(authority) else {
            not_a_certificate(&found.file, at, diagnostics);
            return None;
        };
        validity(&authority, &found.file, at, context, diagnostics);
    }
    Some(found)
}

fn certificate(
    tls: &ConnectionTls,
    at: NodeRef<'_>,
    context: &CheckContext<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<ClientCertificate> {
    match (&tls.cert, &tls.key) {
        (Some(cert), Some(key)) => {
            let locations = [at.key("cert"), at.key("key")];
            let own = certificate_files::client_certificate([cert, key], locations, context, diagnostics)?;
            if own.chain.iter().any(|one| X509Certificate::from_der(one).is_err()) {
                not_a_certificate(&own.cert, at.key("cert"), diagnostics);
                return None;
            }
            Some(own)
        }
        (Some(_), None) => {
            diagnostics.problem(at.key("cert").location, "\"cert\" needs a key", "add key");
            None
        }
        (None, Some(_)) => {
            diagnostics.problem(at.key("key").location, "\"key\" needs a certificate", "add cert");
            None
        }
        (None, None) => None,
    }
}
