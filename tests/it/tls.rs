//! TLS: selection of certificates, protocols, and renewal.

use std::fmt::Display;
use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use rustls::version::{TLS12, TLS13};

use crate::world::h2c::H2Request;
use crate::world::tls::{Authority, Client, Handshake};
use crate::world::websocket::{Frame, read_frame, write_frame};
use crate::world::{Conf, PATIENCE, Signal, Wire, World, eventually};

const HOST: &str = "shop.example.org";
const REQUEST: &str = "GET /echo HTTP/1.1\r\nHost: shop.example.org\r\n\r\n";
const EXPIRY: &str = "homing_tls_certificate_expiry_timestamp_seconds";

fn one_certificate(more: &str) -> Conf {
    Conf::servers("a b").listener(&format!("tls: {{ certificates: [{{ cert: a.pem, key: a.key }}]{more} }}"))
}

/// A world whose listener has a certificate for `shop.example.org`.
fn encrypted(authority: &Authority, conf: impl Display) -> World {
    World::builder(conf).before(|environment| drop(authority.issue(environment.directory(), "a", &[HOST]))).start()
}

#[test]
fn a_session_over_https_stays_and_its_cookie_is_secure() {
    let authority = Authority::new();
    let world = encrypted(&authority, one_certificate(""));
    let client = Client::new(&authority);
    let mut wire = client.connect(&world.address, HOST);
    wire.send(REQUEST);
    let first = wire.receive("GET").expect(200);
    let cookie = first.set_cookie("SESSIONID").expect("a token").to_owned();
    assert!(cookie.split("; ").any(|part| part == "Secure"), "{cookie}");
    assert_eq!(first.received("x-forwarded-proto"), ["https"]);
    let pair = cookie.split(';').next().expect("a pair");
    for _ in 0..4 {
        let mut again = client.connect(&world.address, HOST);
        again.send(format!("GET /echo HTTP/1.1\r\nHost: {HOST}\r\nCookie: {pair}\r\n\r\n"));
        assert_eq!(again.receive("GET").server(), first.server());
    }
}

#[test]
fn a_client_is_shown_the_certificate_of_the_host_that_it_asks_for() {
    let authority = Authority::new();
    let names = [("first", "first.example"), ("exact", "exact.example.org"), ("wild", "*.example.org")];
    let entries = names.map(|(name, _)| format!("{{ cert: {name}.pem, key: {name}.key }}"));
    let chosen = "{ cert: chosen.pem, key: chosen.key, hosts: [\"*.Chosen.example\"] }";
    let conf = Conf::servers("a").listener(&format!("tls: {{ certificates: [{}, {chosen}] }}", entries.join(", ")));
    let mut shown = Vec::new();
    let world = World::builder(conf)
        .before(|environment| {
            for (name, host) in names {
                shown.push(authority.issue(environment.directory(), name, &[host, "127.0.0.1"]).certificate);
            }
            let hosts = ["a.chosen.example", "a.b.chosen.example", "unknown.example"];
            shown.push(authority.issue(environment.directory(), "chosen", &hosts).certificate);
        })
        .start();
    let client = Client::new(&authority);
    for (host, index) in [
        ("first.example", 0),
        ("exact.example.org", 1),
        ("EXACT.example.org", 1),
        ("other.example.org", 2),
        ("a.chosen.example", 3),
        // No host can be asked for by an address.
        ("127.0.0.1", 0),
    ] {
        assert_eq!(client.connect(&world.address, host).certificate(), shown[index], "{host}");
    }
    // The client does not believe it, but that the first is shown can be told from what is wrong with it.
    for unknown in ["unknown.example", "a.b.chosen.example", "example.org"] {
        let error = client.try_connect(&world.address, unknown).expect_err("another host's certificate").to_string();
        assert!(error.contains("first.example"), "{unknown}: {error}");
    }
}

#[test]
fn a_certificate_is_known_to_the_metrics_by_its_first_host() {
    let authority = Authority::new();
    let world = encrypted(&authority, one_certificate(""));
    assert!(world.metric(EXPIRY, &[("name", HOST)]) > 1.0e9, "seconds since 1970");
}

#[test]
fn tls_1_2_is_spoken_unless_1_3_is_asked_for() {
    let authority = Authority::new();
    let (old, new) = ([&TLS12], [&TLS13]);
    let mut world = encrypted(&authority, one_certificate(""));
    let connects = |world: &World, versions| {
        Client::new(&authority).versions(versions).try_connect(&world.address, HOST).map(drop)
    };
    connects(&world, &old).expect("TLS 1.2");
    connects(&world, &new).expect("TLS 1.3");
    world.reload(one_certificate(", min_version: \"1.3\""));
    connects(&world, &old).expect_err("TLS 1.2 is refused");
    connects(&world, &new).expect("TLS 1.3");
    world.expect_metric("homing_requests_rejected_total", &[("reason", "tls_handshake")], 1.0);
    assert!(!world.log().contains("ERROR"), "what strangers do is no error of ours:\n{}", world.log());
}

#[test]
fn where_clients_must_show_a_certificate_the_others_are_refused() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let world = World::builder(one_certificate(", client_ca: clients.pem"))
        .before(|environment| {
            authority.issue(environment.directory(), "a", &[HOST]);
            clients.write(environment.directory(), "clients");
        })
        .start();
    let (known, stranger) = (clients.sign(&["client"]), authority.sign(&["client"]));
    let mut wire = Client::new(&authority).showing(&known).connect(&world.address, HOST);
    wire.send(REQUEST);
    wire.receive("GET").expect(200);
    for client in [Client::new(&authority), Client::new(&authority).showing(&stranger)] {
        // With TLS 1.3 the client's handshake is done before its certificate was looked at.
        let answered = client.try_connect(&world.address, HOST).and_then(|mut wire| {
            wire.try_send(REQUEST)?;
            wire.try_receive("GET")
        });
        assert!(answered.is_err(), "{answered:?}");
    }
    assert_eq!(world.count("GET", "/echo"), 1);
}

#[test]
fn http2_is_agreed_on_by_alpn() {
    let authority = Authority::new();
    let world = encrypted(&authority, one_certificate(""));
    let client = Client::new(&authority);
    let request = H2Request { authority: HOST, ..H2Request::get("/echo") };
    let answer = client.h2(&world.address, HOST, request).expect("HTTP/2").expect(200);
    assert_eq!(answer.received("x-forwarded-proto"), ["https"]);
    assert!(answer.set_cookie("SESSIONID").expect("a token").contains("; Secure"));
    assert_eq!(world.access_line("/echo")["protocol"], "HTTP/2.0");
    let only_http1 = Client::new(&authority).protocols(&["http/1.1"]).connect(&world.address, HOST);
    assert_eq!(only_http1.protocol().as_deref(), Some("http/1.1"));
}

#[test]
fn a_listener_speaks_only_the_protocols_it_names() {
    let authority = Authority::new();
    let world = encrypted(&authority, one_certificate("").listener("protocols: [http1]"));
    let offers = ["h2", "http/1.1"];
    let wire = Client::new(&authority).protocols(&offers).connect(&world.address, HOST);
    assert_eq!(wire.protocol().as_deref(), Some("http/1.1"));
    let world = encrypted(&authority, one_certificate("").listener("protocols: [h2]"));
    let request = H2Request { authority: HOST, ..H2Request::get("/echo") };
    Client::new(&authority).h2(&world.address, HOST, request).expect("HTTP/2").expect(200);
    let mut wire = Client::new(&authority).connect(&world.address, HOST);
    wire.send(REQUEST);
    wire.receive("GET").expect(505);
}

#[test]
fn a_renewed_certificate_is_shown_after_a_reload_and_no_connection_is_dropped() {
    let authority = Authority::new();
    let world = encrypted(&authority, one_certificate(""));
    let client = Client::new(&authority);
    let mut kept = client.connect(&world.address, HOST);
    kept.send(REQUEST);
    kept.receive("GET").expect(200);
    let renewed = authority.issue(world.directory(), "a", &[HOST]).certificate;
    assert_ne!(kept.certificate(), renewed);
    world.signal(Signal::SIGHUP);
    eventually(PATIENCE, "the new certificate is shown", || {
        client.connect(&world.address, HOST).certificate() == renewed
    });
    kept.send(REQUEST);
    kept.receive("GET").expect(200);
}

#[test]
fn a_renewal_by_symlink_is_noticed_without_a_signal() {
    let authority = Authority::new();
    let conf = one_certificate("").to_string().replace("a.pem", "live/a.pem").replace("a.key", "live/a.key");
    let link = |directory: &std::path::Path, version: &str| {
        for file in ["a.pem", "a.key"] {
            let (link, aside) = (directory.join("live").join(file), directory.join("live").join(format!("{file}.new")));
            symlink(directory.join("archive").join(version).join(file), &aside).expect("a symlink");
            fs::rename(aside, link).expect("the symlink in its place");
        }
    };
    let world = World::builder(conf)
        .before(|environment| {
            for folder in ["live", "archive/1", "archive/2"] {
                fs::create_dir_all(environment.directory().join(folder)).expect("a directory");
            }
            authority.issue(&environment.directory().join("archive/1"), "a", &[HOST]);
            link(environment.directory(), "1");
        })
        .start();
    let renewed = authority.issue(&world.directory().join("archive/2"), "a", &[HOST]).certificate;
    let client = Client::new(&authority);
    assert_ne!(client.connect(&world.address, HOST).certificate(), renewed);
    link(world.directory(), "2");
    eventually(PATIENCE, "the new certificate is shown", || {
        client.connect(&world.address, HOST).certificate() == renewed
    });
}

#[test]
fn a_renewal_that_went_wrong_changes_nothing() {
    let authority = Authority::new();
    let conf = one_certificate("");
    let mut world = encrypted(&authority, conf.clone());
    let client = Client::new(&authority);
    let before = client.connect(&world.address, HOST).certificate();
    fs::write(world.directory().join("a.key"), "half a key").expect("a file");
    world.try_reload(conf);
    assert_eq!(client.connect(&world.address, HOST).certificate(), before);
    assert!(world.log().contains("holds no private key"), "{}", world.log());
    assert!(world.metric("homing_config_last_reload_success", &[]) < 0.5);
}

#[test]
fn whether_there_is_tls_changes_at_a_restart_only() {
    let authority = Authority::new();
    let mut world = encrypted(&authority, one_certificate(""));
    world.try_reload(Conf::servers("a b"));
    assert!(world.log().contains("whether there is TLS"), "{}", world.log());
    Client::new(&authority).connect(&world.address, HOST);
    world.restart_proxy();
    let mut wire = world.wire();
    wire.send(REQUEST);
    wire.receive("GET").expect(200);
}

#[test]
fn idle_connections_with_tls_do_not_hold_up_a_stop() {
    let authority = Authority::new();
    let mut world = encrypted(&authority, one_certificate(""));
    let mut idle = Client::new(&authority).connect(&world.address, HOST);
    idle.send(REQUEST);
    idle.receive("GET").expect(200);
    let mut silent = world.wire();
    world.signal(Signal::SIGTERM);
    let (status, took) = world.wait_for_exit(PATIENCE);
    assert!(status.success() && took < Duration::from_secs(5), "{status:?} after {took:?}");
    assert!(silent.time_to_close(PATIENCE).is_some());
    world.forget_proxy();
}

#[test]
fn websockets_pass_over_tls() {
    let authority = Authority::new();
    let world = encrypted(&authority, one_certificate(""));
    let mut wire = Client::new(&authority).protocols(&["http/1.1"]).connect(&world.address, HOST);
    wire.send(format!(
        "GET /ws HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ));
    wire.receive("GET").expect(101);
    write_frame(&mut wire.reader, &Frame::Ping(Vec::new()), true).expect("the frame is taken");
    assert_eq!(read_frame(&mut wire.reader).expect("a frame"), Some(Frame::Pong(Vec::new())));
}

#[test]
fn deadlines_hold_over_tls() {
    let authority = Authority::new();
    let world = encrypted(&authority, one_certificate("").listener("timeouts: { request_header: 500ms }"));
    let client = Client::new(&authority);
    let mut slow = client.connect(&world.address, HOST);
    slow.send("GET /echo HTTP/1.1\r\nHost: sh");
    slow.receive("GET").expect(408);
    let offers = ["h2"];
    let mut half_a_preface = Client::new(&authority).protocols(&offers).connect(&world.address, HOST);
    half_a_preface.send("PRI * HT");
    assert!(half_a_preface.time_to_close(PATIENCE).is_some(), "HTTP/2 has to begin as well");
    let mut silent = world.wire();
    let closed = silent.time_to_close(PATIENCE).expect("a handshake has to begin");
    assert!(closed > Duration::from_millis(400), "{closed:?}");
    let mut half_a_handshake = world.wire();
    half_a_handshake.send(b"\x16\x03\x01\x02");
    assert!(half_a_handshake.time_to_close(PATIENCE).is_some(), "a handshake has to end");
    world.expect_metric("homing_requests_rejected_total", &[("reason", "header_timeout")], 2.0);
    world.expect_metric("homing_requests_rejected_total", &[("reason", "tls_handshake")], 1.0);
}

#[test]
fn a_request_over_http2_may_take_longer_than_a_header() {
    let authority = Authority::new();
    let world = encrypted(&authority, one_certificate("").listener("timeouts: { request_header: 300ms }"));
    let request = H2Request { authority: HOST, ..H2Request::get("/slow?ms=1200") };
    Client::new(&authority).h2(&world.address, HOST, request).expect("an answer").expect(200);
}

#[test]
fn plain_http_on_a_port_with_tls_is_told_so() {
    let authority = Authority::new();
    let world = encrypted(&authority, one_certificate(""));
    let mut wire = world.wire();
    wire.send(REQUEST);
    assert!(wire.receive("GET").expect(400).text().contains("HTTPS"), "an answer for people");
    let mut garbage = world.wire();
    garbage.send(b"\0\x01\x02");
    assert_eq!(garbage.drain(PATIENCE), b"");
    world.expect_metric("homing_requests_rejected_total", &[("reason", "tls_handshake")], 2.0);
    assert_eq!(world.count("GET", "/echo"), 0);
    let log = world.log();
    assert!(!log.contains("ERROR") && !log.contains("WARN  "), "what strangers do is no error of ours:\n{log}");
}

#[test]
fn a_listener_beside_it_stays_plain() {
    let authority = Authority::new();
    let conf = one_certificate("").to_string();
    let conf = conf.replace("\nadmin:", "\n  - { address: \"{{proxy2}}\" }\nadmin:");
    let mut world = encrypted(&authority, conf);
    let plain = world.environment.address("proxy2");
    let mut wire = Wire::connect(&plain);
    wire.send(REQUEST);
    let answer = wire.receive("GET").expect(200);
    assert_eq!(answer.received("x-forwarded-proto"), ["http"]);
    assert!(!answer.set_cookie("SESSIONID").expect("a token").contains("Secure"));
    Client::new(&authority).connect(&world.address, HOST);
}
