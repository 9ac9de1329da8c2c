//! An attempt failed: Pingora's error is translated for the [`retry`](super::retry) judgement, and its verdict is carried
//! out.

use std::time::Instant;

use h2::Reason;
use http::header;
use pingora::ErrorType::{
    self, ConnectRefused, ConnectTimedout, ConnectionClosed, ReadError, ReadTimedout, WriteError, WriteTimedout,
};
use pingora::{Error, ErrorSource, Result};
use pingora_proxy::Session as Exchange;

use crate::config::OnServerDown;
use crate::persistence::select::FailureKind;
use crate::persistence::{Outcome, PoolRuntime};
use crate::pool::exhaustion;
use crate::pool::server::Server;
use crate::pool::tls_failure::{TlsFailure, refused_by_server, tls_failure};
use crate::proxy::context::{Refusal, RequestContext};
use crate::proxy::head;
use crate::proxy::request::limits;
use crate::telemetry::metrics::{LocalResource, Retry, UpstreamError};

use super::retry::{FailedAttempt, GiveUpReason, RetryRules, RetryVerdict, judge, judge_exhausted};

/// A server responded, and there was no TLS that the pool accepts.
pub(super) const TLS_FAILURE: Refusal = Refusal::new(502, "tls_failure");
/// The proxy lacks a resource.
pub(super) const LOCAL_RESOURCES: Refusal = Refusal::new(503, "local_resources");

/// The hook for a connection that was not established.
#[expect(clippy::unnecessary_box_returns, reason = "the form of Pingora's hook")]
pub(crate) fn on_connect(ctx: &mut RequestContext, mut error: Box<Error>) -> Box<Error> {
    if let Some(resource) = exhaustion::exhausted_in(&error) {
        error.set_retry(retry_elsewhere(resource, ctx));
        return error;
    }
    let tls = tls_failure(&error);
    let kind = match (&tls, error.etype()) {
        (Some(failure), _) => failure.kind,
        (None, ConnectRefused) => UpstreamError::ConnectRefused,
        (None, ConnectTimedout) => UpstreamError::ConnectTimeout,
        (None, _) => UpstreamError::ConnectError,
    };
    if !is_closing(&error) {
        note_unreachable(kind, tls.as_ref(), ctx);
    }
    // Nothing was sent, so what the request is does not matter.
    let attempt = FailedAttempt {
        error: kind,
        responded: false,
        reused: false,
        idempotent: false,
        unprocessed: is_closing(&error),
        replayable: true,
        client_slow: false,
    };
    let retried = apply(attempt, ctx);
    if !retried {
        ctx.refusal = Some(unreachable(ctx));
    }
    error.set_retry(retried);
    error
}

/// Logs the first failed connection to a server since one succeeded.
fn note_unreachable(kind: UpstreamError, tls: Option<&TlsFailure>, ctx: &mut RequestContext) {
    ctx.attempts.tls_failed |= tls.is_some();
    let (Some(server), Some(pool)) = (ctx.server(), ctx.pool_runtime()) else { return };
    if !server.live.connect_failed() {
        return;
    }
    let (pool, server, kind) = (&pool.pool.name, &server.name, kind.label());
    match tls {
        None => tracing::warn!(%pool, %server, kind, "server does not accept connections"),
        Some(failure) => {
            let (reason, help) = (&failure.reason, failure.help());
            tracing::warn!(%pool, %server, kind, reason, help, "no TLS connection to a server");
        }
    }
}

/// Nothing was sent, and no server is left to send it to.
fn unreachable(ctx: &RequestContext) -> Refusal {
    if ctx.attempts.tls_failed { TLS_FAILURE } else { Refusal::new(503, "connect_failure") }
}

/// No connection for lack of a local resource: the server has not failed. True when the request goes to another.
fn retry_elsewhere(resource: LocalResource, ctx: &mut RequestContext) -> bool {
    note_exhaustion(resource, ctx);
    ctx.attempts.in_flight = None;
    let Some(pool) = ctx.pool_runtime() else { return false };
    let retried = judge_exhausted(ctx.session.has_key(), &rules(pool, ctx)) == RetryVerdict::AnotherServer;
    match ctx.attempts.server.filter(|_| retried) {
        Some(server) => ctx.session.history.failed.push((server, FailureKind::Connect)),
        None => ctx.refusal = Some(LOCAL_RESOURCES),
    }
    retried
}

fn note_exhaustion(resource: LocalResource, ctx: &RequestContext) {
    if let Some(server) = ctx.server() {
        server.live.metrics.exhausted_connects.inc(resource);
    }
    exhaustion::warn(resource, "a server could not be connected to; its sessions stay", ctx.now.0 / 1000);
}

/// How far an exchange had come when its connection to the server failed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Progress {
    /// A final response head was sent to the client: not a 1xx, but a 101.
    pub(crate) response_begun: bool,
    /// The connection had carried other requests.
    pub(crate) reused: bool,
    /// The request's method is idempotent.
    pub(crate) idempotent: bool,
    /// All that was read of the request's body is still there.
    pub(crate) replayable: bool,
    /// The request's body has arrived.
    pub(crate) body_done: bool,
}

/// The hook for a failure on an established connection.
#[expect(clippy::unnecessary_box_returns, reason = "the form of Pingora's hook")]
pub(crate) fn while_proxying(
    exchange: &mut Exchange,
    ctx: &mut RequestContext,
    error: Box<Error>,
    reused: bool,
) -> Box<Error> {
    let progress = Progress {
        response_begun: exchange.response_written().is_some_and(|response| head::response_view(response).is_final()),
        reused,
        idempotent: exchange.req_header().method.is_idempotent(),
        replayable: !exchange.as_ref().retry_buffer_truncated(),
        body_done: exchange.as_mut().is_body_done(),
    };
    on_break(progress, ctx, error)
}

/// A failure on an established connection. Whether the request is sent again is in the error.
#[expect(clippy::unnecessary_box_returns, reason = "the form of Pingora's hook")]
pub(crate) fn on_break(progress: Progress, ctx: &mut RequestContext, mut error: Box<Error>) -> Box<Error> {
    let Progress { response_begun, reused, idempotent, replayable, body_done } = progress;
    // Also decides what Pingora leaves undecided, which would be a panic.
    error.set_retry(false);
    if let Some(progress) = &ctx.body_progress {
        progress.send_nowhere();
    }
    if limits::is_body_slow(&error, ctx) {
        limits::note_slow_body(ctx);
        ctx.attempts.in_flight = None;
        return error;
    }
    if *error.etype() == ReadTimedout && *error.esource() == ErrorSource::Downstream && !response_begun {
        limits::note_body_timeout(ctx);
    }
    // The client went away, or one of the proxy's own filters refused: the server has not failed.
    if *error.esource() != ErrorSource::Upstream || matches!(error.etype(), ErrorType::HTTPStatus(_)) {
        ctx.attempts.in_flight = None;
        return error;
    }
    // The system had no buffer or memory for the connection.
    if let Some(resource) = exhaustion::exhausted_in(&error) {
        note_exhaustion(resource, ctx);
        ctx.attempts.in_flight = None;
        ctx.refusal = Some(LOCAL_RESOURCES);
        return error;
    }
    tracing::debug!(%error, reused, "attempt failed");
    let refused = tls_failure(&error).or_else(|| refused_by_server(&error).filter(|_| !reused));
    let refused = refused.filter(|_| ctx.attempts.responded.is_none());
    if let Some(failure) = &refused {
        note_unreachable(failure.kind, Some(failure), ctx);
    }
    let attempt = FailedAttempt {
        error: refused.as_ref().map_or_else(|| kind_of(error.etype(), response_begun), |failure| failure.kind),
        responded: ctx.attempts.responded.is_some(),
        reused,
        idempotent,
        unprocessed: is_unprocessed(&error),
        replayable,
        client_slow: *error.etype() == ReadTimedout && !body_done,
    };
    let retried = apply(attempt, ctx);
    if refused.is_some() && !retried {
        ctx.refusal = Some(TLS_FAILURE);
    }
    error.set_retry(retried);
    error
}

/// A response without a length ends with its connection; when the proxy has ended that, the response is not whole, and its
/// client must see so.
pub(crate) fn check_end(exchange: &Exchange, ctx: &RequestContext) -> Result<()> {
    check_end_of(ctx, || {
        exchange.response_written().is_some_and(|response| response.headers.contains_key(&header::CONTENT_LENGTH))
    })
}

/// The same for a response whose head may have a length.
pub(crate) fn check_end_of(ctx: &RequestContext, has_length: impl FnOnce() -> bool) -> Result<()> {
    let ended = ctx.server().is_some_and(|server| server.live.connections.ends() != ctx.attempts.ends);
    if ended && !ctx.upgrade && !has_length() {
        return Error::e_explain(ConnectionClosed, "the connection to the server was ended").map_err(Error::into_up);
    }
    Ok(())
}

/// What the server did not process, it says (RFC 9113, sections 6.8 and 8.7): the stream was refused, or it is above the last
/// one of a GOAWAY. `h2` ends only those streams with a GOAWAY.
fn is_unprocessed(error: &Error) -> bool {
    let Some(error) = error.root_cause().downcast_ref::<h2::Error>() else { return false };
    error.is_remote() && (error.is_go_away() || (error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM)))
}

/// An established HTTP/2 connection takes no more streams: the request was not sent.
fn is_closing(error: &Error) -> bool {
    error.root_cause().downcast_ref::<h2::Error>().is_some_and(|error| error.is_remote() && error.is_go_away())
}

fn kind_of(etype: &ErrorType, response_begun: bool) -> UpstreamError {
    match etype {
        ReadTimedout | WriteTimedout => UpstreamError::Timeout,
        _ if response_begun => UpstreamError::ResetMidResponse,
        ConnectionClosed | ReadError | WriteError => UpstreamError::ResetBeforeResponse,
        _ => UpstreamError::InvalidResponse,
    }
}

/// Carries out the verdict. True when the request is sent again: where to is for the next selection.
fn apply(attempt: FailedAttempt, ctx: &mut RequestContext) -> bool {
    let verdict = verdict(attempt, ctx);
    if !matches!(verdict, RetryVerdict::SameServerUnprocessed | RetryVerdict::SameServerFresh) {
        ctx.attempts.in_flight = None;
    }
    let Some(pool) = ctx.pool_runtime() else { return false };
    match verdict {
        RetryVerdict::SameServerUnprocessed => {
            ctx.attempts.unprocessed += 1;
            ctx.attempts.next = ctx.attempts.server;
            return true;
        }
        RetryVerdict::SameServerFresh => {
            ctx.attempts.same_server_again = true;
            ctx.attempts.next = ctx.attempts.server;
            // A stale connection is no failure of the server.
            if !attempt.reused {
                count(attempt.error, ctx);
            }
            return true;
        }
        RetryVerdict::GiveUp(GiveUpReason::AttemptsExhausted) => {
            pool.metrics.retries.inc(Retry::AttemptsExhausted as usize);
        }
        RetryVerdict::GiveUp(GiveUpReason::BudgetExhausted) => {
            pool.metrics.retries.inc(Retry::BudgetExhausted as usize);
        }
        RetryVerdict::AnotherServer | RetryVerdict::GiveUp(_) => {}
    }
    count(attempt.error, ctx);
    let retried = verdict == RetryVerdict::AnotherServer;
    if retried && let Some(server) = ctx.attempts.server {
        let kind = match attempt.error {
            UpstreamError::ResetBeforeResponse if is_ended_by_drain(ctx) => FailureKind::Drained,
            UpstreamError::ResetBeforeResponse => FailureKind::BrokeOff,
            _ => FailureKind::Connect,
        };
        ctx.session.history.failed.push((server, kind));
    }
    retried
}

/// What happens to the request. A failure that ejects its server changes what is possible there.
fn verdict(attempt: FailedAttempt, ctx: &mut RequestContext) -> RetryVerdict {
    let second = ctx.now.0 / 1000;
    let judged = |ctx: &RequestContext, paid: bool| {
        let nowhere = RetryVerdict::GiveUp(GiveUpReason::NotRepeatable);
        ctx.pool_runtime()
            .map_or(nowhere, |pool| judge(attempt, &rules(pool, ctx), || paid || pool.pool.budget.take(second)))
    };
    let first = judged(ctx, false);
    // A stale connection is no failure of the server.
    let stale = first == RetryVerdict::SameServerFresh && attempt.reused;
    if stale || is_ended_by_drain(ctx) || !attempt.is_failure_of_server() || !note_failure(ctx) {
        return first;
    }
    match first {
        RetryVerdict::SameServerFresh => judged(ctx, true),
        RetryVerdict::GiveUp(GiveUpReason::SessionStays) => judged(ctx, false),
        other => other,
    }
}

/// Tells the circuit breaker. True when the server is ejected by it.
fn note_failure(ctx: &mut RequestContext) -> bool {
    let Some(pool) = ctx.session.pool.and_then(|pool| ctx.runtime.pools.get(pool)) else { return false };
    let Some((server, in_flight)) = ctx.attempts.server.zip(ctx.attempts.in_flight.as_mut()) else { return false };
    pool.pool.note_failure(server, in_flight, Instant::now())
}

fn count(error: UpstreamError, ctx: &RequestContext) {
    if let Some(server) = ctx.server() {
        server.live.metrics.errors.inc(error as usize);
    }
}

fn rules<'a>(pool: &'a PoolRuntime, ctx: &RequestContext) -> RetryRules<'a> {
    let history = &ctx.session.history;
    let kept = ctx.session.outcome == Some(Outcome::Kept);
    let policy = pool.persistence.as_ref().map(|persistence| &persistence.policy).filter(|_| kept);
    RetryRules {
        retries: &pool.pool.retries,
        failed: history.failed.len(),
        same_server_again: ctx.attempts.same_server_again,
        unprocessed: ctx.attempts.unprocessed,
        bound: kept && ctx.session.session().is_some(),
        refuses_others: policy.is_some_and(|policy| policy.on_server_down == OnServerDown::Refuse),
        // A probe has its server for itself.
        server_gone: !ctx.attempts.is_probe()
            && (is_ended_by_drain(ctx)
                || ctx.server().is_some_and(|server| !server.condition_after_failure().accepts_bound())),
        may_hold: policy.is_some_and(|policy| !policy.hold.is_zero() && !history.held),
    }
}

/// The server has drained (`drain_deadline`), and during the attempt connections to it were ended.
fn is_ended_by_drain(ctx: &RequestContext) -> bool {
    let ended = |server: &Server| server.live.connections.ends() != ctx.attempts.ends;
    ctx.server().is_some_and(|server| server.drain_schedule().is_some() && ended(server))
}
