//! The identity under which a request may name sessions, where sessions are bound to one (`bind_to`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, header};

use crate::config::BindTo;
use crate::message::Fields;
use crate::session::client_identity::ClientIdentity;
use crate::session::source::{SessionClaim, Source};

use super::pool::PoolPersistence;
use super::scope::Scope;

/// The identity that an operator names, where sessions are bound to one of its kind.
pub fn named_identity(bind_to: &BindTo, certificate: Option<&[u8; 32]>, user: Option<&str>) -> Option<ClientIdentity> {
    match bind_to {
        BindTo::ClientCertificate => certificate.map(ClientIdentity::of_certificate),
        BindTo::User | BindTo::Header(_) => user.map(|name| ClientIdentity::of_user(name.as_bytes())),
    }
}

/// SHA-256 of a certificate as tools write it: 64 hexadecimal digits, with colons or without.
pub fn parse_fingerprint(text: &str) -> Option<[u8; 32]> {
    let digits: String = text.trim().chars().filter(|letter| *letter != ':').collect();
    if digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut digest = [0; 32];
    for (index, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(digest)
}

impl PoolPersistence {
    /// What a source reads from a request, under the client's identity.
    pub(super) fn claim(&self, source: &Source, scope: &Scope<'_, '_>) -> SessionClaim {
        let claim = source.claim(&scope.input(), &self.codec);
        match self.identity(scope) {
            Some(identity) => claim.bound_to(&identity),
            None => claim,
        }
    }

    /// The client's identity; `None` where sessions are bound to none.
    pub fn identity(&self, scope: &Scope<'_, '_>) -> Option<ClientIdentity> {
        let fields = scope.request.fields;
        let identity = match self.bind_to.as_ref()? {
            BindTo::ClientCertificate => scope.certificate.map(ClientIdentity::of_certificate),
            BindTo::User => basic_user(fields).map(|name| ClientIdentity::of_user(&name)),
            BindTo::Header(name) if is_forwarded(name) && !scope.peer_trusted => None,
            BindTo::Header(name) => only(fields, name).map(ClientIdentity::of_user),
        };
        Some(identity.unwrap_or_else(ClientIdentity::none))
    }
}

/// Servers get such a field from trusted peers only.
fn is_forwarded(name: &HeaderName) -> bool {
    name.as_str().starts_with("x-forwarded-") || name.as_str() == "x-real-ip"
}

/// Of several values the server might take another one than the proxy.
fn only<'a>(fields: Fields<'a>, name: &HeaderName) -> Option<&'a [u8]> {
    let mut values = fields.all(name).map(<[u8]>::trim_ascii);
    values.next().filter(|value| !value.is_empty() && values.next().is_none())
}

/// The user's name (RFC 7617). Whether the password fits is for the server to say.
fn basic_user(fields: Fields<'_>) -> Option<Vec<u8>> {
    let value = only(fields, &header::AUTHORIZATION)?;
    let (scheme, credentials) = value.split_at_checked(value.iter().position(|byte| *byte == b' ')?)?;
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return None;
    }
    let mut credentials = STANDARD.decode(credentials.trim_ascii()).ok()?;
    let end = credentials.iter().position(|byte| *byte == b':')?;
    credentials.truncate(end);
    Some(credentials)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;

    fn user(values: &[&str]) -> Option<String> {
        let mut fields = HeaderMap::new();
        for value in values {
            fields.append(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        basic_user(Fields::Map(&fields)).map(|name| String::from_utf8(name).unwrap())
    }

    #[test]
    fn the_user_is_the_name_in_basic_credentials() {
        // alice:secret
        for value in ["Basic YWxpY2U6c2VjcmV0", "basic   YWxpY2U6c2VjcmV0", "BASIC YWxpY2U6c2VjcmV0 "] {
            assert_eq!(user(&[value]).as_deref(), Some("alice"), "{value}");
        }
        // :secret, alice: and alice:a:b
        for (value, name) in [("Basic OnNlY3JldA==", ""), ("Basic YWxpY2U6", "alice"), ("Basic YWxpY2U6YTpi", "alice")]
        {
            assert_eq!(user(&[value]).as_deref(), Some(name), "{value}");
        }
    }

    #[test]
    fn fingerprints_are_read_as_tools_write_them() {
        let colons = ["AB"; 32].join(":");
        assert_eq!(parse_fingerprint(&colons), Some([0xab; 32]));
        assert_eq!(parse_fingerprint(&"0f".repeat(32)), Some([0x0f; 32]));
        for text in ["", "ab", &"0g".repeat(32), &"+1".repeat(32), &"ab".repeat(33)] {
            assert_eq!(parse_fingerprint(text), None, "{text}");
        }
    }

    #[test]
    fn other_credentials_and_several_of_them_name_no_user() {
        for values in [
            &[][..],
            &["Bearer YWxpY2U6c2VjcmV0"],
            &["Basic"],
            &["Basic YWxpY2U="],
            &["Basic ???"],
            &["Basic YWxpY2U6c2VjcmV0", "Basic Ym9iOng="],
            &[""],
        ] {
            assert_eq!(user(values), None, "{values:?}");
        }
    }
}
