//! The series of servers, made at a scrape: one family after the other, since thousands of servers have a hundred thousand series.

use std::sync::Arc;

use prometheus::proto::MetricType;
use strum::VariantNames;

use super::family::Family;
use super::labels::{ANY_SERVER, CLASSES, ProbeResult, UpstreamError};
use super::readings::{PoolReading, ServerReading};
use super::server::{Counts, FullName, ServerMetrics};
use super::timings::Timings;

/// HAProxy's server states, for `homing_server_state`.
const STATES: &[&str] = &["ready", "drain", "maint"];

/// The states of a circuit breaker, for `homing_server_breaker`.
const BREAKER_STATES: &[&str] = &["closed", "open", "half_open"];

const SERVER: &[&str] = &["pool", "server"];
const SERVER_STATE: &[&str] = &["pool", "server", "state"];

/// What a scrape shows of servers.
pub(super) struct ServerSeries<'a, 't> {
    /// What is counted, also of servers that the configuration had until some minutes ago.
    pub(super) counted: Vec<(FullName, Arc<ServerMetrics>)>,
    /// Gauges of the servers that there are.
    pub(super) servers: Vec<ServerReading<'a>>,
    /// Gauges of the pools that there are.
    pub(super) pools: &'t [PoolReading<'a>],
    /// Where the text goes.
    pub(super) text: &'t mut Vec<u8>,
}

impl ServerSeries<'_, '_> {
    /// Appends the text of all families.
    ///
    /// # Errors
    /// When the text cannot be encoded.
    pub(super) fn encode(mut self) -> prometheus::Result<()> {
        self.encode_counts()?;
        self.encode_times()?;
        self.encode_gauges()?;
        self.encode_states()
    }

    fn encode_counts(&mut self) -> prometheus::Result<()> {
        let (name, help) = ("homing_server_responses_total", "Responses of servers, by class of status.");
        self.counters(name, help, (&["pool", "server", "class"], CLASSES), |server| &server.responses)?;
        let (name, help) = ("homing_upstream_errors_total", "Requests that failed at a server.");
        self.counters(name, help, (&["pool", "server", "kind"], UpstreamError::VARIANTS), |server| &server.errors)?;
        let (name, help) = ("homing_health_checks_total", "Health checks, by result.");
        self.counters(name, help, (&["pool", "server", "result"], ProbeResult::VARIANTS), |server| &server.checks)?;
        let help = "Requests sent to a server after another attempt had failed.";
        let mut retries = Family::new(MetricType::COUNTER, "homing_server_retries_total", help, SERVER);
        for ((pool, name), server) in &self.counted {
            retries.counter(&[pool, name], server.retries.get());
        }
        retries.encode(self.text)
    }

    fn encode_times(&mut self) -> prometheus::Result<()> {
        self.histograms(
            "homing_server_response_seconds",
            "From the start of an attempt to the first byte of the server's response.",
            |server| &server.response_time,
        )?;
        self.histograms(
            "homing_server_connect_seconds",
            "From the start of an attempt to its new connection; without reused connections.",
            |server| &server.connect_time,
        )
    }

    #[expect(clippy::cast_precision_loss, reason = "samples are floats, exact up to 2^53")]
    fn encode_gauges(&mut self) -> prometheus::Result<()> {
        self.gauges("homing_sessions", "Sessions in the table, by server.", |server| server.sessions as f64)?;
        self.gauges(
            "homing_server_up",
            "1 when the server accepts the sessions that are bound to it, and accepted the last connection.",
            |server| f64::from(server.up),
        )?;
        self.gauges("homing_server_requests_in_flight", "Requests in flight, by server.", |server| {
            server.in_flight as f64
        })?;
        let help = "Requests that wait for the server; server \"-\": new sessions that wait for any.";
        let mut queued = Family::new(MetricType::GAUGE, "homing_server_requests_queued", help, SERVER);
        for pool in self.pools {
            queued.gauge(&[pool.pool, ANY_SERVER], pool.queued as f64);
        }
        for server in &self.servers {
            queued.gauge(&[server.pool, server.server], server.queued as f64);
        }
        queued.encode(self.text)?;
        self.gauges(
            "homing_streams_open",
            "Open WebSockets, other upgraded connections and event streams, by server.",
            |server| server.streams as f64,
        )?;
        self.gauges(
            "homing_server_weight",
            "Share of new sessions now, as slow start makes it; 0 while it gets none.",
            |server| server.weight,
        )
    }

    fn encode_states(&mut self) -> prometheus::Result<()> {
        self.states(
            "homing_server_state",
            "1 for the state in force: what an operator set, else the file's; drain, too, while the server's checks ask for it.",
            STATES,
            |server| Some(server.state),
        )?;
        self.states(
            "homing_server_breaker",
            "1 for the state of the server's circuit breaker; without one there is no series.",
            BREAKER_STATES,
            |server| server.breaker,
        )
    }

    fn counters<const N: usize>(
        &mut self,
        name: &'static str,
        help: &'static str,
        (labels, last): (&'static [&'static str], &[&str]),
        counts: impl Fn(&ServerMetrics) -> &Counts<N>,
    ) -> prometheus::Result<()> {
        let mut family = Family::new(MetricType::COUNTER, name, help, labels);
        for ((pool, name), server) in &self.counted {
            for (value, count) in last.iter().zip(counts(server).values()) {
                family.counter(&[pool, name, value], count);
            }
        }
        family.encode(self.text)
    }

    fn histograms<const N: usize>(
        &mut self,
        name: &'static str,
        help: &'static str,
        times: impl Fn(&ServerMetrics) -> &Timings<N>,
    ) -> prometheus::Result<()> {
        let mut family = Family::new(MetricType::HISTOGRAM, name, help, SERVER);
        for ((pool, name), server) in &self.counted {
            family.histogram(&[pool, name], times(server).histogram());
        }
        family.encode(self.text)
    }

    fn gauges(
        &mut self,
        name: &'static str,
        help: &'static str,
        value: impl Fn(&ServerReading<'_>) -> f64,
    ) -> prometheus::Result<()> {
        let mut family = Family::new(MetricType::GAUGE, name, help, SERVER);
        for server in &self.servers {
            family.gauge(&[server.pool, server.server], value(server));
        }
        family.encode(self.text)
    }

    fn states(
        &mut self,
        name: &'static str,
        help: &'static str,
        states: &[&str],
        current: impl Fn(&ServerReading<'_>) -> Option<&'static str>,
    ) -> prometheus::Result<()> {
        let mut family = Family::new(MetricType::GAUGE, name, help, SERVER_STATE);
        for server in &self.servers {
            let Some(current) = current(server) else { continue };
            for state in states {
                family.gauge(&[server.pool, server.server, state], f64::from(*state == current));
            }
        }
        family.encode(self.text)
    }
}
