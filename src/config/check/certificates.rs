//! Certificates of listeners: whether they fit the hosts.

use std::sync::Arc;

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::acme;
use crate::config::address;
use crate::config::certificate_files::{
    NamedFile, authorities, chain, fit, named, not_a_certificate, private_key, validity,
};
use crate::config::check_context::{CheckContext, NodeRef};
use crate::config::diagnostics::Diagnostics;
use crate::config::raw;
use crate::config::suggest::quoted;
use crate::config::tls::{Certificate, Tls};

/// It means something only if no problem was found.
pub(super) fn tls(
    tls: &raw::ListenerTls,
    at: NodeRef<'_>,
    context: &CheckContext<'_>,
    diagnostics: &mut Diagnostics,
) -> Tls {
    // What is written and wrong was reported, and is not in the tree any more.
    let is_reported = at.key("certificates").location.is_some_and(|place| diagnostics.has_problem_in(place));
    if tls.certificates.is_empty() && tls.acme.is_none() && !is_reported {
        let help = "name a certificate and its key, like [{ cert: tls/shop.pem, key: tls/shop.key }], or add acme";
        let location = at.key("certificates").location.or_else(|| at.key_location("certificates"));
        diagnostics.problem(location, "\"tls\" needs certificates", help);
    }
    let written = tls.certificates.iter().enumerate();
    let certificates = written
        .filter_map(|(index, one)| {
            certificate(one, index == 0, at.key("certificates").item(index), context, diagnostics)
        })
        .collect();
    if tls.client_auth == raw::ClientAuth::Optional && tls.client_ca.is_none() {
        let message = "client_auth: optional means nothing without client_ca: clients are not asked for a certificate";
        let help =
            "write client_ca: FILE, with the authorities that sign the clients' certificates, or remove the line";
        diagnostics.problem(at.key("client_auth").location, message, help);
    }
    Tls {
        min_version: tls.min_version,
        client_auth: tls.client_auth,
        certificates,
        client_ca: tls.client_ca.as_ref().and_then(|file| authorities(file, at.key("client_ca"), context, diagnostics)),
        acme: tls.acme.as_ref().map(|written| acme::acme(written, at.key("acme"), context, diagnostics)),
    }
}

fn certificate(
    written: &raw::ListenerCertificate,
    first: bool,
    at: NodeRef<'_>,
    context: &CheckContext<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<Certificate> {
    let cert = named(&written.cert, context);
    let key = named(&written.key, context);
    let chain = chain(&cert, at.key("cert"), context, diagnostics);
    let private_key = private_key(&key, at.key("key"), context, diagnostics);
    let (chain, private_key) = (chain?, private_key?);
    fit([&cert, &key], &chain, &private_key, [at.key("cert"), at.key("key")], diagnostics)?;
    let own = chain.first()?;
    let Ok((_, own)) = X509Certificate::from_der(own) else {
        not_a_certificate(&cert, at.key("cert"), diagnostics);
        return None;
    };
    validity(&own, &cert, at.key("cert"), context, diagnostics);
    let covered = names(&own);
    let hosts = if written.hosts.is_empty() {
        covered
    } else {
        hosts(&written.hosts, &covered, &cert, at.key("hosts"), diagnostics)
    };
    if hosts.is_empty() && !first {
        let message = format!("the certificate {} names no host, so it is never used", quoted(&cert.written));
        diagnostics.warn(at.key("cert").location, message, "say which in hosts");
    }
    let not_after = own.validity().not_after.timestamp();
    drop(own);
    Some(Certificate { cert, key, hosts, chain, private_key: Arc::new(private_key), not_after })
}

/// Host names that a certificate is for, lower case.
fn names(own: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = own.subject_alternative_name() else { return Vec::new() };
    let dns = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_lowercase()),
        _ => None,
    });
    dns.collect()
}

fn hosts(
    written: &[String],
    covered: &[String],
    cert: &NamedFile,
    at: NodeRef<'_>,
    diagnostics: &mut Diagnostics,
) -> Vec<String> {
    let mut hosts = Vec::new();
    for (index, text) in written.iter().enumerate() {
        let location = at.item(index).location;
        let (wildcard, name) = text.strip_prefix("*.").map_or(("", text.as_str()), |name| ("*.", name));
        let host = match address::route_host(name) {
            Ok(host) if !host.starts_with('[') => format!("{wildcard}{host}"),
            Ok(_) => {
                let help = "clients ask for names, never for addresses; leave it out";
                diagnostics.problem(location, format!("{} is no host name", quoted(text)), help);
                continue;
            }
            Err(help) => {
                diagnostics.problem(location, format!("{} is no host name", quoted(text)), help);
                continue;
            }
        };
        if !covered.iter().any(|name| covers(name, &host)) {
            let message = format!("the certificate {} is not for {}", quoted(&cert.written), quoted(text));
            let help = if covered.is_empty() {
                "it is for no host at all; browsers will refuse it".to_owned()
            } else {
                format!("browsers will refuse it; it is for {}", covered.join(", "))
            };
            diagnostics.warn(location, message, help);
        }
        hosts.push(host);
    }
    hosts
}

/// A wildcard stands for exactly one label (RFC 9525, section 6.3).
fn covers(name: &str, host: &str) -> bool {
    let parent = |host: &str| host.split_once('.').map(|(_, parent)| parent.to_owned());
    name == host || name.strip_prefix("*.").is_some_and(|suffix| parent(host).as_deref() == Some(suffix))
}
