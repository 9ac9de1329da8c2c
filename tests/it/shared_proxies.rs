//! Three proxies, one store: what the tests of a shared store have in common, and that a session is at home at all of them.

use std::collections::BTreeSet;

use crate::world::app::answers::saying;
use crate::world::client::{get_with, request_with};
use crate::world::stores::{Engine, Store};
use crate::world::{Conf, PATIENCE, Proxy, Response, World, at_once, eventually};

pub(crate) const OPERATIONS: &str = "homing_store_operations_total";
pub(crate) const LOOKUPS: &str = "homing_session_lookups_total";
pub(crate) const MOVES: &str = "homing_session_moves_total";

/// Runs functions that take an [`Engine`] as tests, once with each.
macro_rules! with_every_store {
    ($($name:ident)*) => { $(
        mod $name {
            use crate::world::stores::Engine;

            #[test]
            fn redis() {
                super::$name(Engine::Redis);
            }

            #[test]
            fn valkey() {
                super::$name(Engine::Valkey);
            }

            #[test]
            fn memcached() {
                super::$name(Engine::Memcached);
            }

            #[test]
            fn hazelcast() {
                if Engine::Hazelcast.is_here() {
                    super::$name(Engine::Hazelcast);
                }
            }

            #[test]
            fn ignite() {
                if Engine::Ignite.is_here() {
                    super::$name(Engine::Ignite);
                }
            }
        }
    )* };
}
pub(crate) use with_every_store;

/// Several proxies before the same servers, with the same file.
#[derive(Debug)]
pub(crate) struct Edge {
    pub(crate) world: World,
    pub(crate) others: Vec<Proxy>,
}

/// More proxies than the first.
const OTHERS: [&str; 2] = ["-2", "-3"];

impl Drop for Edge {
    /// What the proxies asked of the store.
    fn drop(&mut self) {
        if std::thread::panicking() {
            for proxy in self.proxies() {
                let metrics = proxy.metrics().text;
                let told = |line: &&str| line.starts_with(OPERATIONS) && !line.ends_with(" 0");
                eprintln!("{}", metrics.lines().filter(told).collect::<Vec<_>>().join("\n"));
            }
        }
    }
}

impl Edge {
    /// Three of them, connected to the store of that entry.
    pub(crate) fn start(entry: &str, conf: Conf) -> Self {
        let edge = Self::start_without_store(entry, conf);
        edge.wait_for_store();
        edge
    }

    /// Three of them, with the entry of a store that may be out of reach.
    pub(crate) fn start_without_store(entry: &str, conf: Conf) -> Self {
        let mut world = World::start(sharing(entry, conf));
        let others = OTHERS.iter().map(|suffix| world.another_proxy(suffix)).collect();
        Self { world, others }
    }

    pub(crate) fn proxies(&self) -> [&Proxy; 3] {
        [&*self.world, &self.others[0], &self.others[1]]
    }

    /// A proxy that starts does not wait long for its store, and decides without it until it is connected.
    #[track_caller]
    fn wait_for_store(&self) {
        for proxy in self.proxies() {
            eventually(PATIENCE, "the store is connected", || proxy.metric("homing_store_up", &[]) > 0.5);
        }
    }

    /// The proxy of that number, 0 to 2, ends and a new one takes its place, connected to the store.
    pub(crate) fn restart(&mut self, number: usize) {
        match number.checked_sub(1) {
            None => self.world.restart_proxy(),
            Some(other) => {
                self.others[other].stop();
                self.others[other] = self.world.another_proxy(OTHERS[other]);
            }
        }
        self.wait_for_store();
    }

    /// Puts another configuration into force at all of them.
    #[track_caller]
    pub(crate) fn reload(&mut self, conf: Conf) {
        self.world.reload(conf);
        for (other, suffix) in self.others.iter().zip(OTHERS) {
            let text = self.world.environment.render_for(suffix);
            other.reload(&text);
        }
    }

    /// The sum of a metric over all proxies.
    pub(crate) fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.proxies().iter().map(|proxy| proxy.metric(name, labels)).sum()
    }
}

/// With a store of that entry, which is waited for: where many tests share two cores, any process may stand still for a
/// moment, and what happens then is for other tests.
pub(crate) fn sharing(entry: &str, conf: Conf) -> Conf {
    conf.store(entry).store("timeout: 5s")
}

/// Learns the cookie `SID` of the application and its header `Mcp-Session-Id`; DELETE ends a session of the latter.
pub(crate) fn learning(servers: &str) -> Conf {
    Conf::servers(servers)
        .persistence("sources: [{ learn: { cookie: SID } }, { learn: { header: Mcp-Session-Id, ends_on: [DELETE] } }]")
}

/// How an application names its sessions.
#[derive(Debug, Clone, Copy)]
pub(crate) enum By {
    Cookie,
    Header,
}

impl By {
    pub(crate) const BOTH: [Self; 2] = [Self::Cookie, Self::Header];

    /// The next server in turn hands this id out; its name.
    #[track_caller]
    pub(crate) fn begin(self, proxy: &Proxy, id: &str) -> String {
        get_with(&proxy.address, &self.handing_out(id), &[]).server()
    }

    /// The server of the test's choice hands it out, whatever its turn.
    #[track_caller]
    pub(crate) fn begin_at(self, proxy: &Proxy, server: &str, id: &str) {
        let target = format!("{}&only={server}", self.handing_out(id));
        eventually(PATIENCE, "its turn", || get_with(&proxy.address, &target, &[]).server() == server);
    }

    /// Which server a request with this id goes to. The answer hands out nothing.
    #[track_caller]
    pub(crate) fn server(self, proxy: &Proxy, id: &str) -> String {
        self.ask(proxy, "GET", "/plain", id).expect(200).text()
    }

    #[track_caller]
    pub(crate) fn ask(self, proxy: &Proxy, method: &str, target: &str, id: &str) -> Response {
        match self {
            Self::Cookie => request_with(&proxy.address, method, target, &[("Cookie", &format!("SID={id}"))]),
            Self::Header => request_with(&proxy.address, method, target, &[("Mcp-Session-Id", id)]),
        }
    }

    /// The target of a request that is answered with this id.
    pub(crate) fn handing_out(self, id: &str) -> String {
        match self {
            Self::Cookie => saying(200, &[&format!("Set-Cookie: SID={id}; Path=/")]),
            Self::Header => saying(200, &[&format!("Mcp-Session-Id: {id}")]),
        }
    }
}

/// Sessions that began at one proxy or another: how they are named, their ids and their servers.
pub(crate) type Sessions = Vec<(By, String, String)>;

/// So many sessions of both kinds, begun at the proxies in turn.
pub(crate) fn sessions(edge: &Edge, count: usize) -> Sessions {
    let begin = |n: usize| {
        let (by, id) = (By::BOTH[n % 2], format!("session-{n}"));
        let home = by.begin(edge.proxies()[n % 3], &id);
        (by, id, home)
    };
    (0..count).map(begin).collect()
}

/// Every session is at home at every proxy.
#[track_caller]
pub(crate) fn assert_on_their_servers(edge: &Edge, sessions: &Sessions) {
    for (number, proxy) in edge.proxies().into_iter().enumerate() {
        for (by, id, home) in sessions {
            assert_eq!(&by.server(proxy, id), home, "{id} at proxy {number}");
        }
    }
}

with_every_store! {
    a_learned_session_is_at_home_at_every_proxy_at_once
    no_session_strays_while_all_proxies_are_restarted
    parallel_first_requests_of_an_address_at_three_proxies_land_on_one_server
}

fn a_learned_session_is_at_home_at_every_proxy_at_once(engine: Engine) {
    let store = Store::start(engine);
    let edge = Edge::start(&store.entry(), learning("a b c"));
    for n in 0..12 {
        let (by, id) = (By::BOTH[n % 2], format!("session-{n}"));
        let home = by.begin(edge.proxies()[n % 3], &id);
        for other in [n + 1, n + 2, n + 1] {
            assert_eq!(by.server(edge.proxies()[other % 3], &id), home, "{id}");
        }
    }
    eventually(PATIENCE, "the store keeps all", || store.bindings().len() == 12);
    let homes: BTreeSet<_> = store.bindings().into_iter().map(|words| words[2].clone()).collect();
    assert_eq!(homes.len(), 3, "new sessions are balanced");
    assert_eq!(edge.metric(LOOKUPS, &[("result", "hit")]), 36.0);
    assert_eq!(edge.metric(MOVES, &[]), 0.0);
}

fn no_session_strays_while_all_proxies_are_restarted(engine: Engine) {
    let store = Store::start(engine);
    let mut edge = Edge::start(&store.entry(), learning("a b c"));
    let mut sessions = sessions(&edge, 12);
    for number in 0..3 {
        edge.restart(number);
        assert_eq!(edge.proxies()[number].metric("homing_table_entries", &[]), 0.0, "its table is lost");
        assert_on_their_servers(&edge, &sessions);
        let (by, id) = (By::Cookie, format!("later-{number}"));
        let home = by.begin(edge.proxies()[number], &id);
        sessions.push((by, id, home));
    }
    assert_on_their_servers(&edge, &sessions);
    assert_eq!(edge.metric(MOVES, &[]), 0.0);
    assert_eq!(edge.metric(LOOKUPS, &[("result", "unknown")]), 0.0);
    assert!(store.bindings().iter().all(|words| words[1] == "0"), "nothing moved: {:?}", store.bindings());
}

fn parallel_first_requests_of_an_address_at_three_proxies_land_on_one_server(engine: Engine) {
    let store = Store::start(engine);
    let conf = Conf::servers("a b c").listener("trusted_proxies: [127.0.0.0/8]");
    let conf = conf.persistence("sources: [{ client_ip: {} }]");
    let edge = Edge::start(&store.entry(), conf);
    let ask = |proxy: &Proxy, address: &str| {
        get_with(&proxy.address, "/plain", &[("X-Forwarded-For", address)]).expect(200).text()
    };
    let mut homes = BTreeSet::new();
    for n in 1..=8 {
        let address = format!("192.0.2.{n}");
        let turn = std::sync::atomic::AtomicUsize::new(0);
        let servers = at_once(if n == 1 { 100 } else { 12 }, || {
            let turn = turn.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            ask(edge.proxies()[turn % 3], &address)
        });
        assert_eq!(servers.len(), 1, "{address}: {servers:?}");
        let home = servers.first().expect("one").clone();
        for proxy in edge.proxies() {
            assert_eq!(ask(proxy, &address), home);
        }
        homes.insert(home);
    }
    assert!(homes.len() > 1, "addresses are spread: {homes:?}");
    eventually(PATIENCE, "the store keeps all", || store.bindings().len() == 8);
    assert!(store.bindings().iter().all(|words| words[1] == "0"), "the first writer won: {:?}", store.bindings());
    assert_eq!(edge.metric(MOVES, &[]), 0.0);
}
