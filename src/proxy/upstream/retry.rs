//! If it fails: count it, and may the request go on elsewhere?
//!
//! - No connection came about: nothing was sent, so any method may go to another server.
//! - It broke off before the answer began: only idempotent methods, whose body is still at hand, within the budget.
//! - On a *reused* connection a reset is no failure of the server, which may close an idle connection at any time: once
//!   more to the same server first.
//! - Anything later fails the request. Nothing is ever sent twice that may have been acted on.

use pingora::ErrorType::{
    self, ConnectRefused, ConnectTimedout, ConnectionClosed, ReadError, ReadTimedout, WriteError, WriteTimedout,
};
use pingora::{Error, ErrorSource};
use pingora_proxy::Session as Exchange;

use crate::config::OnServerDown;
use crate::persistence::Outcome;
use crate::persistence::select::FailureKind;
use crate::telemetry::metrics::{Retry, UpstreamError};

use crate::proxy::context::{Refusal, RequestContext};

/// The hook for a connection that did not come about.
#[expect(clippy::unnecessary_box_returns, reason = "the form of Pingora's hook")]
pub(crate) fn to_connect(ctx: &mut RequestContext, mut error: Box<Error>) -> Box<Error> {
    let kind = match error.etype() {
        ConnectRefused => UpstreamError::ConnectRefused,
        ConnectTimedout => UpstreamError::ConnectTimeout,
        _ => UpstreamError::ConnectError,
    };
    count(ctx, kind);
    if let (Some(server), Some(plan)) = (ctx.server(), ctx.pool_runtime())
        && server.live.connect_failed()
    {
        let (pool, server) = (&plan.pool.name, &server.name);
        tracing::warn!(%pool, %server, kind = kind.label(), "server takes no connections");
    }
    if let Some(server) = ctx.tries.server {
        ctx.session.history.failed.push((server, FailureKind::Connect));
    }
    ctx.tries.in_flight = None;
    // Whether and where it goes on is for `upstream_peer` to say, which knows the session's policy.
    let may = ctx.pool_runtime().is_some_and(|plan| plan.pool.retries.on_connect_failure);
    let retry = may || wants_its_own_say(ctx);
    if !retry {
        ctx.refusal = Some(Refusal::new(503, "connect_failure"));
    }
    error.set_retry(retry);
    error
}

/// The pool holds or refuses sessions whose server cannot be reached, also when nothing may be retried.
fn wants_its_own_say(ctx: &RequestContext) -> bool {
    ctx.session.outcome == Some(Outcome::Kept)
        && ctx.persistence().is_some_and(|persistence| {
            let policy = &persistence.policy;
            policy.on_server_down == OnServerDown::Refuse || (!policy.hold.is_zero() && !ctx.session.history.held)
        })
}

/// The hook for what broke after the connection stood.
#[expect(clippy::unnecessary_box_returns, reason = "the form of Pingora's hook")]
pub(crate) fn while_proxying(
    exchange: &mut Exchange,
    ctx: &mut RequestContext,
    mut error: Box<Error>,
    reused: bool,
) -> Box<Error> {
    ctx.tries.in_flight = None;
    // Also decides what Pingora leaves undecided, which would be a panic.
    error.set_retry(false);
    // The client went away, or one of our own filters objected: no server is to blame.
    if *error.esource() != ErrorSource::Upstream || matches!(error.etype(), ErrorType::HTTPStatus(_)) {
        return error;
    }
    let answering = exchange.response_written().is_some_and(|answer| !answer.status.is_informational());
    let kind = kind_of(error.etype(), answering);
    let before_answer = kind == UpstreamError::ResetBeforeResponse && ctx.tries.answered.is_none();
    let repeatable =
        exchange.req_header().method.is_idempotent() && !exchange.as_ref().retry_buffer_truncated() && before_answer;
    if repeatable && reused && !ctx.tries.same_server_again && retries_are_on(ctx) {
        ctx.tries.same_server_again = true;
        ctx.tries.next = ctx.tries.server;
        error.set_retry(true);
        return error;
    }
    count(ctx, kind);
    if repeatable && may_go_elsewhere(ctx) {
        if let Some(server) = ctx.tries.server {
            ctx.session.history.failed.push((server, FailureKind::BrokeOff));
        }
        error.set_retry(true);
    }
    error
}

fn kind_of(etype: &ErrorType, answering: bool) -> UpstreamError {
    match etype {
        ReadTimedout | WriteTimedout => UpstreamError::Timeout,
        _ if answering => UpstreamError::ResetMidResponse,
        ConnectionClosed | ReadError | WriteError => UpstreamError::ResetBeforeResponse,
        _ => UpstreamError::InvalidResponse,
    }
}

/// Stale connections are no reason to spend the budget: when a server restarts, all of them break at once. But a pool
/// that wants nothing sent again gets nothing sent again.
fn retries_are_on(ctx: &RequestContext) -> bool {
    ctx.pool_runtime().is_some_and(|plan| {
        let retries = &plan.pool.retries;
        retries.on_reset_before_response && retries.attempts > 0 && retries.budget_percent > 0
    })
}

fn may_go_elsewhere(ctx: &RequestContext) -> bool {
    let Some(plan) = ctx.pool_runtime() else { return false };
    let retries = &plan.pool.retries;
    let bound_and_strict = ctx.session.outcome == Some(Outcome::Kept)
        && ctx.persistence().is_some_and(|persistence| persistence.policy.on_server_down == OnServerDown::Refuse);
    if !retries.on_reset_before_response || bound_and_strict {
        return false;
    }
    if ctx.session.history.failed.len() >= retries.attempts as usize {
        plan.metrics.retries.inc(Retry::AttemptsExhausted as usize);
        return false;
    }
    let second = ctx.now.0 / 1000;
    if !plan.pool.budget.take(second) {
        plan.metrics.retries.inc(Retry::BudgetExhausted as usize);
        return false;
    }
    true
}

fn count(ctx: &RequestContext, kind: UpstreamError) {
    if let Some(server) = ctx.server() {
        server.live.metrics.errors.inc(kind as usize);
    }
}
