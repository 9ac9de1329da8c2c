//! Certificates of listeners, for operators: the metrics of when they expire, and their changes in the event list.

use std::time::{Duration, UNIX_EPOCH};

use crate::config::{Certificate, Config};
use crate::telemetry::events::{self, Change, EventKind, cause};
use crate::telemetry::metrics::Metrics;

use super::acme::live::LiveCertificates;

/// Shows the certificates in use. `previous` is the configuration before a reload; without it all are new.
pub(super) fn report_certificates(
    metrics: &Metrics,
    acme: &LiveCertificates,
    previous: Option<&Config>,
    current: &Config,
) {
    show_expiries(metrics, acme, current);
    for change in changes(previous.map(validities).unwrap_or_default(), validities(current)) {
        events::record(change);
    }
}

/// Shows when all certificates expire.
pub(super) fn show_expiries(metrics: &Metrics, acme: &LiveCertificates, config: &Config) {
    let of_files = certificates(config).map(|one| (one.name(), one.not_after));
    let ordered = acme.expiries(config);
    metrics.certificates(of_files.chain(ordered.iter().map(|(host, not_after)| (host.as_str(), *not_after))));
}

/// A certificate was ordered, or another proxy's was found. `before` and `not_after` are the ends of their validity.
pub(super) fn record_issued(host: &str, before: Option<i64>, not_after: i64) {
    let what = if before.is_some() { "renewed" } else { "issued" };
    let expires = date(not_after);
    tracing::info!(host, %expires, "certificate {what}");
    let mut change = Change::new(EventKind::Certificate).reason(&format!("{host}: {what}")).who(cause::ACME);
    change.from = before.map(|end| date(end).into());
    change.to = Some(expires.into());
    events::record(change);
}

/// A certificate was ordered and not issued.
pub(super) fn record_failure(host: &str, why: &str) {
    events::record(Change::new(EventKind::Certificate).reason(&format!("{host}: not issued: {why}")).who(cause::ACME));
}

fn certificates(config: &Config) -> impl Iterator<Item = &Certificate> {
    config.listeners.iter().filter_map(|listener| listener.tls.as_ref()).flat_map(|tls| &tls.certificates)
}

/// What identifies a certificate to an operator, and what makes it another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Validity<'a> {
    name: &'a str,
    /// The host's certificate, as DER.
    der: &'a [u8],
    /// In seconds since 1970.
    not_after: i64,
}

/// Each certificate once, though several listeners may use it.
fn validities(config: &Config) -> Vec<Validity<'_>> {
    let mut found = Vec::new();
    for one in certificates(config) {
        let der = one.chain.first().map_or(&[][..], |own| own.as_ref());
        let validity = Validity { name: one.name(), der, not_after: one.not_after };
        if !found.contains(&validity) {
            found.push(validity);
        }
    }
    found
}

/// Certificates that were loaded, renewed or removed. From and to are the ends of their validity.
fn changes(previous: Vec<Validity<'_>>, current: Vec<Validity<'_>>) -> Vec<Change> {
    let mut gone = previous;
    let mut loaded = current;
    loaded.retain(|new| match gone.iter().position(|old| old == new) {
        Some(same) => {
            gone.remove(same);
            false
        }
        None => true,
    });
    let mut changes = Vec::new();
    for new in loaded {
        let old = gone.iter().position(|old| old.name == new.name).map(|index| gone.remove(index));
        changes.push(match old {
            Some(old) => change(&new, "renewed", Some(old.not_after), Some(new.not_after)),
            None => change(&new, "loaded", None, Some(new.not_after)),
        });
    }
    changes.extend(gone.iter().map(|old| change(old, "removed", Some(old.not_after), None)));
    changes
}

fn change(of: &Validity<'_>, what: &str, from: Option<i64>, to: Option<i64>) -> Change {
    let mut change = Change::new(EventKind::Certificate).reason(&format!("{}: {what}", of.name)).who(cause::FILE);
    change.from = from.map(|end| date(end).into());
    change.to = to.map(|end| date(end).into());
    change
}

/// RFC 3339. A certificate may be valid until before 1970, or longer than the format can say.
fn date(seconds: i64) -> String {
    const LAST: u64 = 253_402_300_799;
    let since = Duration::from_secs(u64::try_from(seconds).unwrap_or(0).min(LAST));
    humantime::format_rfc3339_seconds(UNIX_EPOCH + since).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn certificate<'a>(name: &'a str, der: &'a [u8], not_after: i64) -> Validity<'a> {
        Validity { name, der, not_after }
    }

    fn told(previous: &[Validity<'_>], current: &[Validity<'_>]) -> Vec<String> {
        let text = |value: &Option<std::sync::Arc<str>>| value.as_deref().unwrap_or("-").to_owned();
        let changes = changes(previous.to_vec(), current.to_vec());
        changes.iter().map(|one| format!("{} {} {}", text(&one.reason), text(&one.from), text(&one.to))).collect()
    }

    #[test]
    fn certificates_are_loaded_renewed_and_removed() {
        let (a, b) = (certificate("a.example", b"1", 0), certificate("b.example", b"2", 86_400));
        let renewed = certificate("a.example", b"3", 172_800);
        assert_eq!(
            told(&[], &[a, b]),
            ["a.example: loaded - 1970-01-01T00:00:00Z", "b.example: loaded - 1970-01-02T00:00:00Z"]
        );
        assert_eq!(
            told(&[a, b], &[renewed]),
            [
                "a.example: renewed 1970-01-01T00:00:00Z 1970-01-03T00:00:00Z",
                "b.example: removed 1970-01-02T00:00:00Z -"
            ]
        );
        assert_eq!(told(&[a, b], &[b, a]), Vec::<String>::new(), "order is no change");
    }

    #[test]
    fn of_two_certificates_for_one_host_the_renewed_one_is_found() {
        let (rsa, ecdsa) = (certificate("a.example", b"rsa", 0), certificate("a.example", b"ecdsa", 86_400));
        let renewed = certificate("a.example", b"ecdsa 2", 172_800);
        assert_eq!(
            told(&[rsa, ecdsa], &[rsa, renewed]),
            ["a.example: renewed 1970-01-02T00:00:00Z 1970-01-03T00:00:00Z"]
        );
    }

    #[test]
    fn any_end_of_validity_can_be_written() {
        assert_eq!(date(-1), "1970-01-01T00:00:00Z");
        assert_eq!(date(i64::MAX), "9999-12-31T23:59:59Z");
    }
}
