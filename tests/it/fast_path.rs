//! The fast path and the full one: servers and clients see no difference. The same exchanges go through two proxies that
//! differ in `proxy.fast_path` only.
//!
//! What may differ: the case of header names and their order among different names, the size of chunks, `Date`, request ids and
//! tokens, which are random.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::fast_path_exchanges::{Answer, Exchange, GET, OK, answers, exchange, get_with, requests};
use crate::world::http1::{Head, Reader};
use crate::world::net::Stream;
use crate::world::{Conf, PATIENCE, Wire, World};

/// A server that answers every request with the bytes that it was told, and remembers what it got.
#[derive(Debug, Clone)]
struct Scripted {
    address: SocketAddr,
    answer: Arc<Mutex<Answer>>,
    got: Arc<Mutex<Vec<Vec<String>>>>,
}

/// Long enough for what was written before to be read alone, mostly.
const PAUSE: Duration = Duration::from_millis(2);

impl Scripted {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let server = Self { address, answer: Arc::default(), got: Arc::default() };
        let clients = server.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(stream), server) = (stream, clients.clone()) else { return };
                thread::spawn(move || server.serve(Stream::Tcp(stream)));
            }
        });
        server
    }

    fn serve(&self, stream: Stream) {
        let _ = stream.set_patient();
        let mut reader = Reader::new(stream);
        while let Ok(Some(head)) = reader.head() {
            let mut got = lines(&head, &["x-request-id", "traceparent"]);
            let mut body = Vec::new();
            let whole = reader.body(&head, false, |piece| body.extend_from_slice(piece));
            got.push(format!("{} {}", body.escape_ascii(), if whole.is_ok() { "whole" } else { "cut" }));
            self.got.lock().unwrap_or_else(PoisonError::into_inner).push(got);
            let Answer { bytes, cut, closes } = self.answer.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let (first, second) = bytes.split_at(cut.unwrap_or(bytes.len()));
            if reader.stream.write_all(first).is_err() {
                return;
            }
            if !second.is_empty() {
                thread::sleep(PAUSE);
                if reader.stream.write_all(second).is_err() {
                    return;
                }
            }
            if closes {
                return;
            }
        }
    }

    fn answer_with(&self, answer: Answer) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = answer;
    }

    fn take_got(&self) -> Vec<Vec<String>> {
        std::mem::take(&mut self.got.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// First line and fields in one form: names in lower case, sorted; the values of some are masked.
fn lines(head: &Head, masked: &[&str]) -> Vec<String> {
    let mut fields: Vec<String> = head
        .headers
        .iter()
        .map(|(name, value)| {
            let name = name.to_lowercase();
            let value = if masked.contains(&name.as_str()) { "…" } else { value };
            let value = value.split_once("SESSIONID=").map_or(value, |(before, _)| before);
            format!("{name}: {value}")
        })
        .collect();
    fields.sort_by(|one, other| one.split(':').next().cmp(&other.split(':').next()));
    fields.insert(0, head.first_line.clone());
    fields
}

/// What both ends saw of an exchange.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    /// What the server got, for each time it was asked.
    server: Vec<Vec<String>>,
    /// Heads that the client got, 1xx among them, and whether it got a whole body.
    client: Vec<Vec<String>>,
    body: Option<Vec<u8>>,
    /// Another request can follow on the client's connection.
    open: bool,
}

/// A proxy before a scripted server.
struct Way {
    world: World,
    server: Scripted,
}

impl Way {
    fn new(conf: &Conf, fast_path: &str) -> Self {
        let server = Scripted::start();
        let conf = conf.clone().address("a", &server.address.to_string());
        let conf = conf.top(&format!("proxy: {{ fast_path: {fast_path}, threads: 1 }}"));
        Self { world: World::start(conf), server }
    }

    fn play(&self, exchange: &Exchange) -> Seen {
        self.server.answer_with(exchange.answer.clone());
        let mut wire = self.world.wire();
        let (first, second) = exchange.request.split_at(exchange.cut.unwrap_or(exchange.request.len()));
        wire.send(first);
        if !second.is_empty() {
            thread::sleep(PAUSE);
            wire.send(second);
        }
        let method = String::from_utf8_lossy(&exchange.request).split(' ').next().unwrap_or_default().to_owned();
        let (client, body) = receive(&mut wire, &method);
        let open = is_open(&mut wire, &method, client.last(), body.is_some());
        Seen { server: self.server.take_got(), client, body, open }
    }

    fn fast(&self) -> f64 {
        self.world.metric("homing_requests_by_path_total", &[("path", "fast")])
    }
}

/// All heads of a response, and its body when that is whole.
fn receive(wire: &mut Wire, method: &str) -> (Vec<Vec<String>>, Option<Vec<u8>>) {
    let mut heads = Vec::new();
    loop {
        let Ok(response) = wire.try_receive_head() else { return (heads, None) };
        heads.push(lines(&response.head, &["date"]));
        if (100..200).contains(&response.status) && response.status != 101 {
            continue;
        }
        let mut body = Vec::new();
        if method == "HEAD" || matches!(response.status, 101 | 204 | 304) {
            return (heads, Some(body));
        }
        let whole = wire.reader.body(&response.head, true, |piece| body.extend_from_slice(piece)).is_ok();
        // Pages of the proxy's own show the request's id.
        let text = String::from_utf8_lossy(&body).into_owned();
        let text = text.lines().filter(|line| !line.contains("equest")).collect::<Vec<_>>().join("\n");
        return (heads, whole.then(|| text.into_bytes()));
    }
}

/// Whether the connection takes another request, which it says; a connection that does not is closed.
fn is_open(wire: &mut Wire, method: &str, head: Option<&Vec<String>>, whole: bool) -> bool {
    let keeps = head.is_some_and(|head| head.iter().any(|line| line == "connection: keep-alive"));
    if keeps && whole {
        wire.send(format!("{method} /second HTTP/1.1\r\nHost: a.example\r\n\r\n"));
        return wire.try_receive(method).is_ok();
    }
    assert!(wire.time_to_close(PATIENCE).is_some(), "the connection stays open");
    false
}

/// Plays exchanges both ways. Returns how many were played.
#[track_caller]
fn compare(conf: &Conf, exchanges: &[Exchange]) -> (usize, f64) {
    let (auto, off) = (Way::new(conf, "auto"), Way::new(conf, "off"));
    let mut differ = String::new();
    for exchange in exchanges {
        let (fast, full) = (auto.play(exchange), off.play(exchange));
        if fast != full {
            let text = |bytes: &[u8]| bytes.get(..300).unwrap_or(bytes).escape_ascii().to_string();
            differ += &format!(
                "\n{} (cut {:?})\nanswered {} (cut {:?})\nfast: {fast:#?}\nfull: {full:#?}\n",
                text(&exchange.request),
                exchange.cut,
                text(&exchange.answer.bytes),
                exchange.answer.cut,
            );
        }
    }
    assert!(differ.is_empty(), "{differ}");
    assert_eq!(off.fast(), 0.0);
    off.world.expect_metric(
        "homing_upstream_errors_total",
        &[],
        auto.world.metric("homing_upstream_errors_total", &[]),
    );
    for name in
        ["homing_requests_total", "homing_session_lookups_total", "homing_session_outcomes_total", "homing_bytes_total"]
    {
        off.world.expect_metric(name, &[], auto.world.metric(name, &[]));
    }
    (exchanges.len(), auto.fast())
}

fn conf() -> Conf {
    Conf::servers("a").pool("retries: { attempts: 1, budget_percent: 100 }")
}

#[test]
fn servers_get_the_same_requests_on_both_paths() {
    let (played, fast) = compare(&conf(), &requests());
    assert!(played > 70 && fast > 30.0, "{fast} of {played} took the fast path");
}

#[test]
fn clients_get_the_same_responses_on_both_paths() {
    let (played, fast) = compare(&conf(), &answers());
    assert!(played > 70 && fast > 50.0, "{fast} of {played} took the fast path");
}

#[test]
fn pools_without_sessions_or_with_other_ones_see_no_difference() {
    let exchanges: Vec<_> = requests().into_iter().chain(answers()).step_by(3).collect();
    for conf in [
        conf().without_persistence(),
        conf().persistence("sources: [{ learn: { cookie: SID } }, { client_ip: {} }]"),
        conf().pool("connection: { preserve_header_case: true }"),
        conf().listener("trusted_proxies: [127.0.0.0/8]"),
    ] {
        let (_, fast) = compare(&conf, &exchanges);
        assert!(fast > 20.0, "{fast} took the fast path");
    }
}

#[test]
fn heads_and_bodies_may_arrive_in_any_pieces() {
    let request = get_with("Cookie: a=1; SESSIONID=x\r\nConnection: close\r\n");
    let mut all: Vec<_> =
        (1..request.len()).step_by(3).map(|cut| Exchange { cut: Some(cut), ..exchange(&request, OK) }).collect();
    for answer in [
        "HTTP/1.1 103 A\r\nLink: <a>\r\n\r\nHTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\n",
    ] {
        for cut in 1..answer.len() {
            let mut one = exchange(GET, answer);
            one.answer.cut = Some(cut);
            all.push(one);
        }
    }
    let (_, fast) = compare(&conf(), &all);
    assert!(fast > 150.0, "{fast} took the fast path");
}

#[test]
fn the_fast_path_serves_the_usual_request_and_says_why_it_does_not_serve_another() {
    let world = World::start(Conf::servers("a b"));
    let browser = world.browser();
    let home = browser.server();
    for _ in 0..5 {
        assert_eq!(browser.server(), home);
    }
    world.expect_metric("homing_requests_by_path_total", &[("path", "fast")], 6.0);
    world.expect_metric("homing_requests_by_path_total", &[("path", "full")], 0.0);
    assert!(world.app(&home).connections() < 3, "the connection to the server is used again");
    let mut wire = world.wire();
    wire.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(wire.receive("POST").expect(200).json()["body_length"], 2);
    wire.send("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n");
    wire.receive("POST").expect(200);
    wire.send("GET /echo HTTP/1.1\r\nHost: x\r\n\r\n");
    wire.receive("GET").expect(200);
    world.expect_metric("homing_requests_by_path_total", &[("path", "full"), ("reason", "connection")], 1.0);
    world.expect_metric("homing_requests_by_path_total", &[("path", "fast")], 8.0);
}

#[test]
fn what_the_fast_path_does_not_know_takes_the_full_one() {
    let off = World::start(Conf::servers("a").top("proxy: { fast_path: off }"));
    off.browser().server();
    off.expect_metric("homing_requests_by_path_total", &[("reason", "off")], 1.0);
    for conf in [
        Conf::servers("a").persistence("handoff: { enabled: true }"),
        Conf::servers("a").persistence("cookie: { name: SID, mode: prefix }"),
        Conf::servers("a").persistence("sources: [{ cookie: {} }, { query: { name: sid } }]"),
        Conf::servers("a").persistence("sources: [{ cookie: {} }, { header: { name: X-Session } }]"),
    ] {
        let world = World::start(conf);
        world.browser().server();
        world.expect_metric("homing_requests_by_path_total", &[("reason", "configuration")], 1.0);
        world.expect_metric("homing_requests_by_path_total", &[("path", "fast")], 0.0);
    }
}

#[test]
fn a_request_whose_server_refuses_connections_goes_on_along_the_full_path() {
    let world = World::builder(Conf::servers("a b")).down("b").start();
    for _ in 0..4 {
        assert_eq!(world.browser().server(), "a");
    }
    let retried = world.metric("homing_retries_total", &[("result", "sent")]);
    assert!(retried >= 1.0, "b was tried");
    world.expect_metric("homing_requests_by_path_total", &[("path", "full"), ("reason", "failure")], retried);
    world.expect_metric("homing_requests_by_path_total", &[("path", "fast")], 4.0 - retried);
    world.expect_metric("homing_requests_total", &[], 4.0);
    world.expect_metric("homing_session_lookups_total", &[], 4.0);
}

#[test]
fn an_idle_connection_to_a_server_is_closed_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address").to_string();
    let world = World::start(Conf::servers("a").address("a", &address).pool("connection: { idle_timeout: 1s }"));
    let server = thread::spawn(move || {
        let mut reader = Reader::new(Stream::Tcp(listener.accept().expect("a connection").0));
        reader.stream.set_patience(PATIENCE).expect("a timeout");
        reader.head().expect("a request");
        reader.stream.write_all(OK.as_bytes()).expect("it is answered");
        reader.fill().expect("the end of the connection")
    });
    world.browser().get("/").expect(200);
    assert_eq!(server.join().expect("no panic"), 0, "nothing came behind the request");
    world.expect_metric("homing_requests_by_path_total", &[("path", "fast")], 1.0);
}
