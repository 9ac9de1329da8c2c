//! The framing of responses, held against Pingora's own reader: for tests and for fuzzing.
//!
//! Where a response ends decides what the next client of a connection gets. Pingora decides it on the full path, so the fast path
//! must come to the same, or refuse what Pingora takes:
//!
//! - a line of a chunk's size without a digit, which Pingora takes for the last chunk;
//! - a connection that any field of Connection closes, where Pingora reads the first one, and that only if it is UTF-8;
//! - a line feed without a carriage return within the extension of a chunk;
//! - a size of 2^63 or more, and lines of sizes and trailers that Pingora only limits where they arrive in pieces.

use std::future::{pending, poll_fn};
use std::mem::MaybeUninit;
use std::pin::pin;

use http::{Method, StatusCode, header};
use pingora::http::RequestHeader;
use pingora::protocols::http::v1::client::HttpSession;
use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};

use super::body::{Body, Framing};
use super::fields;
use super::response;
use crate::message::{Fields, ResponseEdits, ResponseView};
use crate::proxy::connection::request_body::Chunks;
use crate::proxy::head;
use crate::proxy::upstream::normalize::normalized;

/// Most bytes that arrive at once: Pingora reads no more with the head of a response.
const PIECE: usize = 4000;

/// What a reader made of the bytes of a server that closes behind them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Reading {
    /// The heads that were accepted; the last one is final unless the response was refused.
    statuses: Vec<u16>,
    refused: bool,
    body: Vec<u8>,
    /// The body came to its end.
    whole: bool,
    /// The connection is kept for the next request.
    reusable: bool,
    /// The body has chunks.
    chunked: bool,
    /// The head says that the connection is kept, as the fast path understands it.
    server_keeps: bool,
}

/// Fuzz subject: bytes that say which method was used, where the response is cut, and what it is.
pub fn framing(data: &[u8]) {
    let Some((&[kind, cuts], rest)) = data.split_first_chunk() else { return };
    let Some((places, response)) = rest.split_at_checked(usize::from(cuts % 8)) else { return };
    let places: Vec<usize> = places.iter().map(|place| usize::from(*place) * 4).collect();
    let method = if kind % 4 == 0 { Method::HEAD } else { Method::GET };
    compare(&method, response, &places, false);
}

/// Reads a response in both ways, cut at these places. `strict`: the fast path must not refuse more, either.
fn compare(method: &Method, response: &[u8], cuts: &[usize], strict: bool) {
    let pieces = pieces(response, cuts);
    let fast = fast(method, &pieces);
    let full = full(method, &pieces);
    let text =
        || format!("{method}: {} in {:?}", response.escape_ascii(), pieces.iter().map(|p| p.len()).collect::<Vec<_>>());
    assert_eq!((&fast.statuses, fast.refused), (&full.statuses, full.refused), "other heads of {}", text());
    if full.refused {
        return;
    }
    let refuses_body = !strict && fast.chunked && !fast.whole;
    let refuses_reuse = refuses_body || (!strict && !fast.server_keeps);
    assert!(refuses_body || fast.whole == full.whole, "{}\nfast {fast:?}\nfull {full:?}", text());
    assert!(refuses_reuse || fast.reusable == full.reusable, "{}\nfast {fast:?}\nfull {full:?}", text());
    assert!(full.reusable || !fast.reusable, "the connection is kept: {}", text());
    assert!(full.whole || !fast.whole, "the body is taken for whole: {}", text());
    if fast.whole {
        assert_eq!(fast.body, full.body, "another body of {}", text());
    } else {
        assert!(
            fast.body.starts_with(&full.body) || full.body.starts_with(&fast.body),
            "another beginning of {}",
            text()
        );
    }
}

fn pieces<'b>(response: &'b [u8], cuts: &[usize]) -> Vec<&'b [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (response.len() + 1)).collect();
    cuts.extend([0, response.len()]);
    cuts.sort_unstable();
    let pieces = cuts.windows(2).filter_map(|cut| response.get(*cut.first()?..*cut.last()?));
    pieces.flat_map(|piece| piece.chunks(PIECE)).collect()
}

/// As an exchange of the fast path reads it.
fn fast(method: &Method, pieces: &[&[u8]]) -> Reading {
    let mut reading = Reading::default();
    let (mut input, mut rest) = (Vec::new(), pieces.iter());
    let (framing, server_keeps) = loop {
        match read_head(method, &input) {
            Err(()) => return Reading { refused: true, ..reading },
            Ok(None) => match rest.next() {
                Some(piece) => input.extend_from_slice(piece),
                None => return Reading { refused: true, ..reading },
            },
            Ok(Some(head)) => {
                input.drain(..head.length);
                reading.statuses.push(head.status.as_u16());
                if !head.status.is_informational() {
                    break (head.framing, head.server_keeps);
                }
            }
        }
    };
    (reading.chunked, reading.server_keeps) = (framing == Framing::Chunked, server_keeps);
    let (mut body, mut out) = (Body::new(framing), Vec::new());
    while !body.is_complete() {
        let Ok(passed) = body.pass(&input, &mut out) else { break };
        input.drain(..passed.consumed);
        if body.is_complete() {
            break;
        }
        let Some(piece) = rest.next() else {
            body.end(&mut out);
            break;
        };
        input.extend_from_slice(piece);
    }
    reading.whole = body.is_complete();
    reading.reusable = reading.whole && server_keeps && framing.leaves_reusable(&input);
    reading.body = if matches!(framing, Framing::Length(_)) { out } else { unchunked(&out) };
    reading
}

struct Head {
    length: usize,
    status: StatusCode,
    framing: Framing,
    server_keeps: bool,
}

fn read_head(method: &Method, bytes: &[u8]) -> Result<Option<Head>, ()> {
    let mut room = vec![MaybeUninit::uninit(); 256];
    let Some(parsed) = response::parse(bytes, &mut room).map_err(drop)? else { return Ok(None) };
    let folded = response::may_be_folded(parsed.head);
    let unfolded = if folded { response::unfolded(parsed.fields) } else { Vec::new() };
    let mut edits = ResponseEdits::default();
    let mut list = response::field_list(parsed.fields, &unfolded);
    let server_keeps = response::server_keeps(parsed.version, &list);
    let status = parsed.status;
    if list.iter().any(|field| field.name.eq_ignore_ascii_case(header::TRANSFER_ENCODING.as_str())) {
        fields::remove(&mut list, &header::CONTENT_LENGTH);
    }
    normalized(&ResponseView { status, fields: Fields::Parsed(&list) }, false, &mut edits).map_err(drop)?;
    fields::apply_to_response(&edits, &mut list);
    let framing = response::framing(method, &ResponseView { status, fields: Fields::Parsed(&list) });
    Ok(Some(Head { length: parsed.head.len(), status, framing, server_keeps }))
}

/// The data of chunks, as far as they go.
fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let (mut chunks, mut body) = (Chunks::new(), Vec::new());
    while let Some(data) = chunks.next_data(&mut bytes).filter(|data| !data.is_empty()) {
        body.extend_from_slice(data);
    }
    body
}

/// As Pingora's client session reads it for the full path.
fn full(method: &Method, pieces: &[&[u8]]) -> Reading {
    let (ours, mut theirs) = duplex(1 << 20);
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let Ok(runtime) = runtime else { return Reading::default() };
    let mut write = pin!(async move {
        for piece in pieces {
            let _ = theirs.write_all(piece).await;
            tokio::task::yield_now().await;
        }
        let _ = theirs.shutdown().await;
        // Still open: the other side may have its request to write.
        pending::<()>().await;
        drop(theirs);
    });
    let mut read = pin!(read_with_pingora(method, ours));
    // Each piece is read before the next one is written.
    runtime.block_on(poll_fn(|context| {
        let _ = write.as_mut().poll(context);
        read.as_mut().poll(context)
    }))
}

async fn read_with_pingora(method: &Method, stream: DuplexStream) -> Reading {
    let mut reading = Reading::default();
    let mut session = HttpSession::new(Box::new(stream));
    let Ok(request) = RequestHeader::build(method.clone(), b"/", None) else { return reading };
    if session.write_request_header(Box::new(request)).await.is_err() {
        return reading;
    }
    loop {
        let accepted = match session.read_response().await {
            Ok(_) => session.resp_header().filter(|response| {
                normalized(&head::response_view(response), false, &mut ResponseEdits::default()).is_ok()
            }),
            Err(_) => None,
        };
        let Some(response) = accepted else { return Reading { refused: true, ..reading } };
        reading.statuses.push(response.status.as_u16());
        if !response.status.is_informational() {
            reading.chunked = response.headers.contains_key(header::TRANSFER_ENCODING);
            break;
        }
    }
    while !session.is_body_done() {
        match session.read_body_ref().await {
            Ok(Some(data)) => reading.body.extend_from_slice(data),
            Ok(None) => {}
            Err(_) => return reading,
        }
    }
    reading.whole = true;
    session.respect_keepalive();
    reading.reusable = session.reuse().await.is_some();
    reading
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Heads, with and without what frames a body.
    fn head_fields() -> impl Strategy<Value = Vec<&'static str>> {
        prop::collection::vec(
            prop::sample::select(vec![
                "Content-Length: 5",
                "content-length: 5",
                "Content-Length: 5, 5",
                "Content-Length: 05",
                "Content-Length: 0",
                "Content-Length: 300",
                "Content-Length: 99999999999999999999",
                "Content-Length: x",
                "Content-Length: ",
                "Transfer-Encoding: chunked",
                "transfer-encoding:  Chunked ",
                "Transfer-Encoding: gzip, chunked",
                "Transfer-Encoding: identity",
                "Connection: close",
                "Connection: keep-alive",
                "connection: keep-alive, X-A",
                "Connection: upgrade",
                "Connection: x, close",
                "Keep-Alive: timeout=0",
                "Server: a",
                "X-Folded: a\r\n b",
                "Upgrade: h2c",
                "X-A : 1",
                "Set-Cookie: a=1",
            ]),
            0..4,
        )
    }

    fn first_line() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "HTTP/1.1 200 OK",
            "HTTP/1.1 200 OK",
            "HTTP/1.1 200 OK",
            "HTTP/1.0 200 OK",
            "HTTP/1.1 204 No Content",
            "HTTP/1.1 304 Not Modified",
            "HTTP/1.1 404",
            "HTTP/1.1 101 Switching Protocols",
            "HTTP/1.1 999 Odd",
            "HTTP/1.1 99 Odd",
            "HTTP/2.0 200 OK",
        ])
    }

    fn interim() -> impl Strategy<Value = String> {
        let interim = prop::sample::select(vec![
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HTTP/1.1 103 Early Hints\r\nLink: <a>\r\nContent-Length: 3\r\n\r\n",
        ]);
        prop::collection::vec(interim, 0..3).prop_map(|all| all.concat())
    }

    /// Well-formed chunks, with extensions and trailers.
    fn chunks() -> impl Strategy<Value = Vec<u8>> {
        let extension = prop::sample::select(vec!["", ";a", " ; a=\"b c\"", "\t", ";a;b=1"]);
        let chunk = (prop::collection::vec(any::<u8>(), 1..200), extension, any::<bool>(), 0usize..4);
        let trailers = prop::sample::select(vec!["", "X-Sum: 1\r\n", "a: b\r\nc: d\r\n"]);
        (prop::collection::vec(chunk, 0..4), trailers).prop_map(|(chunks, trailers)| {
            let mut bytes = Vec::new();
            for (data, extension, upper, zeros) in chunks {
                let size = if upper { format!("{:X}", data.len()) } else { format!("{:x}", data.len()) };
                bytes.extend_from_slice(format!("{}{size}{extension}\r\n", "0".repeat(zeros)).as_bytes());
                bytes.extend_from_slice(&data);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(format!("0\r\n{trailers}\r\n").as_bytes());
            bytes
        })
    }

    fn method() -> impl Strategy<Value = Method> {
        prop::sample::select(vec![Method::GET, Method::GET, Method::POST, Method::HEAD])
    }

    fn cuts() -> impl Strategy<Value = Vec<usize>> {
        prop::collection::vec(0usize..2000, 0..6)
    }

    proptest! {
        #[test]
        fn a_well_formed_response_is_read_as_pingora_reads_it(
            method in method(),
            interim in interim(),
            (body, is_chunked) in prop_oneof![
                chunks().prop_map(|chunks| (chunks, true)),
                prop::collection::vec(any::<u8>(), 0..400).prop_map(|body| (body, false)),
            ],
            ending in prop::sample::select(vec!["", "", "x", "HTTP/1.1 200 OK\r\n\r\n"]),
            with_length: bool,
            more in prop::sample::select(vec!["", "Connection: close\r\n", "Connection: keep-alive\r\n"]),
            version in prop::sample::select(vec!["1.1", "1.1", "1.0"]),
            missing in prop_oneof![Just(0usize), Just(0), 1usize..50],
            cuts in cuts(),
        ) {
            let framing = match (is_chunked, with_length) {
                (true, _) => "Transfer-Encoding: chunked\r\n".to_owned(),
                (false, true) => format!("Content-Length: {}\r\n", body.len()),
                (false, false) => String::new(),
            };
            let mut bytes = format!("{interim}HTTP/{version} 200 OK\r\n{framing}{more}\r\n").into_bytes();
            bytes.extend_from_slice(&body);
            bytes.extend_from_slice(ending.as_bytes());
            bytes.truncate(bytes.len() - missing.min(bytes.len()));
            compare(&method, &bytes, &cuts, true);
        }

        #[test]
        fn any_response_is_read_as_pingora_reads_it_or_refused(
            method in method(),
            interim in interim(),
            line in first_line(),
            fields in head_fields(),
            body in prop_oneof![
                chunks(),
                prop::collection::vec(prop::sample::select(b"0013aF;\r\n\t x".to_vec()), 0..40),
                prop::collection::vec(any::<u8>(), 0..20),
            ],
            changed in prop::option::of((0usize..4000, any::<u8>())),
            cuts in cuts(),
        ) {
            let first = format!("{interim}{line}");
            let mut bytes = [vec![first.as_str()], fields, vec!["\r\n"]].concat().join("\r\n").into_bytes();
            bytes.extend_from_slice(&body);
            if let Some((at, byte)) = changed {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            compare(&method, &bytes, &cuts, false);
        }

        #[test]
        fn garbage_is_read_as_pingora_reads_it_or_refused(
            data in prop::collection::vec(prop::sample::select(b"HTP/1.0 2\r\n:aC0;".to_vec()), 0..200),
        ) {
            framing(&data);
        }
    }

    /// The body of a chunked response, read by both.
    fn chunked(body: &[u8]) -> (Reading, Reading) {
        let mut bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        bytes.extend_from_slice(body);
        let pieces = pieces(&bytes, &[]);
        (fast(&Method::GET, &pieces), full(&Method::GET, &pieces))
    }

    #[test]
    fn what_only_the_fast_path_refuses_is_known() {
        for body in ["\r\n\r\n".to_owned(), ";a\r\n\r\n".to_owned(), "1;a\nb\r\nx\r\n0\r\n\r\n".to_owned()] {
            let (fast, full) = chunked(body.as_bytes());
            assert!(!fast.whole && !fast.reusable && full.whole, "{body:?} {fast:?} {full:?}");
        }
    }

    #[test]
    fn a_connection_is_kept_only_when_the_framing_came_out_even_and_nothing_lies_behind() {
        let kept = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        let read = |text: &str| fast(&Method::GET, &[text.as_bytes()]);
        assert!(read(kept).reusable);
        for (text, whole) in [
            (format!("{kept}x"), true),
            (kept.replace("ok", "o"), false),
            (kept.replace("1.1", "1.0"), true),
            (kept.replace("\r\n\r\n", "\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n"), true),
            (kept.replace("Content-Length: 2\r\n", ""), true),
            (kept.replace("200 OK", "204 No Content"), true),
        ] {
            let reading = read(&text);
            assert_eq!((reading.whole, reading.reusable), (whole, false), "{text:?}");
        }
    }

    #[test]
    fn what_pingora_refuses_the_fast_path_refuses() {
        for body in [
            "00000000000000001\r\nx\r\n0\r\n\r\n".to_owned(),
            "1 1\r\nx\r\n0\r\n\r\n".to_owned(),
            "1\t1\r\nx\r\n0\r\n\r\n".to_owned(),
            "fffffffffffffffe\r\nx".to_owned(),
            "1\nx\r\n0\r\n\r\n".to_owned(),
            "1\r\nxy\r\n0\r\n\r\n".to_owned(),
            "0\r\na: b\n\r\n".to_owned(),
            "0\r\na: b\rc\r\n\r\n".to_owned(),
            format!("1;{}\r\nx\r\n0\r\n\r\n", "a".repeat(20_000)),
            format!("0\r\n{}\r\n", "a: b\r\n".repeat(12_000)),
        ] {
            let (fast, full) = chunked(body.as_bytes());
            assert!(!full.whole, "{body:?} {full:?}");
            assert!(!fast.whole && !fast.reusable, "{body:?} {fast:?}");
        }
    }
}
