//! Afterwards: what was done for the request becomes a record, for metrics and the access log.

use std::borrow::Cow;
use std::time::{Duration, Instant, UNIX_EPOCH};

use pingora::http::RequestHeader;
use pingora::{Error, ErrorSource};
use pingora_proxy::Session as Exchange;

use crate::message::RequestView;
use crate::persistence::{Outcome, Reason};
use crate::routing::host_name;
use crate::session::binding::Lookup;
use crate::session::key::Digest8;
use crate::session::source::Source;
use crate::session::url_params;
use crate::telemetry::metrics::Rejection;
use crate::telemetry::request_record::{FailureSource, RequestRecord, RequestResult};
use crate::telemetry::trace::Span;

use crate::proxy::context::{Refusal, RequestContext, RequestId};
use crate::proxy::head;
use crate::proxy::response::status;

/// The hook.
pub(crate) fn run(exchange: &Exchange, error: Option<&Error>, ctx: &mut RequestContext) {
    // What becomes of the rest of its body is no part of it.
    ctx.log_dropped = None;
    let status = exchange.response_written().map_or(0, |response| response.status.as_u16());
    let bytes = || (exchange.body_bytes_read(), exchange.body_bytes_sent());
    note(head::view(exchange.req_header()), (status, Instant::now()), bytes, error, ctx);
}

/// A request of HTTP/2 whose body did not arrive in time: its stream is reset.
pub(crate) fn run_dropped(ctx: &mut RequestContext, head: &RequestHeader) {
    let rejection = Rejection::BodyTimeout;
    ctx.app().metrics.rejected.inc(rejection as usize);
    tracing::debug!(client = ctx.client.address.map(display), reason = rejection.label(), "request rejected");
    let status = status::of_rejection(rejection);
    ctx.refusal = Some(Refusal::new(status, rejection.label()));
    let read = usize::try_from(ctx.body_bytes).unwrap_or(usize::MAX);
    note(head::view(head), (status, Instant::now()), || (read, 0), None, ctx);
}

/// Counts a request that has ended, and writes it to the access log. `bytes`: those of its body and of its response's.
pub(crate) fn note(
    request: RequestView<'_>,
    (status, ended): (u16, Instant),
    bytes: impl FnOnce() -> (usize, usize),
    error: Option<&Error>,
    ctx: &mut RequestContext,
) {
    (ctx.attempts.in_flight, ctx.attempts.stream) = (None, None);
    let duration = ended.saturating_duration_since(ctx.started);
    let result = RequestResult { status, duration, outcome: outcome(ctx).map(|outcome| outcome as usize) };
    let app = ctx.app();
    let route = ctx.route.and_then(|route| ctx.runtime.routes.get(route));
    result.count(route, ctx.pool_runtime().map(|pool| &pool.metrics), &app.metrics.no_pool);
    // The rest is read only where it is logged or traced.
    let log = app.access_log.load();
    let sampled = ctx.trace.filter(|trace| trace.sampled);
    let exporter = sampled.and_then(|trace| Some((app.span_exporter.load_full()?, trace)));
    if log.is_none() && exporter.is_none() {
        return;
    }
    let session = ctx.session.session().map(|session| session.key).or(ctx.session.created);
    let session = session.map(|key| ctx.runtime.log_key.digest8(key));
    let record = record(request, bytes(), error, ctx, result, session.as_ref());
    if let Some(log) = &*log
        && !log.write(&record.line())
    {
        app.metrics.access_log_dropped.inc();
    }
    if let Some((exporter, trace)) = exporter {
        exporter.export(Span::of(&record, &trace));
    }
}

/// Only a request that reached a server, or was refused because of its session, has an outcome.
fn outcome(ctx: &RequestContext) -> Option<Outcome> {
    ctx.session.outcome.filter(|outcome| ctx.attempts.responded.is_some() || *outcome == Outcome::Refused)
}

fn record<'a>(
    request: RequestView<'a>,
    (bytes_in, bytes_out): (usize, usize),
    error: Option<&Error>,
    ctx: &'a RequestContext,
    result: RequestResult,
    session: Option<&'a Digest8>,
) -> RequestRecord<'a> {
    let route = ctx.route.and_then(|route| ctx.runtime.config.routes.get(route));
    let attempt = ctx.attempts.started.zip(ctx.attempts.responded);
    RequestRecord {
        result,
        started: UNIX_EPOCH + Duration::from_millis(ctx.now.minus(ctx.late).0),
        request_id: ctx.request_id.as_ref().and_then(RequestId::as_str).unwrap_or_default(),
        client: ctx.client.address,
        method: request.method.as_str(),
        host: host_name(request.host()),
        path: without_session_ids(request.path(), ctx),
        version: request.version,
        bytes_in,
        bytes_out,
        server_time: attempt.map(|(started, responded)| responded.saturating_duration_since(started)),
        route: route.map(|route| route.name.as_str()),
        route_path: route.map(|route| route.path_prefix.as_str()),
        secure: ctx.client.secure,
        trace: ctx.trace,
        pool: ctx.pool_runtime().map(|pool| &*pool.pool.name),
        server: ctx.server().map(|server| &*server.name),
        attempts: ctx.attempts.count,
        session: session.map(Digest8::as_str),
        source: ctx.persistence().and_then(|persistence| ctx.session.source(persistence)).map(Source::label),
        lookup: ctx.session.lookup.result.map(Lookup::label),
        session_reason: ctx.session.reason.map(Reason::label),
        refusal: ctx.refusal.map(|refusal| refusal.why),
        failure: error.map(|error| match error.esource() {
            ErrorSource::Downstream => FailureSource::Client,
            ErrorSource::Upstream => FailureSource::Server,
            ErrorSource::Internal | ErrorSource::Unset => FailureSource::Proxy,
        }),
        node: &ctx.runtime.config.proxy.node,
        epoch: ctx.session.session().map(|session| session.binding.epoch).or(ctx.session.created.map(|_| 0)),
    }
}

/// The path without the tokens and ids that it may have as parameters: they are secrets.
fn without_session_ids<'a>(path: &'a str, ctx: &RequestContext) -> Cow<'a, str> {
    let mut clean = Cow::Borrowed(path);
    if path.contains(';') {
        for name in &ctx.runtime.secret_parameters {
            clean = url_params::without(&clean, name).map_or(clean, Cow::Owned);
        }
    }
    clean
}
