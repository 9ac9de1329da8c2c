//! Which requests take the fast path, and that each reason for the full path is counted.

use crate::fast_path_ways::{AUTO, BY_PATH};
use crate::world::app::answers::saying;
use crate::world::h2c::{H2Request, h2};
use crate::world::stores::{Kind, RedisServer};
use crate::world::tls::{Authority, Client};
use crate::world::{Conf, World};

#[test]
fn the_fast_path_serves_the_usual_request_and_says_why_it_does_not_serve_another() {
    let world = World::start(Conf::servers("a b").top(AUTO));
    let browser = world.browser();
    let home = browser.server();
    for _ in 0..5 {
        assert_eq!(browser.server(), home);
    }
    world.expect_metric(BY_PATH, &[("path", "fast")], 6.0);
    world.expect_metric(BY_PATH, &[("path", "full")], 0.0);
    assert!(world.app(&home).connections() < 3, "the connection to the server is used again");
    let mut wire = world.wire();
    wire.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(wire.receive("POST").expect(200).json()["body_length"], 2);
    wire.send("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n");
    wire.receive("POST").expect(200);
    wire.send("GET /echo HTTP/1.1\r\nHost: x\r\n\r\n");
    wire.receive("GET").expect(200);
    world.expect_metric(BY_PATH, &[("path", "full"), ("reason", "connection")], 1.0);
    world.expect_metric(BY_PATH, &[("path", "fast")], 8.0);
}

#[test]
fn requests_over_tls_take_the_fast_path_too() {
    const HOST: &str = "shop.example.org";
    let authority = Authority::new();
    let conf = Conf::servers("a b").listener("tls: { certificates: [{ cert: a.pem, key: a.key }] }").top(AUTO);
    let world =
        World::builder(conf).before(|environment| drop(authority.issue(environment.directory(), "a", &[HOST]))).start();
    for version in rustls::ALL_VERSIONS {
        let versions = [*version];
        let mut wire = Client::new(&authority).versions(&versions).connect(&world.address, HOST);
        for _ in 0..3 {
            wire.send(format!("GET /echo HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
            assert_eq!(wire.receive("GET").expect(200).received("x-forwarded-proto"), ["https"]);
        }
    }
    let fast = 3 * rustls::ALL_VERSIONS.len();
    world.expect_metric(BY_PATH, &[("path", "fast")], fast as f64);
    world.expect_metric(BY_PATH, &[("path", "full")], 0.0);
    Client::new(&authority).h2(&world.address, HOST, H2Request::get("/echo")).expect("an answer").expect(200);
    world.expect_metric(BY_PATH, &[("path", "full"), ("reason", "http2")], 1.0);
}

/// The reasons that a request itself has.
#[test]
fn each_reason_of_a_request_for_the_full_path_is_counted() {
    let world = World::start(Conf::servers("a").listener("max_body_size: 1MiB").top(AUTO));
    let get = "GET /plain HTTP/1.1\r\nHost: x\r\n";
    let long = "x".repeat(20_000);
    for (request, reason) in [
        (format!("{get}{}\r\n", "A: b\r\n".repeat(80)), "head"),
        (format!("{get}A : b\r\n\r\n"), "head"),
        ("GET /plain HTTP/1.0\r\nHost: x\r\n\r\n".to_owned(), "version"),
        ("PROPFIND /plain HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), "method"),
        ("GET http://x/plain HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), "target"),
        (format!("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{long}", long.len()), "body"),
        (format!("{get}TE: trailers\r\n\r\n"), "connection"),
        (format!("{get}Authorization: Negotiate eA==\r\n\r\n"), "authentication"),
        (format!("{get}Host: y\r\n\r\n"), "refused"),
        (format!("{get}Content-Length: 2000000\r\n\r\n"), "refused"),
    ] {
        let counted = |labels: &[(&str, &str)]| world.metric(BY_PATH, labels);
        let before = (counted(&[("path", "full"), ("reason", reason)]), counted(&[]));
        let mut wire = world.wire();
        wire.send(&request);
        let method = request.split(' ').next().expect("a method");
        let status = wire.receive(method).status;
        let after = (counted(&[("path", "full"), ("reason", reason)]), counted(&[]));
        assert_eq!(after, (before.0 + 1.0, before.1 + 1.0), "{reason}: answered {status}");
    }
    h2(&world.address, H2Request::get("/plain")).expect(200);
    world.expect_metric(BY_PATH, &[("path", "full"), ("reason", "http2")], 1.0);
    world.expect_metric(BY_PATH, &[("path", "fast")], 0.0);
}

/// Those that come of the configuration and of the state of servers.
#[test]
fn each_reason_of_a_configuration_for_the_full_path_is_counted() {
    for (conf, reason) in [
        (Conf::servers("a").top("proxy: { fast_path: off }"), "off"),
        (Conf::servers("a").persistence("handoff: { enabled: true }").top(AUTO), "configuration"),
        (
            Conf::servers("a")
                .persistence("sources: [{ query: { name: sid, rewrite_links: true } }], issue: query")
                .top(AUTO),
            "configuration",
        ),
        (Conf::servers("a").listener("limits: { requests_per_second: 50 }").top(AUTO), "configuration"),
        (Conf::servers("a").server("a", "state: maint").top(AUTO), "no_server"),
    ] {
        let world = World::start(&conf);
        world.browser().get("/plain");
        world.expect_metric(BY_PATH, &[("path", "full"), ("reason", reason)], 1.0);
        world.expect_metric(BY_PATH, &[], 1.0);
    }
    let world = World::builder(Conf::servers("a").pool("retries: { attempts: 0 }").top(AUTO)).down("a").start();
    world.browser().get("/plain").expect(503);
    world.expect_metric(BY_PATH, &[("path", "full"), ("reason", "failure")], 1.0);
    world.expect_metric(BY_PATH, &[], 1.0);
}

#[test]
fn a_session_that_only_the_shared_store_may_know_takes_the_full_path_once() {
    let store = RedisServer::start(Kind::Redis);
    let learning = Conf::servers("a b").persistence("sources: [{ learn: { cookie: SID } }]");
    let mut world = World::start(learning.store(&store.entry()).top(AUTO));
    let other = world.another_proxy("2");
    let alice = other.browser();
    let home = alice.get(&saying(200, &["Set-Cookie: SID=alice"])).server();
    let alice = alice.copy_at(&world.address);
    let labels = [("path", "full"), ("reason", "store")];
    let before = world.metric(BY_PATH, &labels);
    assert_eq!(alice.server(), home);
    world.expect_metric(BY_PATH, &labels, before + 1.0);
    assert_eq!(alice.server(), home);
    world.expect_metric(BY_PATH, &labels, before + 1.0);
}
