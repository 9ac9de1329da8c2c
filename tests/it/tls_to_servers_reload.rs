//! Replaced certificates and authorities of TLS to servers: what is in force with the next request.

use std::fs;

use rcgen::SerialNumber;

use crate::tls_to_servers::{ERRORS, conf, world, world_with};
use crate::world::tls::{Authority, Signed};
use crate::world::tls_server::{Manners, TlsServer};
use crate::world::{PATIENCE, World, eventually};

/// Pingora tells certificates of the proxy from each other by their serial numbers, which need not differ between
/// authorities, nor do careless ones let them.
fn of_one_serial(authority: &Authority, name: &str) -> Signed {
    authority.sign_with(&[name], |params| params.serial_number = Some(SerialNumber::from(7_u64)))
}

/// The files are watched.
fn wait_for_renewal(world: &World) {
    eventually(PATIENCE, "the files are read again", || {
        let log = world.log();
        log.contains("connection.tls (its files)") && log.contains("reload done")
    });
}

#[test]
fn a_replaced_certificate_of_the_proxy_is_shown_with_the_next_request() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let (first, second) = (of_one_serial(&clients, "edge"), of_one_serial(&clients, "edge"));
    let manners = Manners { clients: Some(&clients), ..Manners::default() };
    let server = TlsServer::open(&authority.sign(&["localhost"]), manners);
    let conf = conf(&server, "localhost", ", cert: edge.pem, key: edge.key");
    let mut world = world_with(&conf, &authority, &server, &[("edge", &first)]);
    let browser = world.browser();
    for n in 0..4 {
        browser.get(&format!("/before/{n}")).expect(200);
    }
    assert!(server.arrivals().len() < 4, "connections are kept");
    second.write(world.directory(), "edge");
    wait_for_renewal(&world);
    browser.get("/after").expect(200);
    assert_eq!(server.arrival_of("/before/3").certificate.as_ref(), Some(&first.certificate));
    assert_eq!(server.arrival_of("/after").certificate.as_ref(), Some(&second.certificate));
    // What does not change, keeps its connections.
    let before = server.arrivals().len();
    for attempts in 1..5 {
        world.reload(conf.clone().pool(&format!("retries: {{ attempts: {attempts} }}")));
        browser.get("/again").expect(200);
    }
    assert!(server.arrivals().len() < before + 4);
}

#[test]
fn two_pools_with_different_certificates_share_no_connection() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let (alice, bob) = (of_one_serial(&clients, "alice"), of_one_serial(&clients, "bob"));
    let manners = Manners { clients: Some(&clients), ..Manners::default() };
    let server = TlsServer::open(&authority.sign(&["localhost"]), manners);
    let pool = |name: &str| {
        format!(
            "  {name}:\n    servers: [{{ name: s, address: \"localhost:{}\" }}]\n    persistence: null\n    \
             connection: {{ tls: {{ ca: ca.pem, cert: {name}.pem, key: {name}.key }} }}\n",
            server.address.port()
        )
    };
    let text = format!(
        "version: 1\nlisteners: [{{ address: \"{{{{proxy}}}}\" }}]\nadmin: {{ address: \"{{{{admin}}}}\" }}\n\
         routes:\n  - {{ name: a, match: {{ path_prefix: /alice }}, pool: alice }}\n  - {{ name: b, pool: bob }}\n\
         pools:\n{}{}",
        pool("alice"),
        pool("bob")
    );
    let world = world_with(text, &authority, &server, &[("alice", &alice), ("bob", &bob)]);
    let browser = world.browser();
    for n in 0..6 {
        browser.get(&format!("/alice/{n}")).expect(200);
        browser.get(&format!("/bob/{n}")).expect(200);
    }
    let arrivals = server.arrivals();
    assert!(arrivals.len() < 12, "connections are kept");
    for arrival in arrivals {
        let sent = arrival.sent();
        let own = if sent.contains("/alice/") { &alice } else { &bob };
        assert_eq!(sent.contains("/alice/"), !sent.contains("/bob/"), "{sent}");
        assert_eq!(arrival.certificate.as_ref(), Some(&own.certificate));
    }
}

#[test]
fn a_replaced_authority_is_what_the_next_request_trusts() {
    let (old, new) = (Authority::new(), Authority::new());
    let server = TlsServer::open(&old.sign(&["localhost"]), Manners::default());
    let conf = conf(&server, "localhost", "");
    let world = world(conf, &old, &server);
    let browser = world.browser();
    browser.get("/trusted").expect(200);
    new.write(world.directory(), "ca");
    wait_for_renewal(&world);
    browser.get("/distrusted").expect(502);
    assert_eq!(world.count("GET", "/distrusted"), 0, "a kept connection is not trusted any more");
    world.expect_metric(ERRORS, &[("kind", "certificate_untrusted")], 1.0);
    server.show(&new.sign(&["localhost"]), Manners::default());
    browser.get("/renewed").expect(200);
}

#[test]
fn a_damaged_file_changes_nothing() {
    let authority = Authority::new();
    let server = TlsServer::open(&authority.sign(&["localhost"]), Manners::default());
    let conf = conf(&server, "localhost", "");
    let mut world = world(conf.clone(), &authority, &server);
    fs::write(world.directory().join("ca.pem"), "half an authority").expect("a file");
    world.try_reload(&conf);
    let log = world.log();
    assert!(log.contains("ca.pem") && log.contains("holds no certificate") && log.contains("reload rejected"), "{log}");
    assert!(world.metric("homing_config_last_reload_success", &[]) < 0.5);
    world.browser().get("/echo").expect(200);
}
