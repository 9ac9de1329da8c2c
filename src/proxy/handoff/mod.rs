//! Session data follows its session: taken off the answers of servers ([`take`]), given to the next server ([`mod@give`])
//! together with where the session came from ([`told`]), until that server has answered below 500.
//!
//! A request that goes to its session's own server, and whose answer hands nothing over, asks nothing here: whether a
//! move still waits for an answer is one number for the whole process, and the answer is looked at before the store is.

mod give;
mod take;
mod told;

use http::StatusCode;

use crate::app::runtime::{PoolPersistence, PoolRuntime};
use crate::config::Issue;
use crate::persistence::Outcome;
use crate::persistence::resolve::{Named, Returning};
use crate::session::key::SessionKey;
use crate::session::source::Source;
use crate::store::TableLookup;
use crate::store::local::data::{HandoffPayload, Owner};

pub(crate) use self::give::{fetch, give};
pub(crate) use self::take::{Change, Taken, settle, take_off};

use self::told::leaving;
use crate::proxy::context::RequestContext;

/// What the current try's server was given, since its session was elsewhere.
pub struct Handed {
    /// The headers.
    given: HandoffPayload,
    /// The epoch of the session's binding when they were.
    epoch: u32,
}

/// What this answer's server has still to be told of the session's move, by other proxies too: what it was told with its
/// request, when it did not answer below 500. Only where servers hand over.
pub(crate) fn owed(status: StatusCode, ctx: &RequestContext) -> Option<String> {
    let handed = ctx.handed.as_ref().filter(|_| status.is_server_error() && ctx.app().shared.is_some())?;
    handed.given.moved_header.as_ref()?.to_str().ok().map(str::to_owned)
}

/// What the answer calls the session.
#[derive(Debug, Default)]
pub struct Renamed {
    /// The application's id that the answer gives, and the place of its source.
    pub learned: Option<(usize, SessionKey)>,
    /// The session of the token that the answer gives to a new client.
    pub issued: Option<SessionKey>,
    /// The session that the request brought is over.
    pub over: bool,
}

/// The session as its client will name it after this answer: by the source that is asked first. Never by an address: that
/// is many clients', and data is one's.
fn owner(ctx: &RequestContext) -> Option<Owner> {
    let persistence = ctx.persistence()?;
    let learned = ctx.renamed.learned.and_then(|(place, key)| Some((place, learned(place, key, persistence, ctx)?)));
    let issued = ctx.renamed.issued.and_then(|key| {
        let place = persistence.sources.iter().position(|source| carries(source, persistence.policy.issue))?;
        Some((place, Owner { key, epoch: 0, created: ctx.now, pool: persistence.tombstone.index() }))
    });
    let brought = brought(ctx).map(|owner| (ctx.who.source.unwrap_or(usize::MAX), owner));
    // Of two of one source the first: an id that the answer gives takes the place of the one that was brought.
    [learned, issued, brought].into_iter().flatten().min_by_key(|(place, _)| *place).map(|(_, owner)| owner)
}

/// The session of an id that the answer gives; the table knows it by now, unless a mark names its server.
fn learned(place: usize, key: SessionKey, persistence: &PoolPersistence, ctx: &RequestContext) -> Option<Owner> {
    let pool = persistence.tombstone.index();
    match ctx.app().table.find(&key, ctx.now) {
        TableLookup::Live(known) if known.target != pool => {
            Some(Owner { key, epoch: known.epoch, created: known.created, pool })
        }
        TableLookup::Absent if matches!(persistence.sources.get(place), Some(Source::Route(_))) => {
            Some(Owner { key, epoch: 0, created: ctx.now, pool })
        }
        _ => None,
    }
}

/// New clients are given the token of this source.
const fn carries(source: &Source, issue: Issue) -> bool {
    matches!(
        (issue, source),
        (Issue::Cookie, Source::Cookie(_)) | (Issue::Query, Source::Query(_)) | (Issue::Header, Source::Header(_))
    )
}

/// The session that the request brought, as it stands now, if it is one client's.
fn brought(ctx: &RequestContext) -> Option<Owner> {
    // A guest of another version is that version's.
    let (session, plan) = match (&ctx.who.session, ctx.outcome) {
        (Some(session), _) => (session, ctx.plan()?),
        (None, Some(Outcome::Borrowed)) => leaving(ctx)?,
        _ => return None,
    };
    (session.named != Named::Address && !ctx.renamed.over).then(|| bound(session, plan)).flatten()
}

fn bound(session: &Returning, plan: &PoolRuntime) -> Option<Owner> {
    let (epoch, created) = (session.binding.epoch, session.binding.created);
    Some(Owner { key: session.key, epoch, created, pool: plan.persistence.as_ref()?.tombstone.index() })
}
