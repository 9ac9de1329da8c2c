//! What the answer says of the application's own session id. Read when its header arrives, so that the next request of a
//! client that already has its id finds its server while the body still streams.

use http::{HeaderMap, Method, StatusCode};
use smallvec::SmallVec;

use crate::persistence::Outcome;
use crate::persistence::resolve::{Named, Returning};
use crate::session::key::SessionKey;
use crate::session::source::Source;
use crate::session::source::learn::Taught;

use crate::proxy::context::RequestContext;

/// Sessions that the shared store is to be told of, if there is one.
pub(crate) type Learned = SmallVec<[SessionKey; 1]>;

/// Takes note of it.
pub(crate) fn run(method: &Method, status: StatusCode, answer: &HeaderMap, ctx: &mut RequestContext) -> Learned {
    let mut learned = Learned::new();
    let granted = status.is_success() || matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE);
    let hands_over = ctx.persistence().is_some_and(|persistence| persistence.handoff.is_some());
    let mut place = 0;
    while let Some(source) = ctx.persistence().and_then(|persistence| persistence.sources.get(place)) {
        let this = place;
        place += 1;
        let learn = match source {
            Source::Learn(learn) => learn,
            Source::Route(route) => {
                // The mark says all, but for whose data it is that comes with it.
                if hands_over {
                    ctx.renamed.learned = ctx.renamed.learned.or(route.given(answer).map(|id| (this, id)));
                }
                continue;
            }
            _ => continue,
        };
        let (taught, ends) = (learn.taught(answer, ctx.now), granted && learn.ends_on(method));
        // Of several the last: browsers keep that.
        ctx.renamed.learned = ctx.renamed.learned.or(taught.given.last().map(|id| (this, *id)));
        listen(&taught, ends, ctx.who.source == Some(this), &mut learned, ctx);
    }
    learned
}

/// `its_own`: this source has named the request's session. What another source's id comes to is no matter of it.
fn listen(taught: &Taught, ends: bool, its_own: bool, learned: &mut Learned, ctx: &mut RequestContext) {
    for id in &taught.given {
        if bind(*id, ctx) && ctx.app().shared.is_some() {
            learned.push(*id);
        }
    }
    if its_own
        && (ends || (taught.forgotten && taught.given.is_empty()))
        && let (Some(session), Some(homes)) = (&ctx.who.session, ctx.homes())
        && session.named == Named::Id
    {
        session.end(&homes, ctx.now);
        ctx.renamed.over = true;
    }
}

/// The server that answers hands this id out. True when that is news, or may be news to the shared store: that a client
/// without a session is given an id that is known here already, by a copy that may be old, happens when the session has
/// ended elsewhere and begins anew.
fn bind(id: SessionKey, ctx: &mut RequestContext) -> bool {
    let brought = |session: &Returning| session.named == Named::Id && session.key == id;
    let brought = ctx.who.session.as_ref().filter(|session| brought(session));
    let Some(server) = ctx.server().map(|server| server.id) else { return false };
    if brought.is_some_and(|session| session.binding.server == server || ctx.outcome == Some(Outcome::Borrowed)) {
        // It is there already; or it is guest there, and its own server keeps it.
        return false;
    }
    let (Some(persistence), Some(answering)) = (ctx.persistence(), ctx.tries.server) else { return false };
    let Some(place) = persistence.targets.get(answering) else { return false };
    let news = ctx.app().table.assign(id, place, ctx.now);
    if news && brought.is_none() {
        ctx.begun = Some(id);
        if ctx.outcome == Some(Outcome::Balanced) {
            ctx.outcome = Some(Outcome::New);
        }
    }
    news || ctx.who.session.is_none()
}
