//! The checked configuration of distributed tracing.

use super::address::ServerAddress;

/// Traces of requests.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tracing {
    /// `traceparent` is passed on or begun; otherwise it is left alone.
    pub propagates: bool,
    /// Where spans are sent; `None` = nowhere.
    pub otlp: Option<Otlp>,
}

/// A collector of spans, and which it gets.
#[derive(Debug, Clone, PartialEq)]
pub struct Otlp {
    /// Host and port.
    pub address: ServerAddress,
    /// Host and port as the endpoint has them, for Host.
    pub host: String,
    /// Speaks TLS.
    pub tls: bool,
    /// The path of traces.
    pub path: String,
    /// The share of the traces that begin here.
    pub sample: f64,
}
