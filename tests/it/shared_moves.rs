//! A session moves for all proxies that share a store: once, to one place, and the others hear of it.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use crate::shared_proxies::{By, Edge, MOVES, OPERATIONS, learning, sessions, sharing, with_every_store};
use crate::world::link::Link;
use crate::world::stores::{Engine, Store};
use crate::world::{Browser, Conf, Proxy, World, at_once, eventually};

const SESSIONS: &str = "homing_sessions";
/// Another proxy must have heard of a move by then; it takes milliseconds where it is announced.
const SOON: Duration = Duration::from_secs(1);
/// Where it is not, a copy must have become old, and have been fetched again.
const OLD: Duration = Duration::from_secs(5);

with_every_store! {
    a_learned_session_moves_once_for_all_proxies
    every_move_counts_at_the_proxy_that_made_it
    a_move_that_two_proxies_see_differently_ends_in_one_place_for_learned_ids
    a_move_that_two_proxies_see_differently_ends_in_one_place_for_tokens
}

fn a_learned_session_moves_once_for_all_proxies(engine: Engine) {
    let store = Store::start(engine);
    let near_ttl = if store.announces() { "near_ttl: 1h" } else { "near_ttl: 1s" };
    let edge = Edge::start(&store.entry(), learning("a b c d").store(near_ttl));
    let [first, second, third] = edge.proxies();
    let by = By::Cookie;
    let home = by.begin(first, "alice");
    assert_eq!([by.server(second, "alice"), by.server(third, "alice")], [home.clone(), home.clone()]);
    store.expect_binding(0, &home);
    edge.world.app(&home).kill();
    let next = by.server(first, "alice");
    assert_ne!(next, home);
    store.expect_binding(1, &next);
    edge.world.app(&home).start();
    for other in [second, third] {
        if store.announces() {
            eventually(SOON, "the others hear of it", || other.metric(SESSIONS, &[("server", &next)]) == 1.0);
            let asked = other.metric(OPERATIONS, &[("op", "lookup")]);
            assert_eq!(by.server(other, "alice"), next, "although its old server is back");
            assert_eq!(other.metric(OPERATIONS, &[("op", "lookup")]), asked, "and the store was not asked");
        } else {
            eventually(OLD, "the others see it", || by.server(other, "alice") == next);
        }
        assert_eq!(by.server(other, "alice"), next);
    }
    assert_eq!(by.server(first, "alice"), next);
    assert_eq!(edge.metric(MOVES, &[]), 1.0, "it moved once");
    store.expect_binding(1, &next);
}

fn every_move_counts_at_the_proxy_that_made_it(engine: Engine) {
    let store = Store::start(engine);
    let edge = Edge::start(&store.entry(), learning("a b c"));
    let all = sessions(&edge, 36);
    edge.world.app("a").kill();
    for (n, (by, id, home)) in all.iter().enumerate() {
        let proxy = edge.proxies()[n % 3];
        let servers = at_once(3, || by.server(proxy, id));
        assert_eq!(servers.len(), 1, "{id}: {servers:?}");
        assert_eq!(servers.contains(home), home != "a");
    }
    for (number, proxy) in edge.proxies().into_iter().enumerate() {
        let mine = all.iter().skip(number).step_by(3).filter(|(.., home)| home == "a").count();
        proxy.expect_metric(MOVES, &[("reason", "connect_failure")], mine as f64);
    }
}

/// Two proxies before the same servers. The first will not reach `a` and `b`, the second only not `a`.
struct Parted {
    // Dropped in this order: the proxies before the links.
    second: Proxy,
    world: World,
    links: Vec<Link>,
}

impl Parted {
    fn start(conf: &Conf) -> Self {
        let mut links = Vec::new();
        let mut world = World::builder(conf)
            .before(|environment| {
                links.extend(["a", "b", "a"].map(|name| Link::to(environment.app(name).socket_address())));
                let over = |at: usize| links[at].address().to_string();
                environment.rewrite(conf.clone().address("a", &over(0)).address("b", &over(1)));
            })
            .start();
        world.environment.rewrite(conf.clone().address("a", &links[2].address().to_string()));
        let second = world.another_proxy("-2");
        Self { second, world, links }
    }

    fn part(&self) {
        self.links.iter().for_each(Link::cut);
    }

    fn proxies(&self) -> [&Proxy; 2] {
        [&*self.world, &self.second]
    }
}

/// Asks both at the same moment.
fn both<T: Send>(ask: impl Fn(usize) -> T + Sync) -> [T; 2] {
    thread::scope(|scope| {
        let first = scope.spawn(|| ask(0));
        let second = ask(1);
        [first.join().expect("an answer"), second]
    })
}

/// Every session that was at `a` is kept once, at most twice moved, and not at `a`.
fn assert_kept(store: &Store, servers: &[String]) {
    let mut kept: Vec<_> = store.bindings().into_iter().map(|words| words[2].clone()).collect();
    let mut expected = servers.to_vec();
    kept.sort();
    expected.sort();
    assert_eq!(kept, expected, "the store knows what clients see: {:?}", store.bindings());
    assert!(store.bindings().iter().all(|words| ["1", "2"].contains(&&*words[1])), "{:?}", store.bindings());
}

fn a_move_that_two_proxies_see_differently_ends_in_one_place_for_learned_ids(engine: Engine) {
    let store = Store::start(engine);
    let parted = Parted::start(&sharing(&store.entry(), learning("a b c d").store("near_ttl: 1s")));
    let proxies = parted.proxies();
    let ids: Vec<_> = (0..8).map(|n| format!("session-{n}")).collect();
    for id in &ids {
        By::Cookie.begin_at(proxies[0], "a", id);
        assert_eq!(By::Cookie.server(proxies[1], id), "a");
    }
    parted.part();
    let mut settled = Vec::new();
    for id in &ids {
        both(|at| By::Cookie.server(proxies[at], id));
        // Its next request; the first proxy may not reach what the second has chosen.
        let server = By::Cookie.server(proxies[0], id);
        assert!(["c", "d"].contains(&&*server), "{server}");
        let patience = if store.announces() { SOON } else { OLD };
        eventually(patience, "both agree", || By::Cookie.server(proxies[1], id) == server);
        for at in [0, 1, 0] {
            assert_eq!(By::Cookie.server(proxies[at], id), server, "{id} is settled");
        }
        settled.push(server);
    }
    assert_kept(&store, &settled);
}

fn a_move_that_two_proxies_see_differently_ends_in_one_place_for_tokens(engine: Engine) {
    let store = Store::start(engine);
    let conf = sharing(&store.entry(), Conf::servers("a b c d").store("near_ttl: 1s"));
    let parted = Parted::start(&conf);
    let proxies = parted.proxies();
    // So many that they go to one server only once in a hundred thousand times.
    let clients: Vec<_> = (0..72).map(|_| parted.world.browser()).filter(|client| client.server() == "a").collect();
    assert_eq!(clients.len(), 18, "new clients are balanced");
    let at = |client: &Browser, proxy: usize| client.copy_at(&proxies[proxy].address);
    parted.part();
    let mut settled = Vec::new();
    for client in clients {
        let answered = both(|proxy| {
            let copy = at(&client, proxy);
            copy.server();
            copy
        });
        // The client goes on with the token of either answer.
        let [one, _] = answered;
        let next = at(&one, 0);
        let server = next.server();
        assert!(["c", "d"].contains(&&*server), "{server}");
        for proxy in [1, 0, 1] {
            assert_eq!(at(&next, proxy).server(), server, "settled");
        }
        settled.push(server);
    }
    assert_eq!(settled.iter().collect::<BTreeSet<_>>().len(), 2, "they spread over those that are left: {settled:?}");
    assert_kept(&store, &settled);
}
