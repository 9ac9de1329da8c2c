//! Certificates by ACME when the authority refuses, limits, or is away, and when files are damaged.

use std::fs;
use std::time::{Duration, Instant};

use crate::acme::{DAY, ORDERED, conf, ordering, storage};
use crate::world::acme::{ACCOUNTS, CertificateAuthority, HOST, ORDERS};
use crate::world::tls::{Authority, Handshake as _};
use crate::world::{Conf, PATIENCE, World, eventually, proxy};

/// A world whose authority refuses from the start.
fn refused(refuse: impl FnOnce(&CertificateAuthority)) -> (World, CertificateAuthority) {
    let mut authority = None;
    let builder = World::builder(Conf::servers("a")).before(|environment| {
        let made = CertificateAuthority::of(environment, DAY);
        refuse(&made);
        environment.rewrite(conf(made.section(""), ""));
        authority = Some(made);
    });
    (builder.start(), authority.expect("just made"))
}

#[test]
fn a_rate_limit_is_obeyed_over_reloads_and_restarts() {
    let (mut world, authority) = refused(|authority| authority.limit(ORDERS, "12"));
    eventually(PATIENCE, "an order is limited", || authority.count(ORDERS) == 1);
    let limited = Instant::now();
    world.expect_metric(ORDERED, &[("host", HOST), ("result", "rate_limited")], 1.0);
    authority.heal();
    world.reload(conf(authority.section(", contact: [\"mailto:ops@shop.test\"]"), ""));
    world.reload(conf(authority.section(""), ""));
    for _ in 0..2 {
        world.restart_proxy();
        eventually(PATIENCE, "the limit is found again", || is_limited(&world, HOST));
    }
    assert_eq!(authority.count(ORDERS), 1, "{:?} after the refusal:\n{}", limited.elapsed(), world.log());
    authority.shown(&world.address);
    assert!(limited.elapsed() > Duration::from_secs(11), "{:?}", limited.elapsed());
    assert_eq!(authority.count(ORDERS), 2);
}

#[test]
fn a_rate_limit_of_the_directory_with_a_date_is_obeyed() {
    let (mut world, authority) = refused(|authority| {
        let later = std::time::SystemTime::now() + Duration::from_secs(3600);
        authority.limit("/dir", &httpdate::fmt_http_date(later));
    });
    eventually(PATIENCE, "the directory is asked", || authority.count("/dir") == 1);
    authority.heal();
    world.restart_proxy();
    world.reload(conf(authority.section("").replace("[shop.test]", "[cart.test]"), ""));
    eventually(PATIENCE, "the limit holds for another host too", || is_limited(&world, "cart.test"));
    assert_eq!((authority.count("/dir"), authority.count(ORDERS)), (1, 0), "{}", world.log());
}

/// Whether the log, which begins anew with each start, says that orders for a host have to wait.
fn is_limited(world: &World, host: &str) -> bool {
    let log = world.log();
    log.lines().any(|line| line.contains("limits the rate") && line.contains(host))
}

#[test]
fn an_authority_that_is_broken_leaves_the_old_certificate_in_service() {
    let (mut world, authority) = ordering(DAY, "", "");
    let first = authority.shown(&world.address);
    world.stop_proxy();
    authority.fail(ORDERS);
    authority.suggest(-3600, -60);
    world.start_proxy();
    eventually(2 * PATIENCE, "a renewal has failed", || {
        world.metric(ORDERED, &[("host", HOST), ("result", "failure")]) > 0.5
    });
    assert_eq!(authority.client().connect(&world.address, HOST).certificate(), first);
    let log = world.log();
    assert!(log.contains("no certificate was issued") && log.contains("said the test"), "{log}");
    let events = world.admin("/api/v1/events").json();
    let failed = |event: &serde_json::Value| event["reason"].as_str().is_some_and(|why| why.contains("not issued"));
    assert!(events["items"].as_array().expect("events").iter().any(failed), "{events}");
}

#[test]
fn an_authority_that_is_away_at_the_start_is_asked_again_soon() {
    let (world, mut authority) = refused(|authority| authority.pebble.kill());
    eventually(PATIENCE, "an order has failed", || {
        world.metric(ORDERED, &[("host", HOST), ("result", "failure")]) > 0.5
    });
    authority.restart();
    authority.shown(&world.address);
}

#[test]
fn an_account_that_the_authority_has_forgotten_is_made_again() {
    let (mut world, mut authority) = ordering(DAY, "", "");
    authority.shown(&world.address);
    world.stop_proxy();
    authority.restart();
    fs::remove_file(storage(world.directory()).join(format!("{HOST}.pem"))).expect("the certificate");
    world.start_proxy();
    authority.shown(&world.address);
    assert_eq!((authority.count(ORDERS), authority.count(ACCOUNTS)), (3, 2));
}

#[test]
fn a_challenge_that_fails_says_why() {
    let mut authority = None;
    let world = World::builder(Conf::servers("a"))
        .before(|environment| {
            // Another port than the one that the proxy listens on.
            let (nowhere, tls) = (environment.address("proxy3"), environment.address("proxy"));
            let made = CertificateAuthority::start(&nowhere, &tls, DAY, None);
            made.write(environment.directory());
            environment.rewrite(conf(made.section(""), ""));
            authority = Some(made);
        })
        .start();
    eventually(2 * PATIENCE, "the reason is in the log", || world.log().contains("no certificate was issued"));
    let log = world.log();
    assert!(log.contains("connection refused") && log.contains("retry_in=2m"), "{log}");
}

#[test]
fn damaged_files_keep_no_proxy_from_starting_and_are_put_aside() {
    let (mut world, authority) = ordering(DAY, "", "");
    let first = authority.shown(&world.address);
    world.stop_proxy();
    let stored = storage(world.directory());
    for file in [format!("{HOST}.pem"), "account.json".to_owned(), "rate-limits.json".to_owned()] {
        fs::write(stored.join(&file), "half a fi").expect("a file");
    }
    world.start_proxy();
    eventually(2 * PATIENCE, "another certificate is shown", || authority.shown(&world.address) != first);
    for file in [format!("{HOST}.pem.damaged"), "account.json.damaged".to_owned()] {
        assert!(stored.join(&file).exists(), "{file}");
    }
    assert!(world.log().contains("put aside"), "{}", world.log());
}

#[test]
fn what_cannot_be_stored_is_not_ordered() {
    let mut authority = None;
    let world = World::builder(Conf::servers("a"))
        .before(|environment| {
            let made = CertificateAuthority::of(environment, DAY);
            fs::write(environment.directory().join("acme"), "a file in place of the directory").expect("a file");
            environment.rewrite(conf(made.section(""), ""));
            authority = Some(made);
        })
        .start();
    eventually(PATIENCE, "the reason is in the log", || world.log().contains("nothing is ordered"));
    assert_eq!(authority.expect("just made").count(ORDERS), 0);
}

#[test]
fn check_tells_of_a_stored_certificate_that_has_expired() {
    let (mut world, authority) = ordering(DAY, "", "");
    authority.shown(&world.address);
    let check = || {
        let output =
            proxy::command().args(["check", "--config"]).arg(world.environment.config()).output().expect("check");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(!check().contains("expired"), "{}", check());
    let signer = Authority::new();
    let old = signer.sign_with(&[HOST], |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    old.write(&storage(world.directory()), "old");
    let at = |name: &str| storage(world.environment.directory()).join(name);
    fs::rename(at("old.pem"), at(&format!("{HOST}.pem"))).expect("the old certificate in its place");
    assert!(check().contains("expired on"), "{}", check());
    world.stop_proxy();
}

#[test]
fn an_authority_that_requires_an_external_account_gets_the_one_that_is_configured() {
    const KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let mut authority = None;
    let builder = World::builder(Conf::servers("a")).before(|environment| {
        let made = CertificateAuthority::requiring(environment, DAY, Some(("kid-1", KEY)));
        environment.rewrite(conf(made.section(""), ""));
        authority = Some(made);
    });
    let (mut world, authority) = (builder.start(), authority.expect("just made"));
    eventually(2 * PATIENCE, "without it there is no account", || {
        world.metric(ORDERED, &[("host", HOST), ("result", "failure")]) > 0.5
    });
    let other_key = KEY.replace('z', "y");
    for (key, is_known) in [(other_key.as_str(), false), (KEY, true)] {
        let before = world.metric(ORDERED, &[("host", HOST), ("result", "failure")]);
        world.reload(conf(authority.section(&format!(", external_account: {{ key_id: kid-1, key: {key} }}")), ""));
        if is_known {
            authority.shown(&world.address);
        } else {
            eventually(2 * PATIENCE, "another key is refused", || {
                world.metric(ORDERED, &[("host", HOST), ("result", "failure")]) > before
            });
        }
        assert!(!world.log().contains(key), "the key is in the log");
    }
}
