//! The messages of OTLP (opentelemetry-proto, stable since 1.0) that carry spans, and the span of a request.
//!
//! Only what this proxy sends: unknown fields of the rest are none of ours, and numbers of fields never change.

use prost::Message;

use crate::telemetry::access_log::Line;
use crate::telemetry::request_record::RequestRecord;

use super::context::TraceContext;

/// A span as it is sent.
#[derive(Clone, PartialEq, Message)]
#[expect(clippy::struct_field_names, reason = "the names of OTLP")]
pub struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
    #[prost(fixed32, tag = "16")]
    flags: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(oneof = "Value", tags = "1, 3")]
    value: Option<Value>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Value {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(int64, tag = "3")]
    Int(i64),
}

#[derive(Clone, PartialEq, Message)]
struct ExportRequest {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
struct Scope {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

/// `SPAN_KIND_SERVER`.
const SERVER: i32 = 2;
/// `STATUS_CODE_ERROR`.
const ERROR: i32 = 2;
/// Flags of a span: whether the parent is remote is known, and it is.
const PARENT_IS_REMOTE: u32 = 0x300;
/// `SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK` alone: it is not, as there is none.
const PARENT_IS_NOT_REMOTE: u32 = 0x100;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The methods that the semantic conventions know; another is `_OTHER`, so that clients cannot make up names of spans.
const METHODS: [&str; 9] = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "CONNECT"];

/// The body of a request to the collector, of the proxy of that name.
pub(super) fn export_request(node: &str, spans: Vec<Span>) -> Vec<u8> {
    let resource = [("service.name", "homing"), ("service.version", VERSION), ("service.instance.id", node)];
    let request = ExportRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource { attributes: resource.map(|(key, value)| text(key, value)).to_vec() }),
            scope_spans: vec![ScopeSpans {
                scope: Some(Scope { name: "homing".to_owned(), version: VERSION.to_owned() }),
                spans,
            }],
        }],
    };
    request.encode_to_vec()
}

fn text(key: &str, value: &str) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(Value::Text(value.to_owned())) }) }
}

fn int(key: &str, value: usize) -> KeyValue {
    let value = i64::try_from(value).unwrap_or(i64::MAX);
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(Value::Int(value)) }) }
}

impl Span {
    /// The span of a request, by the semantic conventions for HTTP servers. Without the query and header fields, which may
    /// hold secrets.
    pub fn of(record: &RequestRecord<'_>, trace: &TraceContext) -> Self {
        let line = record.line();
        let method = METHODS.into_iter().find(|known| *known == line.method);
        let name = method.unwrap_or("HTTP");
        let began = record.started.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let nanos = |time: std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let failed = line.status >= 500;
        Self {
            trace_id: trace.trace_id.to_vec(),
            span_id: trace.span_id.to_vec(),
            parent_span_id: trace.parent.map(|parent| parent.to_vec()).unwrap_or_default(),
            name: record.route_path.map_or_else(|| name.to_owned(), |path| format!("{name} {path}")),
            kind: SERVER,
            start_time_unix_nano: nanos(began),
            end_time_unix_nano: nanos(began.saturating_add(record.result.duration)),
            attributes: attributes(record, &line, method),
            status: failed.then_some(Status { code: ERROR }),
            flags: 1 | if trace.parent.is_some() { PARENT_IS_REMOTE } else { PARENT_IS_NOT_REMOTE },
        }
    }
}

fn attributes(record: &RequestRecord<'_>, line: &Line<'_>, method: Option<&str>) -> Vec<KeyValue> {
    let mut all = Vec::with_capacity(24);
    all.push(text("http.request.method", method.unwrap_or("_OTHER")));
    if method.is_none() {
        all.push(text("http.request.method_original", line.method));
    }
    all.push(text("url.scheme", if record.secure { "https" } else { "http" }));
    all.push(text("url.path", line.path));
    all.push(text("network.protocol.version", line.protocol.trim_start_matches("HTTP/").trim_end_matches(".0")));
    if line.status > 0 {
        all.push(int("http.response.status_code", line.status.into()));
    }
    if line.status == 0 || line.status >= 500 {
        let status = line.status.to_string();
        all.push(text("error.type", line.reason.unwrap_or(&status)));
    }
    if let Some(client) = line.client_ip {
        all.push(text("client.address", &client.to_string()));
    }
    all.push(int("http.request.body.size", line.bytes_in));
    all.push(int("http.response.body.size", line.bytes_out));
    let own = [
        ("server.address", Some(line.host).filter(|host| !host.is_empty())),
        ("http.route", record.route_path),
        ("homing.request_id", Some(line.request_id)),
        ("homing.route", line.route),
        ("homing.pool", line.pool),
        ("homing.server", line.server),
        ("homing.session", line.session),
        ("homing.source", line.source),
        ("homing.lookup", line.lookup),
        ("homing.outcome", line.outcome),
        ("homing.reason", line.reason),
    ];
    all.extend(own.into_iter().filter_map(|(key, value)| Some(text(key, value?))));
    all.push(int("homing.attempts", usize::try_from(line.attempts).unwrap_or(usize::MAX)));
    all
}
