//! Responses reach clients in one form, whatever the server's connection is like; so do the proxy's own.

use std::io::Write as _;
use std::net::TcpListener;
use std::thread;

use crate::world::app::answers::saying;
use crate::world::h2c::{H2Request, h2, h2_try};
use crate::world::http1::Reader;
use crate::world::net::Stream;
use crate::world::{Conf, PATIENCE, QUICK_CHECK, World};

/// The target of a request that is answered with these bytes.
fn answering(bytes: &str) -> String {
    bytes.bytes().fold("/raw?bytes=".to_owned(), |text, byte| text + &format!("%{byte:02x}"))
}

#[test]
fn what_is_about_the_servers_connection_stays_there() {
    let world = World::start(Conf::servers("a"));
    let lines = [
        "Connection: keep-alive, X-Internal",
        "X-Internal: 1",
        "Keep-Alive: timeout=5",
        "Proxy-Connection: keep-alive",
        "Upgrade: h2c",
        "X-Own: 1",
    ];
    let target = saying(200, &lines);
    let mut wire = world.wire();
    for _ in 0..3 {
        wire.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
        let over_http1 = wire.receive("GET").expect(200);
        assert_eq!(over_http1.header("connection"), Some("keep-alive"), "that of the client's connection");
        let over_http2 = h2(&world.address, H2Request::get(&target)).expect(200);
        assert_eq!(over_http2.header("connection"), None);
        for answer in [over_http1, over_http2] {
            for name in ["x-internal", "keep-alive", "proxy-connection", "upgrade"] {
                assert_eq!(answer.header(name), None, "{:?}", answer.head);
            }
            assert_eq!((answer.header("x-own"), answer.json()["method"].as_str()), (Some("1"), Some("GET")));
        }
    }
    assert!(world.app("a").connections() < 6, "the server's connection is still used again");
}

#[test]
fn a_length_is_said_once() {
    let world = World::start(Conf::servers("a"));
    for lengths in ["Content-Length: 2\r\nContent-Length: 2", "Content-Length: 2, 2", "Content-Length: 2"] {
        let answer = world.browser().get(&answering(&format!("HTTP/1.1 200 OK\r\n{lengths}\r\n\r\nok"))).expect(200);
        assert_eq!((answer.all("content-length"), answer.text()), (vec!["2"], "ok".to_owned()), "{lengths}");
    }
}

#[test]
fn a_response_whose_end_is_ambiguous_is_refused() {
    let world = World::start(Conf::servers("a"));
    for lines in [
        "Content-Length: 2\r\nContent-Length: 3",
        "Content-Length: 2, 3",
        "Content-Length: -2",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: gzip\r\nContent-Length: 2",
    ] {
        let target = answering(&format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n2\r\nok\r\n0\r\n\r\n"));
        let before = world.app("a").requests();
        assert_eq!(world.browser().get(&target).status, 502, "{lines}");
        assert_eq!(h2(&world.address, H2Request::get(&target)).status, 502, "{lines}, over HTTP/2");
        assert_eq!(world.app("a").requests(), before + 2, "{lines}: asked once each");
    }
    world.browser().get("/echo").expect(200);
}

#[test]
fn a_response_without_a_body_has_no_length() {
    let world = World::start(Conf::servers("a"));
    for status in ["204 No Content", "304 Not Modified"] {
        for line in ["Content-Length: 5", "Transfer-Encoding: chunked"] {
            let answer = world.browser().get(&answering(&format!("HTTP/1.1 {status}\r\n{line}\r\nX-Own: 1\r\n\r\n")));
            assert_eq!((answer.header("content-length"), answer.header("transfer-encoding")), (None, None), "{status}");
            assert_eq!(answer.header("x-own"), Some("1"));
        }
    }
}

#[test]
fn a_switch_of_protocols_that_was_not_asked_for_is_refused() {
    let world = World::start(Conf::servers("a"));
    let target =
        answering("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nframes");
    assert_eq!(world.browser().get(&target).status, 502);
    assert_eq!(h2(&world.address, H2Request::get(&target)).status, 502);
    let mut wire = world.wire();
    let asked = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    wire.send(format!("GET {target} HTTP/1.0\r\nHost: x\r\n{asked}\r\n"));
    assert_eq!(wire.receive("GET").status, 502, "HTTP/1.0 cannot ask for it");
}

#[test]
fn only_http11_clients_get_interim_responses() {
    let world = World::start(Conf::servers("a"));
    for expect in ["", "Expect: 100-continue\r\n"] {
        let mut wire = world.wire();
        wire.send(format!("POST /early-hints HTTP/1.0\r\nHost: x\r\n{expect}Content-Length: 2\r\n\r\nok"));
        assert_eq!(wire.receive_head().status, 200, "{expect}");
    }
    let mut wire = world.wire();
    wire.send("GET /early-hints HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(wire.receive("GET").expect(200).informational.len(), 1);
    wire.send("GET /echo HTTP/1.1\r\nHost: x\r\n\r\n");
    wire.receive("GET").expect(200);
}

#[test]
fn asking_before_sending_does_not_cost_the_connection() {
    let world = World::start(Conf::servers("a"));
    let mut wire = world.wire();
    for round in 0..3 {
        for (framing, body) in
            [("Content-Length: 5", "hello"), ("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n")]
        {
            wire.send(format!("POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n{framing}\r\n\r\n"));
            assert_eq!(wire.receive_head().status, 100, "round {round}, {framing}");
            wire.send(body);
            let answer = wire.receive("POST").expect(200);
            assert_eq!(answer.json()["body_length"], 5, "{framing}");
            assert_eq!(answer.header("connection"), Some("keep-alive"));
        }
    }
    assert!(world.app("a").connections() <= 2, "nor that of the server");
}

#[test]
fn a_refused_body_ends_the_connection_since_it_may_come_or_not() {
    let world = World::start(Conf::servers("a").listener("max_body_size: 1KiB"));
    let mut wire = world.wire();
    wire.send("POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4096\r\n\r\n");
    let answer = wire.receive("POST").expect(413);
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(wire.time_to_close(PATIENCE).is_some());
    assert_eq!(world.app("a").requests(), 0);
}

#[test]
fn the_proxys_own_responses_do_not_name_the_software() {
    let world = World::start(Conf::servers("a").listener("max_body_size: 1KiB"));
    world.app("a").kill();
    for (request, status) in [
        ("BLAH\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n", 400),
        ("POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
        ("CONNECT example.test:443 HTTP/1.1\r\nHost: example.test:443\r\n\r\n", 405),
        ("CONNECT http://example.test/ HTTP/1.1\r\nHost: example.test\r\n\r\n", 405),
        ("TRACE / HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4096\r\n\r\n", 413),
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 503),
    ] {
        let mut wire = world.wire();
        wire.send(request);
        let answer = wire.receive("GET");
        assert_eq!(answer.status, status, "{request:?}");
        assert_eq!(answer.header("server"), None, "{request:?}");
        assert!(!answer.body.is_empty() && !answer.text().contains("ingora"), "{request:?}: {}", answer.text());
        assert_eq!(answer.header("allow").is_some(), status == 405, "{request:?}");
    }
    let unavailable = h2_try(&world.address, vec![H2Request::get("/")]).remove(0).expect("a response");
    assert_eq!((unavailable.status, unavailable.header("server")), (503, None));
}

#[test]
fn a_health_check_reads_over_interim_responses() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut reader = Reader::new(Stream::Tcp(stream));
            thread::spawn(move || {
                while let Ok(Some(_)) = reader.head() {
                    let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
                    let last = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                    let _ = reader.stream.write_all([interim, last].concat().as_bytes());
                }
            });
        }
    });
    let world = World::start(Conf::servers("a").address("a", &address.to_string()).pool(QUICK_CHECK));
    world.wait_for_health("a", true);
    assert_eq!(world.browser().get("/").expect(200).text(), "ok");
}
