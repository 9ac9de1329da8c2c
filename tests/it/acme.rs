//! Certificates by ACME, from a real authority: ordered, shown, renewed.

use std::fmt::Display;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::world::acme::{ACCOUNTS, CertificateAuthority, HOST, ORDERS, ask};
use crate::world::tls::{Authority, Client, Handshake as _};
use crate::world::{Conf, PATIENCE, World, eventually};

/// Longer than any test.
pub(crate) const DAY: u64 = 86_400;
pub(crate) const ORDERED: &str = "homing_acme_orders_total";
const REQUEST: &str = "GET /echo HTTP/1.1\r\nHost: shop.test\r\n\r\n";

/// A listener with TLS at `{{proxy}}`, a plain one at `{{proxy2}}`, and more at the top level.
pub(crate) fn conf(tls: impl Display, more: &str) -> String {
    let conf = Conf::servers("a").listener(&format!("tls: {{ {tls} }}")).top(more).to_string();
    conf.replace("\nadmin:", "\n  - { address: \"{{proxy2}}\" }\nadmin:")
}

/// A proxy that orders from an authority whose certificates are valid for so many seconds.
pub(crate) fn ordering(seconds: u64, acme: &str, more: &str) -> (World, CertificateAuthority) {
    let mut authority = None;
    let builder = World::builder(Conf::servers("a")).before(|environment| {
        let made = CertificateAuthority::of(environment, seconds);
        environment.rewrite(conf(made.section(acme), more));
        authority = Some(made);
    });
    (builder.start(), authority.expect("just made"))
}

/// The directory of the account and the certificates.
pub(crate) fn storage(directory: &Path) -> PathBuf {
    let root = directory.join("acme");
    let mut found = fs::read_dir(root).expect("the storage").map(|entry| entry.expect("an entry").path());
    found.next().expect("a directory for the authority")
}

/// Serves a request by the authority's certificate.
fn serves(world: &World, authority: &CertificateAuthority) {
    let mut wire = authority.client().connect(&world.address, HOST);
    wire.send(REQUEST);
    wire.receive("GET").expect(200);
}

#[test]
fn a_host_gets_its_first_certificate_by_http_01() {
    let (world, authority) = ordering(DAY, "", "");
    authority.shown(&world.address);
    serves(&world, &authority);
    world.expect_metric(ORDERED, &[("host", HOST), ("result", "success")], 1.0);
    assert!(world.metric("homing_tls_certificate_expiry_timestamp_seconds", &[("name", HOST)]) > 1.0e9);
    let status = world.admin("/api/v1/status").json();
    assert_eq!(status["certificates"][0]["name"], HOST, "{status}");
    let events = world.admin("/api/v1/events").json();
    let issued = events["items"].as_array().expect("events").iter().find(|event| event["who"] == "acme");
    assert_eq!(issued.expect("an event")["reason"], format!("{HOST}: issued"), "{events}");
}

#[test]
fn a_host_gets_its_first_certificate_by_tls_alpn_01_with_no_plain_listener() {
    let mut authority = None;
    let world = World::builder(Conf::servers("a"))
        .before(|environment| {
            let made = CertificateAuthority::of(environment, DAY);
            environment.rewrite(
                Conf::servers("a").listener(&format!("tls: {{ {} }}", made.section(", challenge: tls-alpn-01"))),
            );
            authority = Some(made);
        })
        .start();
    let authority = authority.expect("just made");
    authority.shown(&world.address);
    serves(&world, &authority);
    let other = Client::new(&Authority::new()).protocols(&["acme-tls/1"]).try_connect(&world.address, HOST).map(drop);
    other.expect_err("no challenge is under way");
    assert_eq!(world.count("GET", "/echo"), 1);
}

#[test]
fn where_clients_must_show_a_certificate_the_authority_still_sees_tls_alpn_01() {
    let clients = Authority::new();
    let mut authority = None;
    let world = World::builder(Conf::servers("a"))
        .before(|environment| {
            clients.write(environment.directory(), "clients");
            let made = CertificateAuthority::of(environment, DAY);
            let acme = made.section(", challenge: tls-alpn-01");
            environment.rewrite(conf(format!("{acme}, client_ca: clients.pem"), ""));
            authority = Some(made);
        })
        .start();
    let authority = authority.expect("just made");
    authority.shown(&world.address);
    let own = clients.sign(&["client"]);
    let mut wire = authority.client().showing(&own).connect(&world.address, HOST);
    wire.send(REQUEST);
    wire.receive("GET").expect(200);
}

#[test]
fn a_renewed_certificate_is_on_the_wire_without_restart_or_reload_and_no_connection_is_dropped() {
    let (world, authority) = ordering(20, "", "");
    let first = authority.shown(&world.address);
    let mut kept = authority.client().connect(&world.address, HOST);
    kept.send(REQUEST);
    kept.receive("GET").expect(200);
    eventually(2 * PATIENCE, "another certificate is shown", || authority.shown(&world.address) != first);
    kept.send(REQUEST);
    kept.receive("GET").expect(200);
    assert!(authority.count(ORDERS) >= 2 && world.reloads() < 0.5, "{}", world.log());
    assert_eq!(authority.count(ACCOUNTS), 1, "one account for all orders");
}

#[test]
fn a_certificate_is_renewed_when_its_authority_says_so_and_names_what_it_replaces() {
    let (mut world, authority) = ordering(DAY, "", "");
    let first = authority.shown(&world.address);
    assert_eq!((authority.count(ORDERS), authority.replaced()), (1, 0));
    world.stop_proxy();
    authority.suggest(-3600, -60);
    world.start_proxy();
    eventually(2 * PATIENCE, "another certificate is shown", || authority.shown(&world.address) != first);
    assert_eq!((authority.count(ORDERS), authority.replaced()), (2, 1));
}

#[test]
fn a_restart_orders_nothing_and_shows_the_certificate_at_once() {
    let (mut world, authority) = ordering(DAY, "", "");
    let first = authority.shown(&world.address);
    let stored = storage(world.directory());
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    for file in ["account.json".to_owned(), format!("{HOST}.pem")] {
        assert_eq!(mode(&stored.join(&file)), 0o600, "{file}");
    }
    assert_eq!((mode(&stored), mode(&world.directory().join("acme"))), (0o700, 0o700));
    for _ in 0..3 {
        world.restart_proxy();
        assert_eq!(authority.client().connect(&world.address, HOST).certificate(), first);
    }
    assert_eq!((authority.count(ORDERS), authority.count(ACCOUNTS)), (1, 1));
}

#[test]
fn until_a_certificate_comes_those_of_files_serve_or_else_the_handshake_is_refused() {
    let files = Authority::new();
    let mut authority = None;
    let mut world = World::builder(Conf::servers("a"))
        .before(|environment| {
            files.issue(environment.directory(), "file", &[HOST]);
            let made = CertificateAuthority::of(environment, DAY);
            made.fail(ORDERS);
            environment.rewrite(conf(made.section(""), ""));
            authority = Some(made);
        })
        .start();
    let authority = authority.expect("just made");
    let error = authority.client().try_connect(&world.address, HOST).map(drop).expect_err("no certificate").to_string();
    assert!(error.contains("alert"), "a clear refusal: {error}");
    let with_files = |acme: &str| {
        conf(format!("{}, certificates: [{{ cert: file.pem, key: file.key }}]", authority.section(acme)), "")
    };
    world.reload(with_files(""));
    Client::new(&files).connect(&world.address, HOST);
    authority.heal();
    // Other settings are tried at once.
    world.reload(with_files(", contact: [\"mailto:ops@shop.test\"]"));
    authority.shown(&world.address);
}

#[test]
fn a_host_that_a_reload_adds_gets_a_certificate() {
    let (mut world, authority) = ordering(DAY, "", "");
    authority.shown(&world.address);
    world.reload(conf(authority.section("").replace("[shop.test]", "[shop.test, cart.test]"), ""));
    eventually(2 * PATIENCE, "a certificate for the other host", || {
        authority.client().try_connect(&world.address, "cart.test").is_ok()
    });
    assert_eq!(authority.count(ORDERS), 2);
}

#[test]
fn a_challenge_is_answered_before_a_redirect_and_unknown_tokens_go_on_to_the_routes() {
    let redirect = "routes: [{ name: https, match: { path_prefix: / }, redirect: { scheme: https } }]";
    for fast_path in ["auto", "off"] {
        // The authority follows no redirect: it got its answer.
        let (mut world, authority) = ordering(DAY, "", &format!("{redirect}\nproxy: {{ fast_path: {fast_path} }}"));
        authority.shown(&world.address);
        let plain = world.environment.address("proxy2");
        ask(&plain, "unknown").expect(308);
        ask(&plain, "a/b").expect(308);
    }
    let (mut world, authority) = ordering(DAY, "", "");
    authority.shown(&world.address);
    let plain = world.environment.address("proxy2");
    assert_eq!(ask(&plain, "unknown").status, 200, "the application has that path");
    assert_eq!(world.count("GET", "/.well-known/acme-challenge/unknown"), 1);
}
