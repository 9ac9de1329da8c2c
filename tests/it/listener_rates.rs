//! Limits of a listener on requests and new sessions of each client, per second.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::world::app::answers::saying;
use crate::world::client::{Response, Wire};
use crate::world::h2c::{H2Request, h2_all};
use crate::world::{Conf, PATIENCE, World, eventually};

const LIMITED: &str = "homing_limited_total";

fn limited(limits: &str) -> Conf {
    Conf::servers("a b").listener(&format!("limits: {{ {limits} }}")).listener("trusted_proxies: [127.0.0.1/32]")
}

/// A request of this client, as a trusted proxy reports it.
fn ask(world: &World, client: &str, target: &str, cookie: Option<&str>) -> Response {
    let cookie = cookie.map(|cookie| format!("Cookie: {cookie}\r\n")).unwrap_or_default();
    let mut wire = world.wire();
    wire.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {client}\r\n{cookie}\r\n"));
    wire.receive("GET")
}

/// The same until it is refused: on a busy machine a second may pass between two requests.
fn until_refused(world: &World, client: &str, target: &str, cookie: Option<&str>) -> Response {
    let mut tries = (0..20).map(|_| ask(world, client, target, cookie));
    tries.find(|response| response.status == 429).expect("a request that is refused")
}

/// Asserts that one second's worth passed at once, and besides only what the time since has brought.
fn assert_one_burst(passed: usize, rate: usize, started: Instant) {
    let since = usize::try_from(started.elapsed().as_millis()).expect("a short test") * rate / 1000;
    assert!((rate..=rate + since).contains(&passed), "{passed} passed at {rate} a second, {:?}", started.elapsed());
}

/// A line of the access log for a request that was refused.
fn refused_line(world: &World) -> Value {
    let mut found = None;
    eventually(PATIENCE, "a line of the access log", || {
        found = world.access_log().into_iter().find(|line| line["status"] == 429);
        found.is_some()
    });
    found.expect("just seen")
}

fn retry_after(response: &Response) -> Duration {
    let seconds = response.header("retry-after").expect("Retry-After").parse().expect("seconds");
    assert!(seconds > 0, "never at once");
    Duration::from_secs(seconds)
}

#[test]
fn one_seconds_worth_of_requests_passes_and_the_next_gets_429_on_a_connection_that_stays() {
    let world = World::start(limited("requests_per_second: 2"));
    let (mut wire, started) = (world.wire(), Instant::now());
    let all: Vec<_> = (0..25)
        .map(|_| {
            wire.send("GET /plain HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 203.0.113.1\r\n\r\n");
            wire.receive("GET")
        })
        .collect();
    let passed = all.iter().filter(|response| response.status == 200).count();
    assert_one_burst(passed, 2, started);
    let refused: Vec<_> = all.iter().filter(|response| response.status == 429).collect();
    assert_eq!(passed + refused.len(), 25);
    assert!(refused.iter().all(|response| response.set_cookies("SESSIONID").is_empty()));
    assert_eq!(world.count("GET", "/plain"), passed, "no server saw the others");
    world.expect_metric(LIMITED, &[("limit", "requests_per_second")], refused.len() as f64);
    let line = refused_line(&world);
    assert_eq!((&line["reason"], &line["client_ip"]), (&"requests_per_second".into(), &"203.0.113.1".into()));
    thread::sleep(retry_after(refused[0])); // what the header asks for
    wire.send("GET /plain HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 203.0.113.1\r\n\r\n");
    wire.receive("GET").expect(200);
}

#[test]
fn a_refused_client_that_waits_as_long_as_it_is_told_is_served() {
    let world = World::start(limited("requests_per_second: 1"));
    for _ in 0..3 {
        ask(&world, "203.0.113.1", "/plain", None).expect(200);
        let refused = until_refused(&world, "203.0.113.1", "/plain", None);
        thread::sleep(retry_after(&refused)); // what the header asks for
    }
    ask(&world, "203.0.113.1", "/plain", None).expect(200);
}

#[test]
fn requests_of_http2_count_as_those_of_http1() {
    let world = World::start(limited("requests_per_second: 2"));
    let started = Instant::now();
    let request = || H2Request::get("/plain").header("x-forwarded-for", "203.0.113.1");
    let all = h2_all(&world.address, (0..25).map(|_| request()).collect());
    let passed = all.iter().filter(|response| response.status == 200).count();
    assert_one_burst(passed, 2, started);
    for refused in all.iter().filter(|response| response.status != 200) {
        assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));
    }
    let over_http1 = (0..25).filter(|_| ask(&world, "203.0.113.1", "/plain", None).status == 200).count();
    assert!(passed + over_http1 <= 2 + 2 * (1 + usize::try_from(started.elapsed().as_secs()).expect("seconds")));
}

#[test]
fn each_client_has_its_own_rate_and_is_a_64_of_ipv6() {
    let world = World::start(limited("requests_per_second: 1"));
    for (client, same, other) in
        [("203.0.113.1", "203.0.113.1:99", "203.0.113.2"), ("2001:db8::1", "2001:db8::ffff:1", "2001:db8:0:1::1")]
    {
        ask(&world, client, "/plain", None).expect(200);
        until_refused(&world, same, "/plain", None);
        ask(&world, other, "/plain", None).expect(200);
    }
    until_refused(&world, "10.9.9.9, 203.0.113.1", "/plain", None);
}

#[test]
fn a_client_cannot_pass_for_another() {
    let world = World::start(Conf::servers("a").listener("limits: { requests_per_second: 1 }"));
    ask(&world, "203.0.113.1", "/plain", None).expect(200);
    until_refused(&world, "203.0.113.2", "/plain", None);
}

#[test]
fn thousands_of_other_clients_do_not_refuse_one() {
    let world = World::start(limited("requests_per_second: 1, tracked_clients: 1024"));
    let mut wire = world.wire();
    for n in 0..3000 {
        let client = format!("2001:db8:{:x}:{:x}::1", n / 1000, n % 1000);
        wire.send(format!("GET /plain HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {client}\r\n\r\n"));
        wire.receive("GET").expect(200);
    }
    ask(&world, "203.0.113.1", "/plain", None).expect(200);
    until_refused(&world, "203.0.113.1", "/plain", None);
}

#[test]
fn a_reload_changes_the_rate_and_keeps_what_was_used() {
    let mut world = World::start(limited("requests_per_second: 1"));
    let burst = |world: &World| (0..40).filter(|_| ask(world, "203.0.113.1", "/plain", None).status == 200).count();
    assert!(burst(&world) < 20);
    world.reload(limited("requests_per_second: 1000"));
    thread::sleep(Duration::from_secs(1)); // the bucket fills
    assert_eq!(burst(&world), 40);
    world.reload(limited("requests_per_second: null"));
    assert_eq!(burst(&world), 40);
}

fn session_cookie(response: &Response) -> String {
    let line = response.set_cookie("SESSIONID").expect("a token");
    line.split(';').next().expect("a pair").to_owned()
}

#[test]
fn new_sessions_are_limited_and_sessions_are_not() {
    let world = World::start(limited("new_sessions_per_second: 1"));
    let first = ask(&world, "203.0.113.1", "/echo", None).expect(200);
    let cookie = session_cookie(&first);
    let refused = until_refused(&world, "203.0.113.1", "/echo", None);
    assert!(refused.set_cookies("SESSIONID").is_empty());
    until_refused(&world, "203.0.113.1", "/echo", Some("SESSIONID=forged"));
    for _ in 0..20 {
        ask(&world, "203.0.113.1", "/echo", Some(&cookie)).expect(200);
    }
    ask(&world, "203.0.113.2", "/echo", None).expect(200);
    world.expect_metric(LIMITED, &[("limit", "new_sessions_per_second")], 2.0);
    let line = refused_line(&world);
    assert_eq!(line["reason"], "new_sessions_per_second");
    thread::sleep(retry_after(&refused)); // what the header asks for
    session_cookie(&ask(&world, "203.0.113.1", "/echo", None).expect(200));
}

#[test]
fn new_sessions_over_http2_are_limited_too() {
    let world = World::start(limited("new_sessions_per_second: 2"));
    let started = Instant::now();
    let request = || H2Request::get("/echo").header("x-forwarded-for", "203.0.113.1");
    let all = h2_all(&world.address, (0..20).map(|_| request()).collect());
    assert_one_burst(all.iter().filter(|response| response.status == 200).count(), 2, started);
}

#[test]
fn a_pool_without_sessions_begins_none() {
    let world = World::start(limited("new_sessions_per_second: 1").without_persistence());
    for _ in 0..5 {
        ask(&world, "203.0.113.1", "/echo", None).expect(200);
    }
}

#[test]
fn sessions_that_the_application_names_count_when_it_names_them() {
    let conf = limited("new_sessions_per_second: 1").persistence("sources: [learn: { cookie: sid }]");
    let world = World::start(conf.persistence("issue: none"));
    for _ in 0..5 {
        ask(&world, "203.0.113.1", "/echo", None).expect(200);
    }
    let begins = |id: &str| saying(200, &[&format!("Set-Cookie: sid={id}; Path=/")]);
    ask(&world, "203.0.113.1", &begins("one"), None).expect(200);
    until_refused(&world, "203.0.113.1", &begins("two"), None);
    for _ in 0..5 {
        ask(&world, "203.0.113.1", "/echo", Some("sid=one")).expect(200);
    }
    ask(&world, "203.0.113.2", &begins("three"), None).expect(200);
}

#[test]
fn a_refused_upload_gets_its_answer_and_is_served_when_it_comes_again() {
    let world = World::start(limited("requests_per_second: 1"));
    let upload = |wire: &mut Wire| {
        wire.send("POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello");
        wire.receive("POST")
    };
    let mut wire = world.wire();
    let refused = (0..20).map(|_| upload(&mut wire)).find(|response| response.status == 429).expect("a refusal");
    let closes = refused.head.has_token("connection", "close");
    thread::sleep(retry_after(&refused)); // what the header asks for
    if closes {
        wire = world.wire();
    }
    upload(&mut wire).expect(200);
}
