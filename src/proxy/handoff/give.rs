//! What a try's server is given: nothing when the session is at home there.

use http::HeaderName;
use pingora::Result;
use pingora::http::RequestHeader;

use crate::failover::Outcome;
use crate::snapshot::PersistencePlan;
use crate::store::data::Given;
use crate::telemetry::metrics::Handoff;

use super::super::context::RequestContext;
use super::Handed;
use super::told::{leaving, told};

/// What a client must never send in, since servers believe it from us.
const NEVER_FROM_CLIENTS: [HeaderName; 2] =
    [HeaderName::from_static("homing-session-moved"), HeaderName::from_static("homing-session-data")];

/// Takes off what only we may say, and says it when there is something to say. For each try on its own copy.
pub(in super::super) fn give(request: &mut RequestHeader, ctx: &mut RequestContext) -> Result<()> {
    for name in &NEVER_FROM_CLIENTS {
        request.remove_header(name);
    }
    let handoff = ctx.persistence().and_then(|persistence| persistence.handoff.as_ref());
    if let Some(handoff) = handoff {
        request.remove_header(&handoff.header);
    }
    let Some(handed) = handed(handoff.is_some(), ctx) else {
        ctx.handed = None;
        return Ok(());
    };
    if let Some(told) = &handed.given.told {
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

/// A guest is given the data too, or it could not serve the session, but is not told of a move: there was none.
fn handed(handoff: bool, ctx: &RequestContext) -> Option<Handed> {
    let data = &ctx.parts().data;
    match ctx.outcome? {
        Outcome::Moved | Outcome::Borrowed => {
            let (session, plan) = leaving(ctx)?;
            let epoch = session.binding.epoch;
            let kept = handoff && plan.persistence.as_ref().is_some_and(hands_over);
            let data = kept.then(|| data.find(&session.key, epoch)).flatten();
            let moved = ctx.outcome == Some(Outcome::Moved);
            let told = moved.then(|| told(session, plan, ctx)).flatten();
            Some(Handed { given: Given { told, data }, epoch })
        }
        Outcome::Kept if handoff => {
            let session = ctx.who.session.as_ref()?;
            let epoch = session.binding.epoch;
            Some(Handed { given: data.pending(&session.key, epoch)?, epoch })
        }
        _ => None,
    }
}

const fn hands_over(persistence: &PersistencePlan) -> bool {
    persistence.handoff.is_some()
}
