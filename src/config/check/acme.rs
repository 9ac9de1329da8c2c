//! Certificates by ACME: the directory, the hosts, and whether challenges can be answered.

use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use url::{Host, Url};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::config::address;
use crate::config::certificate_files::{NamedFile, authorities, validity};
use crate::config::check_context::{CheckContext, NodeRef, UniqueNames};
use crate::config::diagnostics::Diagnostics;
use crate::config::raw;
use crate::config::suggest::quoted;
use crate::config::tls::Acme;

use super::secrets;

const DIRECTORY: &str =
    "write the URL that the certificate authority names, like https://acme-v02.api.letsencrypt.org/directory";

/// It means something only if no problem was found.
pub(super) fn acme(
    acme: &raw::Acme,
    at: NodeRef<'_>,
    context: &CheckContext<'_>,
    diagnostics: &mut Diagnostics,
) -> Acme {
    if !at.key("directory").is_stand_in() && !is_directory(&acme.directory) {
        let message = format!("{} is no directory of a certificate authority", quoted(&acme.directory));
        diagnostics.problem(at.key("directory").location, message, DIRECTORY);
    }
    contacts(&acme.contact, at.key("contact"), diagnostics);
    if let Some(account) = &acme.external_account {
        external_account(account, at.key("external_account"), diagnostics);
    }
    let checked = Acme {
        directory: acme.directory.clone(),
        authorities: acme.ca.as_ref().and_then(|file| authorities(file, at.key("ca"), context, diagnostics)),
        contact: acme.contact.clone(),
        external_account: acme.external_account.clone(),
        hosts: hosts(&acme.hosts, at.key("hosts"), diagnostics),
        storage: acme.storage.clone().into(),
        challenge: acme.challenge,
    };
    storage(&checked.storage, at.key("storage"), context, diagnostics);
    for (index, host) in checked.hosts.iter().enumerate() {
        stored(&checked.certificate_file(host), at.key("hosts").item(index), context, diagnostics);
    }
    checked
}

/// Keys and certificates are not asked for in clear.
fn is_directory(text: &str) -> bool {
    let url = Url::parse(text).ok().filter(|url| url.scheme() == "https" && url.username().is_empty());
    url.is_some_and(|url| match url.host() {
        Some(Host::Domain(name)) => address::is_host_name(name),
        host => host.is_some(),
    })
}

fn contacts(contacts: &[String], at: NodeRef<'_>, diagnostics: &mut Diagnostics) {
    for (index, contact) in contacts.iter().enumerate() {
        let mail = contact.strip_prefix("mailto:").and_then(|mail| mail.split_once('@'));
        if !mail.is_some_and(|(user, host)| !user.is_empty() && address::is_host_name(host)) {
            let message = format!("{} is no address for mail", quoted(contact));
            diagnostics.problem(at.item(index).location, message, "write it like mailto:ops@example.org");
        }
    }
}

fn external_account(account: &raw::ExternalAccount, at: NodeRef<'_>, diagnostics: &mut Diagnostics) {
    if account.key_id.trim().is_empty() {
        diagnostics.problem(at.key("key_id").location, "\"key_id\" is empty", "write the id that the authority shows");
    }
    secrets::secret(&account.key, "the external account", at.key("key"), diagnostics);
    if account.decoded_key().is_none() {
        let help = "copy it as the authority shows it: letters, digits, - and _ (base64url)";
        diagnostics.problem(at.key("key").location, "the key of the external account is not base64url", help);
    }
}

fn hosts(written: &[String], at: NodeRef<'_>, diagnostics: &mut Diagnostics) -> Vec<String> {
    let mut names = UniqueNames::default();
    let mut hosts = Vec::new();
    for (index, text) in written.iter().enumerate() {
        let location = at.item(index).location;
        let refusal = match address::route_host(text) {
            Ok(host) if is_public_name(&host) => {
                names.see(&host, "host", location, diagnostics);
                hosts.push(host);
                continue;
            }
            _ if text.starts_with("*.") => {
                "a wildcard needs the challenge dns-01, which this version has not; list the hosts one by one"
                    .to_owned()
            }
            Ok(_) => "certificates by ACME are for names, like shop.example.org".to_owned(),
            Err(help) => help,
        };
        diagnostics.problem(location, format!("{} cannot have a certificate by ACME", quoted(text)), refusal);
    }
    hosts
}

/// No address, and nothing with an underscore, for which no authority signs.
fn is_public_name(host: &str) -> bool {
    let numeric = host.chars().all(|c| c.is_ascii_digit() || c == '.');
    !host.starts_with('[') && !numeric && !host.contains('_')
}

/// The directory may be made before the start, or by it.
fn storage(path: &Path, at: NodeRef<'_>, context: &CheckContext<'_>, diagnostics: &mut Diagnostics) {
    if !path.is_absolute() || path.parent().is_none() {
        let message = format!("\"storage\" cannot be {}", quoted(&path.display().to_string()));
        let help = "write the absolute path of a directory of its own, like /var/lib/homing/acme";
        diagnostics.problem(at.location, message, help);
        return;
    }
    let parent = path.parent().unwrap_or(path);
    let made = context.environment.takes_files(path);
    if let Err(error) = made.or_else(|error| context.environment.takes_files(parent).map_err(|_parent| error)) {
        let message = format!("no certificates can be stored in {}: {error}", path.display());
        diagnostics.warn(at.location, message, "make the directory, and give it to the user that homing runs as");
    }
}

/// A certificate that was stored and has expired: the proxy could not renew it.
fn stored(path: &Path, at: NodeRef<'_>, context: &CheckContext<'_>, diagnostics: &mut Diagnostics) {
    let Ok(text) = context.environment.file(path) else { return };
    let Ok(own) = CertificateDer::from_pem_slice(text.text.as_bytes()) else { return };
    if let Ok((_, own)) = X509Certificate::from_der(&own) {
        let file = NamedFile { written: path.display().to_string(), path: path.to_owned() };
        validity(&own, &file, at, context, diagnostics);
    }
}

/// A challenge that no listener answers would fail with every order.
pub(super) fn answerable(listeners: &[raw::Listener], at: NodeRef<'_>, diagnostics: &mut Diagnostics) {
    if listeners.iter().any(|listener| listener.tls.is_none()) {
        return;
    }
    for (index, listener) in listeners.iter().enumerate() {
        let acme = listener.tls.as_ref().and_then(|tls| tls.acme.as_ref());
        if acme.is_some_and(|acme| acme.challenge == raw::AcmeChallenge::Http01) {
            let at = at.item(index).key("tls").key("acme");
            let message = "no listener can answer the challenge http-01: all of them have tls";
            let help = "add a listener without tls, like { address: \"0.0.0.0:80\" }, or write challenge: tls-alpn-01";
            diagnostics.problem(at.key("challenge").location.or(at.location), message, help);
        }
    }
}
