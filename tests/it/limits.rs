//! What a client may not do: send too much, too slowly, or not at all.

use std::thread;
use std::time::{Duration, Instant};

use crate::world::app::answers::pattern;
use crate::world::h2c::{H2Request, h2_try};
use crate::world::{Conf, PATIENCE, World, eventually};

#[test]
fn headers_that_are_too_large_are_refused_with_431() {
    let world = World::start(Conf::servers("a").listener("max_header_size: 4KiB"));
    let fits = world.browser().request("GET", "/echo").header("X-Large", &"x".repeat(3000)).send();
    assert_eq!(fits.expect(200).received("x-large")[0].len(), 3000);
    let browser = world.browser();
    let large = browser.request("GET", "/large").header("X-Large", &"x".repeat(5000)).send();
    assert_eq!(large.expect(431).all("set-cookie").len(), 0);
    browser.request("GET", &format!("/large?{}", "q".repeat(5000))).fresh().send().expect(431);
    let many = (0..100).fold(browser.request("GET", "/large").fresh(), |request, n| {
        request.header(&format!("X-{n}"), &"x".repeat(60))
    });
    many.send().expect(431);
    assert_eq!(world.count("GET", "/large"), 0, "no server saw them");
}

#[test]
fn the_default_limit_leaves_room_for_many_cookies() {
    let world = World::start(Conf::servers("a"));
    let line = format!("a={}", "x".repeat(30_000));
    assert_eq!(world.browser().request("GET", "/echo").header("Cookie", &line).send().received("cookie"), [line]);
}

#[test]
fn absurdly_large_headers_end_the_connection_and_nothing_else() {
    let world = World::start(Conf::servers("a"));
    let mut wire = world.wire();
    let _ = wire.try_send(format!("GET /large HTTP/1.1\r\nHost: x\r\nX-Large: {}\r\n\r\n", "x".repeat(3 << 20)));
    if let Ok(answer) = wire.try_receive("GET") {
        assert!((400..500).contains(&answer.status), "{:?}", answer.head);
    }
    assert_eq!(world.count("GET", "/large"), 0);
    assert_eq!(world.browser().server(), "a");
}

#[test]
fn large_headers_are_refused_over_http2_too() {
    let world = World::start(Conf::servers("a").listener("max_header_size: 4KiB"));
    let large = H2Request::get("/large").header("x-large", &"x".repeat(8000));
    if let Ok(answer) = &h2_try(&world.address, vec![large])[0] {
        assert_eq!(answer.status, 431, "{:?}", answer.head);
    }
    assert_eq!(world.count("GET", "/large"), 0);
    assert_eq!(world.browser().server(), "a");
}

#[test]
fn a_body_that_is_announced_too_large_is_refused_with_413() {
    let world = World::start(Conf::servers("a").listener("max_body_size: 10KiB"));
    assert_eq!(world.browser().post("/upload", pattern(10 * 1024)).expect(200).json()["body_length"], 10 * 1024);
    let mut wire = world.wire();
    wire.send("POST /large HTTP/1.1\r\nHost: x\r\nContent-Length: 10241\r\n\r\n");
    assert_eq!(wire.receive("POST").expect(413).all("set-cookie").len(), 0, "before the body was sent");
    assert_eq!(world.count("POST", "/large"), 0, "no server saw it");
}

#[test]
fn a_body_that_turns_out_too_large_is_refused_with_413() {
    let world = World::start(Conf::servers("a").listener("max_body_size: 10KiB"));
    let mut wire = world.wire();
    wire.send("POST /large HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..11 {
        if wire.try_send(format!("400\r\n{}\r\n", "x".repeat(1024))).is_err() {
            break;
        }
    }
    wire.receive("POST").expect(413);
    let whole = world.app("a").seen().iter().filter(|seen| seen.path() == "/large" && seen.body_complete).count();
    assert_eq!(whole, 0, "no server took it for a whole request");
    let answer = &h2_try(&world.address, vec![H2Request::post("/large", pattern(20_000))])[0];
    assert_eq!(answer.as_ref().map(|a| a.status), Ok(413), "over HTTP/2 too");
    assert_eq!(world.browser().server(), "a", "the server is not blamed");
    world.expect_metric("homing_session_moves_total", &[], 0.0);
}

fn short_timeouts() -> Conf {
    Conf::servers("a").listener("timeouts: { request_header: 1s, request_body: 1s, keepalive: 1s, write: 1s }")
}

#[test]
fn a_client_that_sends_nothing_is_cut() {
    let world = World::start(short_timeouts());
    let open = world.wire().time_to_close(Duration::from_secs(6)).expect("the connection ends");
    assert!(open > Duration::from_millis(700), "not at once: {open:?}");
}

/// A header byte every 100 ms until the connection ends; how long that took.
fn dribble(wire: &mut crate::world::Wire, first: &str) -> Duration {
    let start = Instant::now();
    let _ = wire.try_send(first);
    while start.elapsed() < Duration::from_secs(8) {
        if wire.try_send("x").is_err() || wire.time_to_close(Duration::from_millis(100)).is_some() {
            return start.elapsed();
        }
    }
    panic!("a client that dribbles holds its connection for ever");
}

#[test]
fn a_client_that_dribbles_its_headers_is_cut() {
    let world = World::start(short_timeouts());
    let took = dribble(&mut world.wire(), "GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ");
    assert!(took < Duration::from_secs(5), "one second and a little: {took:?}");
    assert_eq!(world.app("a").requests(), 0);
}

#[test]
fn a_client_that_dribbles_its_second_request_is_cut_too() {
    let world = World::start(short_timeouts());
    let mut wire = world.wire();
    wire.send("GET /plain HTTP/1.1\r\nHost: x\r\n\r\n");
    wire.receive("GET").expect(200);
    let took = dribble(&mut wire, "GET /second HTTP/1.1\r\nHost: x\r\nX-Slow: ");
    assert!(took < Duration::from_secs(5), "one second and a little: {took:?}");
    assert_eq!(world.count("GET", "/second"), 0);
}

#[test]
fn slow_clients_do_not_keep_others_waiting() {
    let world = World::start(Conf::servers("a"));
    let slow: Vec<_> = (0..200)
        .map(|_| {
            let mut wire = world.wire();
            wire.send("GET /slow HTTP/1.1\r\nX-Slow: ");
            wire
        })
        .collect();
    let start = Instant::now();
    assert_eq!(world.browser().server(), "a");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?} with {} slow clients", start.elapsed(), slow.len());
}

#[test]
fn a_client_that_stops_in_the_middle_of_a_body_is_cut() {
    let world = World::start(short_timeouts());
    let mut wire = world.wire();
    wire.send("POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf");
    let open = wire.time_to_close(Duration::from_secs(6)).expect("the connection ends");
    assert!(open > Duration::from_millis(700), "not at once: {open:?}");
    let whole = world.app("a").seen().iter().filter(|seen| seen.body_complete).count();
    assert_eq!(whole, 0, "no server took it for a whole request");
    assert_eq!(world.browser().server(), "a", "the server is not blamed");
}

#[test]
fn a_body_may_take_long_as_long_as_it_moves() {
    let world = World::start(short_timeouts());
    let mut wire = world.wire();
    wire.send("POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n");
    for _ in 0..10 {
        thread::sleep(Duration::from_millis(300)); // the passing of time is the subject
        wire.send("x");
    }
    assert_eq!(wire.receive("POST").expect(200).json()["body_length"], 10);
}

#[test]
fn an_idle_connection_is_closed_also_after_its_first_request() {
    let world = World::start(short_timeouts());
    for requests in 1..=2 {
        let mut wire = world.wire();
        for _ in 0..requests {
            wire.send("GET /plain HTTP/1.1\r\nHost: x\r\n\r\n");
            wire.receive("GET").expect(200);
        }
        let open = wire.time_to_close(Duration::from_secs(6)).expect("the connection ends");
        assert!(open > Duration::from_millis(700), "not at once, after {requests} requests: {open:?}");
    }
}

#[test]
fn an_idle_connection_of_http2_is_closed() {
    let world = World::start(short_timeouts());
    let mut wire = world.wire();
    wire.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    assert!(wire.time_to_close(Duration::from_secs(8)).is_some(), "no connection is held for ever");
}

#[test]
fn a_request_in_progress_is_no_idle_connection() {
    let world = World::start(short_timeouts());
    let start = Instant::now();
    world.browser().get("/slow?ms=2500").expect(200);
    assert!(start.elapsed() > Duration::from_secs(2));
}

#[test]
fn a_client_that_does_not_read_is_cut() {
    let world = World::start(short_timeouts());
    let mut wire = world.wire();
    wire.send("GET /download?bytes=200000000 HTTP/1.1\r\nHost: x\r\n\r\n");
    wire.receive_head().expect(200);
    let flying = [("pool", "web"), ("server", "a")];
    eventually(PATIENCE, "the request is given up", || {
        world.metric("homing_server_requests_in_flight", &flying) == 0.0 && world.app("a").unfinished() == 1
    });
    assert_eq!(world.browser().server(), "a");
}

#[test]
fn the_proxys_own_answers_tell_the_truth_about_their_connection() {
    let world = World::start(Conf::servers("a").listener("max_body_size: 10B"));
    world.app("a").kill();
    let large = "POST /large HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\nhello hello";
    for request in ["GET /down HTTP/1.1\r\nHost: x\r\n\r\n", large] {
        let mut wire = world.wire();
        wire.send(request);
        let answer = wire.receive("GET");
        let closes = answer.head.has_token("connection", "close");
        let open = wire.time_to_close(Duration::from_secs(1)).is_none();
        assert_eq!(open, !closes, "kept open exactly when it says so: {:?}", answer.head);
    }
}
