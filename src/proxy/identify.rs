//! Who is it: the pool's sources are asked in their order, and the first that names a live session decides.

use std::hash::BuildHasher;
use std::net::IpAddr;

use pingora::http::RequestHeader;
use smallvec::SmallVec;

use crate::app::runtime::PoolRuntime;
use crate::config::OnForged;
use crate::persistence::resolve::{Recognised, Returning, Unbound, recognise};
use crate::routing::{Split, Target};
use crate::session::binding::Lookup;
use crate::session::key::{BuildKeyHasher, SessionKey};
use crate::session::source::learn::LearnSource;
use crate::session::source::{Asked, Presented, Source};
use crate::telemetry::metrics::Rejection;

use crate::proxy::context::RequestContext;
use crate::proxy::request;

/// What a request says of its session, in one pool.
#[derive(Debug, Default)]
pub struct Who {
    /// What was found, by the source that says most: a live session, else the first thing that was no "none".
    pub lookup: Option<Lookup>,
    /// That source, by its place among the pool's; `None` when no source named anything.
    pub source: Option<usize>,
    /// The session, when it lives.
    pub session: Option<Returning>,
    /// An application's id that nobody is bound by.
    pub unknown_id: Option<SessionKey>,
    /// An address that nobody is bound by.
    pub unknown_address: Option<SessionKey>,
    /// What each source that was asked found.
    asked: SmallVec<[Lookup; 4]>,
}

/// Finds out, and which pool serves the request, and counts it.
pub(crate) fn run(request: &RequestHeader, ctx: &mut RequestContext) -> Result<(), Rejection> {
    let asked = asked(request, ctx);
    let found = match ctx.runtime.router.plan(ctx.route).map(|plan| &plan.target) {
        Some(Target::Split(split)) => among(split, &asked, ctx),
        _ => Found { pool: ctx.pool.unwrap_or_default(), point: 0, who: None },
    };
    ctx.point = found.point;
    request::enter(request, ctx, found.pool);
    let Some(plan) = ctx.plan() else { return Ok(()) };
    let who = found.who.unwrap_or_else(|| ask(&asked, found.pool, plan, ctx));
    count(&who, plan);
    let refuses = plan.persistence.as_ref().is_some_and(|one| one.policy.on_forged == OnForged::Refuse);
    let forged = who.asked.contains(&Lookup::Forged);
    ctx.who = who;
    if refuses && forged { Err(Rejection::ForgedToken) } else { Ok(()) }
}

/// Whether a token in a cookie is among what does not open. To be taken away then, whosever cookie it is: it would be
/// refused for ever.
pub(crate) fn cookie_is_forged(ctx: &RequestContext) -> bool {
    let sources = ctx.persistence().map(|persistence| persistence.sources.iter());
    let mut asked = sources.into_iter().flatten().zip(&ctx.who.asked);
    asked.any(|(source, lookup)| matches!(source, Source::Cookie(_)) && *lookup == Lookup::Forged)
}

/// The same in another pool of a split, when the first cannot serve.
pub(crate) fn again(request: &RequestHeader, ctx: &mut RequestContext, pool: usize) {
    request::enter(request, ctx, pool);
    let asked = asked(request, ctx);
    if let Some(plan) = ctx.plan() {
        ctx.who = ask(&asked, pool, plan, ctx);
    }
}

pub(crate) fn asked<'a>(request: &'a RequestHeader, ctx: &RequestContext) -> Asked<'a> {
    let uri = &request.uri;
    Asked { headers: &request.headers, path: uri.path(), query: uri.query(), client: ctx.client.address }
}

/// Which pool of a split serves a request.
struct Found {
    pool: usize,
    /// Where the request stands in the split.
    point: u64,
    /// Who it is in that pool, if that was asked.
    who: Option<Who>,
}

/// A session keeps its version of the application, whatever the weights have become. A client that carries something
/// gets one by what it carries, so that its parallel requests agree; else by chance.
fn among(split: &Split, asked: &Asked<'_>, ctx: &RequestContext) -> Found {
    let mut carried = None;
    for pool in split.pools() {
        let Some(plan) = ctx.runtime.pools.get(pool) else { continue };
        let who = ask(asked, pool, plan, ctx);
        if who.session.is_some() {
            return Found { pool, point: rand::random(), who: Some(who) };
        }
        carried = carried.or(who.unknown_id).or(who.unknown_address).or_else(|| hint(plan, asked.client));
    }
    let point = carried.map_or_else(rand::random, |key| u64::try_from(key.0 >> 64).unwrap_or_default());
    Found { pool: split.pick(point), point, who: None }
}

fn hint(plan: &PoolRuntime, client: Option<IpAddr>) -> Option<SessionKey> {
    Some(plan.persistence.as_ref()?.hint.as_ref()?.key_of(client?))
}

/// What a source presents was looked at before, for the shared store's sake: a token need not be opened twice.
#[derive(Debug)]
pub struct Seen {
    /// Index of the pool.
    pub pool: usize,
    /// The source, by its place among the pool's.
    pub source: usize,
    /// What it presents.
    pub presented: Presented,
}

/// Asks the sources of one pool.
fn ask(asked: &Asked<'_>, pool: usize, plan: &PoolRuntime, ctx: &RequestContext) -> Who {
    let mut who = Who::default();
    let Some((persistence, homes)) = plan.persistence.as_ref().zip(ctx.homes_in(plan)) else { return who };
    for (place, source) in persistence.sources.iter().enumerate() {
        let seen = ctx.seen.as_ref().filter(|seen| (seen.pool, seen.source) == (pool, place));
        let presented = match seen {
            Some(seen) => seen.presented.clone(),
            None => source.presented(asked, &persistence.codec),
        };
        if let (Source::Learn(learn), Presented::Ids(ids), Some(client)) = (source, &presented, asked.client)
            && let Some(id) = ids.first()
        {
            warn_of_crowd(learn, id.key, client, &plan.pool.name);
        }
        let Recognised { mut lookup, session, unbound } = recognise(&presented, &homes, ctx.now);
        if ctx.store_unanswered && lookup == Lookup::Unknown && unbound.is_some() {
            lookup = Lookup::StoreError;
        }
        who.asked.push(lookup);
        let alive = session.is_some();
        if alive || (who.source.is_none() && lookup != Lookup::None) {
            (who.lookup, who.source) = (Some(lookup), Some(place));
        }
        match unbound {
            Some(Unbound::Id(key)) => who.unknown_id = who.unknown_id.or(Some(key)),
            Some(Unbound::Address(key)) => who.unknown_address = who.unknown_address.or(Some(key)),
            None => {}
        }
        if alive {
            who.session = session;
            break;
        }
    }
    who.lookup = who.lookup.or(Some(Lookup::None));
    who
}

/// What was found counts in the pool that serves the request.
fn count(who: &Who, plan: &PoolRuntime) {
    for (counters, lookup) in plan.metrics.lookups.iter().zip(&who.asked) {
        counters.inc(*lookup as usize);
    }
}

/// One id that dozens of addresses bring is nobody's session.
fn warn_of_crowd(learn: &LearnSource, id: SessionKey, client: IpAddr, pool: &str) {
    let address = match client {
        IpAddr::V4(address) => u64::from(u32::from(address)),
        IpAddr::V6(address) => BuildKeyHasher.hash_one(u128::from(address)),
    };
    if learn.crowd.notice(id, address) {
        tracing::warn!(
            pool,
            source = "learn",
            name = learn.name(),
            "many clients bring one and the same id: it names nobody, and sends them all to one server; \
             use the source cookie with cookie.mode: prefix instead"
        );
    }
}
