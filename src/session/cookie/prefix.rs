//! The token before the application's value, in the application's cookie: `JSESSIONID=TOKEN~0AB3`.

use super::read::{CookieRewrite, unquoted, without_prefix};
use crate::session::token::{TokenText, has_token_shape};

/// Separates the token from the value. A cookie's value may contain it, a token cannot.
pub const SEPARATOR: &[u8] = b"~";

/// The token and the application's value, if the value has the shape of both. Whether the token opens does not matter:
/// a token sealed by a removed key is not part of the application's value either.
#[must_use]
pub fn split(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let (token, rest) = value.split_at_checked(TokenText::LEN)?;
    Some((token, rest.strip_prefix(SEPARATOR)?)).filter(|(token, _)| has_token_shape(token))
}

/// A request's cookie value with its token replaced; quotes and the application's part are unchanged. `None` when it has no
/// token.
#[must_use]
pub fn with_token(written: &[u8], token: &TokenText) -> Option<Vec<u8>> {
    let value = unquoted(written);
    split(value)?;
    let start = usize::from(value.len() < written.len());
    let before = written.get(..start)?;
    let after = written.get(start + TokenText::LEN..)?;
    Some([before, token.as_bytes(), after].concat())
}

/// A request's cookies as the application set them, without our token and without the overflow cookie.
#[must_use]
pub fn strip_token<'a>(fields: impl IntoIterator<Item = &'a [u8]>, name: &[u8], overflow: &[u8]) -> CookieRewrite<'a> {
    without_prefix(fields, name, overflow, |value| split(value).map_or(0, |_| TokenText::LEN + SEPARATOR.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> String {
        format!("AQ{}", "x".repeat(TokenText::LEN - 2))
    }

    fn application_sees(fields: &[String]) -> CookieRewrite<'_> {
        strip_token(fields.iter().map(String::as_bytes), b"SID", b"SID~homing")
    }

    fn replaced(cookies: &str) -> CookieRewrite<'static> {
        CookieRewrite::Replace(cookies.as_bytes().to_vec())
    }

    #[test]
    fn the_application_sees_its_own_value() {
        let token = token();
        assert_eq!(application_sees(&[format!("SID={token}~abc")]), replaced("SID=abc"));
        assert_eq!(application_sees(&[format!("a=1; SID={token}~; b=2")]), replaced("a=1; SID=; b=2"));
        assert_eq!(application_sees(&[format!("SID=\"{token}~a b\"")]), replaced("SID=\"a b\""));
        assert_eq!(application_sees(&[format!("SID={token}~abc"), "b=2".into()]), replaced("SID=abc; b=2"));
        assert_eq!(application_sees(&[format!("SID=abc; SID~homing={token}")]), CookieRewrite::Slice(b"SID=abc"));
        let both = format!("SID={token}~abc; SID~homing={token}; b=2");
        assert_eq!(application_sees(&[both]), replaced("SID=abc; b=2"));
        let twice = format!("SID={token}~x;  SID={token}~y");
        assert_eq!(application_sees(&[twice]), replaced("SID=x;  SID=y"));
    }

    #[test]
    fn a_value_without_a_token_stays_as_it_is() {
        let token = token();
        for cookies in ["SID=abc".to_owned(), format!("SID={token}"), format!("SIDX={token}~abc"), "SID=~abc".into()] {
            assert_eq!(application_sees(&[cookies]), CookieRewrite::Unchanged);
        }
    }

    #[test]
    fn a_value_may_contain_the_separator() {
        let value = format!("{}~a~b", token());
        assert_eq!(split(value.as_bytes()), Some((token().as_bytes(), b"a~b".as_slice())));
    }
}
