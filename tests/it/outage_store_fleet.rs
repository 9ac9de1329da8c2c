//! Proxies that share a store, as the files `outage_store_*` have them: each may reach it another way, and so may be parted
//! from it alone.

use std::time::{Duration, Instant};

use crate::world::app::answers::saying;
use crate::world::client::{get_with, request_with};
use crate::world::proxy::Launch;
use crate::world::{Conf, Environment, PATIENCE, Proxy, Signal, World, eventually};

pub(crate) const OPERATIONS: &str = "homing_store_operations_total";
pub(crate) const PENDING: &str = "homing_store_pending_writes";
pub(crate) const UP: &str = "homing_store_up";
pub(crate) const LOOKUPS: &str = "homing_session_lookups_total";
pub(crate) const MOVES: &str = "homing_session_moves_total";

/// Some proxies with the same servers and keys.
#[derive(Debug)]
pub(crate) struct Fleet {
    proxies: Vec<Option<Proxy>>,
    launches: Vec<Launch>,
    pub(crate) environment: Environment,
}

impl Fleet {
    /// A proxy for each of these entries of `store`, connected to it.
    #[track_caller]
    pub(crate) fn start(conf: &Conf, entries: &[String]) -> Self {
        let confs: Vec<_> = entries.iter().map(|entry| conf.clone().store(entry)).collect();
        Self::of(&confs)
    }

    /// A proxy for each of these configurations, which name the same servers, connected to the store.
    #[track_caller]
    pub(crate) fn of(confs: &[Conf]) -> Self {
        let fleet = Self::among(&confs[0], |_| confs.to_vec());
        fleet.wait_for_store(true);
        fleet
    }

    /// One proxy, while its store is away.
    pub(crate) fn without_store(conf: &Conf, entry: &str) -> Self {
        Self::among(conf, |_| vec![conf.clone().store(entry)])
    }

    /// The same, when the servers of `conf` must be there before.
    pub(crate) fn among(conf: &Conf, confs: impl FnOnce(&Environment) -> Vec<Conf>) -> Self {
        let mut environment = World::builder(conf).without_proxy();
        let confs = confs(&environment).into_iter().enumerate();
        let launches: Vec<_> = confs
            .map(|(number, conf)| {
                environment.rewrite(conf.top(&format!("proxy: {{ node: edge-{number} }}")));
                environment.launch(&format!("-{number}"))
            })
            .collect();
        let proxies = launches.iter().map(|launch| Some(Proxy::start(launch, environment.directory()))).collect();
        Self { proxies, launches, environment }
    }

    pub(crate) fn proxy(&self, number: usize) -> &Proxy {
        self.proxies[number].as_ref().expect("it runs")
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Proxy> {
        self.proxies.iter().flatten()
    }

    /// TERM, or KILL; and its end.
    #[track_caller]
    pub(crate) fn end(&mut self, number: usize, signal: Signal) -> String {
        let proxy = self.proxies[number].take().expect("it runs");
        proxy.signal(signal);
        proxy.wait_for_exit(PATIENCE);
        proxy.log()
    }

    pub(crate) fn start_again(&mut self, number: usize) {
        self.proxies[number] = Some(Proxy::start(&self.launches[number], self.environment.directory()));
    }

    /// Waits until all proxies find the store there (1) or not (0).
    #[track_caller]
    pub(crate) fn wait_for_store(&self, up: bool) {
        self.all().for_each(|proxy| store_is(proxy, up));
    }

    /// Waits until no proxy has anything to tell the store.
    #[track_caller]
    pub(crate) fn wait_until_written(&self) {
        eventually(PATIENCE, "the store is told all", || self.all().all(|proxy| proxy.metric(PENDING, &[]) < 0.5));
    }

    /// Asserts that no session has moved on any proxy.
    #[track_caller]
    pub(crate) fn expect_no_moves(&self) {
        self.all().for_each(|proxy| proxy.expect_metric(MOVES, &[], 0.0));
    }
}

#[track_caller]
pub(crate) fn store_is(proxy: &Proxy, up: bool) {
    let what = if up { "the store is there" } else { "the store is away" };
    eventually(PATIENCE, what, || (proxy.metric(UP, &[]) > 0.5) == up);
}

/// How often the store was asked so, with that result.
#[track_caller]
pub(crate) fn asked(proxy: &Proxy, operation: &str, result: &str) -> f64 {
    proxy.metric(OPERATIONS, &[("op", operation), ("result", result)])
}

/// Sessions by token, and by ids of the application, which DELETE ends.
pub(crate) fn learning(servers: &str) -> Conf {
    Conf::servers(servers).persistence("sources: [{ cookie: {} }, { learn: { cookie: SID, ends_on: [DELETE] } }]")
}

/// A session of that id begins; its server.
#[track_caller]
pub(crate) fn begin(proxy: &Proxy, id: &str) -> String {
    get_with(&proxy.address, &saying(200, &[&format!("Set-Cookie: SID={id}; Path=/")]), &[]).server()
}

/// The server of the session of that id, which has no token.
#[track_caller]
pub(crate) fn server(proxy: &Proxy, id: &str) -> String {
    get_with(&proxy.address, "/plain", &[("Cookie", &format!("SID={id}"))]).expect(200).text()
}

/// Its server lets the session of that id end.
#[track_caller]
pub(crate) fn end(proxy: &Proxy, id: &str) {
    request_with(&proxy.address, "DELETE", "/plain", &[("Cookie", &format!("SID={id}"))]).expect(200);
}

pub(crate) fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}
