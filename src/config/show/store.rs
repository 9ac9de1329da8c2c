//! The store, written as the file has it.

use super::Secrets;
use crate::config::redis_url;
use crate::config::secret::Secret;
use crate::config::shape;
use crate::config::store::{OnError, Redis, RedisMode, Remote, RemoteEngine, Store};
use crate::config::units::Span;

/// Without the URLs of Redis, which are secrets.
pub(super) fn store(one: &Store) -> shape::Store {
    let snapshot = one.snapshot.as_ref().map_or_else(shape::Snapshot::default, |snapshot| shape::Snapshot {
        path: Some(snapshot.path.display().to_string()),
        interval: Span(snapshot.interval),
    });
    let table = shape::Store { max_sessions: one.max_sessions, snapshot, ..shape::Store::default() };
    one.remote.as_ref().map_or_else(|| table.clone(), |one| remote(one, table.clone()))
}

fn remote(one: &Remote, table: shape::Store) -> shape::Store {
    let store = shape::Store {
        on_error: match one.on_error {
            OnError::Fallback => shape::OnError::Fallback,
            OnError::Refuse => shape::OnError::Refuse,
        },
        timeout: Span(one.timeout),
        near_ttl: Span(one.near_ttl),
        ..table
    };
    match &one.engine {
        RemoteEngine::Redis(one) => shape::Store { r#type: shape::StoreType::Redis, redis: redis(one), ..store },
        RemoteEngine::Memcached(one) => shape::Store {
            r#type: shape::StoreType::Memcached,
            memcached: shape::Memcached { servers: one.servers.clone(), key_prefix: one.key_prefix.clone() },
            ..store
        },
        RemoteEngine::Hazelcast(one) => shape::Store {
            r#type: shape::StoreType::Hazelcast,
            hazelcast: shape::Hazelcast {
                members: one.members.clone(),
                cluster_name: one.cluster_name.clone(),
                map: one.map.clone(),
            },
            ..store
        },
    }
}

fn redis(one: &Redis) -> shape::Redis {
    let (mode, master_name) = match &one.mode {
        RedisMode::Standalone => (shape::RedisMode::Standalone, None),
        RedisMode::Sentinel { master_name } => (shape::RedisMode::Sentinel, Some(master_name.clone())),
        RedisMode::Cluster => (shape::RedisMode::Cluster, None),
    };
    shape::Redis { urls: Vec::new(), mode, master_name, key_prefix: one.key_prefix.clone() }
}

/// The URLs of Redis, if it is the store, in a form that may be shown, or only be compared.
pub(super) fn urls(one: &Store, secrets: Secrets) -> Option<Vec<String>> {
    let Some(RemoteEngine::Redis(redis)) = one.remote.as_ref().map(|remote| &remote.engine) else { return None };
    let url = |url: &Secret| match secrets {
        Secrets::Placeholders => shown(url.expose()),
        Secrets::Digests => super::digest(url.expose().as_bytes()),
    };
    Some(redis.urls.iter().map(url).collect())
}

/// A URL with `${HOMING_REDIS_PASSWORD}` in the place of its password. All URLs have the same.
fn shown(url: &str) -> String {
    let password = redis_url::password(url);
    let part = |text: Option<&str>| text.unwrap_or_default().replace("${", "$${");
    let (before, behind) = (part(url.get(..password.start)), part(url.get(password.end..)));
    let placeholder = if password.is_empty() { "" } else { "${HOMING_REDIS_PASSWORD}" };
    format!("{before}{placeholder}{behind}")
}
