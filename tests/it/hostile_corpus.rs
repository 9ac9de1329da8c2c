//! The corpus of hostile requests and responses: tests/data/hostile.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use crate::world::client::Response;
use crate::world::frames::{PREFACE, flag, frame, kind, literal, settings};
use crate::world::h2c::{H2Request, h2_try};
use crate::world::{Conf, PATIENCE, World, eventually};

/// How long the proxy may be silent before the next request is played. It has closed the connection before, mostly.
const SILENCE: Duration = Duration::from_secs(8);
/// The same over HTTP/2, where the connection stays.
const SILENCE_OF_HTTP2: Duration = Duration::from_millis(500);
/// Requests are played by so many at once, each to a proxy of its own.
const PLAYERS: usize = 6;

/// A file of the corpus.
fn corpus(name: &str) -> String {
    let root =
        std::env::var_os("HOMING_SOURCE").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    fs::read_to_string(root.join("tests/data/hostile").join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// The entries of a file: name, what the other side may see at most, bytes.
fn entries(text: &str) -> Vec<(String, String, Vec<u8>)> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    assert_eq!(lines.len() % 2, 0, "each name is followed by its bytes");
    lines
        .chunks(2)
        .map(|pair| {
            let (name, may) = pair[0].split_once(" | ").unwrap_or_else(|| panic!("{:?} has no bar", pair[0]));
            (name.to_owned(), may.to_owned(), bytes(&mut pair[1].trim_start().chars()))
        })
        .collect()
}

/// A request of the corpus.
struct Hostile {
    name: String,
    /// What a server may see at most: `METHOD target` of whole requests.
    may_see: Vec<String>,
    /// A part of these, too, but no whole one.
    may_begin: Vec<String>,
    bytes: Vec<u8>,
}

fn requests(file: &str) -> Vec<Hostile> {
    let all = entries(&corpus(file)).into_iter();
    all.map(|(name, may, bytes)| {
        let list = |may: &str| may.split(", ").filter(|may| *may != "nothing").map(str::to_owned).collect();
        let (may_see, may_begin) = match may.strip_prefix("part of ") {
            Some(part) => (Vec::new(), list(part)),
            None => (list(&may), Vec::new()),
        };
        Hostile { name, may_see, may_begin, bytes }
    })
    .collect()
}

/// Reads escapes, and `{N*x}`.
fn bytes(text: &mut std::str::Chars<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(char) = text.next() {
        match char {
            '}' => break,
            '{' => {
                let count: String = text.by_ref().take_while(|char| *char != '*').collect();
                let repeated = bytes(text);
                out.extend(repeated.repeat(count.parse().expect("a count")));
            }
            '\\' => out.push(escape(text)),
            char => out.extend(char.to_string().bytes()),
        }
    }
    out
}

fn escape(text: &mut std::str::Chars<'_>) -> u8 {
    match text.next().expect("something behind a backslash") {
        'r' => b'\r',
        'n' => b'\n',
        't' => b'\t',
        '0' => 0,
        'x' => {
            let digits: String = text.take(2).collect();
            u8::from_str_radix(&digits, 16).expect("two digits")
        }
        other => u8::try_from(other).expect("a character of ASCII"),
    }
}

/// A connection of HTTP/2 with one request: its fields, ` ;; ` between them, and its body behind ` >> `.
fn frames(request: &[u8]) -> Vec<u8> {
    let (fields, body) = match find(request, b" >> ") {
        Some(at) => (&request[..at], Some(&request[at + 4..])),
        None => (request, None),
    };
    let mut block = Vec::new();
    let mut rest = fields;
    while !rest.is_empty() {
        let end = find(rest, b" ;; ").unwrap_or(rest.len());
        let field = &rest[..end];
        // The name of a pseudo-field begins with a colon.
        let at = find(&field[1..], b": ").map_or(0, |at| at + 1);
        literal(&field[..at], &field[at + 2..], &mut block);
        rest = rest.get(end + 4..).unwrap_or_default();
    }
    let mut out = [PREFACE, &settings(&[])].concat();
    let pieces: Vec<&[u8]> = block.chunks(16_384).collect();
    for (n, piece) in pieces.iter().enumerate() {
        let kind = if n == 0 { kind::HEADERS } else { kind::CONTINUATION };
        let end_stream = flag::END_STREAM * u8::from(n == 0 && body.is_none());
        let end_headers = flag::END_HEADERS * u8::from(n + 1 == pieces.len());
        out.extend(frame(kind, end_stream | end_headers, 1, piece));
    }
    if let Some(body) = body {
        out.extend(frame(kind::DATA, flag::END_STREAM, 1, body));
    }
    out
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

/// What is wrong with what came of a request; `None`: nothing.
fn fault(world: &World, hostile: &Hostile, exchange: impl Fn(&World, &Hostile) -> String) -> Option<String> {
    let before = world.app("a").requests();
    let answer = exchange(world, hostile);
    if answer.to_lowercase().contains("pingora") {
        return Some(format!("the answer names the software: {answer}"));
    }
    let mut left: BTreeMap<&str, usize> = BTreeMap::new();
    for may in &hostile.may_see {
        *left.entry(may).or_default() += 1;
    }
    for seen in world.app("a").seen().split_off(before) {
        let what = format!("{} {}", seen.method, seen.target);
        let begun = !seen.body_complete && hostile.may_begin.contains(&what);
        match left.get_mut(what.as_str()).filter(|left| **left > 0) {
            Some(left) => *left -= 1,
            None if begun => {}
            None => return Some(format!("the server saw {what}, whole: {}: {:?}", seen.body_complete, seen.head)),
        }
        if seen.head.all("host").len() != 1 || seen.head.all("content-length").len() > 1 {
            return Some(format!("the server saw an ambiguous head: {:?}", seen.head));
        }
    }
    let statuses: Vec<&str> =
        answer.lines().filter_map(|line| line.strip_prefix("HTTP/1.1 ")).filter_map(|rest| rest.get(..3)).collect();
    let allowed = hostile.may_see.len();
    let successes = statuses.iter().filter(|status| status.starts_with('2') || status.starts_with('3')).count();
    if successes > allowed {
        return Some(format!("it is answered with {statuses:?}"));
    }
    if statuses.iter().any(|status| matches!(*status, "500" | "502" | "504")) {
        return Some(format!("it is taken for a fault of the server or the proxy: {statuses:?}"));
    }
    None
}

#[test]
fn of_two_hundred_hostile_requests_servers_see_no_more_than_they_may() {
    let corpus = requests("requests.txt");
    assert!(corpus.len() >= 200, "only {}", corpus.len());
    play_all(&corpus, |world, hostile| {
        let mut wire = world.wire();
        let _ = wire.try_send(&hostile.bytes);
        let answer = String::from_utf8_lossy(&wire.drain(SILENCE)).into_owned();
        drop(wire);
        wait_until_over(world);
        answer
    });
}

#[test]
fn of_ninety_hostile_requests_over_http2_servers_see_no_more_than_they_may() {
    let corpus = requests("requests-h2.txt");
    assert!(corpus.len() >= 90, "only {}", corpus.len());
    play_all(&corpus, |world, hostile| {
        let mut wire = world.wire();
        let _ = wire.try_send(frames(&hostile.bytes));
        drop(wire.drain(SILENCE_OF_HTTP2));
        drop(wire);
        wait_until_over(world);
        String::new()
    });
}

/// What a request may still bring to the server must not be taken for a part of the next.
fn wait_until_over(world: &World) {
    eventually(PATIENCE, "the request is over", || {
        let metrics = world.metrics();
        metrics.sum("homing_client_connections", &[]) + metrics.sum("homing_server_requests_in_flight", &[]) < 0.5
    });
}

/// Plays all, each with `exchange`, which returns what was answered in HTTP/1.
fn play_all(corpus: &[Hostile], exchange: impl Fn(&World, &Hostile) -> String + Sync) {
    let exchange = &exchange;
    let share = corpus.len().div_ceil(PLAYERS);
    let faults: Vec<String> = thread::scope(|scope| {
        let play = |part: &[Hostile]| {
            let timeouts = "timeouts: { request_header: 1s, request_body: 1s, keepalive: 1s, write: 5s }";
            let world = World::start(Conf::servers("a").listener(timeouts));
            let faults: Vec<String> = part
                .iter()
                .filter_map(|one| Some(format!("{}: {}", one.name, fault(&world, one, exchange)?)))
                .collect();
            assert_eq!(world.browser().server(), "a", "the proxy lives on");
            world.expect_metric("homing_upstream_errors_total", &[], 0.0);
            world.expect_metric("homing_panics_total", &[], 0.0);
            faults
        };
        let players: Vec<_> = corpus.chunks(share).map(|part| scope.spawn(move || play(part))).collect();
        players.into_iter().flat_map(|player| player.join().expect("a player")).collect()
    });
    assert!(faults.is_empty(), "{} of {}:\n{}", faults.len(), corpus.len(), faults.join("\n"));
}

/// What is wrong with what a client saw of a response; `None`: nothing.
fn fault_in_response(may: &str, seen: Result<Response, String>) -> Option<String> {
    let Ok(seen) = seen else { return None };
    let text = seen.text();
    if seen.head.headers.iter().any(|(name, _)| name.to_lowercase().starts_with("homing-session-")) {
        return Some(format!("what is between servers and the proxy reached the client: {:?}", seen.head));
    }
    let as_allowed = match may {
        "nothing" | "part" => false,
        "ok" => seen.status == 200 && text == "ok",
        status => seen.status.to_string() == status && text.is_empty(),
    };
    let refused = seen.status == 502 && !text.contains("poison");
    if as_allowed || refused { None } else { Some(format!("the client saw {:?} {text:?}", seen.head)) }
}

#[test]
fn of_sixty_hostile_responses_clients_see_no_more_than_they_may() {
    let corpus = entries(&corpus("responses.txt"));
    assert!(corpus.len() >= 60, "only {}", corpus.len());
    let world = World::start(Conf::servers("a"));
    let alice = world.browser();
    alice.server();
    let mut faults = Vec::new();
    for (name, may, bytes) in corpus {
        let target = bytes.iter().fold("/raw?bytes=".to_owned(), |text, byte| text + &format!("%{byte:02x}"));
        let mut wire = world.wire();
        wire.send(format!("POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"));
        let over_http1 = wire.try_receive("POST").map_err(|error| error.to_string());
        let behind = if over_http1.is_ok() { wire.drain(Duration::from_secs(2)) } else { Vec::new() };
        if !behind.is_empty() {
            faults.push(format!("{name}: behind the response came {:?}", String::from_utf8_lossy(&behind)));
        }
        let request = H2Request { method: "POST", ..H2Request::get(&target) };
        let over_http2 = h2_try(&world.address, vec![request]).remove(0);
        for (version, seen) in [("HTTP/1.1", over_http1), ("HTTP/2", over_http2)] {
            faults.extend(fault_in_response(&may, seen).map(|fault| format!("{name}, over {version}: {fault}")));
        }
        for _ in 0..2 {
            let other = world.browser().get("/plain");
            if (other.status, other.text()) != (200, "a".to_owned()) {
                faults.push(format!("{name}: another client got {:?} {:?}", other.head, other.text()));
            }
        }
    }
    assert!(faults.is_empty(), "{}:\n{}", faults.len(), faults.join("\n"));
    assert_eq!(alice.server(), "a", "the session is kept");
    world.expect_metric("homing_panics_total", &[], 0.0);
}
