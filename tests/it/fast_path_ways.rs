//! The same exchanges through two proxies that differ in `proxy.fast_path` only, and what both ends saw of them.
//!
//! What may differ: the case of header names and their order among different names, the size of chunks, `Date`, request ids and
//! tokens, which are random.

use std::cell::RefCell;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use homing::session::token::TokenText;

use crate::fast_path_exchanges::{Answer, Exchange};
use crate::world::http1::{Head, Reader};
use crate::world::net::Stream;
use crate::world::tls::Authority;
use crate::world::tls_server::{Manners, TlsServer};
use crate::world::{Conf, PATIENCE, Wire, World};

/// Also where all other configurations are on the full path.
pub(crate) const AUTO: &str = "proxy: { fast_path: auto }";
/// Which way requests took, and why.
pub(crate) const BY_PATH: &str = "homing_requests_by_path_total";

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
            format!("{name}: {}", without_tokens(value))
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
pub(crate) struct Way {
    pub(crate) world: World,
    server: Scripted,
    /// The last token that a client got.
    token: RefCell<String>,
}

impl Way {
    fn new(conf: &Conf, fast_path: &str, tls: Option<&Authority>) -> Self {
        let server = Scripted::start();
        let conf = conf.clone().top(&format!("proxy: {{ fast_path: {fast_path}, threads: 1 }}"));
        let world = match tls {
            None => World::start(conf.address("a", &server.address.to_string())),
            Some(authority) => {
                let front = TlsServer::open(&authority.sign(&["127.0.0.1"]), Manners::default());
                front.forward(server.address);
                let conf = conf.address("a", &front.address.to_string());
                World::builder(conf).before(|environment| authority.write(environment.directory(), "ca")).start()
            }
        };
        Self { world, server, token: RefCell::default() }
    }

    fn play(&self, exchange: &Exchange) -> Seen {
        self.server.answer_with(exchange.answer.clone());
        let mut wire = self.world.wire();
        let request = String::from_utf8_lossy(&exchange.request).replace("{token}", &self.token.borrow()).into_bytes();
        let (first, second) = request.split_at(exchange.cut.unwrap_or(request.len()));
        wire.send(first);
        if !second.is_empty() {
            thread::sleep(PAUSE);
            wire.send(second);
        }
        let method = String::from_utf8_lossy(&exchange.request).split(' ').next().unwrap_or_default().to_owned();
        let (client, body) = self.receive(&mut wire, &method);
        let open = is_open(&mut wire, &method, client.last(), body.is_some());
        Seen { server: self.server.take_got(), client, body, open }
    }

    /// How many requests took the fast path.
    pub(crate) fn fast(&self) -> f64 {
        self.world.metric(BY_PATH, &[("path", "fast")])
    }

    /// All heads of a response, and its body when that is whole.
    fn receive(&self, wire: &mut Wire, method: &str) -> (Vec<Vec<String>>, Option<Vec<u8>>) {
        let mut heads = Vec::new();
        loop {
            let Ok(response) = wire.try_receive_head() else { return (heads, None) };
            let mut values = response.head.headers.iter().rev();
            if let Some(token) = values.find_map(|(_, value)| token_in(value)) {
                token.clone_into(&mut self.token.borrow_mut());
            }
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
}

/// The last token in a text.
fn token_in(text: &str) -> Option<&str> {
    let mut pieces = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_'));
    pieces.rfind(|piece| piece.len() == TokenText::LEN)
}

fn without_tokens(text: &str) -> String {
    let mut text = text.to_owned();
    while let Some(token) = token_in(&text) {
        text = text.replace(token, "TOKEN");
    }
    text
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

/// Plays exchanges both ways. Returns how many were played, and how many took the fast path.
#[track_caller]
pub(crate) fn compare(conf: &Conf, exchanges: &[Exchange]) -> (usize, f64) {
    let way = compare_ways(conf, None, exchanges);
    (exchanges.len(), way.fast())
}

/// Plays exchanges both ways, with TLS to the server where an authority signs its certificate. Returns the fast way.
#[track_caller]
pub(crate) fn compare_ways(conf: &Conf, tls: Option<&Authority>, exchanges: &[Exchange]) -> Way {
    let (auto, off) = (Way::new(conf, "auto", tls), Way::new(conf, "off", tls));
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
    for name in [
        "homing_requests_total",
        "homing_session_lookups_total",
        "homing_session_outcomes_total",
        "homing_tokens_issued_total",
        "homing_bytes_total",
    ] {
        off.world.expect_metric(name, &[], auto.world.metric(name, &[]));
    }
    auto
}
