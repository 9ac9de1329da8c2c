//! TLS to servers: the protocol that is agreed on, health checks, waiting for a server, WebSockets, what ends with a server.

use std::thread;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::h2_servers::{Manner, Server};
use crate::tls_to_servers::{ERRORS, conf, world};
use crate::world::net::Address;
use crate::world::tls::Authority;
use crate::world::tls_server::{Manners, TlsServer};
use crate::world::websocket::is_alive;
use crate::world::{Conf, PATIENCE, QUICK_CHECK, Wire, World};

const TCP_CHECK: &str = "health_check: { type: tcp, interval: 1s, timeout: 1s, rise: 1, fall: 2 }";
const PREFACE: &str = "PRI * HTTP/2.0";

fn choosing<'a>(protocols: &'a [&'a str]) -> Manners<'a> {
    Manners { protocols, ..Manners::default() }
}

/// In that protocol.
fn speaking(server: &TlsServer, protocol: &str) -> Conf {
    Conf::servers("a")
        .address("a", &format!("localhost:{}", server.address.port()))
        .pool(&format!("connection: {{ protocol: {protocol}, tls: {{ ca: ca.pem }} }}"))
}

/// A world whose server speaks HTTP/2.
fn over_h2(conf: Conf, authority: &Authority, front: &TlsServer, server: &Server) -> World {
    front.forward(server.address);
    World::builder(conf).before(|environment| authority.write(environment.directory(), "ca")).start()
}

#[test]
fn a_server_that_does_not_agree_to_http2_is_never_sent_its_preface() {
    let authority = Authority::new();
    let certificate = authority.sign(&["localhost"]);
    for (protocols, kind) in [(&["http/1.1"][..], "tls_handshake"), (&[], "no_http2")] {
        let server = TlsServer::open(&certificate, choosing(protocols));
        let demanding = world(speaking(&server, "h2"), &authority, &server);
        for method in ["GET", "POST"] {
            demanding.browser().request(method, "/echo").body("x").send().expect(502);
        }
        demanding.expect_metric(ERRORS, &[("server", "a"), ("kind", kind)], 2.0);
        assert!(server.arrivals().iter().all(|arrival| arrival.sent().is_empty()), "nothing was sent");
        drop(demanding);
        let content = world(speaking(&server, "auto"), &authority, &server);
        let browser = content.browser();
        browser.get("/first").expect(200);
        browser.get("/second").expect(200);
        let arrival = server.arrival_of("/first");
        assert_eq!(arrival.protocol.as_deref(), protocols.first().copied());
        assert!(arrival.sent().starts_with("GET /first HTTP/1.1\r\n"), "{}", arrival.sent());
        assert!(arrival.sent().contains("GET /second"), "the connection is kept");
    }
}

#[test]
fn http2_is_spoken_where_the_server_agrees_to_it_and_the_pool_allows_it() {
    let authority = Authority::new();
    let certificate = authority.sign(&["localhost"]);
    for protocol in ["h2", "auto"] {
        let front = TlsServer::open(&certificate, choosing(&["h2", "http/1.1"]));
        let server = Server::open(vec![Manner::Serve]);
        let world = over_h2(speaking(&front, protocol), &authority, &front, &server);
        let browser = world.browser();
        for n in 0..3 {
            assert_eq!(browser.post(&format!("/{n}"), "order").expect(200).text(), "order");
            assert_eq!(server.processed(&format!("/{n}")), 1);
        }
        let arrivals = front.arrivals();
        assert_eq!(arrivals.len(), 1, "one connection for all");
        assert_eq!(arrivals[0].protocol.as_deref(), Some("h2"));
        assert!(arrivals[0].sent().starts_with(PREFACE));
    }
    let front = TlsServer::open(&certificate, choosing(&["h2", "http/1.1"]));
    let world = world(speaking(&front, "http1"), &authority, &front);
    world.browser().get("/echo").expect(200);
    assert_eq!(front.arrivals()[0].protocol.as_deref(), Some("http/1.1"));
}

#[test]
fn what_a_server_did_not_process_goes_there_again_over_tls_too() {
    let authority = Authority::new();
    let front = TlsServer::open(&authority.sign(&["localhost"]), choosing(&["h2"]));
    let server = Server::open(vec![Manner::Refuse, Manner::GoAway(0), Manner::Serve]);
    let world = over_h2(speaking(&front, "h2"), &authority, &front, &server);
    assert_eq!(world.browser().post("/order", "x").expect(200).text(), "x");
    assert_eq!(server.processed("/order"), 1);
}

#[test]
fn trailers_pass_as_grpc_needs_them() {
    let authority = Authority::new();
    let front = TlsServer::open(&authority.sign(&["localhost"]), choosing(&["h2"]));
    let server = Server::open(vec![Manner::Serve]);
    let conf = speaking(&front, "h2").listener("protocols: [http1, h2c]");
    let world = over_h2(conf, &authority, &front, &server);
    let Address::Tcp(address) = world.address else { panic!("a TCP address") };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let trailers = runtime.block_on(async move {
        let socket = TcpStream::connect(address).await.unwrap();
        let (client, connection) = h2::client::handshake(socket).await.unwrap();
        tokio::spawn(connection);
        let request = http::Request::post("http://example.test/shop.Cart/Add")
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        let mut client = client.ready().await.unwrap();
        let (response, mut body) = client.send_request(request.body(()).unwrap(), false).unwrap();
        body.send_data("message".into(), true).unwrap();
        let mut response = response.await.unwrap().into_body();
        let mut message = Vec::new();
        while let Some(piece) = response.data().await {
            message.extend_from_slice(&piece.unwrap());
        }
        assert_eq!(message, b"message");
        response.trailers().await.unwrap().expect("trailers")
    });
    assert_eq!(trailers["grpc-status"], "0");
}

#[test]
fn health_checks_go_by_tls_and_trust_what_requests_trust() {
    let (authority, other) = (Authority::new(), Authority::new());
    for check in [QUICK_CHECK, TCP_CHECK] {
        let trusted = authority.sign(&["localhost"]);
        let server = TlsServer::open(&trusted, Manners::default());
        let world = world(conf(&server, "localhost", "").pool(check), &authority, &server);
        world.wait_for_health("a", true);
        world.browser().get("/echo").expect(200);
        server.show(&other.sign(&["localhost"]), Manners::default());
        world.wait_for_health("a", false);
        assert!(world.log().contains("certificate_untrusted"), "{}", world.log());
        world.browser().get("/echo").expect(503);
        server.show(&trusted, Manners::default());
        world.wait_for_health("a", true);
        world.browser().get("/echo").expect(200);
        assert!(server.failures() > 0);
    }
}

#[test]
fn health_checks_speak_the_protocol_that_is_agreed_on() {
    let authority = Authority::new();
    let certificate = authority.sign(&["localhost"]);
    let check = "health_check: { path: /health, interval: 500ms, timeout: 500ms, rise: 1, fall: 3 }";
    for protocol in ["h2", "auto"] {
        let front = TlsServer::open(&certificate, choosing(&["h2"]));
        let server = Server::open(vec![Manner::Serve]);
        let conf = speaking(&front, protocol).pool(check).top("log: { level: debug }");
        let world = over_h2(conf, &authority, &front, &server);
        world.wait_for_health("a", true);
        assert!(server.processed("/health") > 0);
        let response = world.browser().get("/x");
        assert_eq!(response.status, 200, "{}", world.log());
    }
    let server = TlsServer::open(&certificate, Manners::default());
    let world = world(speaking(&server, "auto").pool(QUICK_CHECK), &authority, &server);
    world.wait_for_health("a", true);
    assert!(world.app("a").probes() > 0);
}

#[test]
fn a_request_waits_until_the_server_of_its_session_is_trusted_again() {
    let (authority, other) = (Authority::new(), Authority::new());
    let trusted = authority.sign(&["localhost"]);
    let server = TlsServer::open(&trusted, Manners::default());
    let world = world(conf(&server, "localhost", "").persistence("hold: 10s"), &authority, &server);
    let browser = world.browser();
    browser.get("/echo").expect(200);
    server.show(&other.sign(&["localhost"]), Manners::default());
    server.hang_up();
    let back = server.clone();
    let renewal = thread::spawn(move || {
        // It is refused some times before.
        thread::sleep(Duration::from_millis(700));
        back.show(&trusted, Manners::default());
    });
    browser.get("/held").expect(200);
    renewal.join().expect("the server is back");
    assert!(server.failures() >= 2, "the server was tested: {}", server.failures());
}

fn websocket(world: &World) -> Wire {
    let mut wire = world.wire();
    wire.send(
        "GET /ws HTTP/1.1\r\nHost: example.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    wire.receive("GET").expect(101);
    wire
}

#[test]
fn websockets_pass_over_tls_to_servers_and_end_with_them() {
    let authority = Authority::new();
    let certificate = authority.sign(&["localhost"]);
    for protocol in ["http1", "auto"] {
        let server = TlsServer::open(&certificate, choosing(&["h2", "http/1.1"]));
        let world = world(speaking(&server, protocol).pool(TCP_CHECK), &authority, &server);
        // The server responds within microseconds: each handshake has the chance to be taken for an end.
        let mut open: Vec<Wire> = (0..40).map(|_| websocket(&world)).collect();
        for wire in &mut open {
            assert!(is_alive(wire) && is_alive(wire));
        }
        assert_eq!(server.arrival_of("/ws").protocol.as_deref(), Some("http/1.1"));
        server.show(&Authority::new().sign(&["localhost"]), Manners::default());
        world.wait_for_health("a", false);
        for wire in &mut open {
            assert!(wire.time_to_close(PATIENCE).is_some(), "an open WebSocket of a server that is down");
        }
    }
}
