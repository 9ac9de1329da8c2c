//! The effective configuration, written as a file again, and its hash: the raw tree with every default in it, and secrets
//! replaced.

use serde_yaml::{Mapping, Value};

use super::raw::{ListenerProtocol, Root};
use super::secret::digest_of;
use super::settings::Config;

/// Writes into the tree what the check has decided, so that it loads again to the same.
pub(crate) fn fill_in(root: &mut Root, config: &Config) {
    root.proxy.node = Some(config.proxy.node.clone());
    for (raw, checked) in root.listeners.iter_mut().zip(&config.listeners) {
        let http2 = if checked.tls.is_some() { ListenerProtocol::H2 } else { ListenerProtocol::H2c };
        let protocols = [(checked.http1, ListenerProtocol::Http1), (checked.http2, http2)];
        raw.protocols = Some(protocols.into_iter().filter(|(spoken, _)| *spoken).map(|(_, name)| name).collect());
    }
    for pool in &config.pools {
        if let Some(raw) = root.pools.get_mut(&pool.name) {
            raw.persistence.clone_from(&pool.persistence);
            raw.circuit_breaker.clone_from(&pool.circuit_breaker);
        }
    }
}

/// SHA-256 of the effective configuration, first 16 hexadecimal characters.
///
/// Without `proxy.node`, which is each proxy's own: proxies that share a file show one hash.
pub(crate) fn hash(root: &mut Root, pools: &[&str]) -> String {
    let node = root.proxy.node.take();
    // As JSON and piece by piece: as YAML it would take a quarter of the time of a reload. The order of the pools is that of the
    // file.
    let hash = digest_of(&(&*root, pools));
    root.proxy.node = node;
    hash.chars().take(16).collect()
}

/// The effective configuration as YAML, every default spelled out. It loads again to the same configuration where the
/// secrets are at hand: the secret of key `k1` is written as `${HOMING_KEY_K1}`, a password of Redis as
/// `${HOMING_REDIS_PASSWORD}` and one of Ignite as `${HOMING_IGNITE_PASSWORD}`, never as itself.
pub(crate) fn show(root: &Root, pools: &[&str]) -> String {
    let mut value = serde_yaml::to_value(root).unwrap_or_default();
    escape(&mut value);
    replace_secrets(&mut value, root);
    // In the order of the file.
    let pools = pools.iter().filter_map(|name| {
        let written = value.get("pools")?.get(*name)?.clone();
        Some((Value::from(*name), written))
    });
    let pools: Mapping = pools.collect();
    if let Some(map) = value.as_mapping_mut() {
        map.insert("pools".into(), Value::Mapping(pools));
    }
    serde_yaml::to_string(&value).unwrap_or_default()
}

fn replace_secrets(value: &mut Value, root: &Root) {
    let written = value.get_mut("keys").and_then(Value::as_sequence_mut);
    for (written, key) in written.into_iter().flatten().zip(&root.keys) {
        if let Some(map) = written.as_mapping_mut() {
            map.insert("secret".into(), placeholder("KEY", &key.id).into());
        }
    }
    let tokens = value.get_mut("admin").and_then(|admin| admin.get_mut("tokens")).and_then(Value::as_sequence_mut);
    for (written, token) in tokens.into_iter().flatten().zip(root.admin.iter().flat_map(|admin| &admin.tokens)) {
        if let Some(map) = written.as_mapping_mut() {
            map.insert("secret".into(), placeholder("ADMIN_TOKEN", &token.name).into());
        }
    }
    for (engine, key, replacement) in root.store.engines.secrets() {
        let section = value.get_mut("store").and_then(|store| store.get_mut(engine)).and_then(Value::as_mapping_mut);
        if let Some(section) = section {
            section.insert(key.into(), serde_yaml::to_value(replacement).unwrap_or_default());
        }
    }
}

fn placeholder(kind: &str, id: &str) -> String {
    let name: String =
        id.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
    format!("${{HOMING_{kind}_{name}}}")
}

/// A literal `${` is written `$${`.
fn escape(value: &mut Value) {
    match value {
        Value::String(text) => *text = text.replace("${", "$${"),
        Value::Sequence(items) => items.iter_mut().for_each(escape),
        Value::Mapping(map) => map.values_mut().for_each(escape),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{Fake, parse};

    const FILE: &str = "version: 1\nlisteners: [{ address: '127.0.0.1:8080' }]\npools:\n  z: { servers: [{ name: a, address: 'app:1' }] }\n  \
         b: { servers: [{ name: a, address: 'app:1' }], persistence: { cookie: { cache_control: 'x-$${y}' } } }\n\
         routes: [{ name: r, pool: z }, { name: s, match: { path_prefix: /b }, pool: b }]\n\
         keys: [{ id: k-1, secret: '0123456789abcdef' }]\nadmin: null\n";

    #[test]
    fn what_is_shown_loads_again_and_holds_no_secret() {
        let loaded = parse(FILE).unwrap();
        let (shown, config) = (loaded.effective(), loaded.config);
        assert!(!shown.contains("0123456789abcdef"), "{shown}");
        assert!(shown.contains("secret: ${HOMING_KEY_K_1}"), "{shown}");
        let environment = Fake(vec![("HOMING_KEY_K_1", "0123456789abcdef")]);
        let again =
            Config::parse("shown.yaml", &shown, &environment).unwrap_or_else(|problems| panic!("{problems}\n{shown}"));
        assert_eq!(again.config, config);
    }

    #[test]
    fn a_shared_store_is_shown_without_its_passwords() {
        let store = "store: { type: redis, redis: { mode: cluster, urls: ['rediss://u$${v:hunter2@a', 'rediss://u$${v:hunter2@b:1'] } }\n";
        let loaded = parse(&format!("{FILE}{store}")).unwrap();
        let (shown, config) = (loaded.effective(), loaded.config);
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("- rediss://u$${v:${HOMING_REDIS_PASSWORD}@b:1\n"), "{shown}");
        let environment = Fake(vec![("HOMING_KEY_K_1", "0123456789abcdef"), ("HOMING_REDIS_PASSWORD", "hunter2")]);
        let again = Config::parse("shown.yaml", &shown, &environment).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(again.config, config);
        let other = parse(&format!("{FILE}{}", store.replace("hunter2", "hunter3"))).unwrap().config;
        assert_ne!(config.hash, other.hash, "another password is another configuration");
    }

    #[test]
    fn a_password_of_ignite_is_not_shown() {
        let store = "store: { type: ignite, ignite: { username: edge, password: hunter2 } }\n";
        let loaded = parse(&format!("{FILE}{store}")).unwrap();
        let (shown, config) = (loaded.effective(), loaded.config);
        assert!(!shown.contains("hunter2") && shown.contains("password: ${HOMING_IGNITE_PASSWORD}\n"), "{shown}");
        let other = parse(&format!("{FILE}{}", store.replace("hunter2", "hunter3"))).unwrap().config;
        assert_ne!(config.hash, other.hash, "another password is another configuration");
    }

    #[test]
    fn the_hash_changes_with_meaning_only() {
        let hash = |text: &str| parse(text).unwrap().config.hash;
        let plain = hash(FILE);
        assert_eq!(plain.len(), 16);
        assert_eq!(plain, hash(&format!("# a comment\n{FILE}store: {{ max_sessions: 1000000 }}\n")));
        assert_ne!(plain, hash(&FILE.replace("0123456789abcdef", "0123456789abcdeg")));
        assert_ne!(plain, hash(&FILE.replace("name: a", "name: c")));
    }
}
