//! What a session belongs to besides its token or id: `bind_to`.

use http::HeaderName;

use super::address;

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

impl BindTo {
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
        for text in ["", "none", "User", "header", "header:", "header:a b", "cookie:a", "client_certificate:x"] {
            assert_eq!(BindTo::parse(text), None, "{text}");
        }
    }
}
