//! Metrics of servers: counters and histograms, of which requests and checks hold handles, and gauges that are set at each
//! scrape.

use std::time::Duration;

use prometheus::{GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec};
use strum::VariantNames;

use super::handles::Counters;
use super::labels::{ANY_SERVER, CLASSES, LocalResource, ProbeResult, ResourceUser, UpstreamError};
use super::readings::ServerReading;
use super::registrar::{Registrar, gauge_value};

/// HAProxy's server states, for `homing_server_state`.
const STATES: &[&str] = &["ready", "drain", "maint"];

/// The states of a circuit breaker, for `homing_server_breaker`.
const BREAKER_STATES: &[&str] = &["closed", "open", "half_open"];

/// A fifth of a millisecond (a server on a local network) to a minute (the default timeout of a response).
const RESPONSE_BUCKETS: &[f64] =
    &[0.0002, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// To the default `connect_timeout` and above.
const CONNECT_BUCKETS: &[f64] = &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 2.5];

/// The metrics of all servers.
pub(super) struct ServerFamilies {
    responses: IntCounterVec,
    response_time: HistogramVec,
    connect_time: HistogramVec,
    retries: IntCounterVec,
    errors: IntCounterVec,
    checks: IntCounterVec,
    exhausted: IntCounterVec,
    sessions: IntGaugeVec,
    up: IntGaugeVec,
    state: IntGaugeVec,
    breaker: IntGaugeVec,
    in_flight: IntGaugeVec,
    queued: IntGaugeVec,
    streams: IntGaugeVec,
    weight: GaugeVec,
}

/// The counters of one server.
pub struct ServerMetrics {
    /// By [`UpstreamError`].
    pub errors: Counters,
    /// By [`ProbeResult`].
    pub checks: Counters,
    /// Connections for requests that failed for lack of a [`LocalResource`].
    pub exhausted_connects: Counters,
    /// The same of health checks.
    pub exhausted_checks: Counters,
    /// Requests that were sent to it after another attempt had failed.
    pub retries: IntCounter,
    responses: Counters,
    response_time: Histogram,
    connect_time: Histogram,
}

impl ServerMetrics {
    /// Counts a response and the time to its first byte, from the start of the attempt.
    pub fn response(&self, status: u16, took: Option<Duration>) {
        self.responses.inc(usize::from(status / 100).wrapping_sub(1));
        if let Some(took) = took {
            self.response_time.observe(took.as_secs_f64());
        }
    }

    /// Counts a new connection and the time that it took.
    pub fn connected(&self, took: Duration) {
        self.connect_time.observe(took.as_secs_f64());
    }
}

const SERVER: &[&str] = &["pool", "server"];

impl ServerFamilies {
    #[expect(clippy::too_many_lines, reason = "the list of all metrics of servers, to be read in one piece")]
    pub(super) fn new(make: &Registrar, exhausted: &IntCounterVec) -> prometheus::Result<Self> {
        Ok(Self {
            responses: make.counters(
                "homing_server_responses_total",
                "Responses of servers, by class of status.",
                &["pool", "server", "class"],
            )?,
            response_time: make.histograms(
                "homing_server_response_seconds",
                "From the start of an attempt to the first byte of the server's response.",
                RESPONSE_BUCKETS,
                SERVER,
            )?,
            connect_time: make.histograms(
                "homing_server_connect_seconds",
                "From the start of an attempt to its new connection; without reused connections.",
                CONNECT_BUCKETS,
                SERVER,
            )?,
            retries: make.counters(
                "homing_server_retries_total",
                "Requests sent to a server after another attempt had failed.",
                SERVER,
            )?,
            errors: make.counters(
                "homing_upstream_errors_total",
                "Requests that failed at a server.",
                &["pool", "server", "kind"],
            )?,
            checks: make.counters(
                "homing_health_checks_total",
                "Health checks, by result.",
                &["pool", "server", "result"],
            )?,
            exhausted: exhausted.clone(),
            sessions: make.gauges("homing_sessions", "Sessions in the table, by server.", SERVER)?,
            up: make.gauges(
                "homing_server_up",
                "1 when the server accepts the sessions that are bound to it, and accepted the last connection.",
                SERVER,
            )?,
            state: make.gauges(
                "homing_server_state",
                "1 for the state in force: what an operator set, else the file's; drain, too, while the server's checks ask for it.",
                &["pool", "server", "state"],
            )?,
            breaker: make.gauges(
                "homing_server_breaker",
                "1 for the state of the server's circuit breaker; without one there is no series.",
                &["pool", "server", "state"],
            )?,
            in_flight: make.gauges("homing_server_requests_in_flight", "Requests in flight, by server.", SERVER)?,
            queued: make.gauges(
                "homing_server_requests_queued",
                "Requests that wait for the server; server \"-\": new sessions that wait for any.",
                SERVER,
            )?,
            streams: make.gauges("homing_streams_open", "Open WebSockets, other upgraded connections and event streams, by server.", SERVER)?,
            weight: make.float_gauges(
                "homing_server_weight",
                "Share of new sessions now, as slow start makes it; 0 while it gets none.",
                SERVER,
            )?,
        })
    }

    /// The handles of a server; called twice, the same counters.
    pub(super) fn handles(&self, pool: &str, server: &str) -> ServerMetrics {
        let labels = [pool, server];
        let exhausted = |user: ResourceUser| Counters::new(&self.exhausted, &[user.into()], LocalResource::VARIANTS);
        ServerMetrics {
            errors: Counters::new(&self.errors, &labels, UpstreamError::VARIANTS),
            checks: Counters::new(&self.checks, &labels, ProbeResult::VARIANTS),
            exhausted_connects: exhausted(ResourceUser::Connect),
            exhausted_checks: exhausted(ResourceUser::HealthCheck),
            retries: self.retries.with_label_values(&labels),
            responses: Counters::new(&self.responses, &labels, CLASSES),
            response_time: self.response_time.with_label_values(&labels),
            connect_time: self.connect_time.with_label_values(&labels),
        }
    }

    /// Sets the gauges. Servers that are not among the readings are dropped.
    pub(super) fn set<'a>(&self, readings: impl Iterator<Item = ServerReading<'a>>) {
        for gauges in
            [&self.sessions, &self.up, &self.state, &self.breaker, &self.in_flight, &self.queued, &self.streams]
        {
            gauges.reset();
        }
        self.weight.reset();
        readings.for_each(|reading| self.set_server(&reading));
    }

    /// Sets how many requests of a pool wait for any of its servers.
    pub(super) fn set_queued(&self, pool: &str, queued: usize) {
        self.queued.with_label_values(&[pool, ANY_SERVER]).set(gauge_value(queued));
    }

    fn set_server(&self, reading: &ServerReading<'_>) {
        let labels = [reading.pool, reading.server];
        self.sessions.with_label_values(&labels).set(i64::try_from(reading.sessions).unwrap_or(i64::MAX));
        self.up.with_label_values(&labels).set(i64::from(reading.up));
        self.in_flight.with_label_values(&labels).set(gauge_value(reading.in_flight));
        self.queued.with_label_values(&labels).set(gauge_value(reading.queued));
        self.streams.with_label_values(&labels).set(gauge_value(reading.streams));
        self.weight.with_label_values(&labels).set(reading.weight);
        for state in STATES {
            self.state
                .with_label_values(&[reading.pool, reading.server, state])
                .set(i64::from(*state == reading.state));
        }
        if let Some(breaker) = reading.breaker {
            for state in BREAKER_STATES {
                self.breaker
                    .with_label_values(&[reading.pool, reading.server, state])
                    .set(i64::from(*state == breaker));
            }
        }
    }
}
