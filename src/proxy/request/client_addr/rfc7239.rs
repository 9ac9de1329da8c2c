//! The header `Forwarded` (RFC 7239): the client, scheme and host of the request, as each proxy on the way got it.

use http::HeaderName;
use smallvec::SmallVec;

use crate::message::Fields;

/// `Forwarded`.
pub(crate) const FORWARDED: HeaderName = HeaderName::from_static("forwarded");

/// What one proxy reports of the request that it got: the values as written, without quotes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Hop<'a> {
    /// Its client: an address, perhaps with a port; `unknown`; or a name that begins with `_`.
    pub(crate) client: &'a [u8],
    /// `http` or `https`.
    pub(crate) proto: Option<&'a [u8]>,
    /// The `Host` of the request.
    pub(crate) host: Option<&'a [u8]>,
}

/// All hops from the last to the first, of all fields. `None` is a hop that cannot be read: no trusted proxy vouches for
/// the hops beyond it.
pub(crate) fn hops(fields: Fields<'_>) -> impl Iterator<Item = Option<Hop<'_>>> {
    let fields: SmallVec<[&[u8]; 4]> = fields.all(&FORWARDED).collect();
    fields.into_iter().rev().flat_map(|field| {
        // With an unpaired quote the commas between hops cannot be told from quoted ones.
        let elements = split_unquoted(field, b',');
        let invalid = elements.is_none();
        let hops = elements.unwrap_or_default().into_iter().rev().filter(|element| !element.trim_ascii().is_empty());
        invalid.then_some(None).into_iter().chain(hops.map(hop))
    })
}

/// `for=192.0.2.60;proto=http;host=example.org`
fn hop(element: &[u8]) -> Option<Hop<'_>> {
    let (mut client, mut proto, mut host) = (None, None, None);
    for pair in split_unquoted(element, b';')? {
        let pair = pair.trim_ascii();
        if pair.is_empty() {
            continue;
        }
        let at = pair.iter().position(|byte| *byte == b'=')?;
        let (name, value) = (pair.get(..at)?, pair.get(at + 1..)?);
        let slot = if name.eq_ignore_ascii_case(b"for") {
            &mut client
        } else if name.eq_ignore_ascii_case(b"proto") {
            &mut proto
        } else if name.eq_ignore_ascii_case(b"host") {
            &mut host
        } else {
            continue;
        };
        // Each parameter occurs once (RFC 7239, section 4).
        if slot.replace(unquoted(value)?).is_some() {
            return None;
        }
    }
    Some(Hop { client: client?, proto, host })
}

/// A token or a quoted string. No address, scheme or host needs a backslash.
fn unquoted(value: &[u8]) -> Option<&[u8]> {
    let inner = match value.strip_prefix(b"\"") {
        Some(rest) => rest.strip_suffix(b"\"")?,
        None => value,
    };
    let plain = !inner.is_empty() && !inner.iter().any(|byte| matches!(byte, b'"' | b'\\' | b' ' | b'\t'));
    plain.then_some(inner)
}

/// Splits at a separator outside of quotes; `None` when a quote is left open.
fn split_unquoted(text: &[u8], separator: u8) -> Option<SmallVec<[&[u8]; 8]>> {
    let mut pieces = SmallVec::new();
    let (mut quoted, mut escaped, mut start) = (false, false, 0);
    for (at, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            byte if *byte == separator && !quoted => {
                pieces.push(text.get(start..at).unwrap_or_default());
                start = at + 1;
            }
            _ => {}
        }
    }
    pieces.push(text.get(start..).unwrap_or_default());
    (!quoted).then_some(pieces)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    /// A hop in a few words; `-` for one that cannot be read.
    fn read(fields: &[&[u8]]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(FORWARDED, HeaderValue::from_bytes(field).unwrap());
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let words = |hop: Hop<'_>| {
            [Some(hop.client), hop.proto, hop.host].into_iter().flatten().map(text).collect::<Vec<_>>().join(" ")
        };
        hops(Fields::Map(&headers)).map(|hop| hop.map_or_else(|| "-".to_owned(), words)).collect()
    }

    #[test]
    fn the_examples_of_the_rfc_are_read() {
        assert_eq!(read(&[br#"for="_gazonk""#]), ["_gazonk"]);
        assert_eq!(read(&[br#"For="[2001:db8:cafe::17]:4711""#]), ["[2001:db8:cafe::17]:4711"]);
        assert_eq!(read(&[b"for=192.0.2.60;proto=http;by=203.0.113.43"]), ["192.0.2.60 http"]);
        assert_eq!(read(&[b"host=\"a:1\";for=_x;proto=https"]), ["_x https a:1"]);
        assert_eq!(read(&[b"for=192.0.2.43, for=198.51.100.17"]), ["198.51.100.17", "192.0.2.43"]);
        assert_eq!(read(&[b"for=192.0.2.43", b"for=198.51.100.17"]), ["198.51.100.17", "192.0.2.43"]);
    }

    #[test]
    fn quotes_hide_commas_and_semicolons() {
        assert_eq!(read(&[br#"x="a, for=6.6.6.6; \", for=7.7.7.7";for=1.1.1.1"#]), ["1.1.1.1"]);
    }

    #[test]
    fn a_hop_that_cannot_be_read_is_a_gap() {
        for field in [
            &br#"for="1.1.1.1"#[..],
            br#"for=1.1.1.1";"#,
            b"for",
            b"for=",
            br#"for="""#,
            b"proto=https",
            b"for=1.1.1.1;for=2.2.2.2",
            b"for=1.1.1.1;proto=http;proto=https",
            b"for = 1.1.1.1",
            br#"for="1.1\.1.1""#,
        ] {
            assert_eq!(read(&[field]), ["-"], "{}", field.escape_ascii());
        }
        assert_eq!(read(&[br#"for=9.9.9.9, for="x, for=1.1.1.1"#]), ["-"], "an open quote takes the whole field");
        assert_eq!(read(&[b"for=9.9.9.9, ??, for=1.1.1.1"]), ["1.1.1.1", "-", "9.9.9.9"]);
    }

    proptest! {
        #[test]
        fn any_value_is_read_without_panic(fields in prop::collection::vec("[ -~\t]{0,80}", 0..4)) {
            let mut headers = HeaderMap::new();
            for field in &fields {
                headers.append(FORWARDED, HeaderValue::from_str(field).unwrap());
            }
            prop_assert!(hops(Fields::Map(&headers)).count() <= fields.iter().map(|field| field.len() + 1).sum());
        }
    }
}
