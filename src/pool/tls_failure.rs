//! Why there is no TLS connection to a server: from Pingora's errors to a kind, a reason and a hint.

use std::error::Error as StdError;
use std::io;

use pingora::Error;
use pingora::ErrorType::{self, InvalidCert, TLSHandshakeFailure};
use rustls::AlertDescription;

use crate::telemetry::metrics::UpstreamError;

/// The server agreed to TLS and not to HTTP/2, which the pool demands.
pub const NO_HTTP2: ErrorType = ErrorType::Custom("NoHttp2");

/// What rustls writes before what is wrong with a certificate. Pingora passes the text on, and nothing else.
const CERTIFICATE: &str = "invalid peer certificate: ";

/// A failed handshake.
#[derive(Debug, PartialEq, Eq)]
pub struct TlsFailure {
    /// For metrics.
    pub kind: UpstreamError,
    /// For the log.
    pub reason: String,
}

impl TlsFailure {
    /// What an operator can do.
    pub fn help(&self) -> &'static str {
        match self.kind {
            UpstreamError::CertificateUntrusted => {
                "name the authority that signs the server's certificate in connection.tls.ca"
            }
            UpstreamError::CertificateExpired => {
                "renew the server's certificate; if it is valid, look at the clock here"
            }
            UpstreamError::CertificateName => {
                "write a name that the server's certificate is for in connection.tls.sni, or give it one for this address"
            }
            UpstreamError::NoHttp2 => "write connection.protocol: auto or http1, or enable HTTP/2 at the server",
            _ => {
                "does the server expect TLS at this port, and a certificate of the proxy (connection.tls.cert)? Versions \
                 1.2 and 1.3 are spoken"
            }
        }
    }
}

/// The failed handshake that an error is about; `None`: it is about something else.
pub fn tls_failure(error: &Error) -> Option<TlsFailure> {
    if *error.etype() == NO_HTTP2 {
        let reason = "it does not agree to HTTP/2 (ALPN)".to_owned();
        return Some(TlsFailure { kind: UpstreamError::NoHttp2, reason });
    }
    if !matches!(error.etype(), TLSHandshakeFailure | InvalidCert) {
        return None;
    }
    let text = error.to_string();
    let Some((_, certificate)) = text.split_once(CERTIFICATE) else {
        let reason = text.rsplit_once("cause: ").map_or(text.as_str(), |(_, cause)| cause);
        return Some(TlsFailure { kind: UpstreamError::TlsHandshake, reason: before_name(reason).to_owned() });
    };
    let certificate = before_name(certificate);
    let kind =
        if certificate.starts_with("certificate not valid for name") || certificate.starts_with("NotValidForName") {
            UpstreamError::CertificateName
        } else if ["certificate expired", "certificate not valid yet", "Expired", "NotValidYet"]
            .iter()
            .any(|words| certificate.starts_with(words))
        {
            UpstreamError::CertificateExpired
        } else {
            UpstreamError::CertificateUntrusted
        };
    Some(TlsFailure { kind, reason: certificate.to_owned() })
}

/// Pingora adds the name of the server.
fn before_name(text: &str) -> &str {
    text.split(", SNI: ").next().unwrap_or(text)
}

/// The server ended the handshake after the proxy had taken it for complete, as it does with TLS 1.3 when it wants another
/// certificate of the proxy, or one at all: no request was processed.
pub fn refused_by_server(error: &Error) -> Option<TlsFailure> {
    let alert = alert_of(error.root_cause())?;
    let of_handshake = matches!(
        alert,
        AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError
            | AlertDescription::HandshakeFailure
    );
    of_handshake.then(|| TlsFailure {
        kind: UpstreamError::TlsHandshake,
        reason: format!("the server does not accept the proxy's certificate: {alert:?}"),
    })
}

fn alert_of(error: &(dyn StdError + 'static)) -> Option<AlertDescription> {
    if let Some(rustls::Error::AlertReceived(alert)) = error.downcast_ref::<rustls::Error>() {
        return Some(*alert);
    }
    let system = match error.downcast_ref::<h2::Error>() {
        Some(error) => error.get_io()?,
        None => error.downcast_ref::<io::Error>()?,
    };
    alert_of(system.get_ref()?)
}
