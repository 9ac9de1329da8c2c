//! A strict door: what is malformed, ambiguous or oversized goes no further.
//!
//! Pingora lets some requests through that two servers may read differently, which is what request smuggling lives on:
//! Content-Length beside Transfer-Encoding, repeated or listed lengths, lines that end in a bare LF, and so on. What is
//! checked here is in RFC 9112, sections 2.2, 3.2, 5.1, 6.1 and 6.3.

use http::{HeaderValue, Method, Version};
use pingora::http::RequestHeader;

use crate::telemetry::metrics::Rejection;

use crate::proxy::request::header_scan::Noticed;

/// Checks the header block as it came (HTTP/1 only) and as it was parsed.
pub(crate) fn check(
    raw: Option<&[u8]>,
    request: &RequestHeader,
    noticed: &Noticed<'_>,
    max_header_size: usize,
) -> Result<(), Rejection> {
    let size = raw.map_or_else(|| parsed_size(request), <[u8]>::len);
    if size > max_header_size {
        return Err(Rejection::HeaderTooLarge);
    }
    // A loop detector for people with debuggers, and a way to read headers that scripts must not see.
    if request.method == Method::TRACE || request.method == Method::CONNECT {
        return Err(Rejection::Method);
    }
    let sound = raw.is_none_or(lines_are_sound)
        && target_is_sound(request.raw_path())
        && host_is_sound(request, noticed)
        && length_is_sound(raw, request, noticed);
    if sound { Ok(()) } else { Err(Rejection::Malformed) }
}

/// HTTP/2 sends headers compressed; what counts is what servers get.
fn parsed_size(request: &RequestHeader) -> usize {
    let fields: usize = request.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    request.raw_path().len() + fields
}

/// Every line ends in CRLF, none is folded, and no CR, NUL or other control character stands within one: each byte is
/// judged with the one before it. Every request is read by this, so to the end and without a branch, which makes vectors
/// of it.
fn lines_are_sound(raw: &[u8]) -> bool {
    let Some((first, behind)) = raw.split_first() else { return true };
    let wrong = raw.iter().zip(behind).fold(false, |wrong, (before, byte)| wrong | is_wrong(*before, *byte));
    !wrong && (!is_control(*first) || *first == b'\r') && raw.ends_with(b"\n")
}

/// LF stands behind CR and nowhere else, and CR before nothing else; behind a line's end no line goes on.
#[expect(clippy::needless_bitwise_bool, reason = "a branch in it would keep the lanes from becoming vectors")]
const fn is_wrong(before: u8, byte: u8) -> bool {
    ((byte == b'\n') != (before == b'\r'))
        | ((before == b'\n') & ((byte == b' ') | (byte == b'\t')))
        | (is_control(byte) & (byte != b'\r') & (byte != b'\n'))
}

#[expect(clippy::needless_bitwise_bool, reason = "as above")]
const fn is_control(byte: u8) -> bool {
    ((byte < b' ') & (byte != b'\t')) | (byte == 0x7f)
}

/// It begins at the root, or is absolute, or `*` (RFC 9112, section 3.2); of anything else routes see `/` and servers see
/// what they like. No blank, control character or fragment hides in it.
fn target_is_sound(target: &[u8]) -> bool {
    (target.first() == Some(&b'/') || target == b"*" || behind_scheme(target).is_some())
        && target.iter().all(|byte| *byte > b' ' && *byte != 0x7f && *byte != b'#')
}

/// What follows the scheme of an absolute target.
fn behind_scheme(target: &[u8]) -> Option<&[u8]> {
    let behind = |scheme: &[u8]| {
        let (begins, rest) = target.split_at_checked(scheme.len())?;
        begins.eq_ignore_ascii_case(scheme).then_some(rest)
    };
    behind(b"http://").or_else(|| behind(b"https://"))
}

/// HTTP/1.1 names exactly one host; HTTP/1.0 at most one; an absolute target and its Host header agree.
fn host_is_sound(request: &RequestHeader, noticed: &Noticed<'_>) -> bool {
    if noticed.host.repeated {
        return false;
    }
    let authority = authority_of(request);
    let Some(host) = noticed.host.value else {
        return request.version != Version::HTTP_11 && (request.version == Version::HTTP_10 || authority.is_some());
    };
    host_name_is_sound(host.as_bytes())
        && authority.is_none_or(|authority| authority.eq_ignore_ascii_case(host.as_bytes()))
}

/// The authority in the target: HTTP/2 has it apart, HTTP/1 in an absolute target.
fn authority_of(request: &RequestHeader) -> Option<&[u8]> {
    if let Some(authority) = request.uri.authority() {
        return Some(authority.as_str().as_bytes());
    }
    behind_scheme(request.raw_path())?.split(|byte| matches!(byte, b'/' | b'?')).next()
}

/// RFC 3986, section 3.2.2, and the port's colon.
fn host_name_is_sound(host: &[u8]) -> bool {
    let allowed = |byte: &u8| {
        matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' | b'[' | b']' | b'%' | b'!')
            || matches!(byte, b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b';' | b'=')
    };
    !host.is_empty() && host.iter().all(allowed)
}

/// One length, told once, one way.
fn length_is_sound(raw: Option<&[u8]>, request: &RequestHeader, noticed: &Noticed<'_>) -> bool {
    let (length, encoding) = (&noticed.length, &noticed.encoding);
    if length.repeated || length.value.is_some_and(|length| !is_number(length.as_bytes())) {
        return false;
    }
    let Some(value) = encoding.value else { return true };
    request.version == Version::HTTP_11
        && !encoding.repeated
        && value.as_bytes().eq_ignore_ascii_case(b"chunked")
        // Pingora has already taken the length out of a request that has both; the raw block still shows it.
        && !raw.is_some_and(tells_length)
}

/// A body that says itself that it is too large need not be read; what says nothing is counted as it comes.
pub(crate) fn check_length(length: Option<&HeaderValue>, most: Option<u64>) -> Result<(), Rejection> {
    let (Some(length), Some(most)) = (length, most) else { return Ok(()) };
    let told = length.to_str().ok().and_then(|length| length.parse::<u64>().ok());
    if told.is_some_and(|told| told > most) { Err(Rejection::BodyTooLarge) } else { Ok(()) }
}

fn is_number(text: &[u8]) -> bool {
    !text.is_empty() && text.len() <= 18 && text.iter().all(u8::is_ascii_digit)
}

fn tells_length(raw: &[u8]) -> bool {
    const NAME: &[u8] = b"content-length";
    raw.split(|byte| *byte == b'\n')
        .any(|line| line.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same, slowly.
    fn line_by_line(raw: &[u8]) -> bool {
        let mut first = true;
        raw.split_inclusive(|byte| *byte == b'\n').all(|line| {
            let folded = !std::mem::take(&mut first) && matches!(line, [b' ' | b'\t', ..]);
            let Some(text) = line.strip_suffix(b"\r\n") else { return false };
            !folded && text.iter().all(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f))
        })
    }

    proptest! {
        #[test]
        fn lines_are_read_as_one_by_one(
            pieces in prop::collection::vec(
                prop::sample::select(vec!["GET / HTTP/1.1", "\r\n", "\r", "\n", " ", "\t", "a: b", "\x7f", "é", "\0", "x"]), 0..24,
            ),
            cut in 0usize..40,
        ) {
            let block = pieces.concat().into_bytes();
            let block = block.get(cut..).unwrap_or(&block);
            prop_assert_eq!(lines_are_sound(block), line_by_line(block), "{}", block.escape_ascii());
        }
    }

    fn request(method: &str, target: &str, fields: &[(&'static str, &str)]) -> RequestHeader {
        let mut request = RequestHeader::build(method, target.as_bytes(), None).unwrap();
        request.set_version(Version::HTTP_11);
        for (name, value) in fields {
            request.append_header(*name, *value).unwrap();
        }
        request
    }

    const HOST: (&str, &str) = ("host", "a.example");

    fn checked(raw: &[u8], request: &RequestHeader) -> Result<(), Rejection> {
        check(Some(raw), request, &Noticed::of(&request.headers), 1024)
    }

    fn sound(target: &str, fields: &[(&'static str, &str)], raw: &[u8]) -> bool {
        checked(raw, &request("POST", target, fields)) == Ok(())
    }

    #[test]
    fn ordinary_requests_pass() {
        let raw = b"POST /a?b=c HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\n";
        assert!(sound("/a?b=c", &[HOST, ("content-length", "5")], raw));
        assert!(sound("/", &[HOST, ("transfer-encoding", "chunked")], b"POST / HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert!(sound("/%00%20", &[("host", "[::1]:8080")], b"\r\n"));
        assert!(sound("*", &[("host", "a:1")], b"\r\n"));
    }

    #[test]
    fn a_length_is_told_once_and_one_way() {
        let raw = b"\r\n";
        assert!(!sound("/", &[HOST, ("content-length", "5"), ("content-length", "5")], raw));
        for length in ["5, 5", "+5", "-1", "", " 5", "0x5", "99999999999999999999"] {
            assert!(!sound("/", &[HOST, ("content-length", length)], raw), "{length:?}");
        }
        let both = b"POST / HTTP/1.1\r\nHost: a\r\ncontent-LENGTH: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert!(!sound("/", &[HOST, ("transfer-encoding", "chunked")], both));
        for encoding in ["gzip, chunked", "identity", "chunked, chunked", "x", ""] {
            assert!(!sound("/", &[HOST, ("transfer-encoding", encoding)], raw), "{encoding:?}");
        }
    }

    #[test]
    fn a_host_is_named_once() {
        for fields in [
            &[] as &[(&'static str, &str)],
            &[("host", "")],
            &[("host", "a"), ("host", "a")],
            &[("host", "a, b")],
            &[("host", "a b")],
            &[("host", "a/b")],
            &[("host", "u@a")],
        ] {
            assert!(!sound("/", fields, b"\r\n"), "{fields:?}");
        }
        assert!(!sound("http://b.example/", &[HOST], b"\r\n"), "target and Host disagree");
        assert!(sound("http://a.example/", &[HOST], b"\r\n"));
        assert!(!sound("HTTPS://b.example/", &[HOST], b"\r\n"), "in capitals too");
        assert!(sound("HTTPS://a.example/", &[HOST], b"\r\n"));
    }

    #[test]
    fn a_target_begins_at_the_root_or_is_absolute() {
        for target in ["x", "a/b", "?a=b", ";a=b", "http:/a.example/", "ftp://a.example/", "ws://a.example/", "**"] {
            assert!(!target_is_sound(target.as_bytes()), "{target}");
        }
        for target in ["/", "//", "/?a=b", "*", "http://a.example"] {
            assert!(target_is_sound(target.as_bytes()), "{target}");
        }
    }

    #[test]
    fn lines_end_in_crlf_and_hold_no_control_characters() {
        for raw in [
            b"GET / HTTP/1.1\nHost: a\n\n" as &[u8],
            b"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x7fb\r\n\r\n",
        ] {
            assert!(!sound("/", &[HOST], raw), "{}", raw.escape_ascii());
        }
        assert!(
            sound("/", &[HOST], b"GET / HTTP/1.1\r\nHost: a\r\nX: \xe4\ta\r\n\r\n"),
            "bytes above ASCII and tabs may"
        );
    }

    #[test]
    fn large_headers_and_tunnels_have_answers_of_their_own() {
        let get = request("GET", "/", &[HOST]);
        assert_eq!(checked(&[b'a'; 1025], &get), Err(Rejection::HeaderTooLarge));
        assert_eq!(checked(b"\r\n", &request("TRACE", "/", &[HOST])), Err(Rejection::Method));
    }
}
