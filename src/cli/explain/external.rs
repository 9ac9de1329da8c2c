//! What is known of an application's session id, or of a client's address.

use std::net::IpAddr;

use http::{HeaderMap, Method, Version};

use crate::app::inspect::{Inspection, SnapshotSource};
use crate::app::runtime::Runtime;
use crate::config::{Config, Pool};
use crate::message::{Fields, RequestView};
use crate::persistence::{IdentifiedBy, PoolRuntime, RequestSession, ResolvedSession};
use crate::session::binding::Lookup;
use crate::session::key::Digest8;
use crate::session::source::{SessionName, Source, SourceSettings, request_naming};

use crate::cli::output::time;

/// What names a session, other than a token.
#[derive(Debug, Clone, Copy)]
pub(super) enum ExternalName<'a> {
    /// An application's id, as it was given.
    Id(&'a str),
    /// A client's address.
    Address(IpAddr),
}

/// Whether any pool looks an application's id up.
pub(super) fn reads_ids(config: &Config) -> bool {
    config.pools.iter().any(|pool| sources(pool).any(reads_id))
}

/// The description for each pool that looks such names up; without one, why there is none.
pub(super) fn describe(name: ExternalName<'_>, config: &Config, pool: Option<&str>) -> Result<String, String> {
    let wanted = |candidate: &Pool| pool.is_none_or(|pool| pool == candidate.name);
    let reads = |pool: &Pool| {
        sources(pool).any(|source| match name {
            ExternalName::Id(_) => reads_id(source),
            ExternalName::Address(_) => !source.identifies_client(),
        })
    };
    let pools: Vec<usize> =
        config.pools.iter().enumerate().filter(|(_, pool)| wanted(pool) && reads(pool)).map(|(at, _)| at).collect();
    if pools.is_empty() {
        let source = match name {
            ExternalName::Id(_) => "a source that reads an application's id (learn, route)",
            ExternalName::Address(_) => "the source client_ip",
        };
        return Err(pool
            .map_or_else(|| format!("no pool has {source}"), |pool| format!("pool {pool:?} does not have {source}")));
    }
    let inspection = Inspection::start(config.clone()).map_err(|error| error.to_string())?;
    let runtime = inspection.runtime();
    let mut text = String::new();
    for pool in pools {
        let (Some(settings), Some(built)) = (config.pools.get(pool), runtime.pools.get(pool)) else { continue };
        let state = match name {
            ExternalName::Address(address) => {
                let fields = HeaderMap::new();
                inspection.resolve(pool, view(b"/", &fields), Some(address))
            }
            ExternalName::Id(id) => {
                let (fields, target) = request(id, settings)?;
                inspection.resolve(pool, view(target.as_bytes(), &fields), None)
            }
        };
        text.push_str(&description(built, &state, &runtime));
        text.push_str(&known_from(&inspection.snapshot, config));
    }
    Ok(text)
}

fn sources(pool: &Pool) -> impl Iterator<Item = &SourceSettings> {
    pool.persistence.iter().flat_map(|persistence| &persistence.sources)
}

const fn reads_id(source: &SourceSettings) -> bool {
    !source.reads_token() && source.identifies_client()
}

fn view<'a>(target: &'a [u8], fields: &'a HeaderMap) -> RequestView<'a> {
    RequestView::http1(&Method::GET, target, Version::HTTP_11, Fields::Map(fields))
}

/// A request that carries the id where the pool's sources look for it.
fn request(id: &str, pool: &Pool) -> Result<(HeaderMap, String), String> {
    let Some(persistence) = &pool.persistence else { return Ok((HeaderMap::new(), "/".to_owned())) };
    let name = SessionName { id: Some(id), ..SessionName::default() };
    request_naming(name, &persistence.sources, &persistence.cookie).map_err(|error| error.to_string())
}

fn description(pool: &PoolRuntime, state: &RequestSession, runtime: &Runtime) -> String {
    let lookup = &state.lookup;
    let source = pool.persistence.as_ref().and_then(|persistence| state.source(persistence)).map_or("-", Source::label);
    let key = state.session().map(|session| session.key).or(lookup.unknown_id).or(lookup.unknown_address);
    let session = key.map(|key| runtime.log_key.digest8(key));
    let result = lookup.result.unwrap_or(Lookup::StoreError);
    let mut text = format!(
        "pool     {}\nsource   {source}\nsession  {}   (as the access log writes it)\nlookup   {}: {}\n",
        pool.pool.name,
        session.as_ref().map_or("-", Digest8::as_str),
        result.label(),
        meaning(result),
    );
    if let Some(session) = state.session() {
        text.push_str(&binding(session, pool));
    }
    text
}

fn binding(session: &ResolvedSession, pool: &PoolRuntime) -> String {
    let server = session.home.and_then(|home| pool.pool.servers.get(home));
    let server = server.map_or_else(
        || "(not in this configuration)".to_owned(),
        |server| format!("{}   ({})", server.name, <&str>::from(server.state())),
    );
    // A route id names its server without a binding.
    if session.identified_by == IdentifiedBy::RouteId {
        return format!("server   {server}   by its route id\n");
    }
    format!("server   {server}\nepoch    {}\ncreated  {}\n", session.binding.epoch, time(session.binding.created))
}

const fn meaning(lookup: Lookup) -> &'static str {
    match lookup {
        Lookup::Hit | Lookup::Restored => "a live session",
        Lookup::None => "no session is named",
        Lookup::Unknown => "not bound",
        Lookup::ExpiredIdle => "older than idle_timeout",
        Lookup::ExpiredAbsolute => "older than absolute_timeout",
        Lookup::Forged => "does not open",
        Lookup::Ended => "ended, by a log-out or an operator",
        Lookup::UnknownServer => "bound to a server that this configuration does not have",
        Lookup::OtherClient => "of a session that belongs to another client (bind_to)",
        Lookup::StoreError => "the shared store does not answer",
    }
}

/// What was asked: the table of the running proxy may know more.
fn known_from(snapshot: &SnapshotSource, config: &Config) -> String {
    let disk = match snapshot {
        SnapshotSource::NotConfigured => None,
        SnapshotSource::Missing => Some("the snapshot on disk, which is not written yet".to_owned()),
        SnapshotSource::Loaded(at) => Some(format!("the snapshot on disk of {}", time(*at))),
        SnapshotSource::Unreadable(why) => Some(format!("the snapshot on disk, which cannot be read ({why})")),
    };
    let shared = config.store.remote.as_ref().map(|_| "the shared store".to_owned());
    let asked: Vec<String> = disk.into_iter().chain(shared).collect();
    let asked = if asked.is_empty() {
        "nothing: neither store.snapshot nor a shared store".to_owned()
    } else {
        asked.join(", ")
    };
    format!("known    from {asked}; the running proxy's own table may know more\n")
}
