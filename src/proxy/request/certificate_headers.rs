//! Headers that tell servers which certificate a client has presented.

use crate::message::{FieldValue, RequestEdits, WrittenName};
use crate::proxy::context::ClientCertificate;

static SENT_SUBJECT: WrittenName = WrittenName::new("X-Client-Cert-Subject", "x-client-cert-subject");
static SENT_FINGERPRINT: WrittenName = WrittenName::new("X-Client-Cert-Fingerprint", "x-client-cert-fingerprint");
static SENT_CERTIFICATE: WrittenName = WrittenName::new("Client-Cert", "client-cert");

/// Families of names that say which certificate a client has presented: the name itself, or it and a hyphen. No peer is believed
/// in them, since only the proxy's own handshake can tell.
pub(super) const CLIENT_CERT: &str = "client-cert";
/// The same for the names that are no standard.
pub(super) const X_CLIENT_CERT: &str = "x-client-cert";

/// What servers are told of the client's certificate.
pub(super) fn forward_certificate(certificate: &ClientCertificate, edits: &mut RequestEdits<'_, FieldValue<'_>>) {
    if let Some(subject) = &certificate.subject {
        edits.set.push((&SENT_SUBJECT, FieldValue::Own(subject.clone())));
    }
    edits.set.push((&SENT_FINGERPRINT, FieldValue::Own(certificate.fingerprint.clone())));
    edits.set.push((&SENT_CERTIFICATE, FieldValue::Own(certificate.encoded.clone())));
}
