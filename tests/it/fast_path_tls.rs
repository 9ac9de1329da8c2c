//! TLS to servers on the fast path: what is trusted and shown is decided where the full path has it decided.

use crate::fast_path_exchanges::{answers, requests};
use crate::fast_path_ways::{AUTO, BY_PATH, compare_ways};
use crate::tls_to_servers::{ERRORS, conf, world, world_with};
use crate::world::Conf;
use crate::world::tls::Authority;
use crate::world::tls_server::{Manners, TlsServer};

#[test]
fn servers_with_tls_see_no_difference() {
    let authority = Authority::new();
    let conf = Conf::servers("a")
        .pool("retries: { attempts: 1, budget_percent: 100 }")
        .pool("connection: { tls: { ca: ca.pem } }");
    let all: Vec<_> = requests().into_iter().chain(answers()).collect();
    let fast = compare_ways(&conf, Some(&authority), &all).fast();
    assert!(fast > 80.0, "{fast} of {} took the fast path", all.len());
}

#[test]
fn a_connection_with_tls_is_used_again_until_its_pool_trusts_or_shows_something_else() {
    let authority = Authority::new();
    let server = TlsServer::open(
        &authority.sign(&["127.0.0.1"]),
        Manners { clients: Some(&authority), protocols: &["h2", "http/1.1"] },
    );
    let own = authority.sign(&["first"]);
    let other = authority.sign(&["second"]);
    let with = |name: &str| conf(&server, "127.0.0.1", &format!(", cert: {name}.pem, key: {name}.key")).top(AUTO);
    let certificates = [("first", &own), ("second", &other)];
    let mut world = world_with(with("first"), &authority, &server, &certificates);
    let browser = world.browser();
    for _ in 0..3 {
        browser.get("/echo").expect(200);
    }
    let arrivals = server.arrivals();
    assert_eq!(arrivals.len(), 1, "one connection for all");
    assert_eq!(arrivals[0].protocol.as_deref(), Some("http/1.1"), "HTTP/2 is not offered");
    assert_eq!(arrivals[0].certificate.as_ref(), Some(&own.certificate));
    world.reload(with("second"));
    browser.get("/echo").expect(200);
    let arrivals = server.arrivals();
    assert_eq!(arrivals.len(), 2, "the first connection shows the former certificate");
    assert_eq!(arrivals[1].certificate.as_ref(), Some(&other.certificate));
    world.expect_metric(BY_PATH, &[("path", "fast")], 4.0);
    world.expect_metric(BY_PATH, &[("path", "full")], 0.0);
}

#[test]
fn a_server_that_is_not_trusted_gets_nothing_and_the_full_path_says_so() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let server = TlsServer::open(&stranger.sign(&["127.0.0.1"]), Manners::default());
    let world = world(conf(&server, "127.0.0.1", "").top(AUTO), &authority, &server);
    world.browser().get("/echo").expect(502);
    assert_eq!(server.arrivals().len(), 0);
    world.expect_metric(ERRORS, &[("kind", "certificate_untrusted")], world.metric(ERRORS, &[]));
    world.expect_metric(BY_PATH, &[("path", "full"), ("reason", "failure")], 1.0);
    world.expect_metric(BY_PATH, &[], 1.0);
}

#[test]
fn where_a_server_may_choose_http2_requests_take_the_full_path() {
    let authority = Authority::new();
    for protocol in ["auto", "h2"] {
        let server = TlsServer::open(&authority.sign(&["127.0.0.1"]), Manners::default());
        let address = format!("127.0.0.1:{}", server.address.port());
        let conf = Conf::servers("a").address("a", &address);
        let conf = conf.pool(&format!("connection: {{ tls: {{ ca: ca.pem }}, protocol: {protocol} }}")).top(AUTO);
        let world = world(conf, &authority, &server);
        world.browser().get("/echo");
        world.expect_metric(BY_PATH, &[("path", "full"), ("reason", "configuration")], 1.0);
        world.expect_metric(BY_PATH, &[("path", "fast")], 0.0);
    }
}
