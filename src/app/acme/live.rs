//! The certificates that are shown now, swapped as a whole: a handshake finds the old one or the new one.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::config::Config;

use super::certificate::IssuedCertificate;

/// By directory, then by host.
type Certificates = HashMap<String, HashMap<String, Arc<IssuedCertificate>>>;

/// What listeners with `tls.acme` show, by directory and host. Outlives reloads.
#[derive(Debug, Default)]
pub struct LiveCertificates(ArcSwap<Certificates>);

impl LiveCertificates {
    /// The certificate of a host.
    pub(crate) fn find(&self, directory: &str, host: &str) -> Option<Arc<IssuedCertificate>> {
        self.0.load().get(directory)?.get(host).cloned()
    }

    /// Hosts of a configuration with the end of their certificate's validity, in seconds since 1970.
    pub(crate) fn expiries(&self, config: &Config) -> Vec<(String, i64)> {
        let tls = config.listeners.iter().filter_map(|listener| listener.tls.as_ref());
        let mut found = Vec::new();
        for acme in tls.filter_map(|tls| tls.acme.as_ref()) {
            let shown = acme.hosts.iter().filter_map(|host| Some((host, self.find(&acme.directory, host)?.not_after)));
            found.extend(shown.map(|(host, not_after)| (host.clone(), not_after)));
        }
        found
    }

    /// Shows a certificate from the next handshake on.
    pub(super) fn show(&self, directory: &str, host: &str, certificate: &Arc<IssuedCertificate>) {
        self.0.rcu(|before| {
            let mut all = Certificates::clone(before);
            all.entry(directory.to_owned()).or_default().insert(host.to_owned(), Arc::clone(certificate));
            all
        });
    }
}
