//! A session ends for all proxies that share a store: by its application, by a refusal, by staying away everywhere.

use std::thread;
use std::time::{Duration, Instant};

use crate::shared_proxies::{
    By, Edge, LOOKUPS, MOVES, assert_on_their_servers, learning, sessions, sharing, with_every_store,
};
use crate::world::app::answers::saying;
use crate::world::apps::LONG;
use crate::world::stores::{Engine, JavaStore, Store};
use crate::world::{Conf, KEY_1, KEY_2, Proxy, eventually};

/// Other proxies know by then: where changes are announced after milliseconds, else when their copies are old.
const SOON: Duration = Duration::from_secs(4);

with_every_store! {
    what_an_application_ends_at_one_proxy_is_over_at_all_and_may_begin_again
    a_refused_session_is_over_at_all_proxies
    learned_sessions_survive_a_rotated_key_at_all_proxies
}

fn near(conf: Conf) -> Conf {
    conf.store("near_ttl: 1s")
}

fn ended(proxy: &Proxy) -> f64 {
    proxy.metric(LOOKUPS, &[("result", "ended")])
}

/// Waits until a proxy finds the session ended.
#[track_caller]
fn expect_over(by: By, proxy: &Proxy, id: &str) {
    let before = ended(proxy);
    eventually(SOON, "the session is over there too", || {
        by.server(proxy, id);
        ended(proxy) > before
    });
}

fn what_an_application_ends_at_one_proxy_is_over_at_all_and_may_begin_again(engine: Engine) {
    let store = Store::start(engine);
    let edge = Edge::start(&store.entry(), near(learning("a b c")));
    let [first, second, third] = edge.proxies();
    for by in By::BOTH {
        let home = by.begin(first, "alice");
        let other = if home == "a" { "b" } else { "a" };
        // The same server, and then another one, calls it its own again, at a proxy that may not know yet that it ended.
        for server in [home.as_str(), other] {
            let before = by.server(third, "alice");
            assert_eq!([by.server(first, "alice"), by.server(second, "alice")], [before.clone(), before.clone()]);
            match by {
                By::Cookie => by.ask(second, "GET", &saying(200, &["Set-Cookie: SID=; Max-Age=0"]), "alice"),
                By::Header => by.ask(second, "DELETE", &saying(200, &[]), "alice"),
            }
            .expect(200);
            eventually(SOON, "the store knows", || store.bindings().iter().any(|words| words[2] == "-"));
            if server != home {
                edge.proxies().into_iter().for_each(|proxy| expect_over(by, proxy, "alice"));
            }
            by.begin_at(third, server, "alice");
            for proxy in edge.proxies() {
                eventually(SOON, "it begins again everywhere", || by.server(proxy, "alice") == server);
                assert_eq!(by.server(proxy, "alice"), server);
            }
            assert!(store.bindings().iter().all(|words| words[2] != "-"), "{:?}", store.bindings());
        }
    }
    assert_eq!(edge.metric(MOVES, &[]), 0.0);
}

#[test]
fn an_id_that_has_ended_stands_in_no_other_ids_way() {
    let store = Store::start(Engine::Redis);
    let conf = Conf::servers("a b c").persistence("sources: [{ learn: { query: sid, cookie: SID } }]");
    let edge = Edge::start(&store.entry(), conf);
    let [first, second, _] = edge.proxies();
    let by = By::Cookie;
    by.begin(first, "old");
    by.server(second, "old");
    by.ask(first, "GET", &saying(200, &["Set-Cookie: SID=; Max-Age=0"]), "old").expect(200);
    expect_over(by, second, "old");
    for n in 0..6 {
        let id = format!("live-{n}");
        let home = by.begin(first, &id);
        let answer = by.ask(second, "GET", "/plain?sid=old", &id).expect(200);
        assert_eq!(answer.text(), home, "{id}, which the second proxy must ask the store for");
    }
}

fn a_refused_session_is_over_at_all_proxies(engine: Engine) {
    let store = Store::start(engine);
    let edge = Edge::start(&store.entry(), near(learning("a b c").persistence("on_server_down: refuse")));
    let [first, second, third] = edge.proxies();
    let by = By::Cookie;
    let home = by.begin(first, "alice");
    assert_eq!(by.server(second, "alice"), home);
    edge.world.app(&home).kill();
    by.ask(first, "GET", "/plain", "alice").expect(503);
    store.expect_binding(1, "-");
    edge.world.app(&home).start();
    for proxy in [first, second, third] {
        expect_over(by, proxy, "alice");
    }
}

/// Takes its time, so all stores at once.
#[test]
fn a_session_that_is_visited_at_one_proxy_lives_at_all() {
    with_all_stores(visited_at_one_proxy);
}

#[test]
fn a_session_that_is_visited_nowhere_is_over_everywhere() {
    with_all_stores(unused_on_all_proxies);
}

fn with_all_stores(run: fn(Engine)) {
    thread::scope(|scope| {
        for engine in Engine::ALL.into_iter().filter(|engine| engine.is_here()) {
            scope.spawn(move || run(engine));
        }
        if JavaStore::Hazelcast.is_here() {
            scope.spawn(move || run(Engine::Hazelcast));
        }
    });
}

fn visited_at_one_proxy(engine: Engine) {
    let store = Store::start(engine);
    let edge = Edge::start(&store.entry(), near(learning("a b c").persistence("idle_timeout: 2s")));
    let [first, second, _] = edge.proxies();
    let by = By::Cookie;
    let home = by.begin(first, "alice");
    assert_eq!(by.server(second, "alice"), home);
    let begin = Instant::now();
    eventually(Duration::from_secs(10), "six seconds of visits at the second proxy", || {
        assert_eq!(by.server(second, "alice"), home);
        begin.elapsed() > Duration::from_secs(6)
    });
    if let Store::Redis(server) = &store {
        let left = server.keys().iter().find_map(|key| server.ttl(key)).expect("it is kept");
        // Eight seconds from its beginning, were it not for the visits.
        assert!(left > Duration::from_secs(4), "the store was told of visits: {left:?} left");
    }
    for proxy in edge.proxies() {
        assert_eq!(by.server(proxy, "alice"), home, "where it stayed away as well");
    }
    store.expect_binding(0, &home);
    assert_eq!(edge.metric("homing_sessions_ended_total", &[("reason", "ended")]), 0.0);
}

fn unused_on_all_proxies(engine: Engine) {
    let store = Store::start(engine);
    let edge = Edge::start(&store.entry(), near(learning("a b c").persistence("idle_timeout: 2s")));
    let all = sessions(&edge, 4);
    assert_on_their_servers(&edge, &all);
    // The store keeps everything a tenth and some seconds longer than it must.
    eventually(LONG, "the store has forgotten all", || store.all().is_empty());
    for proxy in edge.proxies() {
        let hits = proxy.metric(LOOKUPS, &[("result", "hit")]);
        for (by, id, _) in &all {
            by.server(proxy, id);
        }
        assert_eq!(proxy.metric(LOOKUPS, &[("result", "hit")]), hits, "no session is known any more");
        assert_eq!(proxy.metric("homing_sessions", &[]), 0.0);
    }
    assert!(store.all().is_empty(), "{:?}", store.all());
}

fn learned_sessions_survive_a_rotated_key_at_all_proxies(engine: Engine) {
    let store = Store::start(engine);
    let conf = |keys: &[&str]| near(learning("a b c")).keys(keys);
    let mut edge = Edge::start(&store.entry(), conf(&[KEY_1]));
    let all = sessions(&edge, 9);
    assert_on_their_servers(&edge, &all);
    edge.reload(sharing(&store.entry(), conf(&[KEY_2, KEY_1])));
    assert_on_their_servers(&edge, &all);
    edge.restart(1);
    assert_on_their_servers(&edge, &all);
    eventually(SOON, "the store knows all by their new names as well", || store.bindings().len() == 18);
    edge.reload(sharing(&store.entry(), conf(&[KEY_2])));
    edge.restart(2);
    assert_on_their_servers(&edge, &all);
    assert_eq!(edge.metric(LOOKUPS, &[("result", "unknown")]), 0.0);
    assert_eq!(edge.metric(MOVES, &[]), 0.0);
}
