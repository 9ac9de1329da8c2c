//! A server has so many requests in flight and no more; the others wait for it, first come first served.

use std::net::Shutdown;
use std::sync::mpsc;
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use crate::failover::{MOVES, OUTCOMES, start_with_session};
use crate::world::client::{Response, Wire};
use crate::world::h2c::{H2Request, h2_reset};
use crate::world::{App, Browser, Conf, PATIENCE, World, eventually};

const QUEUED: &str = "homing_server_requests_queued";
const IN_FLIGHT: &str = "homing_server_requests_in_flight";

/// One request at a time, and patience for the others.
const ONE: &str = "limits: { max_requests_per_server: 1, queue_timeout: 20s }";

fn wait_until_queued(world: &World, server: &str, requests: usize) {
    eventually(PATIENCE, &format!("{requests} wait for {server}"), || {
        world.metric(QUEUED, &[("server", server)]) == requests as f64
    });
}

/// A request that its server answers when the gate is opened, with its answer.
fn occupy<'s>(
    scope: &'s Scope<'s, '_>,
    world: &World,
    session: &'s Browser,
    server: &str,
) -> ScopedJoinHandle<'s, Response> {
    let before = world.app(server).count("GET", "/gated");
    let target = format!("/gated?only={server}");
    let thread = scope.spawn(move || session.get(&target));
    eventually(PATIENCE, "the request is at its server", || world.app(server).count("GET", "/gated") == before + 1);
    thread
}

#[test]
fn a_session_waits_for_its_own_server_and_moves_to_no_other() {
    let (world, alice, home) = start_with_session(Conf::servers("a b").pool(ONE));
    let bob = alice.copy_at(&world.address);
    thread::scope(|scope| {
        let first = occupy(scope, &world, &alice, &home);
        let second = scope.spawn(|| bob.post("/order", "one"));
        wait_until_queued(&world, &home, 1);
        assert_eq!(world.count("POST", "/order"), 0, "it is not sent before it has a place");
        world.app(&home).open_gate();
        first.join().unwrap().expect(200);
        assert_eq!(second.join().unwrap().server(), home);
    });
    assert_eq!(world.app(&home).count("POST", "/order"), 1, "it is sent once");
    world.expect_metric(MOVES, &[], 0.0);
    world.expect_metric(IN_FLIGHT, &[], 0.0);
    world.expect_metric(QUEUED, &[], 0.0);
}

#[test]
fn requests_that_wait_are_served_first_come_first_served() {
    let (world, alice, home) = start_with_session(Conf::servers("a b").pool(ONE));
    let (done, order) = mpsc::channel();
    thread::scope(|scope| {
        let first = occupy(scope, &world, &alice, &home);
        for number in 0..6 {
            let (browser, done) = (alice.copy_at(&world.address), done.clone());
            scope.spawn(move || {
                browser.get(&format!("/slow?ms=20&number={number}")).expect(200);
                done.send(number).unwrap();
            });
            wait_until_queued(&world, &home, number + 1);
        }
        world.app(&home).open_gate();
        first.join().unwrap();
    });
    drop(done);
    assert_eq!(order.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
    let seen: Vec<_> =
        world.app(&home).seen().iter().filter(|seen| seen.path() == "/slow").map(|seen| seen.target.clone()).collect();
    assert!(seen.is_sorted(), "{seen:?}");
}

#[test]
fn a_request_that_waits_too_long_gets_503_and_its_session_stays() {
    let conf = Conf::servers("a b").pool("limits: { max_requests_per_server: 1, queue_timeout: 1500ms }");
    let (world, alice, home) = start_with_session(conf);
    let bob = alice.copy_at(&world.address);
    thread::scope(|scope| {
        let first = occupy(scope, &world, &alice, &home);
        let start = Instant::now();
        let refused = bob.get("/echo").expect(503);
        let took = start.elapsed();
        assert!((Duration::from_millis(1400)..Duration::from_secs(8)).contains(&took), "{took:?}");
        assert_eq!(refused.header("retry-after"), Some("2"), "those that wait now have left by then");
        assert!(refused.text().contains("busy"), "{}", refused.text());
        assert_eq!(refused.set_cookie("SESSIONID"), None);
        world.app(&home).open_gate();
        first.join().unwrap();
    });
    assert_eq!(bob.server(), home, "it stays");
    world.expect_metric(MOVES, &[], 0.0);
    eventually(PATIENCE, "the access log has the reason", || {
        world.access_log().iter().any(|line| line["status"] == 503 && line["reason"] == "queue_timeout")
    });
}

#[test]
fn no_more_requests_wait_than_may() {
    let conf = Conf::servers("a").pool("limits: { max_requests_per_server: 1, queue_timeout: 20s, max_queued: 2 }");
    let (world, alice, home) = start_with_session(conf);
    let others: Vec<_> = (0..2).map(|_| alice.copy_at(&world.address)).collect();
    thread::scope(|scope| {
        let first = occupy(scope, &world, &alice, &home);
        let waiting: Vec<_> = others.iter().map(|one| scope.spawn(|| one.get("/echo"))).collect();
        wait_until_queued(&world, &home, 2);
        let start = Instant::now();
        let refused = alice.copy_at(&world.address).get("/echo").expect(503);
        assert!(start.elapsed() < Duration::from_secs(5), "at once");
        assert!(refused.header("retry-after").is_some());
        world.app(&home).open_gate();
        first.join().unwrap();
        assert!(waiting.into_iter().all(|one| one.join().unwrap().server() == home));
    });
}

#[test]
fn a_client_that_leaves_the_queue_makes_room_for_the_next() {
    // Reset is gone; closed is gone only where that cancels a request.
    for (listener, leave) in [(FINISH, Leave::Reset), (CANCEL, Leave::HalfClose), (CANCEL, Leave::Close)] {
        let (world, alice, home) = start_with_session(Conf::servers("a b").pool(ONE).listener(listener));
        let bob = alice.copy_at(&world.address);
        thread::scope(|scope| {
            let first = occupy(scope, &world, &alice, &home);
            let mut gone = world.wire();
            gone.send(post_of(&alice, "/gone"));
            wait_until_queued(&world, &home, 1);
            let second = scope.spawn(|| bob.get("/echo"));
            wait_until_queued(&world, &home, 2);
            let _open = leave.take(gone);
            wait_until_queued(&world, &home, 1);
            world.app(&home).open_gate();
            first.join().unwrap();
            assert_eq!(second.join().unwrap().server(), home);
        });
        assert_eq!(world.count("POST", "/gone"), 0, "it is sent to no server");
        world.expect_metric(IN_FLIGHT, &[], 0.0);
    }
}

#[test]
fn a_client_that_closes_its_side_keeps_its_place_in_the_queue_and_gets_its_response() {
    let (world, alice, home) = start_with_session(Conf::servers("a b").pool(ONE));
    thread::scope(|scope| {
        let first = occupy(scope, &world, &alice, &home);
        let mut wires: Vec<_> = (0..2).map(|_| world.wire()).collect();
        for (before, wire) in wires.iter_mut().enumerate() {
            wire.send(post_of(&alice, "/order"));
            wait_until_queued(&world, &home, before + 1);
            wire.reader.stream.shutdown(Shutdown::Write).unwrap();
        }
        // Longer than the proxy takes to see it.
        thread::sleep(Duration::from_millis(500));
        wait_until_queued(&world, &home, 2);
        world.app(&home).open_gate();
        first.join().unwrap();
        for wire in &mut wires {
            assert_eq!(wire.receive("POST").server(), home);
        }
    });
    assert_eq!(world.count("POST", "/order"), 2, "each is sent once");
    world.expect_metric(IN_FLIGHT, &[], 0.0);
    world.expect_metric(QUEUED, &[], 0.0);
}

/// A client that closes its side of the connection has left.
const CANCEL: &str = "on_client_half_close: cancel";
/// It still gets its response.
const FINISH: &str = "on_client_half_close: finish";

fn post_of(session: &Browser, path: &str) -> String {
    let token = session.token().unwrap();
    format!("POST {path} HTTP/1.1\r\nHost: x\r\nCookie: SESSIONID={token}\r\nContent-Length: 3\r\n\r\nabc")
}

/// How a client ends its connection.
#[derive(Debug, Clone, Copy)]
enum Leave {
    Reset,
    Close,
    HalfClose,
}

impl Leave {
    /// What is left open.
    fn take(self, wire: Wire) -> Option<Wire> {
        match self {
            Self::Reset => wire.reader.stream.reset_on_close(),
            Self::Close => {}
            Self::HalfClose => {
                wire.reader.stream.shutdown(Shutdown::Write).unwrap();
                return Some(wire);
            }
        }
        None
    }
}

#[test]
fn new_sessions_go_to_a_server_with_room_or_wait_for_the_first() {
    let world = World::start(Conf::servers("a b").pool(ONE));
    let [one, other] = [world.browser(), world.browser()];
    thread::scope(|scope| {
        let first = scope.spawn(|| one.get("/gated"));
        eventually(PATIENCE, "the first is served", || world.count("GET", "/gated") == 1);
        let busy = world.apps().find(|app| app.count("GET", "/gated") == 1).unwrap().name().to_owned();
        for _ in 0..4 {
            assert_ne!(world.browser().server(), busy, "another has room");
        }
        let second = scope.spawn(|| other.get("/gated"));
        eventually(PATIENCE, "both are busy", || world.count("GET", "/gated") == 2);
        let third = scope.spawn(|| world.browser().server());
        wait_until_queued(&world, "-", 1);
        world.app(&busy).open_gate();
        assert_eq!(third.join().unwrap(), busy, "the first that had room");
        world.apps().for_each(App::open_gate);
        first.join().unwrap().expect(200);
        second.join().unwrap().expect(200);
    });
    world.expect_metric(OUTCOMES, &[("outcome", "new")], 7.0);
    world.expect_metric(QUEUED, &[], 0.0);
}

#[test]
fn the_limit_holds_under_load_and_every_end_of_a_request_gives_its_place_back() {
    let conf = Conf::servers("a b").pool("limits: { max_requests_per_server: 3, queue_timeout: 30s }");
    let world = World::start(conf.pool("connection: { read_timeout: 300ms }"));
    let ends =
        ["/echo", "/reset", "/die-midway", "/garbage", "/slow?ms=20", "/slow?ms=600", "/status?code=503", "/close"];
    thread::scope(|scope| {
        for client in 0..24 {
            let world = &world;
            scope.spawn(move || {
                let browser = world.browser();
                for turn in 0..8 {
                    let target = ends[(client + turn) % ends.len()];
                    if (client + turn) % 5 == 0 {
                        let mut wire = world.wire();
                        wire.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
                    } else {
                        let _ = browser.request("GET", target).try_send();
                    }
                }
            });
        }
        for _ in 0..50 {
            for app in ["a", "b"] {
                let in_flight = world.metric(IN_FLIGHT, &[("server", app)]);
                assert!(in_flight <= 3.0, "{in_flight} in flight at {app}");
            }
            thread::sleep(Duration::from_millis(20));
        }
    });
    world.expect_metric(IN_FLIGHT, &[], 0.0);
    world.expect_metric(QUEUED, &[], 0.0);
    for _ in 0..6 {
        assert_eq!(world.browser().get("/echo").status, 200, "all places are free again");
    }
}

#[test]
fn a_websocket_keeps_its_place() {
    let conf = Conf::servers("a").pool("limits: { max_requests_per_server: 1, queue_timeout: 200ms }");
    let world = World::start(conf);
    let mut socket = world.wire();
    socket.send(
        "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    assert_eq!(socket.receive("GET").status, 101);
    world.browser().get("/echo").expect(503);
    drop(socket);
    eventually(PATIENCE, "its place is free", || world.browser().get("/echo").status == 200);
}

#[test]
fn a_queue_whose_server_goes_into_maint_follows_on_server_down() {
    let (mut world, alice, home) = start_with_session(Conf::servers("a b").pool(ONE));
    let bob = alice.copy_at(&world.address);
    let (address, maint) = (world.address.clone(), Conf::servers("a b").pool(ONE).server(&home, "state: maint"));
    let (sent, sending) = mpsc::channel();
    let holder = thread::spawn({
        let (alice, home) = (alice.copy_at(&address), home.clone());
        move || alice.get(&format!("/gated?only={home}"))
    });
    eventually(PATIENCE, "the server is busy", || world.app(&home).count("GET", "/gated") == 1);
    let waiting = thread::spawn(move || {
        sent.send(()).unwrap();
        bob.server()
    });
    sending.recv().unwrap();
    wait_until_queued(&world, &home, 1);
    world.reload(maint);
    let next = waiting.join().unwrap();
    assert_ne!(next, home, "it does not wait for a server in maint");
    world.expect_metric(MOVES, &[("reason", "maint")], 1.0);
    world.app(&home).open_gate();
    holder.join().unwrap().expect(200);
}

#[test]
fn a_queue_whose_server_dies_follows_on_server_down() {
    let conf = Conf::servers("a b").pool(ONE).pool(crate::world::QUICK_CHECK).pool("streams_on_down: keep");
    let (world, alice, home) = start_with_session(conf);
    let bob = alice.copy_at(&world.address);
    thread::scope(|scope| {
        let first = occupy(scope, &world, &alice, &home);
        let waiting = scope.spawn(|| bob.server());
        wait_until_queued(&world, &home, 1);
        world.app(&home).set_health(500);
        assert_ne!(waiting.join().unwrap(), home);
        world.app(&home).open_gate();
        first.join().unwrap().expect(200);
    });
    world.expect_metric(MOVES, &[("reason", "down")], 1.0);
}

#[test]
fn a_reload_changes_the_limit_of_what_is_in_flight_and_keeps_what_waits() {
    let (mut world, alice, home) = start_with_session(Conf::servers("a b").pool(ONE));
    let get = |target: String| {
        let browser = alice.copy_at(&world.address);
        thread::spawn(move || browser.get(&target))
    };
    let first = get(format!("/gated?only={home}"));
    eventually(PATIENCE, "one is in flight", || world.app(&home).count("GET", "/gated") == 1);
    let waiting: Vec<_> = (0..3).map(|_| get(format!("/gated?only={home}"))).collect();
    wait_until_queued(&world, &home, 3);
    world.reload(Conf::servers("a b").pool(&ONE.replace("server: 1", "server: 3")));
    eventually(PATIENCE, "two more are sent", || world.app(&home).count("GET", "/gated") == 3);
    wait_until_queued(&world, &home, 1);
    world.reload(Conf::servers("a b").pool(&ONE.replace("server: 1", "server: 2")));
    world.app(&home).open_gate();
    eventually(PATIENCE, "one has ended", || world.metric(IN_FLIGHT, &[("server", &home)]) == 2.0);
    wait_until_queued(&world, &home, 1);
    for _ in 0..3 {
        world.app(&home).open_gate();
    }
    for request in waiting.into_iter().chain([first]) {
        request.join().unwrap().expect(200);
    }
    assert_eq!(world.app(&home).count("GET", "/gated"), 4);
}

#[test]
fn a_stream_of_http2_leaves_the_queue_when_it_is_reset() {
    let (world, alice, home) = start_with_session(Conf::servers("a b").pool(ONE));
    let token = alice.token().unwrap();
    thread::scope(|scope| {
        let first = occupy(scope, &world, &alice, &home);
        let request = H2Request::get("/gone").header("cookie", &format!("SESSIONID={token}"));
        h2_reset(
            &world.address,
            request,
            || wait_until_queued(&world, &home, 1),
            || wait_until_queued(&world, &home, 0),
        );
        world.app(&home).open_gate();
        first.join().unwrap();
    });
    assert_eq!(world.count("GET", "/gone"), 0);
}
