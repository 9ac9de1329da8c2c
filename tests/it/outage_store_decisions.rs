//! What proxies decide while the store is away is kept, and comes together by epoch when it is back.

use std::collections::BTreeSet;

use crate::outage_store_fleet::{Fleet, MOVES, PENDING, asked, begin, end, learning, server, store_is};
use crate::world::link::Link;
use crate::world::stores::{Engine, Store};
use crate::world::{Browser, Conf, PATIENCE, Proxy, eventually};

/// The store is cut off here and never hangs, so no request waits for so long; a busy machine may take a second.
const TIMEOUT: &str = "timeout: 5s";

/// Three proxies, each with a link of its own to the store.
fn linked(conf: &Conf, store: &Store) -> (Fleet, Vec<Link>) {
    let links: Vec<_> = (0..3).map(|_| Link::to(store.address())).collect();
    let entries: Vec<_> = links.iter().map(|link| store.entry_at(link.address())).collect();
    (Fleet::start(conf, &entries), links)
}

/// The servers to which the proxies bring that id: one, if they agree.
fn servers(fleet: &Fleet, id: &str) -> BTreeSet<String> {
    fleet.all().map(|proxy| server(proxy, id)).collect()
}

#[test]
fn decisions_made_without_the_store_are_written_when_it_is_back() {
    Engine::each(|engine| {
        let store = Store::start(engine);
        let (fleet, links) = linked(&learning("a b c d").store(TIMEOUT), &store);
        let home = begin(fleet.proxy(0), "moves");
        let others: Vec<_> = (0..6).map(|n| format!("stays-{n}")).collect();
        let homes: Vec<_> = others.iter().map(|id| begin(fleet.proxy(1), id)).collect();
        begin(fleet.proxy(2), "ends");
        for id in others.iter().map(String::as_str).chain(["moves", "ends"]) {
            assert_eq!(servers(&fleet, id).len(), 1, "all know {id}");
        }
        assert_eq!(store.records().len(), 8);

        links.iter().for_each(Link::cut);
        fleet.wait_for_store(false);
        end(fleet.proxy(2), "ends");
        let new = begin(fleet.proxy(1), "new");
        fleet.environment.app(&home).kill();
        for proxy in fleet.all() {
            // A reset of a reused connection is transient and moves no session.
            eventually(PATIENCE, "it moves", || {
                server(proxy, "moves");
                proxy.metric(MOVES, &[]) > 0.5
            });
        }
        let next = servers(&fleet, "moves");
        assert!(next.len() == 1 && !next.contains(&home), "all move it to one server: {next:?}, it was on {home}");
        for (proxy, least) in fleet.all().zip([1.0, 2.0, 2.0]) {
            let pending = proxy.metric(PENDING, &[]);
            assert!(pending >= least, "what was decided waits: {pending}");
        }

        links.iter().for_each(Link::heal);
        fleet.wait_until_written();
        fleet.wait_for_store(true);
        let records = store.records();
        assert_eq!(records.len(), 9, "{records:?}");
        let next = next.first().expect("one").clone();
        let of_epoch = |epoch: u32| records.values().filter(move |record| record.0 == epoch).map(|record| &record.1);
        assert_eq!(of_epoch(1).collect::<BTreeSet<_>>(), BTreeSet::from([&"-".to_owned(), &next]), "{records:?}");
        assert_eq!(of_epoch(1).count(), 2, "one has moved, one has ended, and nothing else happened: {records:?}");
        assert_eq!(of_epoch(0).filter(|server| **server == new).count(), {
            homes.iter().filter(|home| **home == new).count() + 1
        });
        eventually(PATIENCE, "all know what began", || servers(&fleet, "new") == BTreeSet::from([new.clone()]));
        assert_eq!(servers(&fleet, "moves"), BTreeSet::from([next]), "all agree on what moved");
        eventually(PATIENCE, "that a session has ended is known to all", || {
            fleet.all().all(|proxy| {
                proxy.metric("homing_session_lookups_total", &[("source", "learn"), ("result", "ended")]) > 0.5 || {
                    server(proxy, "ends");
                    false
                }
            })
        });
        for (id, home) in others.iter().zip(homes).filter(|(_, of)| **of != home) {
            assert_eq!(servers(&fleet, id), BTreeSet::from([home]), "{id} has not moved");
        }
    });
}

const SERVERS: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Three proxies. The first two lose the store, and the second finds other servers dead than the first.
struct Parted {
    fleet: Fleet,
    to_store: Vec<Link>,
    /// The second proxy's, in the order of [`SERVERS`].
    to_servers: Vec<Link>,
    // Last, so that it is there as long as they are.
    store: Store,
}

impl Parted {
    fn start(engine: Engine, source: &str) -> Self {
        let store = Store::start(engine);
        let to_store: Vec<_> = (0..2).map(|_| Link::to(store.address())).collect();
        let conf = Conf::servers(&SERVERS.join(" "))
            .persistence(&format!("sources: [{source}]"))
            .pool("retries: { attempts: 5, budget_percent: 100 }")
            .store(TIMEOUT);
        let mut to_servers = Vec::new();
        let fleet = Fleet::among(&conf, |environment| {
            to_servers = SERVERS.map(|name| Link::to(environment.app(name).socket_address())).into();
            let places = SERVERS.iter().zip(&to_servers);
            let linked =
                places.fold(conf.clone(), |conf, (name, link)| conf.address(name, &link.address().to_string()));
            let at = |link: &Link| store.entry_at(link.address());
            vec![
                conf.clone().store(&at(&to_store[0])),
                linked.store(&at(&to_store[1])),
                conf.clone().store(&store.entry()),
            ]
        });
        fleet.wait_for_store(true);
        Self { fleet, to_store, to_servers, store }
    }

    fn disconnect_store(&self) {
        self.to_store.iter().for_each(Link::cut);
        (0..2).for_each(|number| store_is(self.fleet.proxy(number), false));
    }

    /// One after the other: what the first has to tell stands.
    fn reconnect_store(&self, order: [usize; 2]) {
        for number in order {
            self.to_store[number].heal();
            store_is(self.fleet.proxy(number), true);
            let proxy = self.fleet.proxy(number);
            eventually(PATIENCE, "the store is told all", || proxy.metric(PENDING, &[]) < 0.5);
        }
    }

    /// Both proxies move a session of a dead server: first the first proxy, then the second one to another server, since it does
    /// not reach the first one's choice.
    fn move_on_both_proxies(&self, home: &str, ask: [&dyn Fn() -> String; 2]) -> [String; 2] {
        let moved = |number: usize| {
            let mut server = String::new();
            // A reset of a reused connection is transient and moves no session.
            eventually(PATIENCE, "the session moves, and a write is pending", || {
                server = ask[number]();
                self.fleet.proxy(number).metric(PENDING, &[]) > 0.5
            });
            server
        };
        let first = moved(0);
        // A link takes connections for a server that does not.
        let links =
            [home, &first].map(|name| SERVERS.iter().zip(&self.to_servers).find(|(server, _)| **server == name));
        links.iter().flatten().for_each(|(_, link)| link.cut());
        let second = moved(1);
        assert!(first != home && second != home && first != second, "from {home} to {first} and {second}");
        links.iter().flatten().for_each(|(_, link)| link.heal());
        [first, second]
    }
}

#[test]
fn two_proxies_that_moved_one_learned_session_apart_end_with_one_record() {
    Engine::each(|engine| {
        let parted = Parted::start(engine, "{ learn: { cookie: SID } }");
        let ids = ["one", "two"];
        let [here, there] = [0, 1].map(|number| parted.fleet.proxy(number));
        let homes = ids.map(|id| begin(here, id));
        for order in [[0, 1], [1, 0]] {
            let (id, home) = (ids[order[0]], &homes[order[0]]);
            assert_eq!(&server(there, id), home);
            parted.disconnect_store();
            parted.fleet.environment.app(home).kill();
            let chosen = parted.move_on_both_proxies(home, [&|| server(here, id), &|| server(there, id)]);
            parted.reconnect_store(order);
            let stands = chosen[order[0]].clone();
            assert_eq!(servers(&parted.fleet, id), BTreeSet::from([stands.clone()]), "the first to tell has it");
            let moved: Vec<_> = parted.store.records().into_values().filter(|record| record.0 > 0).collect();
            assert!(moved.contains(&(1, stands)), "{moved:?}");
            assert_eq!(moved.len(), order[0] + 1, "one record of each: {moved:?}");
            assert_eq!(asked(parted.fleet.proxy(order[1]), "move", "lost"), 1.0, "the second hears of the first");
            parted.fleet.environment.app(home).start();
        }
    });
}

/// A client that comes to this proxy with what it has.
fn at(client: &Browser, proxy: &Proxy) -> Browser {
    client.copy_at(&proxy.address)
}

#[test]
fn a_client_with_a_token_is_settled_within_one_more_request_after_two_proxies_moved_it_apart() {
    Engine::each(|engine| {
        for (order, token_of) in [([0, 1], 0), ([0, 1], 1)] {
            let parted = Parted::start(engine, "{ cookie: {} }");
            let [here, there] = [0, 1].map(|number| parted.fleet.proxy(number));
            let client = here.browser();
            let home = client.server();
            assert_eq!(at(&client, here).server(), home);
            assert_eq!(at(&client, there).server(), home);
            parted.disconnect_store();
            parted.fleet.environment.app(&home).kill();
            let clients = [at(&client, here), at(&client, there)];
            parted.move_on_both_proxies(&home, [&|| clients[0].server(), &|| clients[1].server()]);
            parted.reconnect_store(order);
            let mut client = at(&clients[token_of], here);
            client.server();
            let mut settled = BTreeSet::new();
            for proxy in [1, 2, 0, 1, 2, 0].map(|number| parted.fleet.proxy(number)) {
                client = at(&client, proxy);
                settled.insert(client.server());
            }
            assert_eq!(settled.len(), 1, "one server, on all of them, with the token of proxy {token_of}: {settled:?}");
            let records = parted.store.records();
            let stands = records.values().map(|record| &record.1).collect::<BTreeSet<_>>();
            assert_eq!((records.len(), stands), (1, settled.iter().collect()), "{records:?}");
        }
    });
}
