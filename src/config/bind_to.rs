//! What a session belongs to besides its token or id: `bind_to`.

use http::{HeaderName, header};

use super::address;
use crate::session::source::RESERVED_HEADERS;

/// Whose session it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BindTo {
    /// Of the certificate that its client presented in the TLS handshake.
    ClientCertificate,
    /// Of the user in `Authorization: Basic`.
    User,
    /// Of what this header says, which a proxy in front or the application's clients send.
    Header(HeaderName),
}

/// Families of names that the proxy takes off requests or sets itself.
const OWN_FAMILIES: [&str; 4] = ["client-cert", "x-client-cert", "homing-", "trace"];

impl BindTo {
    /// Whether the proxy itself decides what servers get in the header, or it has another meaning. Credentials may name a user.
    pub(crate) fn is_reserved(&self) -> bool {
        let Self::Header(name) = self else { return false };
        let means_something = RESERVED_HEADERS.contains(&name.as_str()) && *name != header::AUTHORIZATION;
        means_something || OWN_FAMILIES.into_iter().any(|family| name.as_str().starts_with(family))
    }

    /// What can be written.
    pub(crate) const FORMS: [&str; 3] = ["client_certificate", "user", "header:NAME"];

    /// From what is written; `None` when it is none of [`FORMS`](Self::FORMS).
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once(':') {
            None if text == "client_certificate" => Some(Self::ClientCertificate),
            None if text == "user" => Some(Self::User),
            Some(("header", name)) if address::is_token(name) => {
                HeaderName::from_bytes(name.as_bytes()).ok().map(Self::Header)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_are_understood_and_no_others() {
        assert_eq!(BindTo::parse("client_certificate"), Some(BindTo::ClientCertificate));
        assert_eq!(BindTo::parse("user"), Some(BindTo::User));
        let header = HeaderName::from_static("x-remote-user");
        assert_eq!(BindTo::parse("header:X-Remote-User"), Some(BindTo::Header(header)));
        for reserved in ["Cookie", "X-Forwarded-For", "Client-Cert", "x-client-cert-subject", "Homing-X", "traceparent"]
        {
            let header = BindTo::parse(&format!("header:{reserved}")).unwrap();
            assert!(header.is_reserved(), "{reserved}");
        }
        for free in ["header:Authorization", "header:X-Forwarded-User", "header:X-Remote-User", "user"] {
            assert!(!BindTo::parse(free).unwrap().is_reserved(), "{free}");
        }
        for text in ["", "none", "User", "header", "header:", "header:a b", "cookie:a", "client_certificate:x"] {
            assert_eq!(BindTo::parse(text), None, "{text}");
        }
    }
}
