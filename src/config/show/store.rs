//! The store, written as the file has it.

use super::Secrets;
use crate::config::redis_url;
use crate::config::secret::Secret;
use crate::config::shape;
use crate::config::store::{Ignite, OnError, Redis, RedisMode, Remote, RemoteEngine, Store};
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
        RemoteEngine::Ignite(one) => shape::Store { r#type: shape::StoreType::Ignite, ignite: ignite(one), ..store },
    }
}

/// Without the password.
fn ignite(one: &Ignite) -> shape::Ignite {
    shape::Ignite {
        addresses: one.addresses.clone(),
        cache: one.cache.clone(),
        username: one.login.as_ref().map(|(user, _)| user.clone()),
        password: None,
        tls: one.tls.as_ref().map(|tls| shape::StoreTls {
            ca: tls.authorities.as_ref().map(|ca| ca.file.written.clone()),
            server_name: tls.server_name.clone(),
            client_certificate: tls.certificate.as_ref().map(|own| own.cert.written.clone()),
            client_key: tls.certificate.as_ref().map(|own| own.key.written.clone()),
        }),
    }
}

/// The password of Ignite, if it is the store and has one, in a form that may be shown, or only be compared.
pub(super) fn ignite_password(one: &Store, secrets: Secrets) -> Option<String> {
    let RemoteEngine::Ignite(ignite) = &one.remote.as_ref()?.engine else { return None };
    let (_, password) = ignite.login.as_ref()?;
    Some(match secrets {
        Secrets::Placeholders => "${HOMING_IGNITE_PASSWORD}".to_owned(),
        Secrets::Digests => super::digest(password.expose().as_bytes()),
    })
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
