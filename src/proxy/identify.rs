//! Who is it: the pool's sources are asked in their order, and the first that names a live session decides.

use std::hash::BuildHasher;
use std::net::IpAddr;

use pingora_proxy::Session as Exchange;
use smallvec::SmallVec;

use crate::config::OnForged;
use crate::failover::returning::{Recognised, Returning, Unbound, recognise};
use crate::session::binding::Lookup;
use crate::session::key::{BuildKeyHasher, SessionKey};
use crate::session::source::learn::LearnSource;
use crate::session::source::{Asked, Presented, Source};
use crate::snapshot::PoolPlan;
use crate::telemetry::metrics::Rejection;

use super::context::RequestContext;

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

/// Finds out, and counts it.
pub(super) fn run(exchange: &Exchange, ctx: &mut RequestContext) -> Result<(), Rejection> {
    let request = exchange.req_header();
    let asked = Asked {
        headers: &request.headers,
        path: request.uri.path(),
        query: request.uri.query(),
        client: ctx.client.address,
    };
    let Some(plan) = ctx.plan() else { return Ok(()) };
    let who = ask(&asked, plan, ctx);
    settle_on(who, plan).map(|who| ctx.who = who)
}

/// Asks the sources of one pool.
fn ask(asked: &Asked<'_>, plan: &PoolPlan, ctx: &RequestContext) -> Who {
    let mut who = Who::default();
    let Some((persistence, homes)) = plan.persistence.as_ref().zip(ctx.homes_in(plan)) else { return who };
    for (place, source) in persistence.sources.iter().enumerate() {
        let presented = source.presented(asked, &persistence.codec);
        if let (Source::Learn(learn), Presented::Ids(ids), Some(client)) = (source, &presented, asked.client)
            && let Some(id) = ids.first()
        {
            warn_of_crowd(learn, id.key, client, &plan.pool.name);
        }
        let Recognised { lookup, session, unbound } = recognise(&presented, &homes, ctx.now);
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
fn settle_on(who: Who, plan: &PoolPlan) -> Result<Who, Rejection> {
    for (counters, lookup) in plan.metrics.lookups.iter().zip(&who.asked) {
        counters.inc(*lookup as usize);
    }
    let refuses = plan.persistence.as_ref().is_some_and(|one| one.policy.on_forged == OnForged::Refuse);
    if refuses && who.asked.contains(&Lookup::Forged) { Err(Rejection::ForgedToken) } else { Ok(who) }
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
