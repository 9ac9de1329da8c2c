//! What was done for a request, as data: metrics count it, and the access log shows it.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use super::access_log::{Line, TraceId};
use super::metrics::{OUTCOMES, PoolMetrics, PoolRequests, RouteMetrics};
use super::trace::context::TraceContext;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestResult {
    /// Status of the response; 0 = the client was gone before one.
    pub status: u16,
    /// From the end of the request head to the end of the response.
    pub duration: Duration,
    /// What the request meant to its session, as index in [`OUTCOMES`]; `None` = it did not get that far.
    pub outcome: Option<usize>,
}

impl RequestResult {
    /// Counts the request; `no_pool` counts the requests that no pool served.
    pub fn count(&self, route: Option<&RouteMetrics>, pool: Option<&PoolMetrics>, no_pool: &PoolRequests) {
        if let Some(route) = route {
            route.request(self.status);
        }
        let Some(pool) = pool else {
            no_pool.request(self.status, self.duration);
            return;
        };
        pool.request(self.status, self.duration);
        if let Some(outcome) = self.outcome {
            pool.outcomes.inc(outcome);
        }
    }
}

/// Where the failure of a request came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureSource {
    /// The client, which went away.
    Client,
    /// The server.
    Server,
    /// The proxy.
    Proxy,
}

impl FailureSource {
    /// Its name in the access log.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Client => "client_gone",
            Self::Server => "upstream_failed",
            Self::Proxy => "failed",
        }
    }
}

/// All that the access log shows of a request.
#[derive(Debug, Clone)]
pub struct RequestRecord<'a> {
    /// How it ended.
    pub result: RequestResult,
    /// When its head was read.
    pub started: SystemTime,
    /// Its id.
    pub request_id: &'a str,
    /// The client's address.
    pub client: Option<IpAddr>,
    /// Method.
    pub method: &'a str,
    /// Host as the client sent it, without port.
    pub host: &'a str,
    /// Path without query and without session ids.
    pub path: Cow<'a, str>,
    /// Version of HTTP.
    pub version: http::Version,
    /// Bytes of the request body.
    pub bytes_in: usize,
    /// Bytes of the response body.
    pub bytes_out: usize,
    /// From the start of the last attempt to the response head.
    pub server_time: Option<Duration>,
    /// Route.
    pub route: Option<&'a str>,
    /// Pool.
    pub pool: Option<&'a str>,
    /// Server of the last attempt.
    pub server: Option<&'a str>,
    /// Attempts at servers.
    pub attempts: u32,
    /// First 8 characters of the keyed hash of the session's id.
    pub session: Option<&'a str>,
    /// Source that named the session.
    pub source: Option<&'static str>,
    /// What the lookup of the session found.
    pub lookup: Option<&'static str>,
    /// Why the session did not stay on its server.
    pub session_reason: Option<&'static str>,
    /// Why the proxy refused the request.
    pub refusal: Option<&'static str>,
    /// What failed, when something did.
    pub failure: Option<FailureSource>,
    /// Epoch of the session's binding.
    pub epoch: Option<u32>,
    /// Name of this proxy.
    pub node: &'a str,
    /// The client came by TLS.
    pub secure: bool,
    /// The path prefix of its route.
    pub route_path: Option<&'a str>,
    /// Its place in its trace.
    pub trace: Option<TraceContext>,
}

impl RequestRecord<'_> {
    /// The line of the access log.
    pub fn line(&self) -> Line<'_> {
        let failure = self.failure.map(FailureSource::label);
        Line {
            ts: humantime::format_rfc3339_millis(self.started).to_string(),
            request_id: self.request_id,
            client_ip: self.client,
            method: self.method,
            host: loggable(self.host),
            path: &self.path,
            protocol: protocol(self.version),
            status: self.result.status,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            duration_ms: millis(self.result.duration),
            upstream_ms: self.server_time.map(millis),
            route: self.route,
            pool: self.pool,
            server: self.server,
            attempts: self.attempts,
            session: self.session,
            source: self.source,
            lookup: self.lookup,
            outcome: self.result.outcome.and_then(|outcome| OUTCOMES.get(outcome).copied()),
            reason: self.session_reason.or(self.refusal).or(failure),
            epoch: self.epoch,
            node: self.node,
            trace_id: self.trace.map(|trace| TraceId(trace.trace_id)),
        }
    }
}

/// A host name or address; anything else that a client sent in place of one is not logged.
fn loggable(host: &str) -> &str {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    if host.bytes().all(plain) { host } else { "" }
}

fn protocol(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_09 => "HTTP/0.9",
        http::Version::HTTP_10 => "HTTP/1.0",
        http::Version::HTTP_2 => "HTTP/2.0",
        http::Version::HTTP_3 => "HTTP/3.0",
        _ => "HTTP/1.1",
    }
}

/// Milliseconds with three decimals.
fn millis(duration: Duration) -> f64 {
    let micros = u32::try_from(duration.as_micros()).unwrap_or(u32::MAX);
    f64::from(micros) / 1000.0
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use proptest::prelude::*;

    use super::*;
    use crate::telemetry::metrics::Metrics;
    use crate::telemetry::trace::context::Sampling;

    fn record() -> RequestRecord<'static> {
        RequestRecord {
            result: RequestResult { status: 200, duration: Duration::from_micros(1500), outcome: Some(1) },
            started: UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
            request_id: "id-1",
            client: Some("192.0.2.1".parse().unwrap()),
            method: "GET",
            host: "a.example",
            path: Cow::Borrowed("/cart"),
            version: http::Version::HTTP_2,
            bytes_in: 0,
            bytes_out: 7,
            server_time: Some(Duration::from_millis(1)),
            route: None,
            pool: Some("web"),
            server: Some("a"),
            attempts: 1,
            session: Some("0123abcd"),
            source: Some("cookie"),
            lookup: Some("hit"),
            session_reason: None,
            refusal: None,
            failure: None,
            epoch: Some(0),
            node: "edge-1",
            secure: true,
            route_path: None,
            trace: Some(TraceContext::begun(0xabc, 1, Sampling::NONE)),
        }
    }

    #[test]
    fn a_line_has_the_fields_in_the_words_of_the_metrics() {
        let line = serde_json::to_value(record().line()).unwrap();
        for (field, value) in [
            ("ts", serde_json::json!("2023-11-14T22:13:20.123Z")),
            ("protocol", "HTTP/2.0".into()),
            ("duration_ms", 1.5.into()),
            ("upstream_ms", 1.0.into()),
            ("outcome", "kept".into()),
            ("reason", serde_json::Value::Null),
            ("route", serde_json::Value::Null),
            ("client_ip", "192.0.2.1".into()),
            ("node", "edge-1".into()),
            ("trace_id", format!("{:032x}", 0xabc).into()),
        ] {
            assert_eq!(line[field], value, "{field}");
        }
    }

    #[test]
    fn the_reason_of_the_session_goes_before_that_of_the_failure() {
        let failed = RequestRecord { failure: Some(FailureSource::Server), ..record() };
        assert_eq!(failed.line().reason, Some("upstream_failed"));
        let refused = RequestRecord { refusal: Some("no_server"), ..failed };
        assert_eq!(refused.line().reason, Some("no_server"));
        let moved = RequestRecord { session_reason: Some("down"), ..refused };
        assert_eq!(moved.line().reason, Some("down"));
    }

    #[test]
    fn a_result_is_counted_for_its_route_and_pool_or_for_none() {
        let metrics = Metrics::new().unwrap();
        let (route, pool) = (metrics.route("shop"), metrics.pool("web", &[]));
        let result = record().result;
        result.count(Some(&route), Some(&pool), &metrics.no_pool);
        result.count(None, None, &metrics.no_pool);
        assert_eq!((pool.outcomes.get(1), pool.outcomes.get(0)), (1, 0));
        let table = crate::telemetry::metrics::TableReading { entries: 0, capacity: 0, bytes: 0, handoff_bytes: 0 };
        let text = String::from_utf8(metrics.render(&table, std::iter::empty(), std::iter::empty()).unwrap()).unwrap();
        for sample in [
            r#"homing_requests_total{code="200",pool="web"} 1"#,
            r#"homing_requests_total{code="200",pool="-"} 1"#,
            r#"homing_route_requests_total{code="200",route="shop"} 1"#,
        ] {
            assert!(text.contains(sample), "{sample}\n{text}");
        }
    }

    proptest! {
        #[test]
        fn only_a_host_is_logged_as_one(host in "[ -~]{0,20}") {
            let record = RequestRecord { host: &host, ..record() };
            let logged = record.line().host.to_owned();
            prop_assert!(logged.is_empty() || logged == host);
            prop_assert!(!logged.contains([' ', '"', '/', '?', '=', ';', '@']), "{logged}");
        }
    }
}
