//! The store, written as the file has it.

use super::Secrets;
use crate::config::raw;
use crate::config::redis_url;
use crate::config::secret::Secret;
use crate::config::store::{Ignite, OnError, Redis, RedisMode, Remote, RemoteEngine, Store};
use crate::config::units::Span;

/// Without the URLs of Redis, which are secrets.
pub(super) fn store(one: &Store) -> raw::Store {
    let snapshot = one.snapshot.as_ref().map_or_else(raw::Snapshot::default, |snapshot| raw::Snapshot {
        path: Some(snapshot.path.display().to_string()),
        interval: Span(snapshot.interval),
    });
    let table = raw::Store { max_sessions: one.max_sessions, snapshot, ..raw::Store::default() };
    one.remote.as_ref().map_or_else(|| table.clone(), |one| remote(one, table.clone()))
}

fn remote(one: &Remote, table: raw::Store) -> raw::Store {
    let store = raw::Store {
        on_error: match one.on_error {
            OnError::Fallback => raw::OnError::Fallback,
            OnError::Refuse => raw::OnError::Refuse,
        },
        timeout: Span(one.timeout),
        near_ttl: Span(one.near_ttl),
        ..table
    };
    match &one.engine {
        RemoteEngine::Redis(one) => raw::Store { r#type: raw::StoreType::Redis, redis: redis(one), ..store },
        RemoteEngine::Memcached(one) => raw::Store {
            r#type: raw::StoreType::Memcached,
            memcached: raw::Memcached { servers: one.servers.clone(), key_prefix: one.key_prefix.clone() },
            ..store
        },
        RemoteEngine::Ignite(one) => raw::Store { r#type: raw::StoreType::Ignite, ignite: ignite(one), ..store },
    }
}

/// Without the password.
fn ignite(one: &Ignite) -> raw::Ignite {
    raw::Ignite {
        addresses: one.addresses.clone(),
        cache: one.cache.clone(),
        username: one.login.as_ref().map(|(user, _)| user.clone()),
        password: None,
        tls: one.tls.as_ref().map(|tls| raw::StoreTls {
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

fn redis(one: &Redis) -> raw::Redis {
    let (mode, master_name) = match &one.mode {
        RedisMode::Standalone => (raw::RedisMode::Standalone, None),
        RedisMode::Sentinel { master_name } => (raw::RedisMode::Sentinel, Some(master_name.clone())),
        RedisMode::Cluster => (raw::RedisMode::Cluster, None),
    };
    raw::Redis { urls: Vec::new(), mode, master_name, key_prefix: one.key_prefix.clone() }
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
