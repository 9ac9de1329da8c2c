//! An attempt failed: Pingora's error is translated for the [`retry`](super::retry) judgement, and its verdict is carried
//! out.

use pingora::ErrorType::{
    self, ConnectRefused, ConnectTimedout, ConnectionClosed, ReadError, ReadTimedout, WriteError, WriteTimedout,
};
use pingora::{Error, ErrorSource};
use pingora_proxy::Session as Exchange;

use crate::config::OnServerDown;
use crate::persistence::select::FailureKind;
use crate::persistence::{Outcome, PoolRuntime};
use crate::pool::exhaustion;
use crate::proxy::context::{Refusal, RequestContext};
use crate::telemetry::metrics::{LocalResource, Retry, UpstreamError};

use super::retry::{FailedAttempt, GiveUpReason, RetryRules, RetryVerdict, judge, judge_exhausted};

/// The proxy lacks a resource.
pub(super) const LOCAL_RESOURCES: Refusal = Refusal::new(503, "local_resources");

/// The hook for a connection that was not established.
#[expect(clippy::unnecessary_box_returns, reason = "the form of Pingora's hook")]
pub(crate) fn on_connect(ctx: &mut RequestContext, mut error: Box<Error>) -> Box<Error> {
    if let Some(resource) = exhaustion::exhausted_in(&error) {
        error.set_retry(retry_elsewhere(resource, ctx));
        return error;
    }
    let kind = match error.etype() {
        ConnectRefused => UpstreamError::ConnectRefused,
        ConnectTimedout => UpstreamError::ConnectTimeout,
        _ => UpstreamError::ConnectError,
    };
    if let (Some(server), Some(pool)) = (ctx.server(), ctx.pool_runtime())
        && server.live.connect_failed()
    {
        let (pool, server) = (&pool.pool.name, &server.name);
        tracing::warn!(%pool, %server, kind = kind.label(), "server does not accept connections");
    }
    // Nothing was sent, so what the request is does not matter.
    let attempt = FailedAttempt { error: kind, responded: false, reused: false, idempotent: false, replayable: false };
    let retried = apply(attempt, ctx);
    if !retried {
        ctx.refusal = Some(Refusal::new(503, "connect_failure"));
    }
    error.set_retry(retried);
    error
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

/// The hook for a failure on an established connection.
#[expect(clippy::unnecessary_box_returns, reason = "the form of Pingora's hook")]
pub(crate) fn while_proxying(
    exchange: &mut Exchange,
    ctx: &mut RequestContext,
    mut error: Box<Error>,
    reused: bool,
) -> Box<Error> {
    // Also decides what Pingora leaves undecided, which would be a panic.
    error.set_retry(false);
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
    let response_begun = exchange.response_written().is_some_and(|response| !response.status.is_informational());
    let attempt = FailedAttempt {
        error: kind_of(error.etype(), response_begun),
        responded: ctx.attempts.responded.is_some(),
        reused,
        idempotent: exchange.req_header().method.is_idempotent(),
        replayable: !exchange.as_ref().retry_buffer_truncated(),
    };
    let retried = apply(attempt, ctx);
    error.set_retry(retried);
    error
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
    ctx.attempts.in_flight = None;
    let Some(pool) = ctx.pool_runtime() else { return false };
    let second = ctx.now.0 / 1000;
    let verdict = judge(attempt, &rules(pool, ctx), || pool.pool.budget.take(second));
    match verdict {
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
        let kind = if attempt.error == UpstreamError::ResetBeforeResponse {
            FailureKind::BrokeOff
        } else {
            FailureKind::Connect
        };
        ctx.session.history.failed.push((server, kind));
    }
    retried
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
        bound: kept && ctx.session.session().is_some(),
        refuses_others: policy.is_some_and(|policy| policy.on_server_down == OnServerDown::Refuse),
        may_hold: policy.is_some_and(|policy| !policy.hold.is_zero() && !history.held),
    }
}
