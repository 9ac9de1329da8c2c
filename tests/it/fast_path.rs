//! The fast path and the full one: servers and clients see no difference. The same exchanges go through two proxies that
//! differ in `proxy.fast_path` only (`fast_path_ways.rs`).

use std::io::Write as _;
use std::net::TcpListener;
use std::thread;

use crate::fast_path_exchanges::{Exchange, GET, OK, answers, exchange, get_with, requests};
use crate::fast_path_ways::{AUTO, BY_PATH, compare};
use crate::world::http1::Reader;
use crate::world::net::Stream;
use crate::world::{Conf, PATIENCE, World};

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
fn a_request_whose_server_refuses_connections_goes_on_along_the_full_path() {
    let world = World::builder(Conf::servers("a b").top(AUTO)).down("b").start();
    for _ in 0..4 {
        assert_eq!(world.browser().server(), "a");
    }
    let retried = world.metric("homing_retries_total", &[("result", "sent")]);
    assert!(retried >= 1.0, "b was tried");
    world.expect_metric(BY_PATH, &[("path", "full"), ("reason", "failure")], retried);
    world.expect_metric(BY_PATH, &[("path", "fast")], 4.0 - retried);
    world.expect_metric("homing_requests_total", &[], 4.0);
    world.expect_metric("homing_session_lookups_total", &[], 4.0);
}

#[test]
fn an_idle_connection_to_a_server_is_closed_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address").to_string();
    let conf = Conf::servers("a").address("a", &address).pool("connection: { idle_timeout: 1s }");
    let world = World::start(conf.top(AUTO));
    let server = thread::spawn(move || {
        let mut reader = Reader::new(Stream::Tcp(listener.accept().expect("a connection").0));
        reader.stream.set_patience(PATIENCE).expect("a timeout");
        reader.head().expect("a request");
        reader.stream.write_all(OK.as_bytes()).expect("it is answered");
        reader.fill().expect("the end of the connection")
    });
    world.browser().get("/").expect(200);
    assert_eq!(server.join().expect("no panic"), 0, "nothing came behind the request");
    world.expect_metric(BY_PATH, &[("path", "fast")], 1.0);
}
