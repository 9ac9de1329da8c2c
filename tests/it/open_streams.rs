//! A session is in use while a WebSocket, a stream, a slow response or an upload of it is under way: however its client names
//! it, and whatever carries it.

use std::thread;
use std::time::Duration;

use crate::shared_proxies::with_every_store;
use crate::world::app::answers::saying;
use crate::world::client::request_text;
use crate::world::h2c::{H2Request, h2};
use crate::world::net::Address;
use crate::world::stores::{Engine, Store};
use crate::world::websocket::{Frame, read_frame, write_frame};
use crate::world::{Conf, Response, Wire, World};

const IDLE: Duration = Duration::from_secs(2);
/// More than twice the idle timeout.
const LENGTH: Duration = Duration::from_millis(4500);
/// Before the end of the stream or after it: less than the idle timeout.
const MOMENT: Duration = Duration::from_millis(500);

const UPGRADE: [(&str, &str); 4] = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// How a client names its session.
#[derive(Debug, Clone, Default)]
struct Client {
    query: String,
    headers: Vec<(String, String)>,
}

impl Client {
    fn header(name: &str, value: &str) -> Self {
        Self { query: String::new(), headers: vec![(name.to_owned(), value.to_owned())] }
    }

    /// By the first cookie that the response sets of these.
    fn of_cookies(response: &Response) -> Self {
        let pairs: Vec<_> = response.all("set-cookie").iter().filter_map(|line| line.split(';').next()).collect();
        Self::header("Cookie", &pairs.join("; "))
    }

    fn target(&self, target: &str) -> String {
        let joint = if target.contains('?') { '&' } else { '?' };
        if self.query.is_empty() { target.to_owned() } else { format!("{target}{joint}{}", self.query) }
    }

    /// A request without its body, on a connection of its own.
    fn begin(&self, address: &Address, method: &str, target: &str, headers: &[(&str, &str)]) -> Wire {
        let mut wire = Wire::connect(address);
        let more = [("Host", "example.test")].iter().chain(headers).map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        let headers: Vec<_> = more.chain(self.headers.clone()).collect();
        wire.send(request_text(method, &self.target(target), &headers, b""));
        wire
    }

    #[track_caller]
    fn get(&self, address: &Address, target: &str) -> Response {
        self.begin(address, "GET", target, &[("Connection", "close")]).receive("GET")
    }

    #[track_caller]
    fn server(&self, address: &Address) -> String {
        self.get(address, "/echo").server()
    }
}

/// What keeps a request under way.
#[derive(Debug, Clone, Copy)]
enum Stream {
    WebSocket,
    Events,
    EventsOverHttp2,
    SlowResponse,
    Upload,
    UploadOverHttp2,
}

impl Stream {
    const ALL: [Self; 6] =
        [Self::WebSocket, Self::Events, Self::EventsOverHttp2, Self::SlowResponse, Self::Upload, Self::UploadOverHttp2];
    /// Those whose response begins at once, so that their client has a session while they last.
    const EARLY: [Self; 2] = [Self::WebSocket, Self::Events];

    fn events() -> String {
        format!("/sse?events=2&every={}", LENGTH.as_millis())
    }

    /// A request that takes [`LENGTH`].
    fn run(self, client: &Client, address: &Address) {
        match self {
            Self::WebSocket => Self::open(self, client, address).1(),
            Self::Events => Self::open(self, client, address).1(),
            Self::EventsOverHttp2 => {
                let mut request = H2Request::get(&client.target(&Self::events()));
                request.headers = lower(&client.headers);
                h2(address, request).expect(200);
            }
            Self::SlowResponse => {
                client.get(address, &format!("/slow?ms={}", LENGTH.as_millis())).expect(200);
            }
            Self::Upload => {
                let mut wire = client.begin(address, "POST", "/echo", &[("Content-Length", "10")]);
                wire.send("first");
                thread::sleep(LENGTH);
                wire.send("again");
                assert_eq!(wire.receive("POST").expect(200).json()["body_length"], 10);
            }
            Self::UploadOverHttp2 => {
                let path = client.target(&format!("/slow?ms={}", LENGTH.as_millis()));
                let mut request = H2Request::post(&path, vec![0; 100_000]);
                request.headers = lower(&client.headers);
                h2(address, request).expect(200);
            }
        }
    }

    /// A stream whose response has begun, and what waits for its end.
    fn open(self, client: &Client, address: &Address) -> (Response, Box<dyn FnOnce()>) {
        if matches!(self, Self::Events) {
            let mut wire = client.begin(address, "GET", &Self::events(), &[]);
            let head = wire.receive_head();
            let body = head.head.clone();
            return (head, Box::new(move || wire.reader.body(&body, true, |_| {}).expect("the stream ends whole")));
        }
        let mut wire = client.begin(address, "GET", "/ws", &UPGRADE);
        let head = wire.receive("GET").expect(101);
        let end = move || {
            thread::sleep(LENGTH);
            write_frame(&mut wire.reader, &Frame::Ping(Vec::new()), true).expect("the frame is taken");
            assert!(matches!(read_frame(&mut wire.reader), Ok(Some(Frame::Pong(_)))), "the WebSocket is open");
        };
        (head, Box::new(end))
    }
}

fn lower(headers: &[(String, String)]) -> Vec<(&'static str, String)> {
    headers.iter().map(|(name, value)| (&*Box::leak(name.to_lowercase().into_boxed_str()), value.clone())).collect()
}

fn conf(persistence: &[&str]) -> Conf {
    let conf = Conf::servers("a b c").listener("protocols: [http1, h2c]").persistence("idle_timeout: 2s");
    persistence.iter().fold(conf, |conf, entry| conf.persistence(entry))
}

/// Each client has one stream, and a single request while it lasts, or after it.
#[track_caller]
fn comes_home(world: &World, streams: &[Stream], first: impl Fn(&World) -> (Client, String)) {
    let cases = streams.iter().flat_map(|stream| [(*stream, true), (*stream, false)]);
    let address = &world.address;
    thread::scope(|scope| {
        for (stream, during) in cases {
            let (client, home) = first(world);
            scope.spawn(move || {
                let server = if during {
                    server_during(stream, &client, address)
                } else {
                    stream.run(&client, address);
                    thread::sleep(MOMENT);
                    client.server(address)
                };
                assert_eq!(server, home, "{stream:?}, a request {}", if during { "during it" } else { "after it" });
            });
        }
    });
}

fn server_during(stream: Stream, client: &Client, address: &Address) -> String {
    thread::scope(|scope| {
        scope.spawn(|| stream.run(client, address));
        thread::sleep(LENGTH.saturating_sub(MOMENT));
        client.server(address)
    })
}

fn by_cookie(world: &World) -> (Client, String) {
    let first = Client::default().get(&world.address, "/echo");
    let client = Client::of_cookies(&first);
    (client, first.server())
}

#[test]
fn a_session_of_the_proxys_cookie_lives_as_long_as_its_streams() {
    comes_home(&World::start(conf(&[])), &Stream::ALL, by_cookie);
}

#[test]
fn a_session_in_the_applications_cookie_lives_as_long_as_its_streams() {
    for mode in ["prefix", "rewrite"] {
        let world = World::start(conf(&[&format!("cookie: {{ mode: {mode}, name: APPSESSION }}")]));
        comes_home(&world, &[Stream::WebSocket, Stream::Events, Stream::SlowResponse], by_cookie);
    }
}

#[test]
fn a_session_in_links_lives_as_long_as_its_streams() {
    let world = World::start(conf(&["sources: [query: { name: sid, rewrite_links: true }]", "issue: query"]));
    comes_home(&world, &Stream::ALL, |world| {
        let redirect = Client::default().get(&world.address, &saying(302, &["Location: /next"])).expect(302);
        let location = redirect.header("location").expect("where to").to_owned();
        let query = location.split_once('?').expect("the token").1.to_owned();
        let client = Client { query, headers: Vec::new() };
        let home = client.server(&world.address);
        (client, home)
    });
}

#[test]
fn a_session_in_a_header_lives_as_long_as_its_streams() {
    let world = World::start(conf(&["sources: [header: { name: X-Session }]", "issue: header"]));
    comes_home(&world, &Stream::ALL, |world| {
        let first = Client::default().get(&world.address, "/echo");
        (Client::header("X-Session", first.header("x-session").expect("a token")), first.server())
    });
}

#[test]
fn a_learned_cookie_lives_as_long_as_its_streams() {
    let world = World::start(conf(&["sources: [learn: { cookie: APPSESSION }]", "issue: none"]));
    comes_home(&world, &Stream::ALL, by_cookie);
}

#[test]
fn a_learned_header_lives_as_long_as_its_streams() {
    let world = World::start(conf(&["sources: [learn: { header: Mcp-Session-Id }]", "issue: none"]));
    let next = std::sync::atomic::AtomicUsize::new(0);
    comes_home(&world, &Stream::ALL, |world| {
        let id = format!("id-{}", next.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        let first = Client::default().get(&world.address, &saying(200, &[&format!("Mcp-Session-Id: {id}")]));
        (Client::header("Mcp-Session-Id", &id), first.server())
    });
}

#[test]
fn a_learned_query_parameter_lives_as_long_as_its_streams() {
    let world = World::start(conf(&["sources: [learn: { query: sid, cookie: APPSESSION }]", "issue: none"]));
    comes_home(&world, &Stream::ALL, |world| {
        let first = Client::default().get(&world.address, "/echo");
        let id = first.set_cookie("APPSESSION").expect("an id").split(['=', ';']).nth(1).expect("a value").to_owned();
        (Client { query: format!("sid={id}"), headers: Vec::new() }, first.server())
    });
}

#[test]
fn the_session_of_an_address_lives_as_long_as_its_streams() {
    for stream in [Stream::WebSocket, Stream::EventsOverHttp2, Stream::SlowResponse] {
        let world = World::start(conf(&["sources: [client_ip: {}]", "issue: none"]));
        comes_home(&world, &[stream], |world| (Client::default(), Client::default().server(&world.address)));
        let expired = [("source", "client_ip"), ("result", "expired_idle")];
        assert_eq!(world.metric("homing_session_lookups_total", &expired), 0.0, "{stream:?}");
    }
}

#[test]
fn a_slow_first_request_of_an_address_keeps_it_bound() {
    let world = World::start(conf(&["sources: [client_ip: {}]", "issue: none"]));
    let slow = format!("/slow?ms={}", LENGTH.as_millis());
    let home = Client::default().get(&world.address, &slow).server();
    assert_eq!(Client::default().server(&world.address), home);
    assert_eq!(world.metric("homing_session_lookups_total", &[("result", "hit")]), 1.0);
}

#[test]
fn a_route_id_lives_as_long_as_its_streams() {
    let conf = conf(&["sources: [route: { cookie: ROUTED }]", "issue: none"]);
    let world = World::start(conf.server("a", "route: r1").server("b", "route: r2").server("c", "route: r3"));
    comes_home(&world, &Stream::ALL, |_| (Client::header("Cookie", "ROUTED=x.r2"), "b".to_owned()));
}

#[test]
fn a_session_that_begins_with_a_stream_lives_as_long_as_it() {
    for persistence in [&[][..], &["sources: [header: { name: X-Session }]", "issue: header"][..]] {
        for stream in Stream::EARLY {
            let world = World::start(conf(persistence));
            let (head, end) = stream.open(&Client::default(), &world.address);
            let client = match head.header("x-session") {
                Some(token) => Client::header("X-Session", token),
                None => Client::of_cookies(&head),
            };
            end();
            let home =
                world.apps().find(|app| app.requests() == 1).expect("the server of the stream").name().to_owned();
            thread::sleep(MOMENT);
            assert_eq!(client.server(&world.address), home, "{stream:?}");
        }
    }
}

#[test]
fn a_token_of_a_slow_first_response_is_fresh_when_its_client_gets_it() {
    let world = World::start(conf(&[]));
    let first = Client::default().get(&world.address, &format!("/slow?ms={}", LENGTH.as_millis()));
    let client = Client::of_cookies(&first);
    assert_eq!(client.server(&world.address), first.server());
    assert_eq!(world.metric("homing_session_lookups_total", &[("result", "expired_idle")]), 0.0);
}

#[test]
fn a_stream_keeps_no_session_alive_beyond_its_absolute_timeout() {
    let world = World::start(conf(&["absolute_timeout: 3s"]));
    let (client, _) = by_cookie(&world);
    Stream::WebSocket.run(&client, &world.address);
    client.server(&world.address);
    assert_eq!(world.metric("homing_session_lookups_total", &[("result", "expired_absolute")]), 1.0);
}

#[test]
fn a_session_that_is_idle_after_its_stream_expires() {
    let world = World::start(conf(&[]));
    let (client, _) = by_cookie(&world);
    Stream::WebSocket.run(&client, &world.address);
    thread::sleep(IDLE * 2);
    client.server(&world.address);
    assert_eq!(world.metric("homing_session_lookups_total", &[("result", "expired_idle")]), 1.0);
}

#[test]
fn a_log_out_during_a_stream_ends_the_session_for_good() {
    let world = World::start(conf(&["sources: [learn: { cookie: APPSESSION }]", "issue: none"]));
    let (client, _) = by_cookie(&world);
    thread::scope(|scope| {
        scope.spawn(|| Stream::WebSocket.run(&client, &world.address));
        thread::sleep(MOMENT);
        client.get(&world.address, &saying(200, &["Set-Cookie: APPSESSION=; Max-Age=0; Path=/"])).expect(200);
    });
    client.get(&world.address, "/plain").expect(200);
    assert_eq!(world.metric("homing_session_lookups_total", &[("result", "unknown")]), 1.0, "it is not brought back");
}

#[test]
fn a_snapshot_remembers_that_a_session_was_in_use() {
    let conf = conf(&[]).top("store: { snapshot: { path: \"{{dir}}/sessions\", interval: 1h } }");
    let mut world = World::start(conf);
    let (client, home) = by_cookie(&world);
    Stream::WebSocket.run(&client, &world.address);
    world.restart_proxy();
    assert_eq!(client.server(&world.address), home);
    assert_eq!(world.metric("homing_session_lookups_total", &[("result", "hit")]), 1.0);
}

/// With these timeouts no request is silent for a quarter of the idle timeout, and only pieces of its bodies show that it lasts.
fn conf_with_short_silences() -> Conf {
    Conf::servers("a b c")
        .listener("timeouts: { request_body: 900ms }")
        .pool("connection: { connect_timeout: 500ms, write_timeout: 500ms, read_timeout: 1s }")
        .pool("retries: { attempts: 0 }")
        .persistence("idle_timeout: 12s")
}

/// Longer than that idle timeout.
const LONG: Duration = Duration::from_secs(14);
const PIECES: u32 = 140;

/// Something of the stream passes every tenth of a second.
fn run_in_pieces(stream: Stream, client: &Client, address: &Address) {
    let pause = LONG / PIECES;
    match stream {
        Stream::Upload => {
            let length = PIECES.to_string();
            let mut wire = client.begin(address, "POST", "/echo", &[("Content-Length", &length)]);
            for _ in 0..PIECES {
                thread::sleep(pause);
                wire.send("x");
            }
            assert_eq!(wire.receive("POST").expect(200).json()["body_length"], PIECES);
        }
        Stream::WebSocket => {
            let mut wire = client.begin(address, "GET", "/ws", &UPGRADE);
            wire.receive("GET").expect(101);
            for _ in 0..PIECES {
                thread::sleep(pause);
                write_frame(&mut wire.reader, &Frame::Ping(Vec::new()), true).expect("the frame is taken");
                assert!(matches!(read_frame(&mut wire.reader), Ok(Some(Frame::Pong(_)))), "the WebSocket is open");
            }
        }
        _ => {
            client.get(address, &format!("/sse?events={PIECES}&every={}", pause.as_millis())).expect(200);
        }
    }
}

#[test]
fn a_session_lives_as_long_as_streams_that_are_never_silent() {
    let world = World::start(conf_with_short_silences());
    let address = &world.address;
    thread::scope(|scope| {
        for stream in [Stream::WebSocket, Stream::Events, Stream::Upload] {
            let (client, home) = by_cookie(&world);
            scope.spawn(move || {
                run_in_pieces(stream, &client, address);
                thread::sleep(MOMENT);
                assert_eq!(client.server(address), home, "{stream:?}");
            });
        }
    });
    assert_eq!(world.metric("homing_session_lookups_total", &[("result", "expired_idle")]), 0.0);
}

#[test]
fn a_session_that_begins_with_a_stream_that_is_never_silent_lives_as_long_as_it() {
    let world = World::start(conf_with_short_silences());
    let target = format!("/sse?events={PIECES}&every={}", (LONG / PIECES).as_millis());
    let first = Client::default().get(&world.address, &target).expect(200);
    let home = world.apps().find(|app| app.requests() == 1).expect("the server of the stream").name().to_owned();
    assert_eq!(Client::of_cookies(&first).server(&world.address), home);
    assert_eq!(world.metric("homing_session_lookups_total", &[("result", "expired_idle")]), 0.0);
}

/// A stream at one proxy, and the session's next request at another that does not know it, or knew it before.
fn a_stream_keeps_its_session_alive_at_all_proxies(engine: Engine) {
    let store = Store::start(engine);
    for persistence in [&[][..], &["sources: [learn: { cookie: APPSESSION }]", "issue: none"][..]] {
        let conf = conf(persistence).store(&store.entry()).store("timeout: 2s");
        let mut world = World::start(conf);
        let other = world.another_proxy("2");
        let (here, there) = (&world.address, &other.address);
        let streams = [Stream::WebSocket, Stream::EventsOverHttp2];
        thread::scope(|scope| {
            for (stream, knew) in streams.into_iter().flat_map(|stream| [(stream, true), (stream, false)]) {
                let (client, home) = by_cookie(&world);
                if knew {
                    assert_eq!(client.server(there), home);
                }
                scope.spawn(move || {
                    stream.run(&client, here);
                    thread::sleep(MOMENT);
                    assert_eq!(client.server(there), home, "{persistence:?} {stream:?}, the other knew it: {knew}");
                });
            }
        });
    }
}

with_every_store! { a_stream_keeps_its_session_alive_at_all_proxies }
