//! Request validation: a malformed, ambiguous or oversized request goes no further.
//!
//! Pingora accepts some requests that two servers may read differently, which is what request smuggling relies on:
//! Content-Length with Transfer-Encoding, repeated or listed lengths, lines that end in a bare LF, and so on. The rules
//! checked here are those of RFC 9112, sections 2.2, 3.2, 5.1, 6.1 and 6.3.

use http::{Method, Version};

use crate::message::RequestView;
use crate::telemetry::metrics::Rejection;

use crate::proxy::connection::request_body::BodyFraming;
use crate::proxy::request::header_scan::HeaderScan;
use crate::proxy::request::target::AbsoluteTarget;

/// Checks the header block as it was received (HTTP/1 only) and as it was parsed.
pub(crate) fn check(
    raw: Option<&[u8]>,
    request: &RequestView<'_>,
    scan: &HeaderScan<'_>,
    max_header_size: usize,
) -> Result<(), Rejection> {
    let size = raw.map_or_else(|| parsed_size(request), <[u8]>::len);
    if size > max_header_size {
        return Err(Rejection::HeaderTooLarge);
    }
    // TRACE echoes headers that scripts must not see; CONNECT is for forward proxies.
    if request.method == Method::TRACE || request.method == Method::CONNECT {
        return Err(Rejection::Method);
    }
    let valid = raw.is_none_or(are_lines_valid)
        && is_target_valid(request.target())
        && is_host_valid(request, scan)
        && is_length_valid(raw, request, scan);
    if valid { Ok(()) } else { Err(Rejection::Malformed) }
}

/// HTTP/2 compresses headers; the limit is for the size that servers get.
fn parsed_size(request: &RequestView<'_>) -> usize {
    let fields: usize = request.fields.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
    request.target().len() + fields
}

/// Every line ends in CRLF, none is folded, and no CR, NUL or other control character is inside a line: each byte is
/// checked with the one before it. This runs for every request, so it reads to the end without a branch, and the compiler
/// makes vector instructions of it: only in a function of its own when the build is guided by a profile, where the loop took 33
/// instructions a byte when it was inlined.
#[inline(never)]
fn are_lines_valid(raw: &[u8]) -> bool {
    let Some((first, rest)) = raw.split_first() else { return true };
    let invalid = raw.iter().zip(rest).fold(false, |invalid, (before, byte)| invalid | is_invalid(*before, *byte));
    !invalid && (!is_control(*first) || *first == b'\r') && raw.ends_with(b"\n")
}

/// LF only follows CR, CR is only followed by LF, and no line starts with a blank.
#[expect(clippy::needless_bitwise_bool, reason = "a branch would keep the compiler from using vectors")]
const fn is_invalid(before: u8, byte: u8) -> bool {
    ((byte == b'\n') != (before == b'\r'))
        | ((before == b'\n') & ((byte == b' ') | (byte == b'\t')))
        | (is_control(byte) & (byte != b'\r') & (byte != b'\n'))
}

#[expect(clippy::needless_bitwise_bool, reason = "as above")]
const fn is_control(byte: u8) -> bool {
    ((byte < b' ') & (byte != b'\t')) | (byte == 0x7f)
}

/// A path, an absolute URL, or `*` (RFC 9112, section 3.2). Of any other target, routes would see `/` and servers something
/// else. Blanks, control characters and fragments are not allowed in it.
fn is_target_valid(target: &[u8]) -> bool {
    (target.first() == Some(&b'/') || target == b"*" || AbsoluteTarget::of(target).is_some())
        && target.iter().all(|byte| *byte > b' ' && *byte != 0x7f && *byte != b'#')
}

/// HTTP/1.1 has exactly one Host, HTTP/1.0 at most one; an absolute target and its Host agree.
fn is_host_valid(request: &RequestView<'_>, scan: &HeaderScan<'_>) -> bool {
    if scan.host.repeated {
        return false;
    }
    let authority = authority_of(request);
    let Some(host) = scan.host.value else {
        return match authority {
            // Over HTTP/2 it is what Host is over HTTP/1.
            Some(authority) => request.version != Version::HTTP_11 && is_host_name_valid(authority),
            None => request.version == Version::HTTP_10,
        };
    };
    is_host_name_valid(host) && authority.is_none_or(|authority| authority.eq_ignore_ascii_case(host))
}

/// The authority in the target: `:authority` of HTTP/2, or that of an absolute target of HTTP/1.
fn authority_of<'a>(request: &RequestView<'a>) -> Option<&'a [u8]> {
    if let Some(authority) = request.authority() {
        return Some(authority.as_bytes());
    }
    AbsoluteTarget::of(request.target()).map(|target| target.authority)
}

/// RFC 3986, section 3.2.2, and a port.
fn is_host_name_valid(host: &[u8]) -> bool {
    host.iter().all(|byte| HOST_BYTES.get(usize::from(*byte)) == Some(&true)) && is_port_valid(host)
}

/// Whether a byte may be part of a host and its port.
#[expect(clippy::indexing_slicing, reason = "an index beyond the end would not compile")]
const HOST_BYTES: [bool; 256] = {
    let mut bytes = [false; 256];
    let mut allowed: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~:[]%!$&'()*+;=";
    while let [first, rest @ ..] = allowed {
        bytes[*first as usize] = true;
        allowed = rest;
    }
    bytes
};

/// A name that is not empty, or an address in brackets; then nothing, or a colon and digits.
fn is_port_valid(host: &[u8]) -> bool {
    let name = match host.first() {
        Some(b'[') => host.iter().position(|byte| *byte == b']').map(|end| end + 1),
        _ => host.iter().position(|byte| *byte == b':').or(Some(host.len())),
    };
    let Some((name, port)) = name.and_then(|end| host.split_at_checked(end)) else { return false };
    !name.is_empty()
        && match port.split_first() {
            None => true,
            Some((colon, digits)) => *colon == b':' && digits.iter().all(u8::is_ascii_digit),
        }
}

/// The length of the body is given once and in one way.
fn is_length_valid(raw: Option<&[u8]>, request: &RequestView<'_>, scan: &HeaderScan<'_>) -> bool {
    let (length, encoding) = (&scan.length, &scan.encoding);
    if length.repeated || length.value.is_some_and(|length| !is_number(length)) {
        return false;
    }
    let Some(value) = encoding.value else { return true };
    request.version == Version::HTTP_11
        && !encoding.repeated
        && value.eq_ignore_ascii_case(b"chunked")
        // Pingora removes the length from a request that has both; the raw block still shows it.
        && !raw.is_some_and(has_content_length)
}

/// A body that announces a length above the limit is refused unread; any other is counted while it arrives.
pub(crate) fn check_length(framing: BodyFraming, limit: Option<u64>) -> Result<(), Rejection> {
    let BodyFraming::Length(length) = framing else { return Ok(()) };
    if limit.is_some_and(|limit| length > limit) { Err(Rejection::BodyTooLarge) } else { Ok(()) }
}

fn is_number(text: &[u8]) -> bool {
    !text.is_empty() && text.len() <= 18 && text.iter().all(u8::is_ascii_digit)
}

fn has_content_length(raw: &[u8]) -> bool {
    const NAME: &[u8] = b"content-length";
    raw.split(|byte| *byte == b'\n')
        .any(|line| line.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message::Fields;

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
        fn lines_are_checked_as_one_by_one(
            pieces in prop::collection::vec(
                prop::sample::select(vec!["GET / HTTP/1.1", "\r\n", "\r", "\n", " ", "\t", "a: b", "\x7f", "é", "\0", "x"]), 0..24,
            ),
            cut in 0usize..40,
        ) {
            let block = pieces.concat().into_bytes();
            let block = block.get(cut..).unwrap_or(&block);
            prop_assert_eq!(are_lines_valid(block), line_by_line(block), "{}", block.escape_ascii());
        }
    }

    const HOST: (&str, &str) = ("host", "a.example");

    fn checked(method: &Method, target: &str, fields: &[(&'static str, &str)], raw: &[u8]) -> Result<(), Rejection> {
        let fields: Vec<_> =
            fields.iter().map(|(name, value)| httparse::Header { name, value: value.as_bytes() }).collect();
        let fields = Fields::Parsed(&fields);
        let request = RequestView::http1(method, target.as_bytes(), Version::HTTP_11, fields);
        check(Some(raw), &request, &HeaderScan::of(fields), 1024)
    }

    fn valid(target: &str, fields: &[(&'static str, &str)], raw: &[u8]) -> bool {
        checked(&Method::POST, target, fields, raw) == Ok(())
    }

    #[test]
    fn ordinary_requests_pass() {
        let raw = b"POST /a?b=c HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\n";
        assert!(valid("/a?b=c", &[HOST, ("content-length", "5")], raw));
        assert!(valid("/", &[HOST, ("transfer-encoding", "chunked")], b"POST / HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert!(valid("/%00%20", &[("host", "[::1]:8080")], b"\r\n"));
        assert!(valid("*", &[("host", "a:1")], b"\r\n"));
    }

    #[test]
    fn the_length_of_a_body_is_given_once_and_in_one_way() {
        let raw = b"\r\n";
        assert!(!valid("/", &[HOST, ("content-length", "5"), ("content-length", "5")], raw));
        for length in ["5, 5", "+5", "-1", "", " 5", "0x5", "99999999999999999999"] {
            assert!(!valid("/", &[HOST, ("content-length", length)], raw), "{length:?}");
        }
        let both = b"POST / HTTP/1.1\r\nHost: a\r\ncontent-LENGTH: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert!(!valid("/", &[HOST, ("transfer-encoding", "chunked")], both));
        for encoding in ["gzip, chunked", "identity", "chunked, chunked", "x", ""] {
            assert!(!valid("/", &[HOST, ("transfer-encoding", encoding)], raw), "{encoding:?}");
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
            &[("host", "a:80:90")],
            &[("host", "a:b")],
            &[("host", ":80")],
            &[("host", "[::1")],
            &[("host", "[::1]80")],
        ] {
            assert!(!valid("/", fields, b"\r\n"), "{fields:?}");
        }
        assert!(!valid("http://b.example/", &[HOST], b"\r\n"), "target and Host disagree");
        assert!(valid("http://a.example/", &[HOST], b"\r\n"));
        assert!(!valid("HTTPS://b.example/", &[HOST], b"\r\n"), "in capitals too");
        assert!(valid("HTTPS://a.example/", &[HOST], b"\r\n"));
    }

    #[test]
    fn a_target_begins_at_the_root_or_is_absolute() {
        for target in ["x", "a/b", "?a=b", ";a=b", "http:/a.example/", "ftp://a.example/", "ws://a.example/", "**"] {
            assert!(!is_target_valid(target.as_bytes()), "{target}");
        }
        for target in ["/", "//", "/?a=b", "*", "http://a.example"] {
            assert!(is_target_valid(target.as_bytes()), "{target}");
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
            assert!(!valid("/", &[HOST], raw), "{}", raw.escape_ascii());
        }
        assert!(
            valid("/", &[HOST], b"GET / HTTP/1.1\r\nHost: a\r\nX: \xe4\ta\r\n\r\n"),
            "bytes above ASCII and tabs may"
        );
    }

    #[test]
    fn large_headers_and_tunnels_have_their_own_rejections() {
        assert_eq!(checked(&Method::GET, "/", &[HOST], &[b'a'; 1025]), Err(Rejection::HeaderTooLarge));
        assert_eq!(checked(&Method::TRACE, "/", &[HOST], b"\r\n"), Err(Rejection::Method));
        assert_eq!(checked(&Method::CONNECT, "/", &[HOST], b"\r\n"), Err(Rejection::Method));
    }
}
