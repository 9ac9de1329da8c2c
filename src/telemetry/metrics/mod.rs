//! Every metric, declared once: name, help, labels and their values.
//!
//! A request must not look up a metric by name, so each pool and each server gets its counters as handles when the runtime is
//! built ([`PoolMetrics`], [`ServerMetrics`]), and a request increments them by index. Gauges of live state (sessions, health,
//! requests in flight) are set at each scrape, see [`Metrics::render`], and all series of servers are made there.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use prometheus::{Encoder, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder};
use strum::VariantNames;

use self::lifetimes::{Families, Lifetimes, Subject};
use self::registrar::{Registrar, gauge_value};
use self::server::AllServers;
use self::server_series::ServerSeries;

pub use acme::{AcmeMetrics, AcmeResult};
pub use handles::{Counters, OpenCount, OpenGuard, PoolMetrics, PoolRequests, RouteMetrics, ServerMoves};
pub use labels::{
    Direction, ENDS, FullPathReason, Handoff, LOOKUPS, LabelIndex, Limit, LocalResource, MOVES, NO_POOL, OUTCOMES,
    ProbeResult, REJECTIONS, Rejection, ResourceUser, Retry, SpanResult, TokenReason, UpstreamError,
};
pub use lifetimes::{GRACE, InUse, LOOK_INTERVAL, SeriesHold};
pub use readings::{PoolReading, ServerReading, TableReading};
pub use server::ServerMetrics;
pub use store::{StoreMetrics, StoreOperation, StoreResult};
pub use table_snapshot::TableSnapshotMetrics;

mod acme;
mod family;
mod handles;
mod labels;
mod lifetimes;
#[cfg(test)]
mod mixin;
mod readings;
mod registrar;
#[cfg(test)]
mod sample;
mod server;
mod server_pairs;
mod server_series;
mod store;
mod table_snapshot;
mod timings;
mod totals;

/// Why metrics cannot be registered or encoded.
pub type RenderError = prometheus::Error;

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    families: Families,
    lifetimes: Arc<Lifetimes>,
    requests: IntCounterVec,
    duration: HistogramVec,
    route_requests: IntCounterVec,
    retries: IntCounterVec,
    lookups: IntCounterVec,
    outcomes: IntCounterVec,
    moves: IntCounterVec,
    server_moves: IntCounterVec,
    bytes: IntCounterVec,
    client_connections: IntGaugeVec,
    limited: IntCounterVec,
    ended: IntCounterVec,
    tokens: IntCounterVec,
    handoffs: IntCounterVec,
    oversized_cookies: IntCounterVec,
    guest_cookies_held: IntCounterVec,
    /// Responses to requests without a pool.
    pub no_pool: PoolRequests,
    /// Requests that the fast path has served.
    pub fast_requests: IntCounter,
    /// Requests that it has not, by [`FullPathReason`].
    pub full_requests: Counters,
    /// Requests rejected before they reached a pool.
    pub rejected: Counters,
    /// Connections of clients that were refused for lack of a [`LocalResource`].
    pub exhausted_accepts: Counters,
    /// Panics caught in requests.
    pub panics: IntCounter,
    /// Lines that the access log dropped.
    pub access_log_dropped: IntCounter,
    /// Spans of requests, by [`SpanResult`].
    pub spans: Counters,
    sessions_complete: IntGaugeVec,
    table_entries: IntGauge,
    table_capacity: IntGauge,
    table_bytes: IntGauge,
    handoff_bytes: IntGauge,
    servers: AllServers,
    build: IntGaugeVec,
    reloads: IntCounterVec,
    last_reload_success: IntGauge,
    config_info: IntGaugeVec,
    certificate_expiry: IntGaugeVec,
    /// Orders of certificates.
    pub acme: AcmeMetrics,
    /// The table's snapshot on disk.
    pub table_snapshot: TableSnapshotMetrics,
    /// The shared store.
    pub store: StoreMetrics,
    /// Hash of the current configuration. Locked by reloads, which run one at a time.
    config_hash: Mutex<String>,
    /// Locked while gauges of live state are set and read, so that concurrent scrapes do not mix.
    rendering: Mutex<()>,
}

/// Buckets of request durations: half a millisecond (a proxy on a local network) to a minute (the default timeouts).
const DURATION_BUCKETS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

impl Metrics {
    /// Declares all metrics.
    ///
    /// # Errors
    /// Only when two metrics have one name, which a test rules out.
    #[expect(clippy::too_many_lines, reason = "the list of all metrics, to be read in one piece")]
    pub fn new() -> prometheus::Result<Self> {
        let make = Registrar::default();
        let lifetimes = Arc::<Lifetimes>::default();
        let rejected = make.counters(
            "homing_requests_rejected_total",
            "Requests that the proxy rejected before they reached a pool.",
            &["reason"],
        )?;
        let spans = make.counters("homing_trace_spans_total", "Spans for the collector, by result.", &["result"])?;
        let by_path = make.counters(
            "homing_requests_by_path_total",
            "Requests by their way through the proxy: the fast path, or the full one and why.",
            &["path", "reason"],
        )?;
        let build = make.gauges(
            "homing_build_info",
            "Always 1; the labels are the version that runs and the name of this proxy.",
            &["version", "revision", "node"],
        )?;
        #[cfg(target_os = "linux")]
        make.registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        let exhausted = make.counters(
            "homing_resource_exhausted_total",
            "Operations that failed for lack of a resource of this process or machine; no fault of a server.",
            &["operation", "resource"],
        )?;
        let requests = make.counters("homing_requests_total", "Responses, by pool and status.", &["pool", "code"])?;
        let duration = make.histograms(
            "homing_request_duration_seconds",
            "From the end of the request's headers to the end of the response.",
            DURATION_BUCKETS,
            &["pool"],
        )?;
        Ok(Self {
            build,
            no_pool: PoolRequests::new(&lifetimes, &requests, &duration, NO_POOL),
            requests,
            duration,
            route_requests: make.counters(
                "homing_route_requests_total",
                "Responses, by route and status; without requests that matched no route.",
                &["route", "code"],
            )?,
            retries: make.counters(
                "homing_retries_total",
                "Retries, by result: sent, or not allowed.",
                &["pool", "result"],
            )?,
            lookups: make.counters(
                "homing_session_lookups_total",
                "Session lookups, by source and result.",
                &["pool", "source", "result"],
            )?,
            outcomes: make.counters(
                "homing_session_outcomes_total",
                "Requests, by what happened to their session.",
                &["pool", "outcome"],
            )?,
            moves: make.counters(
                "homing_session_moves_total",
                "Sessions that moved to another server, by reason.",
                &["pool", "reason"],
            )?,
            server_moves: make.counters(
                "homing_server_moves_total",
                "Sessions that moved to another server, by both; \"unknown\": a server that is gone, \"other\": beyond 1000 pairs.",
                &["pool", "from", "to"],
            )?,
            bytes: make.counters(
                "homing_bytes_total",
                "Bytes of bodies, from clients (in) and to clients (out), upgraded connections included.",
                &["pool", "direction"],
            )?,
            client_connections: make.gauges(
                "homing_client_connections",
                "Open connections of clients, by address of the listener.",
                &["listener"],
            )?,
            limited: make.counters(
                "homing_limited_total",
                "Connections and requests refused by a limit of their listener.",
                &["listener", "limit"],
            )?,
            ended: make.counters(
                "homing_sessions_ended_total",
                "Sessions that left the table, by reason.",
                &["pool", "reason"],
            )?,
            tokens: make.counters(
                "homing_tokens_issued_total",
                "Tokens issued to clients, by reason.",
                &["pool", "reason"],
            )?,
            guest_cookies_held: make.counters(
                "homing_guest_cookies_held_total",
                "Cookies held back from responses of servers that serve a session only for now.",
                &["pool"],
            )?,
            handoffs: make.counters(
                "homing_handoff_total",
                "Handoff data received from servers and sent to others, by result.",
                &["pool", "result"],
            )?,
            oversized_cookies: make.counters(
                "homing_oversized_cookies_total",
                "Tokens set in a separate cookie, since the application's would exceed what browsers keep.",
                &["pool"],
            )?,
            fast_requests: by_path.with_label_values(&["fast", "-"]),
            full_requests: Counters::new(&by_path, &["full"], FullPathReason::VARIANTS),
            rejected: Counters::new(&rejected, &[], Rejection::VARIANTS),
            exhausted_accepts: Counters::new(&exhausted, &[ResourceUser::Accept.into()], LocalResource::VARIANTS),
            panics: make.counter("homing_panics_total", "Panics caught; each ended one request and is a bug.")?,
            access_log_dropped: make
                .counter("homing_access_log_dropped_total", "Lines that the access log dropped.")?,
            spans: Counters::new(&spans, &[], SpanResult::VARIANTS),
            sessions_complete: make.gauges(
                "homing_sessions_complete",
                "1 when homing_sessions has them all; 0 while sessions from before the start may not have come back.",
                &["pool"],
            )?,
            table_entries: make.gauge("homing_table_entries", "Sessions in the table.")?,
            table_capacity: make.gauge("homing_table_capacity", "Maximum of sessions in the table.")?,
            table_bytes: make.gauge("homing_table_bytes", "Estimated memory of the table.")?,
            handoff_bytes: make.gauge("homing_handoff_bytes", "Estimated memory of handoff data.")?,
            servers: AllServers::new(&exhausted),
            reloads: make.counters("homing_config_reloads_total", "Reloads, by result.", &["result"])?,
            last_reload_success: make
                .gauge("homing_config_last_reload_success", "1 when the last reload (or start) was accepted.")?,
            config_info: make.gauges(
                "homing_config_info",
                "Always 1; the label is the hash of the configuration in effect.",
                &["hash"],
            )?,
            certificate_expiry: make.gauges(
                "homing_tls_certificate_expiry_timestamp_seconds",
                "When a listener's certificate expires, in seconds since 1970.",
                &["name"],
            )?,
            acme: AcmeMetrics::new(&make)?,
            table_snapshot: TableSnapshotMetrics::new(&make)?,
            store: StoreMetrics::new(&make)?,
            config_hash: Mutex::default(),
            rendering: Mutex::default(),
            lifetimes,
            registry: make.registry,
            families: make.families.finish(),
        })
    }

    /// The handles of a pool with these sources; called twice, the same counters.
    pub fn pool(&self, pool: &str, sources: &[&str]) -> PoolMetrics {
        self.lifetimes.begin(Subject::Pool(pool), || self.pool_handles(pool, sources))
    }

    fn pool_handles(&self, pool: &str, sources: &[&str]) -> PoolMetrics {
        for reason in ENDS {
            self.ended.with_label_values(&[pool, reason]);
        }
        PoolMetrics {
            requests: PoolRequests::new(&self.lifetimes, &self.requests, &self.duration, pool),
            retries: Counters::new(&self.retries, &[pool], Retry::VARIANTS),
            lookups: sources.iter().map(|source| Counters::new(&self.lookups, &[pool, source], LOOKUPS)).collect(),
            outcomes: Counters::new(&self.outcomes, &[pool], OUTCOMES),
            moves: Counters::new(&self.moves, &[pool], MOVES),
            server_moves: ServerMoves::new(&self.lifetimes, &self.server_moves, pool),
            bytes: Counters::new(&self.bytes, &[pool], Direction::VARIANTS),
            tokens: Counters::new(&self.tokens, &[pool], TokenReason::VARIANTS),
            handoffs: Counters::new(&self.handoffs, &[pool], Handoff::VARIANTS),
            oversized_cookies: self.oversized_cookies.with_label_values(&[pool]),
            guest_cookies_held: self.guest_cookies_held.with_label_values(&[pool]),
        }
    }

    /// The handles of a route; called twice, the same counters.
    pub fn route(&self, route: &str) -> RouteMetrics {
        self.lifetimes.begin(Subject::Route(route), || RouteMetrics::new(&self.lifetimes, &self.route_requests, route))
    }

    /// The counts of a server; called twice, the same.
    pub fn server(&self, pool: &str, server: &str) -> Arc<ServerMetrics> {
        self.lifetimes.begin(Subject::Server(pool, server), || self.servers.server(pool, server))
    }

    /// The open connections of a listener; called twice, the same gauge.
    pub fn client_connections(&self, listener: &str) -> OpenCount {
        self.lifetimes
            .begin(Subject::Listener(listener), || OpenCount(self.client_connections.with_label_values(&[listener])))
    }

    /// By [`Limit`]: what limits of a listener refused; called twice, the same counters.
    pub fn limited(&self, listener: &str) -> Counters {
        self.lifetimes.begin(Subject::Listener(listener), || Counters::new(&self.limited, &[listener], Limit::VARIANTS))
    }

    /// Counts a session that left the table; `end` is the index of the reason in [`ENDS`].
    pub fn session_ended(&self, pool: &str, end: usize) {
        if let Some(reason) = ENDS.get(end) {
            let count = || self.ended.with_label_values(&[pool, reason]).inc();
            self.lifetimes.count(Subject::Pool(pool), count);
        }
    }

    /// Counts handoff data that was evicted.
    pub fn handoff_evicted(&self, pool: &str) {
        let count = || self.handoffs.with_label_values(&[pool, Handoff::Evicted.into()]).inc();
        self.lifetimes.count(Subject::Pool(pool), count);
    }

    /// Says which version runs, under which name.
    pub fn started_as(&self, node: &str) {
        let (version, revision) = (env!("CARGO_PKG_VERSION"), option_env!("HOMING_REVISION").unwrap_or("unknown"));
        self.build.with_label_values(&[version, revision, node]).set(1);
    }

    /// Records that a configuration was accepted: at start (`first`) or by a reload.
    pub fn config_accepted(&self, hash: &str, first: bool) {
        self.config_info.with_label_values(&[hash]).set(1);
        let previous = std::mem::replace(&mut *self.config_hash.lock(), hash.to_owned());
        if previous != hash {
            // An error means that this is the first.
            let _ = self.config_info.remove_label_values(&[&previous]);
        }
        self.last_reload_success.set(1);
        // Both results exist from the start, so that a rate over them never lacks its first step.
        let success = self.reloads.with_label_values(&["success"]);
        self.reloads.with_label_values(&["failure"]);
        if !first {
            success.inc();
        }
    }

    /// Sets when certificates expire, by name, and drops all other names. Of two with one name the first to expire counts.
    pub fn certificates<'a>(&self, expiries: impl Iterator<Item = (&'a str, i64)>) {
        let _guard = self.rendering.lock();
        self.certificate_expiry.reset();
        let mut all: Vec<_> = expiries.collect();
        all.sort_by_key(|(_, expiry)| std::cmp::Reverse(*expiry));
        for (name, expiry) in all {
            self.certificate_expiry.with_label_values(&[name]).set(expiry);
        }
    }

    /// To be held while a configuration is built, until it is in force or rejected.
    pub fn hold_series(&self) -> SeriesHold {
        self.lifetimes.hold()
    }

    /// Notes what the configuration has; returns whether there are series to remove.
    pub fn note_in_use(&self, in_use: &InUse<'_>, now: Instant) -> bool {
        self.lifetimes.observe(in_use, now)
    }

    /// Removes the series of what the configuration has not had for [`GRACE`]. After reloads of thousands of servers that takes
    /// seconds.
    pub fn remove_unused(&self, now: Instant) {
        self.lifetimes.remove(&self.families, now);
        self.lifetimes.with_servers(|is_known| self.servers.retain(is_known));
    }

    /// Whether the last reload (or start) was accepted.
    pub fn last_reload_succeeded(&self) -> bool {
        self.last_reload_success.get() == 1
    }

    /// Records that a configuration was refused.
    pub fn config_refused(&self) {
        self.last_reload_success.set(0);
        self.reloads.with_label_values(&["failure"]).inc();
    }

    /// The Prometheus text, with the gauges of live state set now. Servers that are not in `servers` are dropped, and so are
    /// pools; `pools` says of each whether the table has all of its sessions.
    ///
    /// # Errors
    /// When the text cannot be encoded.
    pub fn render<'a>(
        &self,
        table: &TableReading,
        servers: impl Iterator<Item = ServerReading<'a>>,
        pools: impl Iterator<Item = PoolReading<'a>>,
    ) -> prometheus::Result<Vec<u8>> {
        let _guard = self.rendering.lock();
        self.table_entries.set(gauge_value(table.entries));
        self.table_capacity.set(gauge_value(table.capacity));
        self.table_bytes.set(gauge_value(table.bytes));
        self.handoff_bytes.set(gauge_value(table.handoff_bytes));
        self.sessions_complete.reset();
        let pools: Vec<PoolReading<'_>> = pools.collect();
        for reading in &pools {
            self.sessions_complete.with_label_values(&[reading.pool]).set(reading.complete.into());
        }
        let mut text = Vec::with_capacity(16 * 1024);
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        let (counted, servers) = (self.servers.all(), servers.collect());
        ServerSeries { counted, servers, pools: &pools, text: &mut text }.encode()?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests;
