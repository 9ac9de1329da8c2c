//! Request line and headers: from bytes to a [`Head`], or a refusal. No I/O, and nothing that arrives can panic it.

use super::wire::{Bad, MAX_BODY};

/// How the end of a body is found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Length(usize),
    Chunked,
}

/// Request line and headers, understood.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: String,
    /// Names in lower case, in the order of arrival.
    pub(super) headers: Vec<(String, String)>,
    pub(super) framing: Framing,
    /// Whether the sender takes another reply on this connection.
    pub(super) keep_alive: bool,
}

/// Understands all up to the empty line.
pub(super) fn parse_head(bytes: &[u8]) -> Result<Head, Bad> {
    let text = std::str::from_utf8(bytes).map_err(|_bytes| Bad::Refused(400, "the headers are not text"))?;
    let mut lines = text.split("\r\n").take_while(|line| !line.is_empty());
    let (method, target, newer) = parse_request_line(lines.next().unwrap_or_default())?;
    let headers = lines.map(parse_header).collect::<Result<Vec<_>, Bad>>()?;
    if newer && find(&headers, "host").count() != 1 {
        return Err(Bad::Refused(400, "exactly one Host is needed"));
    }
    let framing = parse_framing(&headers, newer)?;
    let closes = find(&headers, "connection")
        .flat_map(|line| line.split(','))
        .any(|word| word.trim().eq_ignore_ascii_case("close"));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Ok(Head {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers,
        framing,
        keep_alive: newer && !closes,
    })
}

/// Method, target without scheme and authority, and whether it is HTTP/1.1.
fn parse_request_line(line: &str) -> Result<(&str, &str, bool), Bad> {
    let bad = Bad::Refused(400, "not an HTTP request");
    let mut words = line.split(' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(bad);
    };
    let newer = match version {
        "HTTP/1.1" => true,
        "HTTP/1.0" => false,
        other if other.starts_with("HTTP/") => return Err(Bad::Refused(505, "HTTP/1.1 is spoken here")),
        _ => return Err(bad),
    };
    let target = match target.strip_prefix("http://") {
        Some(rest) => rest.split_once('/').map_or("/", |(authority, _)| rest.get(authority.len()..).unwrap_or("/")),
        None => target,
    };
    let printable = target.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_token(method) || !printable || !(target.starts_with('/') || target == "*") {
        return Err(bad);
    }
    Ok((method, target, newer))
}

fn parse_header(line: &str) -> Result<(String, String), Bad> {
    let bad = Bad::Refused(400, "a malformed header");
    let Some((name, value)) = line.split_once(':') else {
        return Err(bad);
    };
    let value = value.trim_matches([' ', '\t']);
    if !is_token(name) || value.chars().any(|char| char.is_control() && char != '\t') {
        return Err(bad);
    }
    Ok((name.to_ascii_lowercase(), value.to_owned()))
}

fn parse_framing(headers: &[(String, String)], newer: bool) -> Result<Framing, Bad> {
    let ambiguous = Bad::Refused(400, "the end of the body is ambiguous");
    let mut lengths = find(headers, "content-length");
    let mut encodings = find(headers, "transfer-encoding");
    match (lengths.next(), lengths.next(), encodings.next(), encodings.next()) {
        (None, _, None, _) => Ok(Framing::Length(0)),
        (None, _, Some(encoding), None) if newer => {
            if encoding.eq_ignore_ascii_case("chunked") {
                Ok(Framing::Chunked)
            } else {
                Err(Bad::Refused(501, "only chunked is known here"))
            }
        }
        (Some(length), None, None, _) if !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit()) => {
            match length.parse::<usize>() {
                Ok(length) if length <= MAX_BODY => Ok(Framing::Length(length)),
                Ok(_) | Err(_) => Err(Bad::Refused(413, "the body is too large")),
            }
        }
        _ => Err(ambiguous),
    }
}

/// The values of all headers of this (lower-case) name.
pub(super) fn find<'a>(headers: &'a [(String, String)], name: &'a str) -> impl Iterator<Item = &'a str> {
    headers.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
}

fn is_token(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::super::wire::Request;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused_and_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = parse_head(&bytes);
        }

        #[test]
        fn almost_http_is_parsed_or_refused_and_never_panics(text in "(GET|POST|\\PC{0,5}) \\PC{0,20} HTTP/1.[01]\r\n(\\PC{0,12}:\\PC{0,12}\r\n){0,4}\r\n") {
            let _ = parse_head(text.as_bytes());
        }
    }

    #[test]
    fn ambiguous_requests_are_refused() {
        for (headers, expected) in [
            ("", 400),
            ("Host: a\r\nHost: b\r\n", 400),
            ("Host: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n", 400),
            ("Host: a\r\nContent-Length: 1, 1\r\n", 400),
            ("Host: a\r\nContent-Length: +1\r\n", 400),
            ("Host: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n", 400),
            ("Host: a\r\nTransfer-Encoding: gzip\r\n", 501),
            ("Host: a\r\nContent-Length: 99999999999999999999999\r\n", 413),
            ("Host: a\r\n folded: x\r\n", 400),
            ("Host: a\r\nX : y\r\n", 400),
            ("Host: a\nX: y\r\n", 400),
        ] {
            let head = format!("POST / HTTP/1.1\r\n{headers}\r\n");
            match parse_head(head.as_bytes()) {
                Err(Bad::Refused(status, _)) => assert_eq!(status, expected, "{head:?}"),
                other => panic!("{head:?} gave {other:?}"),
            }
        }
    }

    #[test]
    fn cookies_and_parameters_are_found() {
        let head = parse_head(
            b"GET http://shop:1/cart?item=tea HTTP/1.1\r\nHost: shop\r\nCookie: a=1; CARTID=x\r\nCookie: b=2\r\n\r\n",
        )
        .expect("a good request");
        assert_eq!((head.path.as_str(), head.keep_alive), ("/cart", true));
        let request = Request { head, body: "item=bread\r\n".to_owned() };
        assert_eq!(request.cookie("CARTID"), Some("x"));
        assert_eq!(request.cookie("b"), Some("2"));
        assert_eq!(request.cookie("c"), None);
        assert_eq!(request.parameter("item"), Some("tea"), "the query comes first");
        assert_eq!(request.parameter("size"), None);
    }
}
