//! `Set-Cookie` fields that the application sends (RFC 6265, section 5.2).

use super::date;
use super::read::unquoted;
use crate::session::token::UnixMillis;

/// One `Set-Cookie` field, parsed as far as the proxy needs. Allocates nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpstreamSetCookie<'a> {
    field: &'a [u8],
    /// The range of the value in the field, quotes included.
    value: (usize, usize),
}

/// What the attributes of a field say of its cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attributes<'a> {
    /// The domain without a leading dot; `None` = the host of the request only.
    pub(super) domain: Option<&'a [u8]>,
    /// The path; `None` = the default path of the request.
    pub(super) path: Option<&'a [u8]>,
    /// The cookie is deleted.
    pub(super) expires: bool,
}

impl<'a> UpstreamSetCookie<'a> {
    /// The field, if it sets the cookie of this name. Names are compared exactly.
    #[must_use]
    pub fn named(field: &'a [u8], name: &[u8]) -> Option<Self> {
        let end = field.iter().position(|byte| *byte == b';').unwrap_or(field.len());
        let pair = field.get(..end)?;
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        if pair.get(..equals)?.trim_ascii() != name {
            return None;
        }
        let raw = pair.get(equals + 1..)?;
        let start = equals + 1 + (raw.len() - raw.trim_ascii_start().len());
        Some(Self { field, value: (start, start + raw.trim_ascii().len()) })
    }

    /// The value without its quotes, as requests will be read.
    #[must_use]
    pub fn value(&self) -> &'a [u8] {
        unquoted(self.written())
    }

    /// The value as the application wrote it, with its quotes.
    #[must_use]
    pub fn written(&self) -> &'a [u8] {
        self.field.get(self.value.0..self.value.1).unwrap_or_default()
    }

    /// Whether the field deletes the cookie: `Max-Age` decides, otherwise `Expires`.
    #[must_use]
    pub fn deletes_cookie(&self, now: UnixMillis) -> bool {
        self.attributes(now).expires
    }

    /// What says which cookie it is and whether it is deleted. Of several attributes of one name the last that can be read
    /// counts.
    pub(super) fn attributes(&self, now: UnixMillis) -> Attributes<'a> {
        let (mut max_age, mut expires) = (None, None);
        let (mut domain, mut path) = (None, None);
        for attribute in self.field.get(self.value.1..).unwrap_or_default().split(|byte| *byte == b';').skip(1) {
            let mut parts = attribute.splitn(2, |byte| *byte == b'=');
            let name = parts.next().unwrap_or_default().trim_ascii();
            let value = parts.next().unwrap_or_default().trim_ascii();
            if name.eq_ignore_ascii_case(b"max-age") {
                max_age = is_over(value).or(max_age);
            } else if name.eq_ignore_ascii_case(b"expires") {
                expires = is_past(value, now).or(expires);
            } else if name.eq_ignore_ascii_case(b"path") {
                // The last one counts, also when it says nothing.
                path = Some(value).filter(|value| value.starts_with(b"/"));
            } else if name.eq_ignore_ascii_case(b"domain") && !value.is_empty() {
                let value = value.strip_prefix(b".").unwrap_or(value);
                domain = Some(value).filter(|value| !value.is_empty());
            }
        }
        Attributes { domain, path, expires: max_age.or(expires).unwrap_or(false) }
    }

    /// The field with another value; its attributes stay as the application wrote them.
    #[must_use]
    pub fn with_value(&self, value: &[u8]) -> Vec<u8> {
        let (start, end) = self.value;
        self.replaced(start, end, &[value])
    }

    /// The field with a prefix before its value, inside the quotes if there are any: an application that quotes its value
    /// gets it back with quotes.
    #[must_use]
    pub fn with_prefix(&self, prefix: &[&[u8]]) -> Vec<u8> {
        let quote = self.written().len() > self.value().len();
        let start = self.value.0 + usize::from(quote);
        self.replaced(start, start, prefix)
    }

    fn replaced(&self, start: usize, end: usize, by: &[&[u8]]) -> Vec<u8> {
        let before = self.field.get(..start).unwrap_or_default();
        let after = self.field.get(end..).unwrap_or_default();
        [&[before][..], by, &[after][..]].concat().concat()
    }
}

/// `Max-Age` is a number of seconds; zero or less deletes the cookie. Other values are ignored.
fn is_over(value: &[u8]) -> Option<bool> {
    match value {
        [b'-', digits @ ..] if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => Some(true),
        [first, ..] if first.is_ascii_digit() && value.iter().all(u8::is_ascii_digit) => {
            Some(value.iter().all(|digit| *digit == b'0'))
        }
        _ => None,
    }
}

/// Whether a cookie date has passed. What is no date is ignored.
fn is_past(value: &[u8], now: UnixMillis) -> Option<bool> {
    let date = date::parse(value)?;
    // A date before 1970 has passed.
    Some(u64::try_from(date).map_or(true, |seconds| UnixMillis::from_secs(seconds) <= now))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

    fn set(field: &str) -> Option<UpstreamSetCookie<'_>> {
        UpstreamSetCookie::named(field.as_bytes(), b"SID")
    }

    #[test]
    fn the_cookie_of_that_name_is_found_and_no_other() {
        assert_eq!(set("SID=abc; Path=/").unwrap().value(), b"abc");
        assert_eq!(set(" SID = abc ").unwrap().value(), b"abc");
        assert_eq!(set("SID=\"a b\"; HttpOnly").unwrap().value(), b"a b");
        assert_eq!(set("SID=").unwrap().value(), b"");
        assert_eq!(set("SID=a=b").unwrap().value(), b"a=b");
        for other in ["SIDX=abc", "XSID=abc", "sid=abc", "SID", "", "a=1; SID=abc"] {
            assert_eq!(set(other), None, "{other}");
        }
    }

    #[test]
    fn an_application_expires_its_cookie_in_many_ways() {
        for field in [
            "SID=x; Max-Age=0",
            "SID=; max-age=-1; Path=/",
            "SID=x; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
            "SID=x; expires=Thu, 01-Jan-1970 00:00:01 GMT; path=/",
            "SID=deleted; Max-Age=0; Expires=Fri, 31 Dec 9999 23:59:59 GMT",
            "SID=x; Expires=Sunday, 06-Nov-94 08:49:37 GMT",
            "SID=x; Expires=Mon, 01-Jan-1900 00:00:00 GMT",
            "SID=x; Expires=Sat, 1-Jan-70 0:0:0",
            "SID=x; Expires=Mon, 01 Jan 1601 00:00:00 GMT",
            "SID=x; Expires=Fri, 31-Dec-2099 23:59:59 GMT; Expires=1 Jan 2000 00:00:00; Expires=never",
        ] {
            assert!(set(field).unwrap().deletes_cookie(NOW), "{field}");
        }
        for field in [
            "SID=x",
            "SID=; Path=/",
            "SID=x; Max-Age=3600; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
            "SID=x; Max-Age=; Path=/",
            "SID=x; Max-Age=soon",
            "SID=x; Expires=Fri, 31-Dec-2099 23:59:59 GMT",
            "SID=x; Expires=never",
        ] {
            assert!(!set(field).unwrap().deletes_cookie(NOW), "{field}");
        }
    }

    #[test]
    fn a_new_value_leaves_the_attributes_as_they_were() {
        let field = set("SID= \"abc\" ; Path=/shop;HttpOnly").unwrap();
        assert_eq!(field.with_value(b"token"), b"SID= token ; Path=/shop;HttpOnly");
        assert_eq!(set("SID=").unwrap().with_value(b"x"), b"SID=x");
    }

    #[test]
    fn a_prefix_leaves_the_value_and_its_quotes_as_they_were() {
        for (field, expected) in [
            ("SID=abc; Path=/", "SID=token~abc; Path=/"),
            ("SID= \"a b\" ; Path=/", "SID= \"token~a b\" ; Path=/"),
            ("SID=\"\"", "SID=\"token~\""),
            ("SID=", "SID=token~"),
            ("SID=\"; X", "SID=token~\"; X"),
        ] {
            let prefixed = set(field).unwrap().with_prefix(&[b"token", b"~"]);
            assert_eq!(String::from_utf8(prefixed).unwrap(), expected);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_without_a_panic(field in prop::collection::vec(any::<u8>(), 0..80)) {
            let field = [b"SID=".as_slice(), &field].concat();
            let set = UpstreamSetCookie::named(&field, b"SID").unwrap();
            let _ = set.deletes_cookie(NOW);
            let replaced = set.with_value(b"new");
            prop_assert_eq!(UpstreamSetCookie::named(&replaced, b"SID").unwrap().value(), b"new");
        }
    }
}
