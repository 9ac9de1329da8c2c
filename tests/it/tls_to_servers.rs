//! TLS to servers: which certificates are trusted, for which name, and what happens to requests of the others.

use std::fmt::Display;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread;

use rcgen::date_time_ymd;

use crate::world::proxy::command;
use crate::world::tls::{Authority, Signed};
use crate::world::tls_server::{Arrival, Manners, TlsServer};
use crate::world::{App, Conf, Proxy, World};

pub(crate) const ERRORS: &str = "homing_upstream_errors_total";

/// One server, at a name or an address of this machine; more of `tls` after its authority.
pub(crate) fn conf(server: &TlsServer, host: &str, tls: &str) -> Conf {
    let address = format!("{host}:{}", server.address.port());
    Conf::servers("a").address("a", &address).pool(&format!("connection: {{ tls: {{ ca: ca.pem{tls} }} }}"))
}

/// A world whose only application stands behind a server with TLS, and trusts this authority.
pub(crate) fn world(conf: Conf, authority: &Authority, server: &TlsServer) -> World {
    world_with(conf, authority, server, &[])
}

/// The same where the configuration names certificates of the proxy, each with the name of its files.
pub(crate) fn world_with(
    conf: impl Display,
    authority: &Authority,
    server: &TlsServer,
    own: &[(&str, &Signed)],
) -> World {
    World::builder(conf)
        .with_app(|_| {
            let app = App::reserve("a");
            server.forward(app.socket_address());
            app
        })
        .before(|environment| {
            authority.write(environment.directory(), "ca");
            for (name, certificate) in own {
                certificate.write(environment.directory(), name);
            }
        })
        .start()
}

fn plain(certificate: &Signed) -> TlsServer {
    TlsServer::open(certificate, Manners::default())
}

/// Every request gets 502, also one that must not be repeated, and the server sees nothing of it.
#[track_caller]
fn expect_refused(world: &World, server: &TlsServer, kind: &str) {
    for method in ["GET", "POST", "GET"] {
        let response = world.browser().request(method, "/echo").body("x").send();
        assert_eq!(response.status, 502, "{kind}: {}", response.text());
    }
    assert_eq!(server.arrivals().iter().map(Arrival::sent).collect::<String>(), "", "{kind}");
    assert_eq!(world.app("a").requests(), 0);
    world.expect_metric(ERRORS, &[("server", "a"), ("kind", kind)], 3.0);
    world.expect_metric("homing_server_up", &[("server", "a")], 0.0);
    let log = world.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("no TLS connection to a server")).collect();
    assert_eq!(lines.len(), 1, "once, not with each request:\n{log}");
    assert!(lines[0].contains(kind) && lines[0].contains("reason=") && lines[0].contains("help="), "{}", lines[0]);
}

#[test]
fn a_server_is_reached_by_the_name_or_the_address_that_its_certificate_is_for() {
    let authority = Authority::new();
    for (host, sni) in [("localhost", Some("localhost")), ("127.0.0.1", None)] {
        let server = plain(&authority.sign(&[host]));
        let world = world(conf(&server, host, ""), &authority, &server);
        let browser = world.browser();
        for _ in 0..3 {
            assert_eq!(browser.get("/echo").expect(200).received("x-forwarded-proto"), ["http"]);
        }
        browser.post("/echo", "body").expect(200);
        let arrivals = server.arrivals();
        assert!(arrivals.len() < 4, "connections are kept");
        assert_eq!(arrivals[0].sni.as_deref(), sni);
        assert_eq!(arrivals[0].certificate, None);
        world.expect_metric(ERRORS, &[], 0.0);
    }
}

#[test]
fn a_server_whose_certificate_is_not_trusted_gets_nothing() {
    let (authority, other) = (Authority::new(), Authority::new());
    let expired = authority.sign_with(&["localhost"], |params| params.not_after = date_time_ymd(2020, 1, 1));
    let early = authority.sign_with(&["localhost"], |params| params.not_before = date_time_ymd(2200, 1, 1));
    for (host, certificate, kind) in [
        ("localhost", other.sign(&["localhost"]), "certificate_untrusted"),
        ("127.0.0.1", other.sign(&["127.0.0.1"]), "certificate_untrusted"),
        ("localhost", expired, "certificate_expired"),
        ("localhost", early, "certificate_expired"),
    ] {
        let server = plain(&certificate);
        expect_refused(&world(conf(&server, host, ""), &authority, &server), &server, kind);
    }
}

/// Pingora verifies nothing where a peer has no name: each has one, also where none is configured.
#[test]
fn a_server_whose_certificate_is_for_another_name_or_address_gets_nothing() {
    let authority = Authority::new();
    for (host, names, tls) in [
        ("localhost", "other.example", ""),
        ("localhost", "127.0.0.1", ""),
        ("127.0.0.1", "127.0.0.2", ""),
        ("127.0.0.1", "localhost", ""),
        ("localhost", "localhost", ", sni: app.example"),
        ("127.0.0.1", "127.0.0.1", ", sni: \"127.0.0.2\""),
    ] {
        let server = plain(&authority.sign(&[names]));
        expect_refused(&world(conf(&server, host, tls), &authority, &server), &server, "certificate_name");
    }
}

#[test]
fn a_configured_name_is_asked_for_and_verified_instead_of_the_address() {
    let authority = Authority::new();
    for (host, name) in [("127.0.0.1", "app.example"), ("localhost", "app.example"), ("localhost", "10.0.0.9")] {
        let server = plain(&authority.sign(&[name]));
        let world = world(conf(&server, host, &format!(", sni: \"{name}\"")), &authority, &server);
        world.browser().get("/echo").expect(200);
        let sni = Some(name).filter(|name| name.contains("example"));
        assert_eq!(server.arrivals()[0].sni.as_deref(), sni);
    }
}

#[test]
fn requests_of_a_server_that_is_not_trusted_go_to_another() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (stranger, server) = (plain(&other.sign(&["127.0.0.1"])), plain(&authority.sign(&["127.0.0.1"])));
    let conf = conf(&stranger, "127.0.0.1", "");
    let text = conf.to_string().replace(
        "  web:\n    servers:\n",
        &format!("  web:\n    servers:\n      - {{ name: b, address: \"{}\" }}\n", server.address),
    );
    let world = World::builder(text)
        .with_app(|_| {
            let app = App::reserve("b");
            server.forward(app.socket_address());
            app
        })
        .before(|environment| authority.write(environment.directory(), "ca"))
        .start();
    for method in ["GET", "POST"].repeat(3) {
        assert_eq!(world.browser().request(method, "/echo").body("x").send().expect(200).server(), "b");
    }
    assert!(world.metric(ERRORS, &[("server", "a"), ("kind", "certificate_untrusted")]) >= 1.0);
    assert_eq!(stranger.arrivals().len(), 0);
}

#[test]
fn without_verification_every_certificate_will_do_and_the_check_warns() {
    let (authority, other) = (Authority::new(), Authority::new());
    let expired = other.sign_with(&["other.example"], |params| params.not_after = date_time_ymd(2020, 1, 1));
    for host in ["localhost", "127.0.0.1"] {
        let server = plain(&expired);
        let world = world(conf(&server, host, ", verify: false"), &authority, &server);
        world.browser().get("/echo").expect(200);
        assert!(world.log().contains("certificates are not verified"), "{}", world.log());
        let check = command().arg("check").arg("--config").arg(&world.config).output().expect("the check");
        let said = String::from_utf8_lossy(&check.stderr).into_owned();
        assert!(check.status.success() && said.contains("servers' certificates are not verified"), "{said}");
    }
}

#[test]
fn without_ca_the_authorities_of_the_system_are_trusted() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = plain(&authority.sign(&["localhost"]));
    let app = App::reserve("a");
    server.forward(app.socket_address());
    let text = conf(&server, "localhost", "").to_string().replace("tls: { ca: ca.pem }", "tls: {}");
    let mut environment = World::builder(text).with_app(|_| app).without_proxy();
    authority.write(environment.directory(), "system");
    other.write(environment.directory(), "other");
    for (file, status) in [("system", 200), ("other", 502)] {
        let mut launch = environment.launch(file);
        let bundle = environment.directory().join(format!("{file}.pem")).display().to_string();
        launch.environment.push(("SSL_CERT_FILE".to_owned(), bundle));
        let proxy = Proxy::start(&launch, environment.directory());
        proxy.browser().get("/echo").expect(status);
    }
}

#[test]
fn the_proxy_shows_its_own_certificate_to_servers_that_ask_for_it() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let own = clients.sign(&["edge"]);
    let manners = Manners { clients: Some(&clients), ..Manners::default() };
    let server = TlsServer::open(&authority.sign(&["localhost"]), manners);
    let conf = conf(&server, "localhost", ", cert: edge.pem, key: edge.key");
    let world = world_with(conf, &authority, &server, &[("edge", &own)]);
    world.browser().get("/echo").expect(200);
    assert_eq!(server.arrivals()[0].certificate.as_ref(), Some(&own.certificate));
}

#[test]
fn a_server_that_wants_a_certificate_and_gets_none_is_no_server_for_any_request() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let manners = Manners { clients: Some(&clients), ..Manners::default() };
    let server = TlsServer::open(&authority.sign(&["localhost"]), manners);
    let world = world(conf(&server, "localhost", ""), &authority, &server);
    expect_refused(&world, &server, "tls_handshake");
    assert!(world.log().contains("CertificateRequired"), "{}", world.log());
}

#[test]
fn a_server_without_tls_is_told_from_one_that_is_down() {
    let authority = Authority::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let plain = listener.local_addr().expect("its address");
    thread::spawn(move || {
        for mut socket in listener.incoming().map_while(Result::ok) {
            let _ = socket.read(&mut [0; 1024]);
            let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let conf = Conf::servers("a b").address("b", &plain.to_string()).pool("connection: { tls: { ca: ca.pem } }");
    let conf = conf.server("a", "state: maint").without_persistence();
    let mut world =
        World::builder(&conf).down("a").before(|environment| authority.write(environment.directory(), "ca")).start();
    world.browser().get("/echo").expect(502);
    world.expect_metric(ERRORS, &[("server", "b"), ("kind", "tls_handshake")], 1.0);
    world.reload(conf.to_string().replace("maint", "ready"));
    world.browser().get("/echo").expect(502);
    world
        .reload(conf.to_string().replace("state: maint", "state: ready").replace("name: b,", "name: b, state: maint,"));
    world.browser().get("/echo").expect(503);
    assert!(world.metric(ERRORS, &[("server", "a"), ("kind", "connect_refused")]) >= 1.0);
}
