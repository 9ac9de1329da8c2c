//! Distributed tracing: the trace that a request belongs to, and its span for a collector.

pub mod context;
pub mod export;
mod otlp;

pub use context::{Sampling, TraceContext};
pub use export::{Collector, SpanExporter};
pub use otlp::Span;
