//! Servers that the file no longer has, and that drain first (`drain_deadline`): they stay in the configuration that runs
//! until they are empty or their deadline is over. With `admin.state_file` also over a restart: the file has what the
//! configuration does not have any more.

use crate::config::{self, Config, ServerState};
use crate::persistence::{PoolRuntime, TableHistory};
use crate::pool::drain::DrainSchedule;
use crate::pool::server::Server;
use crate::session::token::UnixMillis;

use super::runtime::Runtime;
use super::state_file::RemovedServer;

/// `new`, with the servers that it does not have any more and that still drain.
pub(super) fn keep_draining(new: Config, previous: &Runtime, history: &TableHistory, now: UnixMillis) -> Config {
    let finished = finished(previous, history, now);
    let is_finished = |pool: &str, server: &str| finished.contains(&(pool, server));
    with_removed(new, &previous.config, is_finished)
}

/// The running configuration without the servers that have drained; `None` = there are none.
pub(super) fn without_drained(runtime: &Runtime, history: &TableHistory, now: UnixMillis) -> Option<Config> {
    let finished = finished(runtime, history, now);
    if finished.is_empty() {
        return None;
    }
    let mut config = (*runtime.config).clone();
    for pool in &mut config.pools {
        pool.servers.retain(|server| !finished.contains(&(pool.name.as_str(), server.name.as_str())));
    }
    for (pool, server) in finished {
        tracing::info!(pool, server, "removed server has drained");
    }
    Some(config)
}

/// Whether a removed server has drained.
pub(super) fn has_drained(runtime: &Runtime, history: &TableHistory, now: UnixMillis) -> bool {
    !finished(runtime, history, now).is_empty()
}

/// The configuration of a start, with the servers that were removed before and still drain. One that is in it again is a
/// server as any other.
pub(super) fn restore(mut config: Config, removed: &[RemovedServer], now: UnixMillis) -> Config {
    for pool in &mut config.pools {
        let Some(deadline) = pool.drain_deadline else { continue };
        for RemovedServer { server, since, .. } in removed.iter().filter(|removed| removed.pool == pool.name) {
            let is_back = pool.servers.iter().any(|now| now.name == server.name);
            if !is_back && !DrainSchedule::new(*since, deadline).is_over(now) {
                tracing::info!(pool = pool.name, server = server.name, "removed server goes on draining");
                pool.servers.push(config::Server { removed: true, ..server.clone() });
            }
        }
    }
    config
}

/// The clocks of their drains go on.
pub(super) fn resume(runtime: &Runtime, removed: &[RemovedServer], now: UnixMillis) {
    for (pool, server) in removed_of(runtime) {
        let saved = removed.iter().find(|saved| *saved.pool == *pool.pool.name && *saved.server.name == *server.name);
        if let Some(saved) = saved {
            server.live.drain.observe(true, Some(saved.since), now);
        }
    }
}

/// The removed servers that drain, for the state file.
pub(super) fn draining(runtime: &Runtime) -> Vec<RemovedServer> {
    let saved = |(pool, server): (&PoolRuntime, &Server)| {
        let config = runtime.config.pools.iter().find(|config| config.name == *pool.pool.name)?;
        let config = config.servers.iter().find(|config| config.name == *server.name)?;
        Some(RemovedServer {
            pool: pool.pool.name.to_string(),
            server: config.clone(),
            since: server.live.drain.started()?,
        })
    };
    removed_of(runtime).filter_map(saved).collect()
}

fn removed_of(runtime: &Runtime) -> impl Iterator<Item = (&PoolRuntime, &Server)> {
    let servers = runtime.pools.iter().flat_map(|pool| pool.pool.servers.iter().map(move |server| (pool, server)));
    servers.filter(|(_, server)| server.removed)
}

fn with_removed(mut new: Config, before: &Config, is_finished: impl Fn(&str, &str) -> bool) -> Config {
    for pool in new.pools.iter_mut().filter(|pool| pool.drain_deadline.is_some()) {
        let Some(before) = before.pools.iter().find(|before| before.name == pool.name) else { continue };
        let is_gone = |server: &&config::Server| pool.servers.iter().all(|now| now.name != server.name);
        let drains = |server: &&config::Server| !(server.removed && is_finished(&pool.name, &server.name));
        let gone: Vec<_> = before.servers.iter().filter(is_gone).filter(drains).cloned().collect();
        pool.servers.extend(gone.into_iter().map(|server| config::Server { removed: true, ..server }));
    }
    new
}

/// Pool and name of the removed servers that are empty, or whose time is over.
fn finished<'a>(runtime: &'a Runtime, history: &TableHistory, now: UnixMillis) -> Vec<(&'a str, &'a str)> {
    let is_finished = |pool: &PoolRuntime, index: usize| {
        let server = pool.pool.servers.get(index);
        let over = server.and_then(|server| Some(server.drain_schedule()?.is_over(now)));
        // In maint it keeps no session.
        let withdrawn = server.is_some_and(|server| server.state() == ServerState::Maint);
        withdrawn
            || over == Some(true)
            || pool.drain_progress(index, history, now).is_some_and(|progress| progress.empty)
    };
    let removed = |pool: &'a PoolRuntime| {
        let servers = pool.pool.servers.iter().enumerate().filter(|(_, server)| server.removed);
        servers
            .filter(move |(index, _)| is_finished(pool, *index))
            .map(move |(_, server)| (&*pool.pool.name, &*server.name))
    };
    runtime.pools.iter().flat_map(removed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ProcessEnvironment;

    fn config(servers: &str, pool: &str) -> Config {
        let servers: Vec<_> =
            servers.split_whitespace().map(|name| format!("{{ name: {name}, address: '127.0.0.1:1' }}")).collect();
        let text = format!(
            "version: 1\nlisteners: [{{ address: '127.0.0.1:8080' }}]\npools: {{ web: {{ {pool} servers: [{}] }} }}\n",
            servers.join(", ")
        );
        Config::parse("f", text, &ProcessEnvironment).unwrap_or_else(|problems| panic!("{problems}")).config
    }

    fn servers(config: &Config) -> Vec<(&str, bool)> {
        config.pools[0].servers.iter().map(|server| (server.name.as_str(), server.removed)).collect()
    }

    #[test]
    fn a_removed_server_stays_through_reloads_and_comes_back_whole() {
        const DEADLINE: &str = "drain_deadline: 1m,";
        let drains = |_: &str, _: &str| false;
        let first = with_removed(config("a c", DEADLINE), &config("a b c", DEADLINE), drains);
        assert_eq!(servers(&first), [("a", false), ("c", false), ("b", true)]);
        let second = with_removed(config("a", DEADLINE), &first, drains);
        assert_eq!(servers(&second), [("a", false), ("c", true), ("b", true)]);
        let back = with_removed(config("a b", DEADLINE), &second, drains);
        assert_eq!(servers(&back), [("a", false), ("b", false), ("c", true)]);
        let drained = with_removed(config("a", DEADLINE), &second, |_, server| server == "b");
        assert_eq!(servers(&drained), [("a", false), ("c", true)]);
        assert_eq!(servers(&with_removed(config("a", ""), &second, drains)), [("a", false)], "without a deadline");
    }
}
