//! The server has spoken: now, and not before, a session that moved belongs to it, and what it calls its own is learned.

use std::time::Instant;

use http::{Method, StatusCode};
use pingora::Result;
use pingora::http::ResponseHeader;

use crate::persistence::Outcome;

use crate::proxy::context::RequestContext;
use crate::proxy::hook::{self, Hook};
use crate::proxy::learn::Learned;
use crate::proxy::{handoff, header_case, learn, shared, versions};

/// The hook. Runs for every 1xx too; the first final answer (or a switch of protocols) counts.
pub(crate) fn run<'hook>(
    method: &Method,
    answer: &'hook mut ResponseHeader,
    ctx: &'hook mut RequestContext,
) -> Hook<'hook, Result<()>> {
    if header_case::is_lowered(ctx)
        && let Err(error) = header_case::lower_answer(answer)
    {
        return hook::now(Err(error));
    }
    if ctx.tries.answered.is_some() || !is_final(answer.status) {
        return hook::done(Ok(()));
    }
    ctx.tries.answered = Some(Instant::now());
    if let (Some(server), Some(plan)) = (ctx.server(), ctx.plan())
        && server.live.connected()
    {
        let (pool, server) = (&plan.pool.name, &server.name);
        tracing::info!(%pool, %server, "server takes connections again");
    }
    if ctx.outcome == Some(Outcome::Moved) {
        return Box::pin(rebind_and_learn(method.clone(), answer, ctx));
    }
    let learned = learn::run(method, answer.status, &answer.headers, ctx);
    if learned.is_empty() { hook::done(Ok(())) } else { Box::pin(assign(learned, ctx)) }
}

async fn rebind_and_learn(method: Method, answer: &ResponseHeader, ctx: &mut RequestContext) -> Result<()> {
    rebind(answer.status, ctx).await;
    let learned = learn::run(&method, answer.status, &answer.headers, ctx);
    assign(learned, ctx).await
}

/// Before the client has its id: its next request may come to another proxy.
async fn assign(learned: Learned, ctx: &mut RequestContext) -> Result<()> {
    if !learned.is_empty() {
        shared::assign(&learned, ctx).await;
    }
    Ok(())
}

/// 101 is the last answer in HTTP, though its number says otherwise.
pub(crate) fn is_final(status: StatusCode) -> bool {
    !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS
}

/// Makes the move good in the table, and in the store that is shared.
async fn rebind(status: StatusCode, ctx: &mut RequestContext) {
    let (Some(mut session), Some(chosen)) = (ctx.who.session.take(), ctx.tries.server) else {
        versions::settle(ctx);
        return;
    };
    let owed = handoff::owed(status, ctx);
    if shared::settle(&mut session, chosen, owed.as_deref(), ctx).await
        && let (Some(plan), Some(reason)) = (ctx.plan(), ctx.reason)
    {
        plan.metrics.moves.inc(reason as usize);
    }
    ctx.who.session = Some(session);
}
