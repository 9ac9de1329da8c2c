//! Certificates: whether the files can be read, hold what they should, and fit each other and the hosts.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use crate::config::address;
use crate::config::check_context::{CheckContext, NodeRef};
use crate::config::diagnostics::Diagnostics;
use crate::config::environment::FileText;
use crate::config::raw;
use crate::config::suggest::quoted;
use crate::config::tls::{Certificate, ClientCa, ClientCertificate, NamedFile, Tls};

const READABLE: &str =
    "a relative path begins at the folder of this file; the user that homing runs as must be allowed to read it";
const CERTIFICATES: &str = "it should be PEM, the host's own certificate first: -----BEGIN CERTIFICATE-----";
const KEYS: &str = "it should be PEM, not encrypted: -----BEGIN PRIVATE KEY-----, -----BEGIN EC PRIVATE KEY----- or \
                    -----BEGIN RSA PRIVATE KEY-----";

/// It means something only if no problem was found.
pub(super) fn tls(
    tls: &raw::ListenerTls,
    at: NodeRef<'_>,
    context: &CheckContext<'_>,
    diagnostics: &mut Diagnostics,
) -> Tls {
    let written = tls.certificates.iter().enumerate();
    let certificates = written
        .filter_map(|(index, one)| {
            certificate(one, index == 0, at.key("certificates").item(index), context, diagnostics)
        })
        .collect();
    Tls {
        min_version: tls.min_version,
        certificates,
        client_ca: tls.client_ca.as_ref().and_then(|file| authorities(file, at.key("client_ca"), context, diagnostics)),
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
        let message = format!("the certificate {} names no host, so nobody is ever shown it", quoted(&cert.written));
        diagnostics.warn(at.key("cert").location, message, "say which in hosts");
    }
    let not_after = own.validity().not_after.timestamp();
    drop(own);
    Some(Certificate { cert, key, hosts, chain, private_key: Arc::new(private_key), not_after })
}

fn named(written: &str, context: &CheckContext<'_>) -> NamedFile {
    NamedFile { written: written.to_owned(), path: context.folder.join(written) }
}

fn read(
    what: &str,
    file: &NamedFile,
    at: NodeRef<'_>,
    context: &CheckContext<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<FileText> {
    match context.environment.file(&file.path) {
        Ok(text) => Some(text),
        Err(why) => {
            diagnostics.problem(at.location, format!("cannot read {what} {}: {why}", quoted(&file.written)), READABLE);
            None
        }
    }
}

fn chain(
    file: &NamedFile,
    at: NodeRef<'_>,
    context: &CheckContext<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<Vec<CertificateDer<'static>>> {
    let text = read("the certificate", file, at, context, diagnostics)?.text;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Some(chain),
        Ok(_) => {
            diagnostics.problem(at.location, format!("{} holds no certificate", quoted(&file.written)), CERTIFICATES);
            None
        }
        Err(_) => {
            not_a_certificate(file, at, diagnostics);
            None
        }
    }
}

fn not_a_certificate(file: &NamedFile, at: NodeRef<'_>, diagnostics: &mut Diagnostics) {
    diagnostics.problem(at.location, format!("{} is damaged", quoted(&file.written)), CERTIFICATES);
}

fn private_key(
    file: &NamedFile,
    at: NodeRef<'_>,
    context: &CheckContext<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<PrivateKeyDer<'static>> {
    let FileText { text, readable_by_others } = read("the key", file, at, context, diagnostics)?;
    if readable_by_others {
        let message = format!("every user of this machine may read the key {}", quoted(&file.written));
        diagnostics.warn(at.location, message, "chmod 600, or 640 with a group for homing");
    }
    match PrivateKeyDer::from_pem_slice(text.as_bytes()) {
        Ok(key) => Some(key),
        Err(error) => {
            let what = if matches!(error, pem::Error::NoItemsFound) { "holds no private key" } else { "is damaged" };
            diagnostics.problem(at.location, format!("{} {what}", quoted(&file.written)), KEYS);
            None
        }
    }
}

/// The key is of a kind that we can use, and belongs to the certificate.
fn fit(
    [cert, key]: [&NamedFile; 2],
    chain: &[CertificateDer<'static>],
    private_key: &PrivateKeyDer<'static>,
    [cert_at, key_at]: [NodeRef<'_>; 2],
    diagnostics: &mut Diagnostics,
) -> Option<()> {
    let Ok(signing) = any_supported_type(private_key) else {
        let message = format!("the key {} is of a kind that is not supported", quoted(&key.written));
        diagnostics.problem(key_at.location, message, "use RSA of 2048 to 8192 bits, ECDSA P-256 or P-384, or Ed25519");
        return None;
    };
    match CertifiedKey::new(chain.to_vec(), signing).keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Some(()),
        Err(rustls::Error::InconsistentKeys(_)) => {
            let message =
                format!("the key {} does not fit the certificate {}", quoted(&key.written), quoted(&cert.written));
            diagnostics.problem(key_at.location, message, "name the key that the certificate was made with");
            None
        }
        Err(_) => {
            not_a_certificate(cert, cert_at, diagnostics);
            None
        }
    }
}

fn validity(
    own: &X509Certificate<'_>,
    file: &NamedFile,
    at: NodeRef<'_>,
    context: &CheckContext<'_>,
    diagnostics: &mut Diagnostics,
) {
    let now = context.environment.now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let (begin, end) = (own.validity().not_before, own.validity().not_after);
    let name = quoted(&file.written);
    if now > end.timestamp() {
        diagnostics.warn(at.location, format!("the certificate {name} expired on {end}"), "put a new one in its place");
    } else if now < begin.timestamp() {
        let message = format!("the certificate {name} is not valid before {begin}");
        diagnostics.warn(at.location, message, "look at the clock of this machine");
    }
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

/// What the proxy shows to a server that it is a client of.
pub(super) fn client_certificate(
    [cert, key]: [&str; 2],
    locations: [NodeRef<'_>; 2],
    context: &CheckContext<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<ClientCertificate> {
    let [cert_at, key_at] = locations;
    let (cert, key) = (named(cert, context), named(key, context));
    let chain = chain(&cert, cert_at, context, diagnostics);
    let private_key = private_key(&key, key_at, context, diagnostics);
    let (chain, private_key) = (chain?, private_key?);
    fit([&cert, &key], &chain, &private_key, locations, diagnostics)?;
    let Some(Ok((_, own))) = chain.first().map(|own| X509Certificate::from_der(own)) else {
        not_a_certificate(&cert, cert_at, diagnostics);
        return None;
    };
    validity(&own, &cert, cert_at, context, diagnostics);
    drop(own);
    Some(ClientCertificate { cert, key, chain, private_key: Arc::new(private_key) })
}

/// Certificates that others are signed by.
pub(super) fn authorities(
    written: &str,
    at: NodeRef<'_>,
    context: &CheckContext<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<ClientCa> {
    let file = named(written, context);
    let authorities = chain(&file, at, context, diagnostics)?;
    let mut store = RootCertStore::empty();
    if authorities.iter().any(|one| store.add(one.clone()).is_err()) {
        not_a_certificate(&file, at, diagnostics);
        return None;
    }
    Some(ClientCa { file, authorities })
}
