//! The certificate that a client has presented in its TLS handshake, as servers get it.

use http::HeaderValue;

/// Made once for a connection; all of its requests share it.
#[derive(Debug)]
pub struct ClientCertificate {
    /// Its subject, as RFC 4514 writes names; `None` when it has none.
    pub subject: Option<HeaderValue>,
    /// The digest, in hexadecimal digits.
    pub fingerprint: HeaderValue,
    /// All of it, as RFC 9440 has it.
    pub encoded: HeaderValue,
    /// SHA-256 of it.
    pub digest: [u8; 32],
}
