//! Compares two configurations, so that the log says what a reload changes and what only a restart changes.

use std::collections::{HashMap, HashSet};

use crate::config::{Config, Listener, Pool, Remote, Server, Store};

/// One thing that a reload changes, or cannot change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A new pool.
    PoolAdded(String),
    /// A pool was removed; its sessions expire.
    PoolRemoved(String),
    /// A new server, as (pool, server).
    ServerAdded(String, String),
    /// A server was removed; its sessions move with their next request.
    ServerRemoved(String, String),
    /// A server changed, as (pool, server, what).
    ServerChanged(String, String, String),
    /// A pool's other settings changed, as (pool, their keys).
    PoolChanged(String, String),
    /// Routes changed.
    Routes,
    /// Sealing keys changed.
    Keys,
    /// Limits, timeouts, trusted proxies or certificates of a listener changed.
    Listeners,
    /// Logs changed.
    Log,
    /// Tracing changed.
    Tracing,
    /// The size of the table changed.
    Table,
    /// Where or how often the table is written to disk changed.
    TableSnapshot,
    /// A key that only a restart changes; the old value stays.
    NeedsRestart(&'static str),
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::PoolAdded(pool) => write!(f, "pool {pool} added"),
            Self::PoolRemoved(pool) => write!(f, "pool {pool} removed"),
            Self::ServerAdded(pool, server) => write!(f, "server {pool}/{server} added"),
            Self::ServerRemoved(pool, server) => write!(f, "server {pool}/{server} removed"),
            Self::ServerChanged(pool, server, what) => write!(f, "server {pool}/{server} changed: {what}"),
            Self::PoolChanged(pool, keys) => write!(f, "pool {pool} changed: {keys}"),
            Self::Routes => f.write_str("routes changed"),
            Self::Keys => f.write_str("keys changed"),
            Self::Listeners => f.write_str("limits, trusted proxies or certificates of listeners changed"),
            Self::Log => f.write_str("log changed"),
            Self::Tracing => f.write_str("tracing changed"),
            Self::Table => f.write_str("store.max_sessions changed"),
            Self::TableSnapshot => f.write_str("store.snapshot changed"),
            Self::NeedsRestart(key) => write!(f, "{key} changed, which needs a restart; the old value stays"),
        }
    }
}

/// What changes from `old` to `new`.
pub fn changes(old: &Config, new: &Config) -> Vec<Change> {
    let mut changes = Vec::new();
    changes.extend(needs_restart(old, new).into_iter().map(Change::NeedsRestart));
    pool_changes(old, new, &mut changes);
    let sections = [
        (old.routes != new.routes, Change::Routes),
        (old.keys != new.keys, Change::Keys),
        (limits_differ(&old.listeners, &new.listeners), Change::Listeners),
        (old.log.level != new.log.level || old.log.access != new.log.access, Change::Log),
        (old.tracing != new.tracing, Change::Tracing),
        (old.store.max_sessions != new.store.max_sessions, Change::Table),
        (old.store.snapshot != new.store.snapshot, Change::TableSnapshot),
    ];
    changes.extend(sections.into_iter().filter(|(differs, _)| *differs).map(|(_, change)| change));
    changes
}

/// `new`, with the running values of all keys that only a restart changes, so that the effective configuration is what is
/// shown.
pub fn keep_restart_only(old: &Config, mut new: Config) -> Config {
    new.proxy.clone_from(&old.proxy);
    new.log.format = old.log.format;
    new.admin.clone_from(&old.admin);
    new.metrics.clone_from(&old.metrics);
    new.store.remote.clone_from(&old.store.remote);
    new.listeners = old
        .listeners
        .iter()
        .map(|old| {
            let new = new.listeners.iter().find(|new| new.address == old.address);
            new.map_or_else(|| old.clone(), |new| reloadable_part(old, new))
        })
        .collect();
    new
}

fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let addresses = |config: &Config| -> Vec<_> {
        let one = |one: &Listener| (one.address.clone(), one.http1, one.http2, one.tls.is_some());
        config.listeners.iter().map(one).collect()
    };
    let keys = [
        (old.proxy.threads != new.proxy.threads, "proxy.threads"),
        (old.proxy.node != new.proxy.node, "proxy.node"),
        (old.proxy.shutdown_grace != new.proxy.shutdown_grace, "proxy.shutdown_grace"),
        (old.proxy.pid_file != new.proxy.pid_file, "proxy.pid_file"),
        (old.proxy.upgrade_socket != new.proxy.upgrade_socket, "proxy.upgrade_socket"),
        (old.proxy.upstream_idle_connections != new.proxy.upstream_idle_connections, "proxy.upstream_idle_connections"),
        (old.proxy.fast_path != new.proxy.fast_path, "proxy.fast_path"),
        (addresses(old) != addresses(new), "listeners (addresses, protocols, or whether there is TLS)"),
        (old.log.format != new.log.format, "log.format"),
        (old.admin != new.admin, "admin"),
        (old.metrics != new.metrics, "metrics"),
    ];
    keys.into_iter()
        .chain(shared_store_changes(&old.store, &new.store))
        .filter(|(differs, _)| *differs)
        .map(|(_, key)| key)
        .collect()
}

/// A shared store is opened at start only.
fn shared_store_changes(old: &Store, new: &Store) -> Vec<(bool, &'static str)> {
    let kind = |store: &Store| store.remote.as_ref().map(|remote| remote.engine.word());
    let both = |old: &Remote, new: &Remote| {
        vec![
            (old.on_error != new.on_error, "store.on_error"),
            (old.timeout != new.timeout, "store.timeout"),
            (old.near_ttl != new.near_ttl, "store.near_ttl"),
            (old.engine != new.engine, new.engine.section()),
        ]
    };
    match (&old.remote, &new.remote) {
        _ if kind(old) != kind(new) => vec![(true, "store.type")],
        (Some(old), Some(new)) => both(old, new),
        _ => Vec::new(),
    }
}

fn limits_differ(old: &[Listener], new: &[Listener]) -> bool {
    old.iter().any(|old| {
        new.iter().find(|new| new.address == old.address).is_some_and(|new| reloadable_part(old, new) != *old)
    })
}

/// The old listener with all settings of the new one that need no restart.
fn reloadable_part(old: &Listener, new: &Listener) -> Listener {
    let tls = if old.tls.is_some() == new.tls.is_some() { &new.tls } else { &old.tls };
    Listener { http1: old.http1, http2: old.http2, tls: tls.clone(), ..new.clone() }
}

/// There may be thousands of pools, or of servers in a pool.
fn pool_changes(old: &Config, new: &Config, changes: &mut Vec<Change>) {
    let by_name: HashMap<&str, &Pool> = old.pools.iter().map(|pool| (pool.name.as_str(), pool)).collect();
    for pool in &new.pools {
        let Some(before) = by_name.get(pool.name.as_str()) else {
            changes.push(Change::PoolAdded(pool.name.clone()));
            continue;
        };
        let named = |server: &str| (pool.name.clone(), server.to_owned());
        let before_servers = || before.servers.iter().filter(|server| !server.removed);
        let servers_by_name: HashMap<&str, &Server> = before_servers().map(|one| (one.name.as_str(), one)).collect();
        let names: HashSet<&str> = pool.servers.iter().map(|server| server.name.as_str()).collect();
        for server in &pool.servers {
            match servers_by_name.get(server.name.as_str()).copied() {
                None => changes.push({
                    let (pool, server) = named(&server.name);
                    Change::ServerAdded(pool, server)
                }),
                Some(before) if before != server => changes.push({
                    let what = server_changes(before, server);
                    let (pool, server) = named(&server.name);
                    Change::ServerChanged(pool, server, what)
                }),
                Some(_) => {}
            }
        }
        for server in before_servers() {
            if !names.contains(server.name.as_str()) {
                let (pool, server) = named(&server.name);
                changes.push(Change::ServerRemoved(pool, server));
            }
        }
        let keys = pool_keys_changed(before, pool);
        if !keys.is_empty() {
            changes.push(Change::PoolChanged(pool.name.clone(), keys.join(", ")));
        }
    }
    let names: HashSet<&str> = new.pools.iter().map(|pool| pool.name.as_str()).collect();
    for before in &old.pools {
        if !names.contains(before.name.as_str()) {
            changes.push(Change::PoolRemoved(before.name.clone()));
        }
    }
}

/// What changed of a server, with the values before and after.
fn server_changes(old: &Server, new: &Server) -> String {
    // All of them, so that a new setting cannot be forgotten here.
    let Server { name: _, address, weight, state, route, backup, removed: _, since: _ } = old;
    let state_word = |state: &crate::config::ServerState| <&str>::from(*state).to_owned();
    let all = [
        ("address", address.to_string(), new.address.to_string()),
        ("weight", weight.to_string(), new.weight.to_string()),
        ("state", state_word(state), state_word(&new.state)),
        ("route", route.clone(), new.route.clone()),
        ("backup", backup.to_string(), new.backup.to_string()),
    ];
    let changed = all.into_iter().filter(|(_, old, new)| old != new);
    changed.map(|(key, old, new)| format!("{key} {old} -> {new}")).collect::<Vec<_>>().join(", ")
}

/// Keys of a pool with changed values, except `servers`.
fn pool_keys_changed(old: &Pool, new: &Pool) -> Vec<&'static str> {
    let Pool {
        name: _,
        servers: _,
        discovery,
        balance,
        hash_on,
        connection,
        tls,
        health_check,
        circuit_breaker,
        slow_start,
        limits,
        streams_on_down,
        drain_deadline,
        rebalance,
        retries,
        persistence,
    } = old;
    let all = [
        (*discovery != new.discovery, "discovery"),
        (*balance != new.balance, "balance"),
        (*hash_on != new.hash_on, "hash_on"),
        (*connection != new.connection, "connection"),
        (*connection == new.connection && *tls != new.tls, "connection.tls (its files)"),
        (*health_check != new.health_check, "health_check"),
        (*limits != new.limits, "limits"),
        (*slow_start != new.slow_start, "slow_start"),
        (*circuit_breaker != new.circuit_breaker, "circuit_breaker"),
        (*streams_on_down != new.streams_on_down, "streams_on_down"),
        (*drain_deadline != new.drain_deadline, "drain_deadline"),
        (*rebalance != new.rebalance, "rebalance"),
        (*retries != new.retries, "retries"),
        (*persistence != new.persistence, "persistence"),
    ];
    all.into_iter().filter(|(differs, _)| *differs).map(|(_, key)| key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ProcessEnvironment;

    const REDIS: &str = "type: redis, redis: { urls: ['redis://10.0.0.1'] }";
    const MEMCACHED: &str = "type: memcached, memcached: { servers: ['10.0.0.1:11211'] }";

    fn with_store(store: &str) -> Config {
        let text = format!(
            "version: 1\nlisteners: [{{ address: '127.0.0.1:8080' }}]\npools: {{ p: {{ servers: [{{ name: a, address: 'app:1' }}] }} }}\n\
             keys: [{{ id: k, secret: '0123456789abcdef' }}]\nstore: {{ {store} }}\n"
        );
        Config::parse("f", text, &ProcessEnvironment).unwrap_or_else(|problems| panic!("{problems}")).config
    }

    #[test]
    fn a_changed_server_says_what_changed_and_a_pool_says_which_keys() {
        let config = |pool: &str, server: &str| {
            let text = format!(
                "version: 1\nlisteners: [{{ address: '127.0.0.1:8080' }}]\n\
                 pools: {{ p: {{ {pool} servers: [{{ name: a, {server} }}] }} }}\n"
            );
            Config::parse("f", text, &ProcessEnvironment).unwrap_or_else(|problems| panic!("{problems}")).config
        };
        let said = |new: &Config| -> Vec<String> {
            let old = config("", "address: 'app:1', weight: 1");
            changes(&old, new).iter().map(ToString::to_string).collect()
        };
        let server = config("", "address: 'app:2', weight: 5, state: drain, route: x, backup: true");
        assert_eq!(
            said(&server),
            ["server p/a changed: address app:1 -> app:2, weight 1 -> 5, state ready -> drain, route a -> x, \
              backup false -> true"]
        );
        let pool = config("balance: random, retries: { attempts: 1 },", "address: 'app:1'");
        assert_eq!(said(&pool), ["pool p changed: balance, retries"]);
    }

    #[test]
    fn all_of_a_shared_store_needs_a_restart_and_stays_as_it_was() {
        let redis = with_store(REDIS);
        for (old, store, keys) in [
            (&with_store("type: memory"), REDIS.to_owned(), &["store.type"][..]),
            (&redis, "type: memory".to_owned(), &["store.type"]),
            (&redis, format!("{MEMCACHED}, timeout: 1s"), &["store.type"]),
            (&redis, format!("{REDIS}, on_error: refuse, timeout: 1s"), &["store.on_error", "store.timeout"]),
            (&redis, REDIS.replace("10.0.0.1", "10.0.0.2") + ", near_ttl: 1s", &["store.near_ttl", "store.redis"]),
            (&redis, REDIS.replace("redis://", "redis://:secret@"), &["store.redis"]),
            (&with_store(MEMCACHED), MEMCACHED.replace("10.0.0.1", "10.0.0.2"), &["store.memcached"]),
        ] {
            let new = with_store(&store);
            let expected: Vec<Change> = keys.iter().map(|key| Change::NeedsRestart(key)).collect();
            assert_eq!(changes(old, &new), expected, "{store}");
            assert_eq!(keep_restart_only(old, new).store, old.store, "{store}");
        }
    }

    #[test]
    fn the_table_of_a_shared_store_changes_at_once() {
        let old = with_store(REDIS);
        let new = with_store(&format!("{REDIS}, max_sessions: 5, snapshot: {{ path: /run/sessions }}"));
        assert_eq!(changes(&old, &new), [Change::Table, Change::TableSnapshot]);
        assert_eq!(keep_restart_only(&old, new.clone()).store, new.store);
    }

    #[test]
    fn what_is_written_of_another_type_of_store_is_no_change() {
        let old = with_store("type: memory");
        assert_eq!(changes(&old, &with_store("timeout: 1s, redis: { key_prefix: shop }")), []);
    }
}
