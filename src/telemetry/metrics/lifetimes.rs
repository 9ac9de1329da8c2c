//! How long series live: those of a pool, server, route or listener that the configuration does not have any more are removed
//! after a grace, so that neither memory nor scrapes grow with reloads.
//!
//! A series belongs to what its labels name. Requests that began before a reload may count for something that is gone, and
//! sessions of a removed pool end later; such counts never create a series again.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::proto::Metric;

use super::labels::{ANY_SERVER, NO_POOL};
use super::server_pairs::{OTHER_SERVER, ServerPairs};

/// How long the series of something that is gone are still shown: for several scrapes, so that Prometheus has the last values.
/// With the pause between two looks ([`LOOK_INTERVAL`]) less than the five minutes that are promised.
pub const GRACE: Duration = Duration::from_secs(4 * 60);
/// Servers that are gone and still have series, at most; more if more are in use. The first to go lose theirs earlier: a server has
/// some 70 series, and reloads that replace thousands of servers may follow one another within the grace.
const MAX_GONE: usize = 1000;
/// Series that are looked at under one lock: some tenths of a millisecond.
const AT_A_TIME: usize = 256;
/// How often the process compares the configuration with the series.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(15);

/// Labels `from` and `to` of servers whose series are removed.
const FORMER_SERVER: &str = "unknown";

/// Labels that name something that a reload may remove. `from` and `to` are servers.
const LABELS: &[&str] = &["pool", "from", "to", "route", "listener"];

/// All that a configuration names.
#[derive(Debug, Default)]
pub struct InUse<'a> {
    /// Pools with their servers.
    pub pools: HashMap<&'a str, HashSet<&'a str>>,
    /// Routes.
    pub routes: HashSet<&'a str>,
    /// Listeners.
    pub listeners: HashSet<String>,
}

/// What has series: a name, and since when it is not in use, if it is not.
type Named = HashMap<Box<str>, Option<Instant>>;

#[derive(Default)]
struct Known {
    /// Pools, and the servers of each.
    pools: HashMap<Box<str>, (Option<Instant>, Named)>,
    routes: Named,
    listeners: Named,
}

/// All that has series. Locked for writing by reloads and the removal, for reading by counters that are looked up by name.
#[derive(Default)]
pub(super) struct Lifetimes {
    known: RwLock<Known>,
    pairs: ServerPairs,
    /// As many references to it as configurations are being built.
    building: Arc<()>,
}

/// A configuration is being built: what only it has is not taken for gone.
pub struct SeriesHold {
    _building: Arc<()>,
}

/// Something of which series are made.
#[derive(Clone, Copy)]
pub(super) enum Subject<'a> {
    Pool(&'a str),
    Server(&'a str, &'a str),
    Route(&'a str),
    Listener(&'a str),
}

impl Lifetimes {
    /// Makes series of something that is in use from now on. They are not removed meanwhile.
    pub(super) fn begin<T>(&self, subject: Subject<'_>, make: impl FnOnce() -> T) -> T {
        let mut known = self.known.write();
        match subject {
            Subject::Pool(pool) => known.pool(pool).0 = None,
            Subject::Server(pool, server) => drop(known.pool(pool).1.insert(server.into(), None)),
            Subject::Route(route) => drop(known.routes.insert(route.into(), None)),
            Subject::Listener(listener) => drop(known.listeners.insert(listener.into(), None)),
        }
        make()
    }

    /// Counts for something, unless its series are removed.
    pub(super) fn count<T>(&self, subject: Subject<'_>, count: impl FnOnce() -> T) -> Option<T> {
        // Until the count is done, so that it creates no series while they are removed.
        let known = self.known.read();
        known.has(subject).then(count)
    }

    /// Counts for a pool and two of its servers, where `unknown` stands for one whose series are removed, and `other` for the
    /// second when the pool has too many pairs.
    pub(super) fn count_servers(&self, pool: &str, servers: [&str; 2], count: impl FnOnce([&str; 2])) {
        let known = self.known.read();
        if known.has(Subject::Pool(pool)) {
            let servers = servers.map(|server| if known.has_server(pool, server) { server } else { FORMER_SERVER });
            count(self.pairs.limit(pool, servers));
        }
    }

    /// Until it is dropped, nothing is taken for gone.
    pub(super) fn hold(&self) -> SeriesHold {
        SeriesHold { _building: Arc::clone(&self.building) }
    }

    /// Notes what is in use; returns whether something has not been for the grace.
    pub(super) fn observe(&self, in_use: &InUse<'_>, now: Instant) -> bool {
        if Arc::strong_count(&self.building) > 1 {
            return false;
        }
        let mut known = self.known.write();
        let known = &mut *known;
        for (pool, (since, servers)) in &mut known.pools {
            let used = in_use.pools.get(&**pool);
            note(since, used.is_some(), now);
            note_all(servers, |server| used.is_some_and(|used| used.contains(server)), now);
        }
        let servers_in_use = in_use.pools.values().map(HashSet::len).sum();
        known.limit_gone(MAX_GONE.max(servers_in_use), now);
        note_all(&mut known.routes, |route| in_use.routes.contains(route), now);
        note_all(&mut known.listeners, |listener| in_use.listeners.contains(listener), now);
        let of_pools = known.pools.values().flat_map(|(since, servers)| servers.values().chain([since]));
        of_pools.chain(known.routes.values()).chain(known.listeners.values()).any(|since| is_over(*since, now))
    }

    /// Forgets what has not been in use for the grace, and removes its series. Nothing waits for the whole of it: the lock is held
    /// for names, then for some series at a time.
    pub(super) fn remove(&self, families: &Families, now: Instant) {
        self.forget(now);
        for family in &families.0 {
            for part in family.series().chunks(AT_A_TIME) {
                let known = self.known.read();
                for series in part.iter().filter(|series| !known.has_all(series)) {
                    let labels = series.get_label().iter().map(|label| (label.name(), label.value())).collect();
                    family.remove(&labels);
                }
            }
        }
    }

    /// Says of servers, by pool and name, whether they have series.
    pub(super) fn with_servers(&self, read: impl FnOnce(&dyn Fn(&str, &str) -> bool)) {
        let known = self.known.read();
        read(&|pool, server| known.has_server(pool, server));
    }

    fn forget(&self, now: Instant) {
        let mut known = self.known.write();
        known.pools.retain(|_, (since, servers)| {
            servers.retain(|_, since| !is_over(*since, now));
            !is_over(*since, now)
        });
        known.routes.retain(|_, since| !is_over(*since, now));
        known.listeners.retain(|_, since| !is_over(*since, now));
        // What the maps had room for goes, too.
        known.pools.shrink_to_fit();
        known.pools.values_mut().for_each(|(_, servers)| servers.shrink_to_fit());
        self.pairs.retain(|pool, server| known.has_server(pool, server));
    }
}

/// Starts or stops the clock of one name.
fn note(since: &mut Option<Instant>, is_used: bool, now: Instant) {
    *since = if is_used { None } else { Some(since.unwrap_or(now)) };
}

fn note_all(named: &mut Named, is_used: impl Fn(&str) -> bool, now: Instant) {
    for (name, since) in named {
        note(since, is_used(name), now);
    }
}

fn is_over(since: Option<Instant>, now: Instant) -> bool {
    since.is_some_and(|since| now.saturating_duration_since(since) >= GRACE)
}

impl Known {
    /// Ends the grace of the servers that were the first to go, when there are more than that.
    fn limit_gone(&mut self, most: usize, now: Instant) {
        let clocks = self.pools.values_mut().flat_map(|(_, servers)| servers.values_mut());
        let mut gone: Vec<&mut Option<Instant>> = clocks.filter(|since| since.is_some()).collect();
        let surplus = gone.len().saturating_sub(most);
        if surplus > 0 {
            gone.sort_unstable_by_key(|since| **since);
            gone.into_iter().take(surplus).for_each(|since| *since = now.checked_sub(GRACE).or(*since));
        }
    }

    fn pool(&mut self, name: &str) -> &mut (Option<Instant>, Named) {
        self.pools.entry(name.into()).or_default()
    }

    fn has(&self, subject: Subject<'_>) -> bool {
        match subject {
            Subject::Pool(pool) => pool == NO_POOL || self.pools.contains_key(pool),
            Subject::Server(pool, server) => self.has_server(pool, server),
            Subject::Route(route) => self.routes.contains_key(route),
            Subject::Listener(listener) => self.listeners.contains_key(listener),
        }
    }

    /// A session may move to a server of another pool, which is written `pool/server`.
    fn has_server(&self, pool: &str, server: &str) -> bool {
        let of_pool = |pool: &str, server: &str| self.pools.get(pool).is_some_and(|pool| pool.1.contains_key(server));
        server == ANY_SERVER
            || server == FORMER_SERVER
            || server == OTHER_SERVER
            || of_pool(pool, server)
            || server.split_once('/').is_some_and(|(pool, server)| of_pool(pool, server))
    }

    /// Whether all that the labels of a series name is known.
    fn has_all(&self, series: &Metric) -> bool {
        let labels = series.get_label();
        let pool = labels.iter().find(|label| label.name() == "pool").map_or(NO_POOL, |label| label.value());
        labels.iter().all(|label| match label.name() {
            "pool" => self.has(Subject::Pool(label.value())),
            "from" | "to" => self.has(Subject::Server(pool, label.value())),
            "route" => self.has(Subject::Route(label.value())),
            "listener" => self.has(Subject::Listener(label.value())),
            _ => true,
        })
    }
}

/// A metric with labels.
trait Family: Send + Sync {
    fn series(&self) -> Vec<Metric>;
    fn remove(&self, labels: &HashMap<&str, &str>);
}

impl<T: MetricVecBuilder> Family for MetricVec<T> {
    fn series(&self) -> Vec<Metric> {
        self.collect().into_iter().flat_map(|mut family| family.take_metric()).collect()
    }

    fn remove(&self, labels: &HashMap<&str, &str>) {
        // An error means that another removed it.
        drop(Self::remove(self, labels));
    }
}

/// The metrics whose labels name something that a reload may remove.
#[derive(Default)]
pub(super) struct Families(Vec<Box<dyn Family>>);

/// Collects the families while metrics are declared.
#[derive(Default)]
pub(super) struct FamilyList(RefCell<Families>);

impl FamilyList {
    pub(super) fn add<T: MetricVecBuilder + 'static>(&self, family: &MetricVec<T>, labels: &[&str]) {
        if labels.iter().any(|label| LABELS.contains(label)) {
            self.0.borrow_mut().0.push(Box::new(family.clone()));
        }
    }

    pub(super) fn finish(self) -> Families {
        self.0.into_inner()
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::busy;
    use super::*;

    fn retain(metrics: &Metrics, in_use: &InUse<'_>, now: Instant) {
        if metrics.note_in_use(in_use, now) {
            metrics.remove_unused(now);
        }
    }
    use crate::telemetry::metrics::{Metrics, TableReading};

    const TABLE: TableReading = TableReading { entries: 0, capacity: 0, bytes: 0, handoff_bytes: 0 };

    fn text(metrics: &Metrics) -> String {
        String::from_utf8(metrics.render(&TABLE, std::iter::empty(), std::iter::empty()).unwrap()).unwrap()
    }

    fn in_use<'a>(pools: &[(&'a str, &[&'a str])], routes: &[&'a str], listeners: &[&str]) -> InUse<'a> {
        InUse {
            pools: pools.iter().map(|(pool, servers)| (*pool, servers.iter().copied().collect())).collect(),
            routes: routes.iter().copied().collect(),
            listeners: listeners.iter().map(|listener| (*listener).to_owned()).collect(),
        }
    }

    #[test]
    fn series_of_what_is_gone_are_shown_for_the_grace_and_then_vanish() {
        let (metrics, start) = (busy(), Instant::now());
        let all = text(&metrics);
        for one in ["server=\"b\"", "from=\"b\"", "\"old\"", "\"z\"", "\"gone\"", "127.0.0.1:2"] {
            assert!(all.contains(one), "{one}: {all}");
        }
        let before =
            in_use(&[("web", &["a", "b"]), ("old", &["z"])], &["shop", "gone"], &["127.0.0.1:1", "127.0.0.1:2"]);
        retain(&metrics, &before, start);
        let left = in_use(&[("web", &["a"])], &["shop"], &["127.0.0.1:1"]);
        let removed = start + Duration::from_secs(60);
        retain(&metrics, &left, removed);
        retain(&metrics, &left, removed + (GRACE / 10) * 9);
        assert!(text(&metrics).contains("server=\"b\""), "still within the grace");
        retain(&metrics, &left, removed + GRACE);
        let rest = text(&metrics);
        for gone in ["\"b\"", "\"old\"", "\"z\"", "\"gone\"", "127.0.0.1:2"] {
            assert!(!rest.contains(gone), "{gone}: {rest}");
        }
        let of_a = |line: &&str| line.contains("server=\"a\"");
        assert_eq!(all.lines().filter(of_a).count(), rest.lines().filter(of_a).count(), "{rest}");
        for kept in [
            r#"homing_requests_total{code="200",pool="web"} 1"#,
            r#"homing_route_requests_total{code="200",route="shop"} 1"#,
            r#"homing_requests_rejected_total{reason="method"} 1"#,
            r#"homing_request_duration_seconds_count{pool="-"} 0"#,
        ] {
            assert!(rest.contains(kept), "{kept}: {rest}");
        }
    }

    #[test]
    fn of_very_many_servers_that_are_gone_the_first_lose_their_series_at_once() {
        let (metrics, start) = (Metrics::new().unwrap(), Instant::now());
        let count = |generation: &str| text(&metrics).lines().filter(|line| line.contains(generation)).count();
        metrics.pool("web", &[]);
        for generation in 0..4_u32 {
            let names: Vec<String> = (0..600).map(|server| format!("g{generation}-{server}")).collect();
            for name in &names {
                drop(metrics.server("web", name));
            }
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            retain(&metrics, &in_use(&[("web", &names)], &[], &[]), start + Duration::from_secs(generation.into()));
        }
        let whole = count("\"g3-");
        assert!(whole > 600, "{whole}");
        assert_eq!((count("\"g2-"), count("\"g0-")), (whole, 0));
        assert_eq!(count("\"g1-"), whole / 600 * (MAX_GONE - 600));
    }

    #[test]
    fn what_returns_within_the_grace_counts_on_and_what_returns_later_begins_at_zero() {
        let (metrics, start) = (busy(), Instant::now());
        let (with, without) = (in_use(&[("web", &["a", "b"])], &[], &[]), in_use(&[("web", &["a"])], &[], &[]));
        let count = |metrics: &Metrics| {
            metrics.server("web", "b").response(200, None);
            let text = text(metrics);
            let line = text.lines().find(|line| line.contains(r#"class="2xx",pool="web",server="b""#)).unwrap();
            line.rsplit(' ').next().unwrap().to_owned()
        };
        retain(&metrics, &without, start);
        retain(&metrics, &with, start + GRACE / 2);
        retain(&metrics, &with, start + GRACE * 2);
        assert_eq!(count(&metrics), "2");
        retain(&metrics, &without, start + GRACE * 3);
        // A reload that takes it back builds it before it is in effect.
        metrics.server("web", "b");
        retain(&metrics, &without, start + GRACE * 4);
        assert_eq!(count(&metrics), "3", "its clock began again");
        retain(&metrics, &without, start + GRACE * 5);
        retain(&metrics, &without, start + GRACE * 6);
        assert_eq!(count(&metrics), "1");
    }

    #[test]
    fn a_late_count_for_something_that_is_gone_creates_no_series() {
        let (metrics, start) = (busy(), Instant::now());
        let (old, web, route) = (metrics.pool("old", &[]), metrics.pool("web", &[]), metrics.route("gone"));
        let left = in_use(&[("web", &["a"])], &[], &[]);
        retain(&metrics, &left, start);
        retain(&metrics, &left, start + GRACE);
        old.request(503, Duration::ZERO);
        old.server_moves.inc("z", "z");
        route.request(503);
        metrics.session_ended("old", 0);
        metrics.handoff_evicted("old");
        web.server_moves.inc("b", "a");
        web.server_moves.inc("a", "old/z");
        let text = text(&metrics);
        for gone in ["\"old\"", "\"gone\"", "old/z", "\"b\""] {
            assert!(!text.contains(gone), "{gone}: {text}");
        }
        assert!(text.contains(r#"homing_server_moves_total{from="unknown",pool="web",to="a"} 1"#), "{text}");
        assert!(text.contains(r#"homing_server_moves_total{from="a",pool="web",to="unknown"} 1"#), "{text}");
    }

    #[test]
    fn what_a_configuration_has_that_is_being_built_is_not_gone() {
        let (metrics, start) = (busy(), Instant::now());
        let building = metrics.hold_series();
        retain(&metrics, &InUse::default(), start);
        retain(&metrics, &InUse::default(), start + GRACE * 2);
        drop(building);
        assert!(!metrics.note_in_use(&InUse::default(), start + GRACE * 3), "its time begins now");
        assert!(metrics.note_in_use(&InUse::default(), start + GRACE * 4));
    }
}
