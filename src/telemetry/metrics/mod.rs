//! Every metric, declared once: name, help, labels and the words that a label may take.
//!
//! A request must not look anything up by name, so each pool and each server gets its counters as handles when the
//! snapshot is built ([`PoolMetrics`], [`ServerMetrics`]) and a request only increments them by index. What can be read
//! from live state (sessions, health, requests in flight) is set when Prometheus asks, see [`Metrics::render`].

use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::{
    Encoder, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

pub use handles::{Counters, PoolMetrics, PoolRequests, RouteMetrics, ServerMetrics};
pub use store::{STORE_OPERATIONS, STORE_RESULTS, StoreMetrics, StoreOperation, StoreResult};
pub use table_snapshot::TableSnapshotMetrics;
pub use words::{
    CHECKS, ENDS, HANDOFFS, Handoff, LOOKUPS, MOVES, NO_POOL, OUTCOMES, REJECTIONS, RETRIES, Rejection, Retry, TOKENS,
    TokenReason, UPSTREAM_ERRORS, UpstreamError,
};

mod handles;
mod store;
mod table_snapshot;
mod words;

/// Why metrics could not be made or shown.
pub type RenderError = prometheus::Error;

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    duration: HistogramVec,
    route_requests: IntCounterVec,
    upstream_errors: IntCounterVec,
    retries: IntCounterVec,
    lookups: IntCounterVec,
    outcomes: IntCounterVec,
    moves: IntCounterVec,
    ended: IntCounterVec,
    tokens: IntCounterVec,
    handoffs: IntCounterVec,
    oversized_cookies: IntCounterVec,
    health_checks: IntCounterVec,
    /// Answers to requests that no pool took.
    pub no_pool: PoolRequests,
    /// Requests refused before any pool saw them.
    pub rejected: Counters,
    /// Panics caught on the way of a request.
    pub panics: IntCounter,
    /// Lines that the access log could not take.
    pub access_log_dropped: IntCounter,
    sessions: IntGaugeVec,
    table_entries: IntGauge,
    table_capacity: IntGauge,
    table_bytes: IntGauge,
    handoff_bytes: IntGauge,
    server_up: IntGaugeVec,
    server_state: IntGaugeVec,
    server_in_flight: IntGaugeVec,
    server_weight: GaugeVec,
    reloads: IntCounterVec,
    last_reload_success: IntGauge,
    config_info: IntGaugeVec,
    certificate_expiry: IntGaugeVec,
    /// The table on disk.
    pub table_snapshot: TableSnapshotMetrics,
    /// The shared store.
    pub store: StoreMetrics,
    /// Hash of the configuration that is shown. Locked by a reload, which is alone.
    config_hash: Mutex<String>,
    /// Held while live gauges are set and read: two scrapes at once must not see each other half done.
    rendering: Mutex<()>,
}

/// What `/metrics` shows of one server, read when Prometheus asks.
pub struct ServerReading<'a> {
    /// Name of its pool.
    pub pool: &'a str,
    /// Its name.
    pub server: &'a str,
    /// It may serve bound sessions now.
    pub up: bool,
    /// `ready`, `drain` or `maint`.
    pub state: &'static str,
    /// Requests that it works on.
    pub in_flight: usize,
    /// Its weight.
    pub weight: u16,
    /// Sessions bound to it that the table knows.
    pub sessions: u64,
}

/// What `/metrics` shows of the session table.
pub struct TableReading {
    /// Sessions kept.
    pub entries: usize,
    /// Most sessions kept.
    pub capacity: usize,
    /// Estimated memory.
    pub bytes: usize,
    /// Estimated memory of the data that servers handed over for their sessions.
    pub handoff_bytes: usize,
}

/// HAProxy's states, for `homing_server_state`.
const STATES: &[&str] = &["ready", "drain", "maint"];

/// Buckets of request durations: half a millisecond (a proxy on a local network) to a minute (the default timeouts).
const DURATION_BUCKETS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Registers what it makes; the first error ends it.
struct Maker(Registry);

impl Maker {
    fn add<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> prometheus::Result<C> {
        let metric = made?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        self.add(IntCounter::new(name, help))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
        self.add(IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        self.add(IntGauge::new(name, help))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
        self.add(IntGaugeVec::new(Opts::new(name, help), labels))
    }
}

impl Metrics {
    /// Declares all metrics.
    ///
    /// # Errors
    /// Only when two metrics have one name, which a test rules out.
    #[expect(clippy::too_many_lines, reason = "the list of all metrics, to be read in one piece")]
    pub fn new() -> prometheus::Result<Self> {
        let make = Maker(Registry::new());
        let rejected = make.counters(
            "homing_requests_rejected_total",
            "Requests that the proxy refused before any pool saw them.",
            &["reason"],
        )?;
        let build =
            make.gauges("homing_build_info", "Always 1; the labels say what runs.", &["version", "revision"])?;
        build
            .with_label_values(&[env!("CARGO_PKG_VERSION"), option_env!("HOMING_REVISION").unwrap_or("unknown")])
            .set(1);
        #[cfg(target_os = "linux")]
        make.0.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        let requests =
            make.counters("homing_requests_total", "Answers given, by pool and status.", &["pool", "code"])?;
        let duration = make.add(HistogramVec::new(
            HistogramOpts::new(
                "homing_request_duration_seconds",
                "From the end of a request's headers to the end of its answer.",
            )
            .buckets(DURATION_BUCKETS.to_vec()),
            &["pool"],
        ))?;
        Ok(Self {
            no_pool: PoolRequests::new(&requests, &duration, NO_POOL),
            requests,
            duration,
            route_requests: make.counters(
                "homing_route_requests_total",
                "Answers given, by route and status; requests of no route are not in it.",
                &["route", "code"],
            )?,
            upstream_errors: make.counters(
                "homing_upstream_errors_total",
                "Requests that failed at a server.",
                &["pool", "server", "kind"],
            )?,
            retries: make.counters(
                "homing_retries_total",
                "Retries, and retries that were not allowed.",
                &["pool", "result"],
            )?,
            lookups: make.counters(
                "homing_session_lookups_total",
                "What was found when a request was asked for its session.",
                &["pool", "source", "result"],
            )?,
            outcomes: make.counters(
                "homing_session_outcomes_total",
                "Where requests went, seen from their sessions.",
                &["pool", "outcome"],
            )?,
            moves: make.counters(
                "homing_session_moves_total",
                "Sessions bound to another server, by reason.",
                &["pool", "reason"],
            )?,
            ended: make.counters(
                "homing_sessions_ended_total",
                "Sessions that left the table, by reason.",
                &["pool", "reason"],
            )?,
            tokens: make.counters(
                "homing_tokens_issued_total",
                "Tokens given to clients, by reason.",
                &["pool", "reason"],
            )?,
            handoffs: make.counters(
                "homing_handoff_total",
                "Session data handed over by servers and given to others, by result.",
                &["pool", "result"],
            )?,
            oversized_cookies: make.counters(
                "homing_oversized_cookies_total",
                "Tokens set in a separate cookie, since the application's would exceed what browsers keep.",
                &["pool"],
            )?,
            health_checks: make.counters(
                "homing_health_checks_total",
                "Health checks, by result.",
                &["pool", "server", "result"],
            )?,
            rejected: Counters::new(&rejected, &[], REJECTIONS),
            panics: make.counter("homing_panics_total", "Panics caught; each ended one request and is a bug.")?,
            access_log_dropped: make
                .counter("homing_access_log_dropped_total", "Lines that the access log could not take.")?,
            sessions: make.gauges(
                "homing_sessions",
                "Sessions that the table knows, by server.",
                &["pool", "server"],
            )?,
            table_entries: make.gauge("homing_table_entries", "Sessions in the table.")?,
            table_capacity: make.gauge("homing_table_capacity", "Most sessions that the table keeps.")?,
            table_bytes: make.gauge("homing_table_bytes", "Estimated memory of the table.")?,
            handoff_bytes: make.gauge("homing_handoff_bytes", "Estimated memory of session data.")?,
            server_up: make.gauges(
                "homing_server_up",
                "1 when the server may serve its sessions.",
                &["pool", "server"],
            )?,
            server_state: make.gauges(
                "homing_server_state",
                "1 at the state that the operator set.",
                &["pool", "server", "state"],
            )?,
            server_in_flight: make.gauges(
                "homing_server_requests_in_flight",
                "Requests that a server works on.",
                &["pool", "server"],
            )?,
            server_weight: make
                .add(GaugeVec::new(Opts::new("homing_server_weight", "Share of new sessions."), &["pool", "server"]))?,
            reloads: make.counters("homing_config_reloads_total", "Reloads, by result.", &["result"])?,
            last_reload_success: make
                .gauge("homing_config_last_reload_success", "1 when the last reload (or start) was accepted.")?,
            config_info: make.gauges(
                "homing_config_info",
                "Always 1; the hash tells the configuration that runs.",
                &["hash"],
            )?,
            certificate_expiry: make.gauges(
                "homing_tls_certificate_expiry_timestamp_seconds",
                "When a listener's certificate expires, in seconds since 1970.",
                &["name"],
            )?,
            table_snapshot: TableSnapshotMetrics::new(&make)?,
            store: StoreMetrics::new(&make)?,
            config_hash: Mutex::default(),
            rendering: Mutex::default(),
            registry: make.0,
        })
    }

    /// The handles of a pool that asks these sources; asked twice, the same counters.
    pub fn pool(&self, pool: &str, sources: &[&str]) -> PoolMetrics {
        for word in ENDS {
            self.ended.with_label_values(&[pool, word]);
        }
        PoolMetrics {
            requests: PoolRequests::new(&self.requests, &self.duration, pool),
            retries: Counters::new(&self.retries, &[pool], RETRIES),
            lookups: sources.iter().map(|source| Counters::new(&self.lookups, &[pool, source], LOOKUPS)).collect(),
            outcomes: Counters::new(&self.outcomes, &[pool], OUTCOMES),
            moves: Counters::new(&self.moves, &[pool], MOVES),
            tokens: Counters::new(&self.tokens, &[pool], TOKENS),
            handoffs: Counters::new(&self.handoffs, &[pool], HANDOFFS),
            oversized_cookies: self.oversized_cookies.with_label_values(&[pool]),
        }
    }

    /// The handles of a route; asked twice, the same counters.
    pub fn route(&self, route: &str) -> RouteMetrics {
        RouteMetrics::new(&self.route_requests, route)
    }

    /// The handles of a server; asked twice, the same counters.
    pub fn server(&self, pool: &str, server: &str) -> ServerMetrics {
        ServerMetrics {
            errors: Counters::new(&self.upstream_errors, &[pool, server], UPSTREAM_ERRORS),
            checks: Counters::new(&self.health_checks, &[pool, server], CHECKS),
        }
    }

    /// Counts a session that left the table; `end` is the index of its word in [`ENDS`].
    pub fn session_ended(&self, pool: &str, end: usize) {
        if let Some(word) = ENDS.get(end) {
            self.ended.with_label_values(&[pool, word]).inc();
        }
    }

    /// Counts a session whose data had to make room.
    pub fn handoff_evicted(&self, pool: &str) {
        if let Some(word) = HANDOFFS.get(Handoff::Evicted as usize) {
            self.handoffs.with_label_values(&[pool, word]).inc();
        }
    }

    /// Notes that a configuration was accepted: at start (`first`) or by a reload.
    pub fn config_accepted(&self, hash: &str, first: bool) {
        self.config_info.with_label_values(&[hash]).set(1);
        let former = std::mem::replace(&mut *self.config_hash.lock(), hash.to_owned());
        if former != hash {
            // There is none before the first.
            let _ = self.config_info.remove_label_values(&[&former]);
        }
        self.last_reload_success.set(1);
        // Both results exist from the start, so that a rate over them never lacks its first step.
        let success = self.reloads.with_label_values(&["success"]);
        self.reloads.with_label_values(&["failure"]);
        if !first {
            success.inc();
        }
    }

    /// Notes when certificates expire, by name; those not named are no longer shown. Of two with one name the first to
    /// expire is shown.
    pub fn certificates<'a>(&self, expiries: impl Iterator<Item = (&'a str, i64)>) {
        let _alone = self.rendering.lock();
        self.certificate_expiry.reset();
        let mut all: Vec<_> = expiries.collect();
        all.sort_by_key(|(_, expiry)| std::cmp::Reverse(*expiry));
        for (name, expiry) in all {
            self.certificate_expiry.with_label_values(&[name]).set(expiry);
        }
    }

    /// The last reload (or start) was accepted.
    pub fn last_reload_succeeded(&self) -> bool {
        self.last_reload_success.get() == 1
    }

    /// Notes that a configuration was refused.
    pub fn config_refused(&self) {
        self.last_reload_success.set(0);
        self.reloads.with_label_values(&["failure"]).inc();
    }

    /// The Prometheus text, with gauges read from live state now. Servers that are not in `servers` are not shown.
    ///
    /// # Errors
    /// When the text cannot be encoded.
    pub fn render<'a>(
        &self,
        table: &TableReading,
        servers: impl Iterator<Item = ServerReading<'a>>,
    ) -> prometheus::Result<Vec<u8>> {
        let _alone = self.rendering.lock();
        self.table_entries.set(gauge_value(table.entries));
        self.table_capacity.set(gauge_value(table.capacity));
        self.table_bytes.set(gauge_value(table.bytes));
        self.handoff_bytes.set(gauge_value(table.handoff_bytes));
        self.sessions.reset();
        self.server_up.reset();
        self.server_state.reset();
        self.server_in_flight.reset();
        self.server_weight.reset();
        for reading in servers {
            self.read_server(&reading);
        }
        let mut text = Vec::with_capacity(16 * 1024);
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }

    fn read_server(&self, reading: &ServerReading<'_>) {
        let labels = [reading.pool, reading.server];
        self.sessions.with_label_values(&labels).set(i64::try_from(reading.sessions).unwrap_or(i64::MAX));
        self.server_up.with_label_values(&labels).set(i64::from(reading.up));
        self.server_in_flight.with_label_values(&labels).set(gauge_value(reading.in_flight));
        self.server_weight.with_label_values(&labels).set(f64::from(reading.weight));
        for state in STATES {
            self.server_state
                .with_label_values(&[reading.pool, reading.server, state])
                .set(i64::from(*state == reading.state));
        }
    }
}

fn gauge_value(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const TABLE: TableReading = TableReading { entries: 3, capacity: 10, bytes: 999, handoff_bytes: 0 };

    fn text(metrics: &Metrics, servers: Vec<ServerReading<'_>>) -> String {
        String::from_utf8(metrics.render(&TABLE, servers.into_iter()).unwrap()).unwrap()
    }

    #[test]
    fn names_are_unique_and_all_carry_help() {
        let metrics = Metrics::new().unwrap();
        let text = text(&metrics, vec![]);
        assert!(text.contains("homing_build_info{"), "{text}");
        assert!(text.contains("homing_table_capacity 10"), "{text}");
    }

    #[test]
    fn a_server_that_left_is_no_longer_shown() {
        let metrics = Metrics::new().unwrap();
        let reading =
            ServerReading { pool: "web", server: "a", up: true, state: "drain", in_flight: 2, weight: 7, sessions: 5 };
        let with = text(&metrics, vec![reading]);
        assert!(with.contains(r#"homing_server_state{pool="web",server="a",state="drain"} 1"#), "{with}");
        assert!(with.contains(r#"homing_server_state{pool="web",server="a",state="ready"} 0"#), "{with}");
        assert!(with.contains(r#"homing_sessions{pool="web",server="a"} 5"#), "{with}");
        let without = text(&metrics, vec![]);
        assert!(!without.contains("server=\"a\""), "{without}");
    }

    #[test]
    fn answers_are_counted_by_status() {
        let metrics = Metrics::new().unwrap();
        let pool = metrics.pool("web", &[]);
        pool.request(200, Duration::from_millis(3));
        pool.request(200, Duration::from_millis(3));
        pool.request(1000, Duration::ZERO);
        let text = text(&metrics, vec![]);
        assert!(text.contains(r#"homing_requests_total{code="200",pool="web"} 2"#), "{text}");
        assert!(text.contains(r#"homing_request_duration_seconds_count{pool="web"} 3"#), "{text}");
    }
}
