//! Afterwards: metrics, and a line in the access log.

use std::borrow::Cow;
use std::time::{Duration, UNIX_EPOCH};

use pingora::{Error, ErrorSource};
use pingora_proxy::Session as Exchange;

use crate::persistence::{Outcome, Reason};
use crate::session::binding::Lookup;
use crate::session::key::Digest8;
use crate::session::source::Source;
use crate::session::url_params;
use crate::telemetry::access_log::{AccessLog, Line};

use crate::proxy::context::{Refusal, RequestContext};
use crate::proxy::request::host_name_of;

/// The hook.
pub(crate) fn run(exchange: &Exchange, error: Option<&Error>, ctx: &mut RequestContext) {
    ctx.tries.in_flight = None;
    let status = exchange.response_written().map_or(0, |answer| answer.status.as_u16());
    let took = ctx.started.elapsed();
    count(ctx, status, took);
    let app = ctx.app();
    let log = app.access_log.load();
    if let Some(log) = &*log
        && !write_line(log, exchange, error, ctx, status, took)
    {
        app.metrics.access_log_dropped.inc();
    }
}

fn count(ctx: &RequestContext, status: u16, took: Duration) {
    if let Some(route) = ctx.route.and_then(|route| ctx.runtime.routes.get(route)) {
        route.request(status);
    }
    let Some(plan) = ctx.pool_runtime() else {
        ctx.app().metrics.no_pool.request(status, took);
        return;
    };
    plan.metrics.request(status, took);
    if let Some(outcome) = outcome(ctx) {
        plan.metrics.outcomes.inc(outcome as usize);
    }
}

/// Only a request that reached a server, or was refused on purpose, went somewhere.
fn outcome(ctx: &RequestContext) -> Option<Outcome> {
    ctx.session.outcome.filter(|outcome| ctx.tries.answered.is_some() || *outcome == Outcome::Refused)
}

fn write_line(
    log: &AccessLog,
    exchange: &Exchange,
    error: Option<&Error>,
    ctx: &RequestContext,
    status: u16,
    took: Duration,
) -> bool {
    let request = exchange.req_header();
    let session = ctx.session.session().map(|session| session.key).or(ctx.session.created);
    let session = session.map(|key| ctx.runtime.log_key.digest8(key));
    let route = ctx.route.and_then(|route| ctx.runtime.config.routes.get(route));
    let path = without_token(request.uri.path(), ctx);
    let wall = UNIX_EPOCH + Duration::from_millis(ctx.now.0);
    log.write(&Line {
        ts: humantime::format_rfc3339_millis(wall).to_string(),
        request_id: ctx.request_id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or_default(),
        client_ip: ctx.client.address,
        method: request.method.as_str(),
        host: loggable(host_name_of(request)),
        path: &path,
        protocol: protocol(request.version),
        status,
        bytes_in: exchange.body_bytes_read(),
        bytes_out: exchange.body_bytes_sent(),
        duration_ms: millis(took),
        upstream_ms: ctx
            .tries
            .began
            .zip(ctx.tries.answered)
            .map(|(began, answered)| millis(answered.saturating_duration_since(began))),
        route: route.map(|route| route.name.as_str()),
        pool: ctx.pool_runtime().map(|plan| &*plan.pool.name),
        server: ctx.server().map(|server| &*server.name),
        attempts: ctx.tries.count,
        session: session.as_ref().map(Digest8::as_str),
        source: source(ctx).map(Source::label),
        lookup: ctx.session.lookup.result.map(Lookup::label),
        outcome: outcome(ctx).map(Outcome::label),
        reason: reason(ctx, error),
        epoch: ctx.session.session().map(|session| session.binding.epoch).or(ctx.session.created.map(|_| 0)),
    })
}

/// The source that named the session.
fn source(ctx: &RequestContext) -> Option<&Source> {
    ctx.session.source(ctx.persistence()?)
}

/// A host that is one; what a client put in its place, which may be anything, is not for the log.
fn loggable(host: &str) -> &str {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    if host.bytes().all(plain) { host } else { "" }
}

/// The path without the tokens and ids that it may carry as parameters: a log gives nobody away.
fn without_token<'a>(path: &'a str, ctx: &RequestContext) -> Cow<'a, str> {
    let mut clean = Cow::Borrowed(path);
    if path.contains(';') {
        for name in &ctx.runtime.secret_parameters {
            clean = url_params::without(&clean, name).map_or(clean, Cow::Owned);
        }
    }
    clean
}

/// Why the session did not stay, else why the request failed.
fn reason(ctx: &RequestContext, error: Option<&Error>) -> Option<&'static str> {
    let failed = error.map(|error| match error.esource() {
        ErrorSource::Downstream => "client_gone",
        ErrorSource::Upstream => "upstream_failed",
        _ => "failed",
    });
    ctx.session.reason.map(Reason::label).or_else(|| ctx.refusal.map(|Refusal { why, .. }| why)).or(failed)
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

/// Milliseconds to the microsecond.
fn millis(duration: Duration) -> f64 {
    let micros = u32::try_from(duration.as_micros()).unwrap_or(u32::MAX);
    f64::from(micros) / 1000.0
}
