//! Malformed, ambiguous and random requests; servers that answer garbage. Nothing of it reaches a server, and the proxy
//! lives on.

use std::time::Duration;

use crate::world::{Conf, Wire, World, eventually};

const SILENCE: Duration = Duration::from_millis(600);

/// What the proxy says to these bytes, until it closes the connection or falls silent.
fn answer_to(world: &World, bytes: &[u8]) -> (String, Wire) {
    let mut wire = world.wire();
    let _ = wire.try_send(bytes);
    let answer = String::from_utf8_lossy(&wire.drain(SILENCE)).into_owned();
    (answer, wire)
}

/// What is wrong with the proxy's answer to a request that it must refuse; nothing when no server saw a thing and
/// every answer in it is a refusal.
fn fault_in_refusal(world: &World, bytes: &[u8]) -> Option<String> {
    let before = world.app("a").requests();
    let (answer, mut wire) = answer_to(world, bytes);
    if let Some(seen) = world.app("a").seen().get(before) {
        return Some(format!("the server saw it: {:?}", seen.head.first_line));
    }
    if answer.contains("ingora") {
        return Some(format!("the answer names the software: {answer}"));
    }
    let refused = |line: &str| line.split(' ').nth(1).is_some_and(|status| status.starts_with('4') || status == "501");
    if let Some(line) = answer.lines().find(|line| line.starts_with("HTTP/1.") && !refused(line)) {
        return Some(format!("it is answered with {line}"));
    }
    let open = answer.is_empty() && wire.time_to_close(Duration::from_secs(1)).is_none();
    open.then(|| "it is neither answered nor is the connection closed".to_owned())
}

/// All malformed requests, each followed by these bytes, are refused.
fn assert_all_refused(world: &World, followed_by: &str) {
    let faults: Vec<String> = MALFORMED
        .iter()
        .filter_map(|(what, request)| {
            let fault = fault_in_refusal(world, format!("{request}{followed_by}").as_bytes())?;
            Some(format!("{what}: {fault}"))
        })
        .collect();
    assert!(faults.is_empty(), "not refused:\n{}", faults.join("\n"));
}

/// Requests that a careful front must refuse, each with its name.
const MALFORMED: [(&str, &str); 52] = [
    (
        "length and chunks",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunks and length",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    ),
    ("two lengths", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"),
    ("two equal lengths", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello"),
    ("a list of lengths", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 5\r\n\r\nhello"),
    ("a signed length", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\nhello"),
    ("a negative length", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\nhello"),
    ("a length in hexadecimal", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0x5\r\n\r\nhello"),
    ("an empty length", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: \r\n\r\n"),
    ("a huge length", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n"),
    ("chunks in HTTP/1.0", "POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("an unknown transfer coding", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    ("chunked not last", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
    ("two transfer codings", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    (
        "chunked twice",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    ("chunked with a vertical tab", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
    ("a blank before the colon", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
    ("no Host", "GET / HTTP/1.1\r\nAccept: */*\r\n\r\n"),
    ("two Hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
    ("an empty Host", "GET / HTTP/1.1\r\nHost: \r\n\r\n"),
    ("a list of Hosts", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"),
    ("a Host with a blank", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
    ("a Host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    ("a Host that is not the target's", "GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n"),
    ("a Host that is not the target's, in capitals", "GET HTTP://a/ HTTP/1.1\r\nHost: b\r\n\r\n"),
    ("a Host that is not the target's, of another scheme", "GET ws://a/ HTTP/1.1\r\nHost: b\r\n\r\n"),
    ("a target of a scheme that servers here do not speak", "GET ftp://x/ HTTP/1.1\r\nHost: x\r\n\r\n"),
    ("a target with a scheme and no host", "GET http:/x HTTP/1.1\r\nHost: x\r\n\r\n"),
    ("a target with a host that ends in two ways", "GET http://x\\y/ HTTP/1.1\r\nHost: x\\y\r\n\r\n"),
    ("a target that does not begin at the root", "GET a/b HTTP/1.1\r\nHost: x\r\n\r\n"),
    ("a target without a path", "GET ?a HTTP/1.1\r\nHost: x\r\n\r\n"),
    ("a fragment", "GET /g#x HTTP/1.1\r\nHost: x\r\n\r\n"),
    ("a fragment after a query", "GET /g?a#x HTTP/1.1\r\nHost: x\r\n\r\n"),
    ("a fragment of a URL", "GET http://x/#y HTTP/1.1\r\nHost: x\r\n\r\n"),
    ("a folded header", "GET / HTTP/1.1\r\nHost: x\r\nX-Folded: one\r\n two\r\n\r\n"),
    ("a header that begins with a blank", "GET / HTTP/1.1\r\n Host: x\r\nHost: x\r\n\r\n"),
    ("a bare carriage return", "GET / HTTP/1.1\r\nHost: x\r\nX-Bare: one\rX-Two: two\r\n\r\n"),
    ("a bare line feed in a value", "GET / HTTP/1.1\r\nHost: x\r\nX-Bare: one\nX-Two: two\r\n\r\n"),
    ("a NUL in a value", "GET / HTTP/1.1\r\nHost: x\r\nX-Nul: a\0b\r\n\r\n"),
    ("a control character in a value", "GET / HTTP/1.1\r\nHost: x\r\nX-Bell: a\x07b\r\n\r\n"),
    ("a NUL in a name", "GET / HTTP/1.1\r\nHost: x\r\nX-\0: a\r\n\r\n"),
    ("a NUL in the target", "GET /a\0b HTTP/1.1\r\nHost: x\r\n\r\n"),
    ("a control character in the target", "GET /a\x01b HTTP/1.1\r\nHost: x\r\n\r\n"),
    ("a blank in the target", "GET /a b HTTP/1.1\r\nHost: x\r\n\r\n"),
    ("a tab for a blank", "GET\t/\tHTTP/1.1\r\nHost: x\r\n\r\n"),
    ("no name", "GET / HTTP/1.1\r\nHost: x\r\n: value\r\n\r\n"),
    ("a name with a slash", "GET / HTTP/1.1\r\nHost: x\r\nX/Y: value\r\n\r\n"),
    ("no colon", "GET / HTTP/1.1\r\nHost: x\r\nnonsense\r\n\r\n"),
    ("CONNECT", "CONNECT example.test:443 HTTP/1.1\r\nHost: example.test:443\r\n\r\n"),
    ("TRACE", "TRACE / HTTP/1.1\r\nHost: x\r\n\r\n"),
    ("an unknown version", "GET / HTTP/3.0\r\nHost: x\r\n\r\n"),
    ("no target", "GET HTTP/1.1\r\nHost: x\r\n\r\n"),
];

#[test]
fn malformed_and_ambiguous_requests_are_refused() {
    let world = World::start(Conf::servers("a"));
    assert_all_refused(&world, "");
    assert_eq!(world.browser().get("/echo").status, 200, "the proxy lives on");
}

#[test]
fn nothing_behind_a_refused_request_is_taken_for_another() {
    let world = World::start(Conf::servers("a"));
    assert_all_refused(&world, "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(world.count("GET", "/smuggled"), 0);
}

#[test]
fn a_good_request_before_a_bad_one_is_not_harmed_and_does_not_help_it() {
    let world = World::start(Conf::servers("a"));
    let mut faults = Vec::new();
    for (what, request) in MALFORMED {
        let mut wire = world.wire();
        wire.send("GET /plain HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(wire.receive("GET").expect(200).text(), "a");
        let before = world.app("a").requests();
        let _ = wire.try_send(request);
        let answer = wire.try_receive("POST");
        if world.app("a").requests() != before || answer.is_ok_and(|answer| !(400..=501).contains(&answer.status)) {
            faults.push(what);
        }
    }
    assert_eq!(faults, Vec::<&str>::new(), "not refused as a second request");
}

#[test]
fn bytes_after_an_upgrade_that_was_not_granted_are_no_request() {
    let world = World::start(Conf::servers("a"));
    let upgrade = "GET /plain HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    let (_, _wire) = answer_to(&world, upgrade.as_bytes());
    let on_one_connection = world
        .app("a")
        .seen()
        .iter()
        .any(|seen| seen.target == "/smuggled" && seen.head.header("x-request-id").is_none());
    assert!(!on_one_connection, "no raw byte reaches the server as a request of its own");
}

#[test]
fn broken_chunks_never_make_a_whole_request() {
    let world = World::start(Conf::servers("a"));
    let head = "POST /chunks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    for body in [
        "x\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "5\r\nhelloXX0\r\n\r\n",
        "5\nhello\n0\n\n",
        "fffffffffffffffff\r\nhello",
    ] {
        let (answer, _wire) = answer_to(&world, format!("{head}{body}").as_bytes());
        assert!(!answer.starts_with("HTTP/1.1 2"), "{body:?}: {answer}");
    }
    let whole = world.app("a").seen().iter().filter(|seen| seen.body_complete).count();
    assert_eq!(whole, 0, "no server took one for whole");
    assert_eq!(world.browser().get("/echo").status, 200);
}

#[test]
fn malformed_chunks_are_the_clients_fault_on_new_and_on_kept_connections() {
    let world = World::start(Conf::servers("a b"));
    let head = "POST /chunks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let long = "a".repeat(100_000);
    for chunks in [
        "\r\nhello\r\n0\r\n\r\n",
        ";\r\nhello\r\n0\r\n\r\n",
        "5;name\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n;\r\n\r\n",
        "5\r\nhelloXX0\r\n\r\n",
    ] {
        for requests_before in [0, 1] {
            let mut wire = world.wire();
            for _ in 0..requests_before {
                wire.send("GET /echo HTTP/1.1\r\nHost: x\r\n\r\n");
                wire.receive("GET").expect(200);
            }
            let _ = wire.try_send(format!("{head}{chunks}{long}"));
            let response = wire.receive("POST");
            assert_eq!(response.status, 400, "{chunks:?}, behind {requests_before} requests");
            assert!(wire.time_to_close(Duration::from_secs(5)).is_some(), "where the next request begins is unknown");
        }
    }
    let whole =
        |app| world.app(app).seen().iter().filter(|seen| seen.body_complete && seen.target == "/chunks").count();
    assert_eq!(whole("a") + whole("b"), 0, "no server took one for whole");
    assert_eq!(world.metric("homing_upstream_errors_total", &[]), 0.0, "no server is blamed");
    assert_eq!(world.metric("homing_retries_total", &[]), 0.0, "and none was asked again");
}

/// Numbers that look random and are the same each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn byte(&mut self) -> u8 {
        self.next().to_be_bytes()[3]
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap_or_default()
    }
}

#[test]
fn random_bytes_harm_no_other_request() {
    let world = World::start(Conf::servers("a"));
    let mut random = Random(0x5eed_1234_5678_9abc);
    for _ in 0..150 {
        let length = 1 + random.below(400);
        let mut bytes: Vec<u8> = (0..length).map(|_| random.byte()).collect();
        bytes.extend_from_slice(b"\r\n\r\n");
        let _ = world.wire().try_send(&bytes);
    }
    assert_eq!(world.app("a").requests(), 0);
    assert_eq!(world.browser().server(), "a", "the proxy lives on");
}

#[test]
fn a_good_request_with_random_damage_harms_no_other_request() {
    let world = World::start(Conf::servers("a"));
    let alice = world.browser();
    alice.server();
    let token = alice.token().expect("a token");
    let good = format!(
        "GET /echo?a=1 HTTP/1.1\r\nHost: x\r\nCookie: a=1; SESSIONID={token}; b=2\r\nX-Forwarded-For: 1.2.3.4\r\nConnection: close\r\n\r\n"
    );
    let mut random = Random(0xfeed_f00d_dead_beef);
    for _ in 0..150 {
        let mut bytes = good.clone().into_bytes();
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len());
            bytes[at] = random.byte();
        }
        let mut wire = world.wire();
        let _ = wire.try_send(&bytes);
    }
    assert_eq!(alice.server(), "a", "the proxy lives on");
}

#[test]
fn damage_on_http2_harms_no_other_request() {
    let world = World::start(Conf::servers("a"));
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let mut random = Random(0x0dd_ba11);
    for _ in 0..60 {
        let mut bytes = preface.clone();
        let length = random.below(200);
        bytes.extend((0..length).map(|_| random.byte()));
        let _ = world.wire().try_send(&bytes);
    }
    assert_eq!(world.browser().server(), "a", "the proxy lives on");
}

#[test]
fn a_server_that_answers_garbage_is_a_bad_gateway() {
    let world = World::start(Conf::servers("a"));
    let alice = world.browser();
    alice.server();
    for answer in [
        "BLAH%20BLAH%0d%0a%0d%0a",
        "HTTP/1.1%20999999%20x%0d%0a%0d%0a",
        "HTTP/1.1%20200%20OK%0d%0aX%00Y:%20z%0d%0aContent-Length:%200%0d%0a%0d%0a",
        "HTTP/1.1%20200%20OK%0d%0aContent-Length:%20x%0d%0a%0d%0ahello",
        "HTTP/1.1%20200%20OK%0d%0aContent-Le",
        "%16%03%01%02%00%01%00",
    ] {
        let target = format!("/raw?bytes={answer}");
        let got = alice.request("POST", &target).fresh().send();
        assert_eq!(got.status, 502, "{answer}: {:?}", got.head);
        assert_eq!(got.all("set-cookie").len(), 0);
    }
    assert_eq!(alice.server(), "a", "the session is kept");
    eventually(Duration::from_secs(5), "errors are counted", || {
        world.metric("homing_upstream_errors_total", &[("pool", "web"), ("server", "a")]) >= 6.0
    });
}

#[test]
fn a_server_that_breaks_its_framing_never_gives_a_whole_answer() {
    let world = World::start(Conf::servers("a"));
    for answer in [
        "HTTP/1.1%20200%20OK%0d%0aContent-Length:%2010%0d%0a%0d%0ahello",
        "HTTP/1.1%20200%20OK%0d%0aTransfer-Encoding:%20chunked%0d%0a%0d%0a5%0d%0ahello%0d%0a",
        "HTTP/1.1%20200%20OK%0d%0aTransfer-Encoding:%20chunked%0d%0a%0d%0azz%0d%0ahello%0d%0a0%0d%0a%0d%0a",
    ] {
        let target = format!("/raw?bytes={answer}");
        let got = world.browser().request("GET", &target).fresh().try_send();
        assert!(got.as_ref().map_or(true, |response| response.status == 502), "{answer}: {got:?}");
    }
    assert_eq!(world.browser().server(), "a");
}

#[test]
fn a_server_with_enormous_headers_harms_no_other_request() {
    let world = World::start(Conf::servers("a"));
    let got = world.browser().request("GET", "/huge-header?bytes=3000000").fresh().try_send();
    assert!(got.as_ref().map_or(true, |response| matches!(response.status, 200 | 502)), "{got:?}");
    assert_eq!(world.browser().server(), "a");
}

#[test]
fn hostile_set_cookie_lines_of_a_server_stop_no_session() {
    let world = World::start(Conf::servers("a"));
    for line in [
        "Set-Cookie:%20;;;=",
        "Set-Cookie:",
        "Set-Cookie2:%20a=b",
        "Set-Cookie:%20=;%20Max-Age=99999999999999999999",
        "Set-Cookie:%20SESSIONID=theirs",
    ] {
        let target = format!("/raw?bytes=HTTP/1.1%20200%20OK%0d%0a{line}%0d%0aContent-Length:%202%0d%0a%0d%0aok");
        assert_eq!(world.browser().get(&target).expect(200).text(), "ok", "{line}");
    }
}
