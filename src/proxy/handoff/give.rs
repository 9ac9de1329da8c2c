//! What a try's server is given: nothing when the session is at home there.

use http::HeaderName;
use pingora::Result;
use pingora::http::RequestHeader;

use crate::app::runtime::PoolPersistence;
use crate::persistence::Outcome;
use crate::store::local::data::HandoffPayload;
use crate::telemetry::metrics::Handoff;

use super::told::{leaving, told};
use super::{Handed, bound};
use crate::proxy::context::RequestContext;
use crate::proxy::request::forwarded_headers::reads_as;
use crate::proxy::shared;

/// Takes off what only we may say, and says it when there is something to say. For each try on its own copy; what a
/// client may never send, handoff or not, is off already.
pub(crate) fn give(request: &mut RequestHeader, ctx: &mut RequestContext) -> Result<()> {
    let handoff = ctx.persistence().and_then(|persistence| persistence.handoff.as_ref());
    if let Some(handoff) = handoff {
        take_off(request, &handoff.header);
    }
    let Some(handed) = handed(handoff.is_some(), ctx) else {
        ctx.handed = None;
        return Ok(());
    };
    if let Some(told) = &handed.given.moved_header {
        request.insert_header("Homing-Session-Moved", told.clone())?;
    }
    if let (Some(data), Some(handoff), Some(plan)) = (&handed.given.data, handoff, ctx.plan()) {
        request.insert_header(handoff.written.clone(), data.clone())?;
        plan.metrics.handoffs.inc(Handoff::Given as usize);
    }
    // Without handoff nothing is kept of it.
    ctx.handed = handoff.is_some().then(|| Box::new(handed));
    Ok(())
}

/// Where a store is shared: what the session's last server handed over to another proxy, if that is now to be given.
pub(crate) async fn fetch(ctx: &mut RequestContext) {
    let asked_for = match ctx.outcome {
        Some(Outcome::Moved | Outcome::Borrowed) => leaving(ctx),
        // Another proxy has moved it, and its server has still to be given what was handed over.
        Some(Outcome::Kept) => ctx.who.session.as_ref().zip(ctx.plan()).filter(|(session, _)| {
            let pending = ctx.app().data.pending_handoff(&session.key, session.binding.epoch);
            pending.is_some_and(|given| given.data.is_none())
        }),
        _ => None,
    };
    let Some((session, plan)) = asked_for else { return };
    if let Some(owner) = bound(session, plan).filter(|_| plan.persistence.as_ref().is_some_and(hands_over)) {
        Box::pin(shared::fetch_data(owner, ctx)).await;
    }
}

/// Also where it is written with `_` for `-`: servers that read headers as CGI does would take it for the same.
fn take_off(request: &mut RequestHeader, header: &HeaderName) {
    request.remove_header(header);
    let reads_alike = |name: &&HeaderName| {
        let name = name.as_str();
        name.len() == header.as_str().len() && name.contains('_') && reads_as(name, header.as_str())
    };
    while let Some(alike) = request.headers.keys().find(reads_alike).cloned() {
        request.remove_header(&alike);
    }
}

/// A guest is given the data too, or it could not serve the session, but is not told of a move: there was none.
fn handed(handoff: bool, ctx: &RequestContext) -> Option<Handed> {
    let data = &ctx.app().data;
    match ctx.outcome? {
        Outcome::Moved | Outcome::Borrowed => {
            let (session, plan) = leaving(ctx)?;
            let epoch = session.binding.epoch;
            let kept = handoff && plan.persistence.as_ref().is_some_and(hands_over);
            let data = kept.then(|| data.find(&session.key, epoch)).flatten();
            let moved = ctx.outcome == Some(Outcome::Moved);
            let told = moved.then(|| told(session, plan, ctx)).flatten();
            Some(Handed { given: HandoffPayload { moved_header: told, data }, epoch })
        }
        Outcome::Kept if handoff => {
            let session = ctx.who.session.as_ref()?;
            let epoch = session.binding.epoch;
            Some(Handed { given: data.pending_handoff(&session.key, epoch)?, epoch })
        }
        _ => None,
    }
}

const fn hands_over(persistence: &PoolPersistence) -> bool {
    persistence.handoff.is_some()
}
