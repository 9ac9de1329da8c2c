//! Where several proxies share a store: it is asked before a session is recognised, and told before a session is bound or
//! moved. A request waits for it once at most: after an answer that did not come, it goes on by what is known here.

use pingora::http::RequestHeader;

use crate::config::OnError;
use crate::persistence::resolve::{Returning, StoreQueries, names_a_live_one, wanted};
use crate::pool::ServerIndex;
use crate::routing::Target;
use crate::session::binding::Lookup;
use crate::session::key::SessionKey;
use crate::session::source::Source;
use crate::store::engine::Kind;
use crate::store::local::data::Owner;
use crate::store::shared::{Move, SharedStore, StoreUnavailable};
use crate::telemetry::metrics::Rejection;

use crate::proxy::context::RequestContext;
use crate::proxy::handoff::Change;
use crate::proxy::identify::{self, Seen};

/// Asks the store for whom the request may name, source by source, until one names a session that lives. Does not wait
/// for sessions that the table knows well enough.
pub(crate) async fn ask(request: &RequestHeader, ctx: &mut RequestContext) -> Result<(), Rejection> {
    let Some(store) = ctx.app().shared.clone() else { return Ok(()) };
    let refuses = store.on_error == OnError::Refuse;
    if refuses
        && store.is_unavailable()
        && let Some(at) = first_named(request, ctx)
    {
        return refuse(at, ctx);
    }
    let mut next = At::default();
    loop {
        match look(request, ctx, next) {
            Looked::Enough(seen) => {
                ctx.seen = seen;
                return Ok(());
            }
            Looked::Ask(at, all) => {
                if store.query(&all, ctx.now).await.is_err() {
                    ctx.store_unanswered = true;
                    return if refuses { refuse(at, ctx) } else { Ok(()) };
                }
                next = At { asked: true, ..at };
            }
        }
    }
}

fn refuse(at: At, ctx: &RequestContext) -> Result<(), Rejection> {
    let plan = pools(ctx).nth(at.pool).and_then(|pool| ctx.runtime.pools.get(pool));
    if let Some(counters) = plan.and_then(|plan| plan.metrics.lookups.get(at.source)) {
        counters.inc(Lookup::StoreError as usize);
    }
    Err(Rejection::StoreUnavailable)
}

/// The first source that names anybody.
fn first_named(request: &RequestHeader, ctx: &RequestContext) -> Option<At> {
    let asked = identify::asked(request, ctx);
    pools(ctx).enumerate().find_map(|(pool, index)| {
        let persistence = ctx.runtime.pools.get(index)?.persistence.as_ref()?;
        let names = |source: &Source| source.presented(&asked, &persistence.codec).names_somebody();
        let source = persistence.sources.iter().position(names)?;
        Some(At { pool, source, asked: false })
    })
}

/// A source of a pool that may serve the request.
#[derive(Debug, Clone, Copy, Default)]
struct At {
    /// Of the request's pools the how manyth.
    pool: usize,
    source: usize,
    /// The store was asked for what this source presents.
    asked: bool,
}

/// What came of looking at the sources.
enum Looked {
    /// The store must be asked for those that this source names.
    Ask(At, StoreQueries),
    /// No more: this source names a session that lives, or none does.
    Enough(Option<Box<Seen>>),
}

/// Looks for the first source from here on that names somebody for whom the store must be asked.
fn look(request: &RequestHeader, ctx: &RequestContext, from: At) -> Looked {
    let mut found = None;
    let Some(store) = ctx.app().shared.as_deref() else { return Looked::Enough(None) };
    let asked = identify::asked(request, ctx);
    for (pool, index) in pools(ctx).enumerate().skip(from.pool) {
        let Some(plan) = ctx.runtime.pools.get(index) else { continue };
        let Some((persistence, homes)) = plan.persistence.as_ref().zip(ctx.homes_in(plan)) else { continue };
        let first = if pool == from.pool { from.source } else { 0 };
        for (source, one) in persistence.sources.iter().enumerate().skip(first) {
            let presented = one.presented(&asked, &persistence.codec);
            let done = from.asked && (pool, source) == (from.pool, from.source);
            if !done {
                let all = wanted(&presented, store, &homes, ctx.now);
                if !all.is_empty() {
                    return Looked::Ask(At { pool, source, asked: false }, all);
                }
            }
            if names_a_live_one(&presented, &homes, ctx.now) {
                found = Some(Box::new(Seen { pool: index, source, presented }));
                break;
            }
        }
    }
    Looked::Enough(found)
}

/// The pools that may serve the request, in the order in which they are asked.
fn pools(ctx: &RequestContext) -> impl Iterator<Item = usize> {
    let split = match ctx.runtime.router.plan(ctx.route).map(|plan| &plan.target) {
        Some(Target::Split(split)) => Some(split.pools()),
        _ => None,
    };
    let one = if split.is_none() { ctx.pool } else { None };
    split.into_iter().flatten().chain(one)
}

/// The store, unless it has not answered this request before.
fn answering(ctx: &RequestContext) -> Option<&SharedStore> {
    ctx.app().shared.as_deref().filter(|_| !ctx.store_unanswered)
}

/// The session's new server has answered, or is about to be asked: the session moves there on all proxies, or this one
/// learns that another has moved it. True when it was this request that moved it.
/// `owed` is what the server has still to be told of it.
pub(crate) async fn settle(
    session: &mut Returning,
    chosen: ServerIndex,
    owed: Option<&str>,
    ctx: &mut RequestContext,
) -> bool {
    if let (Some(store), Some(persistence)) = (answering(ctx), ctx.persistence())
        && let Some(place) = persistence.targets.get(chosen)
    {
        let epoch = session.binding.epoch.saturating_add(1);
        let one = Move { key: session.key, to: place, epoch, created: session.binding.created, moved_header: owed };
        let told = store.rebind(one, ctx.now).await;
        ctx.store_unanswered |= told.is_err();
    }
    let Some(homes) = ctx.homes() else { return false };
    let moved = session.settle(chosen, &homes, ctx.now);
    if moved && ctx.store_unanswered {
        write_behind(session.key, ctx);
    }
    moved
}

/// The first request of a key that its client brings is about to be sent to `chosen`: binds it there on all proxies, unless
/// another request was first; then its session is returned.
pub(crate) async fn claim(key: SessionKey, chosen: ServerIndex, ctx: &mut RequestContext) -> Option<Returning> {
    if let (Some(store), Some(persistence)) = (answering(ctx), ctx.persistence())
        && let Some(place) = persistence.targets.get(chosen)
    {
        let told = store.claim(key, place, ctx.now).await;
        ctx.store_unanswered |= told.is_err();
    }
    let theirs = ctx.homes()?.claim(key, chosen, ctx.now);
    if theirs.is_none() && ctx.store_unanswered {
        write_behind(key, ctx);
    }
    theirs
}

/// The server that answers has called these sessions its own.
pub(crate) async fn assign(keys: &[SessionKey], ctx: &mut RequestContext) {
    let place = ctx.tries.server.zip(ctx.persistence()).and_then(|(server, plan)| plan.targets.get(server)).cloned();
    for key in keys {
        match (answering(ctx), &place) {
            (Some(store), Some(place)) => {
                let told = store.assign(*key, place, ctx.now).await;
                ctx.store_unanswered |= told.is_err();
            }
            _ => {
                if let Some(store) = &ctx.app().shared {
                    store.assign_behind(*key);
                }
            }
        }
    }
}

/// What servers handed over to other proxies comes to this one, for a session that is not at home where it goes.
pub(crate) async fn fetch_data(owner: Owner, ctx: &mut RequestContext) {
    let Some(store) = answering(ctx) else { return };
    if store.fetch_data(owner.key, owner.created, owner.pool, ctx.now).await == Err(StoreUnavailable) {
        ctx.store_unanswered = true;
    }
}

/// What changed of session data here changes in the store.
pub(crate) async fn keep_data(changes: &[Change], ctx: &mut RequestContext) {
    for Change { owner, data } in changes {
        match (answering(ctx), &ctx.app().shared) {
            (Some(store), _) => {
                let told = store.put_data(owner, data.as_ref(), ctx.now).await;
                ctx.store_unanswered |= told.is_err();
            }
            (None, Some(store)) => store.write_behind(owner.key, Kind::Data),
            (None, None) => {}
        }
    }
}

fn write_behind(key: SessionKey, ctx: &RequestContext) {
    if let Some(store) = &ctx.app().shared {
        store.write_behind(key, Kind::Binding);
    }
}
