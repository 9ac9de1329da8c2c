//! Floods of HTTP/2: memory stays bounded, the flood is cut or throttled, and an honest client is served meanwhile.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::world::frames::{
    Connection, Next, block, code, flag, frame, get, integer, kind, literal, request, reset, setting, settings,
    window_update,
};
use crate::world::h2c::{H2Request, h2, h2_try, h2_try_for};
use crate::world::{Conf, PATIENCE, Wire, World, eventually};

/// How long a flood lasts, at least.
const FLOOD: Duration = Duration::from_millis(700);
/// When what it must come to does not come.
const LONGEST_FLOOD: Duration = Duration::from_secs(30);
/// Requests of the honest client during it, at least.
const HONEST_REQUESTS: usize = 3;
/// The honest client is served within this time each time, which is long for a machine that has nothing else to do.
const DEADLINE: Duration = Duration::from_secs(45);
/// Connections that flood at once.
const ATTACKERS: usize = 2;
/// Streams that a connection may have open, and requests that it may have unfinished.
const STREAMS: u32 = 100;
const UNFINISHED: f64 = 200.0;
/// Memory that a flood may take, in KiB, when the proxy has nothing to keep of it.
const NEXT_TO_NOTHING: u64 = 24 << 10;
/// Memory that a response takes which is not read, in KiB: two rows of four pieces on its way through the proxy, another that is
/// read, and what waits for the socket.
const UNREAD_RESPONSE: u64 = 9 * 64 + 128 + 200;

/// What an attacker does.
struct Flood<'a> {
    settings: &'a [(u16, u32)],
    /// What it sends in each round.
    burst: &'a (dyn Fn(u32) -> Vec<u8> + Sync),
    /// It waits after each round until the proxy has seen all of it.
    in_step: bool,
    /// It reads what the proxy sends.
    reads: bool,
    /// How it ends: it goes on until then.
    end: End,
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    /// After a while.
    Time,
    /// When the proxy has closed a connection.
    Closed,
    /// When the proxy does not read any more.
    Stalled,
}

impl<'a> Flood<'a> {
    fn of(burst: &'a (dyn Fn(u32) -> Vec<u8> + Sync)) -> Self {
        Self { settings: &[], burst, in_step: false, reads: true, end: End::Time }
    }

    fn until(self, end: End) -> Self {
        Self { end, ..self }
    }

    fn in_step(burst: &'a (dyn Fn(u32) -> Vec<u8> + Sync)) -> Self {
        Self { in_step: true, ..Self::of(burst) }
    }

    fn unread(burst: &'a (dyn Fn(u32) -> Vec<u8> + Sync)) -> Self {
        Self { reads: false, ..Self::of(burst) }
    }
}

/// What came of it.
#[derive(Debug, Default)]
struct Outcome {
    /// Connections that the proxy has closed.
    closed: usize,
    /// Connections of which it read no more.
    stalled: usize,
    /// The codes of GOAWAY.
    goaways: BTreeSet<String>,
    /// Memory at its peak, above what it was before.
    grown_kib: u64,
    /// Most requests in flight for each connection.
    in_flight: f64,
}

impl Outcome {
    fn expect_memory(self, kib: u64) -> Self {
        assert!(self.grown_kib < kib, "it took more than {kib} KiB: {self:?}");
        self
    }

    fn expect_calm(self) -> Self {
        let calm = BTreeSet::from(["ENHANCE_YOUR_CALM".to_owned()]);
        assert!(self.closed > 0 && self.goaways == calm, "the connections are not closed for it: {self:?}");
        self
    }
}

/// Floods the proxy while an honest client goes on.
fn attack(world: &World, flood: &Flood<'_>) -> Outcome {
    serve_honestly(world);
    let before = world.resident_kib();
    let (over, ended) = (AtomicBool::new(false), AtomicBool::new(flood.end == End::Time));
    let mut outcome = thread::scope(|scope| {
        let flood_on = || flood_until(world, flood, &over, &ended);
        let attackers: Vec<_> = (0..ATTACKERS).map(|_| scope.spawn(flood_on)).collect();
        let honest = catch_unwind(AssertUnwindSafe(|| {
            let (start, mut served, mut most) = (Instant::now(), 0, 0.0_f64);
            let goes_on = |start: Instant| {
                start.elapsed() < FLOOD || (!ended.load(Ordering::SeqCst) && start.elapsed() < LONGEST_FLOOD)
            };
            while served < HONEST_REQUESTS || goes_on(start) {
                serve_honestly(world);
                most = most.max(in_flight_each(world));
                served += 1;
            }
            most
        }));
        over.store(true, Ordering::SeqCst);
        let parts: Vec<_> = attackers.into_iter().map(|attacker| attacker.join().expect("an attacker")).collect();
        let in_flight = honest.unwrap_or_else(|panic| resume_unwind(panic));
        parts.into_iter().fold(Outcome { in_flight, ..Outcome::default() }, |mut sum, part| {
            sum.closed += part.closed;
            sum.stalled += part.stalled;
            sum.goaways.extend(part.goaways);
            sum
        })
    });
    outcome.grown_kib = world.peak_resident_kib().saturating_sub(before);
    world.expect_metric("homing_panics_total", &[], 0.0);
    outcome
}

/// One request over a connection of its own.
fn serve_honestly(world: &World) {
    let response = h2_try_for(DEADLINE, &world.address, vec![H2Request::get("/plain")]).remove(0);
    assert_eq!(response.map(|response| response.status), Ok(200), "an honest client");
}

fn in_flight(world: &World) -> f64 {
    world.metric("homing_server_requests_in_flight", &[])
}

/// For each open connection. One may be new since connections were counted.
fn in_flight_each(world: &World) -> f64 {
    let metrics = world.metrics();
    let connections = metrics.sum("homing_client_connections", &[]) + 1.0;
    metrics.sum("homing_server_requests_in_flight", &[]) / connections
}

/// Floods one connection after the other, until it is over.
fn flood_until(world: &World, flood: &Flood<'_>, over: &AtomicBool, ended: &AtomicBool) -> Outcome {
    let mut outcome = Outcome::default();
    while !over.load(Ordering::SeqCst) {
        let Ok(wire) = Wire::try_connect(&world.address) else { continue };
        let mut connection = Connection::new(wire);
        if connection.begin(flood.settings, PATIENCE).is_none() {
            continue;
        }
        let mut round = 0;
        while !over.load(Ordering::SeqCst) {
            let _ = connection.wire.reader.stream.set_patience(Duration::from_millis(300));
            let sent = connection.send(&(flood.burst)(round)).map_err(|error| error.kind());
            round += 1;
            if matches!(sent, Err(ErrorKind::WouldBlock | ErrorKind::TimedOut)) {
                outcome.stalled += 1;
                ended.fetch_or(flood.end == End::Stalled, Ordering::SeqCst);
                while !over.load(Ordering::SeqCst) {
                    thread::sleep(Duration::from_millis(10)); // the flood goes on as long as the proxy does not read
                }
            } else if sent.is_err() || (flood.reads && !read(&mut connection, flood.in_step, &mut outcome)) {
                outcome.closed += 1;
                ended.fetch_or(flood.end == End::Closed, Ordering::SeqCst);
                // What was sent before the connection was closed.
                while let Next::Frame(frame) = connection.next(Duration::from_millis(50)) {
                    outcome.goaways.extend((frame.kind == kind::GOAWAY).then(|| code::name(frame.number(4))));
                }
                break;
            }
        }
    }
    outcome
}

/// Reads what has come; false: the connection is closed.
fn read(connection: &mut Connection, in_step: bool, outcome: &mut Outcome) -> bool {
    if in_step && connection.send(&frame(kind::PING, 0, 0, b"in step?")).is_err() {
        return false;
    }
    loop {
        match connection.next(if in_step { PATIENCE } else { Duration::ZERO }) {
            Next::Closed => return false,
            Next::Silence => return true,
            Next::Frame(frame) if frame.kind == kind::GOAWAY => {
                outcome.goaways.insert(code::name(frame.number(4)));
            }
            Next::Frame(frame) if in_step && frame.kind == kind::PING => return true,
            Next::Frame(_) => {}
        }
    }
}

/// The streams of a round of so many.
fn streams(round: u32, count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(move |n| 1 + 2 * (round * count + n))
}

/// A server that takes no connection: the first ones are silent, and later ones are not even established. Requests to it begin
/// with `/held`.
fn silent_server() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    (listener, address)
}

fn with_silent_server(conf: Conf, address: SocketAddr) -> String {
    let routes =
        "routes: [{ name: held, match: { path_prefix: /held }, pool: held }, { name: rest, match: {}, pool: web }]";
    format!(
        "{}  held: {{ servers: [{{ name: held, address: \"{address}\" }}], persistence: null }}\n",
        conf.top(routes)
    )
}

#[test]
fn streams_that_are_reset_at_once_close_the_connection() {
    let (_listener, address) = silent_server();
    let world = World::start(with_silent_server(Conf::servers("a"), address));
    let burst = |round| {
        let ids = streams(round, 50);
        ids.flat_map(|id| [get(id, "/held"), reset(id, code::CANCEL)].concat()).collect()
    };
    attack(&world, &Flood::of(&burst).until(End::Closed)).expect_memory(NEXT_TO_NOTHING).expect_calm();
    eventually(PATIENCE, "nothing is left of it", || in_flight(&world) == 0.0);
}

#[test]
fn streams_that_are_reset_in_step_leave_no_more_requests_than_a_connection_may_have() {
    let (_listener, address) = silent_server();
    let world = World::start(with_silent_server(Conf::servers("a"), address));
    let burst = |round| {
        let ids = streams(round / 2, STREAMS);
        if round % 2 == 0 {
            ids.flat_map(|id| get(id, "/held")).collect()
        } else {
            ids.flat_map(|id| reset(id, code::CANCEL)).collect()
        }
    };
    let outcome = attack(&world, &Flood::in_step(&burst)).expect_memory(48 << 10);
    let refused = world.metric("homing_requests_rejected_total", &[("reason", "streams")]);
    assert!(refused > 0.0, "the flood was not large enough to show anything: {outcome:?}");
    assert!(outcome.in_flight <= UNFINISHED, "{outcome:?}");
    eventually(PATIENCE, "nothing is left of it", || in_flight(&world) == 0.0);
}

#[test]
fn streams_that_the_client_makes_the_proxy_reset_close_the_connection() {
    let (_listener, address) = silent_server();
    let world = World::start(with_silent_server(Conf::servers("a"), address));
    let ways: [fn(u32) -> Vec<u8>; 2] = [
        |id| window_update(id, (1 << 31) - 1),
        |id| frame(kind::PRIORITY, 0, id, &[&id.to_be_bytes()[..], &[1]].concat()),
    ];
    for way in ways {
        let burst = |round| streams(round, STREAMS).flat_map(|id| [get(id, "/held"), way(id)].concat()).collect();
        attack(&world, &Flood::in_step(&burst).until(End::Closed)).expect_memory(96 << 10).expect_calm();
    }
    eventually(PATIENCE, "nothing is left of it", || in_flight(&world) == 0.0);
}

#[test]
fn a_connection_counts_as_open_until_its_requests_have_ended() {
    let world = World::start(Conf::servers("a"));
    // Requests wait for a connection to it, and do not notice that their client is gone.
    world.app("a").blackhole();
    let mut connection = Connection::new(world.wire());
    connection.begin(&[], PATIENCE).expect("a connection");
    connection.send(&streams(0, 10).flat_map(|id| get(id, "/plain")).collect::<Vec<_>>()).expect("requests");
    eventually(PATIENCE, "they wait for their server", || in_flight(&world) > 0.0);
    drop(connection);
    let mut waited = 0;
    eventually(PATIENCE, "the connection is gone", || {
        let metrics = world.metrics();
        let connections = metrics.sum("homing_client_connections", &[]);
        let requests = metrics.sum("homing_server_requests_in_flight", &[]);
        waited += usize::from(requests > 0.0);
        assert!(requests == 0.0 || connections > 0.0, "{requests} requests belong to no connection");
        connections == 0.0
    });
    assert!(waited > 3, "the requests have ended at once, which shows nothing");
}

#[test]
fn a_head_without_an_end_closes_the_connection() {
    let world = World::start(Conf::servers("a"));
    let junk = block(&[("x-junk", &"j".repeat(16_000))]);
    for payload in [&junk[..], b""] {
        let burst = |round| {
            let mut bytes = Vec::new();
            if round == 0 {
                bytes = frame(kind::HEADERS, flag::END_STREAM, 1, &block(&request("GET", "/plain")));
            }
            bytes.extend(frame(kind::CONTINUATION, 0, 1, payload).repeat(50));
            bytes
        };
        attack(&world, &Flood::of(&burst).until(End::Closed)).expect_memory(NEXT_TO_NOTHING).expect_calm();
    }
}

#[test]
fn settings_and_pings_are_read_no_faster_than_their_acknowledgements() {
    let world = World::start(Conf::servers("a"));
    let setting = settings(&[(setting::INITIAL_WINDOW_SIZE, 65_535), (setting::HEADER_TABLE_SIZE, 4096)]);
    for frames in [setting, frame(kind::PING, 0, 0, &[7; 8])] {
        let burst = |_| frames.repeat(3000);
        attack(&world, &Flood::of(&burst)).expect_memory(NEXT_TO_NOTHING);
        let unread = attack(&world, &Flood::unread(&burst).until(End::Stalled)).expect_memory(NEXT_TO_NOTHING);
        assert!(unread.stalled > 0, "what nobody reads is acknowledged for ever: {unread:?}");
    }
}

#[test]
fn priorities_and_unknown_frames_are_forgotten() {
    let world = World::start(Conf::servers("a"));
    let priorities = |round| {
        streams(round, 1000).flat_map(|id| frame(kind::PRIORITY, 0, id, &[0, 0, 0, 0, 200])).collect::<Vec<u8>>()
    };
    let unknown = |_| frame(0xaa, 0, 0, &[0; 100]).repeat(500);
    for flood in [Flood::of(&priorities), Flood::of(&unknown)] {
        attack(&world, &flood).expect_memory(NEXT_TO_NOTHING);
    }
}

#[test]
fn data_frames_with_next_to_no_data_close_the_connection() {
    let world = World::start(Conf::servers("a"));
    for payload in [&b""[..], b"x"] {
        let burst = |round| {
            let mut bytes = Vec::new();
            if round == 0 {
                bytes = frame(kind::HEADERS, flag::END_HEADERS, 1, &block(&request("POST", "/upload")));
            }
            bytes.extend(frame(kind::DATA, 0, 1, payload).repeat(300));
            bytes
        };
        attack(&world, &Flood::of(&burst).until(End::Closed)).expect_memory(NEXT_TO_NOTHING).expect_calm();
    }
}

#[test]
fn responses_that_are_not_read_take_bounded_memory() {
    let burst = |round| {
        if round > 0 {
            thread::sleep(Duration::from_millis(50)); // all streams are open
            return Vec::new();
        }
        let requests = streams(0, STREAMS).flat_map(|id| get(id, "/download?bytes=1500000"));
        requests.chain(window_update(0, (1 << 31) - 70_000)).collect()
    };
    // Without a window for them, and with one but an unread socket (CVE-2019-9517).
    for window in [0, 1 << 30] {
        let world = World::start(Conf::servers("a"));
        let settings = [(setting::INITIAL_WINDOW_SIZE, window)];
        let outcome = attack(&world, &Flood { settings: &settings, ..Flood::unread(&burst) });
        outcome.expect_memory(u64::from(STREAMS) * UNREAD_RESPONSE * ATTACKERS as u64);
    }
}

/// A head that puts a large field into the table and then names it again and again, by one byte each.
fn bomb(times: usize) -> Vec<u8> {
    let mut out = block(&request("GET", "/plain"));
    let mut field = Vec::new();
    literal(b"x-bomb", &[b'b'; 4000], &mut field);
    // With incremental indexing.
    field[0] = 0x40;
    out.extend(field);
    for _ in 0..times {
        integer(0x80, 7, 62, &mut out);
    }
    out
}

#[test]
fn heads_that_grow_when_they_are_decompressed_are_refused() {
    let world = World::start(Conf::servers("a"));
    // 160 KB, which are refused, and 16 MB, for which the connection is closed.
    for times in [40, 4000] {
        let burst = |round| {
            let heads = streams(round, 20);
            heads.flat_map(|id| frame(kind::HEADERS, flag::END_STREAM | flag::END_HEADERS, id, &bomb(times))).collect()
        };
        let before = world.app("a").requests();
        let outcome = attack(&world, &Flood::in_step(&burst)).expect_memory(NEXT_TO_NOTHING);
        assert_eq!(outcome.closed > 0, times == 4000, "{outcome:?}");
        let seen = world.app("a").seen().split_off(before);
        assert!(seen.iter().all(|seen| seen.head.header("x-bomb").is_none()), "no server sees such a head");
    }
}

#[test]
fn heads_over_http2_may_be_as_large_as_the_listener_allows() {
    let world = World::start(Conf::servers("a").listener("max_header_size: 256KiB"));
    let large = |size: usize| H2Request::get("/plain").header("x-large", &"l".repeat(size));
    assert_eq!(h2(&world.address, large(200 << 10)).status, 200);
    let too_large = h2_try(&world.address, vec![large(300 << 10)]).remove(0);
    assert!(too_large.is_err() || too_large.is_ok_and(|response| response.status == 431));
}
