//! A thousand clients that hold connections and do next to nothing: the others are served as if they were not there.
//!
//! The measure is the ratio of response times in rounds with the attack to those in rounds without it, in turn and within one
//! run, since absolute times say more about the machine than about the proxy. A machine that does other things too spoils
//! single rounds, of both kinds; so medians are compared, and the rounds are played again until the ratio holds. That is fair: noise
//! passes, but a proxy that the attack slows down is slow in each of its rounds, and stays above the ratio until the end.

use std::io::Read as _;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::world::frames::{
    Connection, Next, PREFACE, block, flag, frame, get, kind, request, setting, settings, window_update,
};
use crate::world::http1::Reader;
use crate::world::net::{Address, Stream};
use crate::world::{Conf, PATIENCE, Wire, World, eventually};

const CONNECTIONS: u16 = 1000;
/// How often each attacker does something. They are not in step.
const TICK: Duration = Duration::from_secs(4);
/// Requests of the honest clients in a round, half of them over each version of HTTP.
const REQUESTS: usize = 100;
/// The attack may make the 99th percentile so many times as long.
const MOST: u32 = 2;
/// Rounds are played for no longer than this.
const TOO_LONG: Duration = Duration::from_secs(120);
/// A thousand requests take their time on a busy machine.
const PATIENT: Duration = Duration::from_secs(60);

/// What each of a thousand clients does.
struct Attack {
    name: &'static str,
    /// Sent at once.
    open: fn() -> Vec<u8>,
    /// Sent with each tick, or else it reads one byte.
    drip: Option<fn() -> Vec<u8>>,
    /// The connections hold as many requests at the server.
    reaches_server: bool,
}

const IDLE: [Attack; 2] = [
    Attack { name: "HTTP/1.1", open: Vec::new, drip: Some(Vec::new), reaches_server: false },
    Attack { name: "HTTP/2", open: || begin(65_535), drip: Some(Vec::new), reaches_server: false },
];

const HEADS: [Attack; 2] = [
    Attack {
        name: "HTTP/1.1",
        open: || b"GET /plain HTTP/1.1\r\nHost: x\r\nX-Slow: ".to_vec(),
        drip: Some(|| b"s".to_vec()),
        reaches_server: false,
    },
    Attack {
        name: "HTTP/2",
        // A frame of 10,000 bytes, which come one by one.
        open: || [&begin(65_535)[..], b"\x00\x27\x10\x01\x04\x00\x00\x00\x01\x82"].concat(),
        drip: Some(|| b"\x84".to_vec()),
        reaches_server: false,
    },
];

const BODIES: [Attack; 2] = [
    Attack {
        name: "HTTP/1.1",
        open: || b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n".to_vec(),
        drip: Some(|| b"s".to_vec()),
        reaches_server: true,
    },
    Attack {
        name: "HTTP/2",
        open: || {
            let head = frame(kind::HEADERS, flag::END_HEADERS, 1, &block(&request("POST", "/upload")));
            [begin(65_535), head].concat()
        },
        drip: Some(|| frame(kind::DATA, 0, 1, b"s")),
        reaches_server: true,
    },
];

const READERS: [Attack; 2] = [
    Attack {
        name: "HTTP/1.1",
        open: || b"GET /download?bytes=250000 HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        drip: None,
        reaches_server: true,
    },
    Attack {
        name: "HTTP/2",
        open: || [begin(1), get(1, "/download?bytes=20000")].concat(),
        drip: Some(|| window_update(1, 1)),
        reaches_server: true,
    },
];

/// The beginning of a connection of HTTP/2.
fn begin(window: u32) -> Vec<u8> {
    [PREFACE, &settings(&[(setting::INITIAL_WINDOW_SIZE, window)])].concat()
}

/// Plays rounds with each attack and without it.
fn hold(attacks: &[Attack]) {
    let _ = rlimit::increase_nofile_limit(8192);
    // The attack goes on for as long as the test: nothing is to end it.
    let patient = "timeouts: { request_header: 200s, request_body: 200s, keepalive: 200s, write: 200s }";
    let world = World::start(Conf::servers("a").listener(patient));
    let mut honest = Honest::new(&world);
    for attack in attacks {
        let start = Instant::now();
        loop {
            // As many quiet rounds before the attack as after it, so that a machine that becomes faster or slower counts for both.
            let before = [honest.round(), honest.round()];
            let mut attacked = under(&world, attack, || [honest.round(), honest.round(), honest.round()]);
            let mut quiet = [before[0], before[1], honest.round(), honest.round()];
            quiet.sort();
            attacked.sort();
            if attacked[1] <= (quiet[1] + quiet[2]) / 2 * MOST {
                break;
            }
            assert!(start.elapsed() < TOO_LONG, "{}: {quiet:?} without the attack, {attacked:?} with it", attack.name);
        }
    }
    world.expect_metric("homing_panics_total", &[], 0.0);
}

/// Does something while the attack goes on.
fn under<T>(world: &World, attack: &Attack, work: impl FnOnce() -> T) -> T {
    let mut wires: Vec<Wire> = (0..CONNECTIONS).map(|_| open(world, attack)).collect();
    let hold = |name: &str| {
        eventually(PATIENT, &format!("{}: {name}", attack.name), || world.metric(name, &[]) >= f64::from(CONNECTIONS));
    };
    hold("homing_client_connections");
    if attack.reaches_server {
        hold("homing_server_requests_in_flight");
    }
    let over = AtomicBool::new(false);
    let result = thread::scope(|scope| {
        let attacker = scope.spawn(|| {
            for next in (0..wires.len()).cycle() {
                if over.load(Ordering::SeqCst) {
                    break;
                }
                drip(&mut wires[next], attack);
                thread::sleep(TICK / u32::from(CONNECTIONS));
            }
        });
        let result = catch_unwind(AssertUnwindSafe(work));
        over.store(true, Ordering::SeqCst);
        attacker.join().expect("the attackers");
        result.unwrap_or_else(|panic| resume_unwind(panic))
    });
    hold("homing_client_connections");
    drop(wires);
    eventually(PATIENT, "the attack is over", || {
        world.metric("homing_client_connections", &[]) < 10.0
            && world.metric("homing_server_requests_in_flight", &[]) < 1.0
    });
    result
}

fn open(world: &World, attack: &Attack) -> Wire {
    let mut wire = if attack.drip.is_some() { world.wire() } else { narrow(world) };
    wire.send((attack.open)());
    wire
}

/// A connection that takes little at once. The system would take all of a response otherwise, before its client reads any of it.
fn narrow(world: &World) -> Wire {
    let Address::Tcp(address) = world.address else { panic!("the proxy listens on TCP") };
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
    socket.set_tcp_mss(536).expect("short segments");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    socket.connect(&address.into()).expect("a connection");
    let _ = socket.set_read_timeout(Some(PATIENCE));
    Wire { reader: Reader::new(Stream::Tcp(socket.into())) }
}

fn drip(wire: &mut Wire, attack: &Attack) {
    match attack.drip {
        Some(bytes) => wire.send(bytes()),
        None => drop(wire.reader.stream.read(&mut [0])),
    }
}

/// Clients whose requests are measured.
struct Honest {
    http1: Wire,
    http2: Connection,
    next: u32,
}

impl Honest {
    fn new(world: &World) -> Self {
        let mut http2 = Connection::new(world.wire());
        http2.begin(&[], PATIENCE).expect("a connection of HTTP/2");
        Self { http1: world.wire(), http2, next: 1 }
    }

    /// The 99th percentile of their response times.
    fn round(&mut self) -> Duration {
        let mut times: Vec<Duration> = (0..REQUESTS / 2).flat_map(|_| [self.over_http1(), self.over_http2()]).collect();
        times.sort();
        times[REQUESTS * 99 / 100 - 1]
    }

    fn over_http1(&mut self) -> Duration {
        let start = Instant::now();
        self.http1.send("GET /plain HTTP/1.1\r\nHost: x\r\n\r\n");
        self.http1.receive("GET").expect(200);
        start.elapsed()
    }

    fn over_http2(&mut self) -> Duration {
        let start = Instant::now();
        self.http2.send(&get(self.next, "/plain")).expect("a request");
        loop {
            match self.http2.next(PATIENCE) {
                Next::Frame(frame) if frame.stream == self.next && frame.has(flag::END_STREAM) => break,
                Next::Frame(frame) => assert_ne!(frame.kind, kind::RST_STREAM, "{frame:?}"),
                other => panic!("no response: {other:?}"),
            }
        }
        self.next += 2;
        start.elapsed()
    }
}

#[test]
fn a_thousand_idle_connections_slow_no_other_client() {
    hold(&IDLE);
}

#[test]
fn a_thousand_heads_that_come_byte_by_byte_slow_no_other_client() {
    hold(&HEADS);
}

#[test]
fn a_thousand_bodies_that_come_byte_by_byte_slow_no_other_client() {
    hold(&BODIES);
}

#[test]
fn a_thousand_responses_that_are_read_byte_by_byte_slow_no_other_client() {
    hold(&READERS);
}
