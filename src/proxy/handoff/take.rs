//! What a server hands over with an answer, and what its answer means to what it was given.
//!
//! The last answer below 500 of any server that serves the session counts, a guest's too: it says what the client did
//! last, and a log-out at a guest must not be undone by what the guest is given with the next request. An answer of 500
//! and above may come from a server that is half dead; what it says of the session is not heard.

use std::sync::atomic::Ordering::Relaxed;

use http::{HeaderValue, StatusCode};
use pingora::http::ResponseHeader;
use smallvec::SmallVec;

use crate::app::runtime::{HandoffSettings, PoolRuntime};
use crate::persistence::Outcome;
use crate::store::local::data::{HandoffPayload, Owner};
use crate::telemetry::metrics::Handoff;

use super::{Handed, bound, brought, owner};
use crate::proxy::context::RequestContext;
use crate::proxy::shared;

/// The handoff header of an answer.
pub(crate) enum Taken {
    /// This is the session's data from now on.
    Data(HeaderValue),
    /// There is none any more.
    Nothing,
    /// So many bytes, and so much is not taken.
    TooLarge(usize),
    /// Several lines: whether one of them or all together would be the data, nobody said.
    Several,
}

/// Takes the header off, whatever the answer is: clients never see it.
pub(crate) fn take_off(answer: &mut ResponseHeader, ctx: &RequestContext) -> Option<Taken> {
    let handoff = plan(ctx)?;
    let mut lines = answer.headers.get_all(&handoff.header).into_iter();
    let (first, several) = (lines.next()?, lines.next().is_some());
    let taken = match first.len() {
        _ if several => Taken::Several,
        0 => Taken::Nothing,
        size if size > handoff.max_size => Taken::TooLarge(size),
        _ => Taken::Data(first.clone()),
    };
    answer.remove_header(&handoff.header);
    Some(taken)
}

/// What changed of a session's data, for the store that is shared.
pub(crate) struct Change {
    /// Whose.
    pub(crate) owner: Owner,
    /// `None` = it has none any more.
    pub(crate) data: Option<HeaderValue>,
}

type Changes = SmallVec<[Change; 2]>;

/// The session's name after the answer is known: what was given has arrived, or not, and what was taken is kept.
pub(crate) async fn settle(status: StatusCode, taken: Option<Taken>, ctx: &mut RequestContext) {
    let handed = ctx.handed.take();
    let failed = status.is_server_error();
    let mut changes = Changes::new();
    if let Some(handed) = handed {
        arrived(*handed, failed, &mut changes, ctx);
    }
    if let (Some(taken), false, Some(plan)) = (taken, failed, ctx.plan()) {
        let result = keep(taken, plan, &mut changes, ctx);
        plan.metrics.handoffs.inc(result as usize);
    }
    if ctx.app().shared.is_some() {
        shared::keep_data(&changes, ctx).await;
    }
}

fn plan(ctx: &RequestContext) -> Option<&HandoffSettings> {
    ctx.persistence()?.handoff.as_ref()
}

/// A server has answered that was given something.
fn arrived(Handed { given, epoch }: Handed, failed: bool, changes: &mut Changes, ctx: &RequestContext) {
    let (data, table) = (&ctx.app().data, &ctx.app().table);
    let told = given.moved_header.filter(|_| failed);
    match (ctx.outcome, &ctx.who.session) {
        (Some(Outcome::Kept), Some(session)) if !failed => data.mark_delivered(&session.key, epoch),
        (Some(Outcome::Moved), Some(session)) => {
            // When another request of it moved it elsewhere, that move stands.
            let here = ctx.server().is_some_and(|server| server.id == session.binding.server);
            if let Some(owner) = ctx.plan().and_then(|plan| bound(session, plan)).filter(|_| here && !ctx.renamed.over)
            {
                data.record_move(&owner, epoch, told, table, ctx.now);
                changes
                    .extend(data.find_with_owner(&owner.key).map(|(owner, data)| Change { owner, data: Some(data) }));
            }
        }
        // From another version: it goes on under the name that this answer gives it.
        (Some(Outcome::Moved), None) => {
            if let Some(owner) = owner(ctx) {
                data.transfer(&owner, HandoffPayload { moved_header: told, data: given.data }, table, ctx.now);
                changes
                    .extend(data.find_with_owner(&owner.key).map(|(owner, data)| Change { owner, data: Some(data) }));
            }
        }
        _ => {}
    }
}

fn keep(taken: Taken, plan: &PoolRuntime, changes: &mut Changes, ctx: &RequestContext) -> Handoff {
    let (data, table) = (&ctx.app().data, &ctx.app().table);
    let brought = brought(ctx);
    match taken {
        Taken::TooLarge(size) => {
            warn(plan, ctx, "session data is larger than handoff.max_size and was refused; the old data stays", size);
            Handoff::RefusedSize
        }
        Taken::Several => {
            warn(plan, ctx, "session data on several lines was refused; the old data stays", 0);
            Handoff::RefusedLines
        }
        Taken::Nothing => {
            for owner in [brought, owner(ctx)].into_iter().flatten() {
                data.forget(&owner.key);
                changes.push(Change { owner, data: None });
            }
            Handoff::Forgotten
        }
        Taken::Data(value) => {
            let Some(owner) = owner(ctx) else { return Handoff::RefusedNobody };
            // The application gave its session another id, so that nobody who knows the old one has a part in it.
            if let Some(former) = brought.filter(|brought| brought.key != owner.key) {
                data.forget(&former.key);
                changes.push(Change { owner: former, data: None });
            }
            if !data.keep(&owner, &value, table, ctx.now) {
                return Handoff::Late;
            }
            changes.push(Change { owner, data: Some(value) });
            Handoff::Taken
        }
    }
}

/// Once a minute for a pool: an application that hands over too much does so with every answer.
fn warn(plan: &PoolRuntime, ctx: &RequestContext, what: &str, size: usize) {
    let minute = ctx.now.0 / 60_000;
    let Some(handoff) = self::plan(ctx).filter(|handoff| handoff.warned.swap(minute, Relaxed) != minute) else {
        return;
    };
    let server = ctx.server().map(|server| &*server.name);
    tracing::warn!(pool = %plan.pool.name, server, size, max_size = handoff.max_size, "{what}");
}
