//! Certificates by ACME of proxies with one store: one orders, every one answers the challenge, all show the certificate.

use std::fs;

use crate::acme::{DAY, ORDERED, conf};
use crate::world::acme::{ACCOUNTS, CertificateAuthority, HOST, ORDERS};
use crate::world::stores::{Kind, RedisServer};
use crate::world::{Conf, PATIENCE, Proxy, World, eventually};

/// Two proxies with one Redis; the authority sees the challenges of either at the second one.
struct Fleet {
    second: Proxy,
    world: World,
    authority: CertificateAuthority,
    store: RedisServer,
}

impl Fleet {
    fn start(seconds: u64, challenge: &str) -> Self {
        let store = RedisServer::setup(Kind::Redis).start();
        let mut authority = None;
        let mut world = World::builder(Conf::servers("a"))
            .before(|environment| {
                let (plain, tls) = (environment.address("proxy2-b"), environment.address("proxy-b"));
                let made = CertificateAuthority::start(&plain, &tls, seconds, None);
                made.write(environment.directory());
                // Until both proxies are there.
                made.fail("/dir");
                // Files of one's own: the store is all that the proxies share.
                let acme =
                    made.section(&format!(", challenge: {challenge}")).replace("{{dir}}/acme", "{{access}}.acme");
                environment.rewrite(conf(acme, &format!("store: {{ {} }}", store.entry())));
                authority = Some(made);
            })
            .start();
        let (second, authority) = (world.another_proxy("-b"), authority.expect("just made"));
        authority.heal();
        Self { second, world, authority, store }
    }

    fn proxies(&self) -> [&Proxy; 2] {
        [&self.world, &self.second]
    }

    fn orders(&self) -> f64 {
        self.proxies().iter().map(|proxy| proxy.metric(ORDERED, &[("host", HOST), ("result", "success")])).sum()
    }
}

fn one_order_serves_both(challenge: &str) {
    let fleet = Fleet::start(DAY, challenge);
    let shown = fleet.proxies().map(|proxy| fleet.authority.shown(&proxy.address));
    assert_eq!(shown[0], shown[1], "both show the same certificate");
    // A proxy that shows a certificate orders no other.
    assert_eq!((fleet.authority.count(ORDERS), fleet.authority.count(ACCOUNTS)), (1, 1));
    assert!((fleet.orders() - 1.0).abs() < 0.1, "{}", fleet.orders());
}

#[test]
fn two_proxies_order_once_and_either_answers_the_challenge() {
    one_order_serves_both("http-01");
}

#[test]
fn two_proxies_order_once_and_either_answers_tls_alpn_01() {
    one_order_serves_both("tls-alpn-01");
}

#[test]
fn a_renewal_of_one_proxy_is_shown_by_the_other() {
    let fleet = Fleet::start(24, "http-01");
    let first = fleet.proxies().map(|proxy| fleet.authority.shown(&proxy.address));
    eventually(3 * PATIENCE, "both show the same new certificate", || {
        let now = fleet.proxies().map(|proxy| fleet.authority.shown(&proxy.address));
        now[0] != first[0] && now[0] == now[1]
    });
    assert_eq!(fleet.authority.count(ACCOUNTS), 1);
}

#[test]
fn what_is_in_the_store_tells_no_key() {
    let fleet = Fleet::start(DAY, "http-01");
    for proxy in fleet.proxies() {
        fleet.authority.shown(&proxy.address);
    }
    let stored: Vec<String> = fleet.store.keys().iter().filter_map(|key| fleet.store.value(key)).collect();
    assert!(stored.len() >= 2, "a certificate and an account: {stored:?}");
    assert!(stored.iter().all(|value| !value.contains("PRIVATE KEY") && !value.contains("key_pkcs8")), "{stored:?}");
}

#[test]
fn a_proxy_without_files_takes_the_certificate_of_the_store() {
    let mut fleet = Fleet::start(DAY, "http-01");
    let first = fleet.authority.shown(&fleet.second.address);
    fleet.authority.shown(&fleet.world.address);
    fleet.world.stop_proxy();
    for entry in fs::read_dir(fleet.world.directory()).expect("a directory").flatten() {
        if entry.file_name().to_string_lossy().ends_with(".acme") {
            fs::remove_dir_all(entry.path()).expect("the files are gone");
        }
    }
    fleet.world.start_proxy();
    assert_eq!(fleet.authority.shown(&fleet.world.address), first);
    assert_eq!((fleet.authority.count(ORDERS), fleet.authority.count(ACCOUNTS)), (1, 1));
}
