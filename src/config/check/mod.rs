//! From the shape to the checked [`Config`]: what the schema cannot say. Reports all problems at once.

use std::collections::HashMap;
use std::path::Path;

use super::Config;
use super::environment::Environment;
use super::problem::{Findings, Place};
use super::process::{AccessLog, Key, Log, LogFormat, LogLevel, Proxy};
use super::secret::Secret;
use super::shape;
use super::suggest;
use super::tree::{Node, Origin};

mod certificates;
mod doors;
mod handoff;
mod persistence;
mod pools;
mod routes;
mod sources;
mod store;

/// Shortest secret of a key, in characters.
const MIN_SECRET: usize = 16;

/// A part of the file, to find the place of what the shape holds. What is not written has the place of what it would
/// stand in.
#[derive(Clone, Copy)]
pub(crate) struct At<'t> {
    node: Option<&'t Node>,
    place: Option<Place>,
}

impl<'t> At<'t> {
    fn root(node: &'t Node) -> Self {
        Self { node: Some(node), place: None }
    }

    fn key(self, key: &str) -> Self {
        let entry = self.node.and_then(|node| node.entry(key));
        Self { node: entry.map(|entry| &entry.value), place: entry.map(|entry| entry.value.place).or(self.place) }
    }

    /// The place of a key itself.
    fn name_of(self, key: &str) -> Option<Place> {
        self.node.and_then(|node| node.entry(key)).map(|entry| entry.key_place).or(self.place)
    }

    fn item(self, index: usize) -> Self {
        let item = self.node.and_then(|node| node.items().get(index));
        Self { node: item, place: item.map(|item| item.place).or(self.place) }
    }

    fn is_written(self) -> bool {
        self.node.is_some()
    }

    fn origin(self) -> Origin {
        self.node.map_or(Origin::Literal, |node| node.origin)
    }

    /// Keys in the order of the file.
    fn keys(self) -> impl Iterator<Item = &'t str> {
        self.node.map(Node::entries).unwrap_or_default().iter().map(|entry| entry.key.as_str())
    }
}

/// What is outside of the file.
pub(crate) struct Outside<'o> {
    pub(crate) environment: &'o dyn Environment,
    /// Where relative paths begin.
    pub(crate) folder: &'o Path,
}

/// Finds out what a set of names holds twice.
#[derive(Default)]
struct Unique(HashMap<String, usize>);

impl Unique {
    /// Reports a name that was seen before.
    fn see(&mut self, name: &str, what: &str, place: Option<Place>, findings: &mut Findings) {
        let line = place.map_or(0, |place| place.line);
        if let Some(first) = self.0.get(name) {
            let help = format!("the first is on line {first}; names are unique");
            findings.problem(place, format!("{what} {} exists twice", suggest::quoted(name)), help);
        } else {
            self.0.insert(name.to_owned(), line);
        }
    }
}

/// Reports a name that is not `[A-Za-z0-9_.-]{1,64}`.
fn name(name: &str, what: &str, place: Option<Place>, findings: &mut Findings) {
    if !super::address::is_name(name) {
        let help = "use letters, digits, \"_\", \".\" and \"-\", at most 64, the first a letter or digit";
        findings.problem(place, format!("{} is no name for a {what}", suggest::quoted(name)), help);
    }
}

/// Builds the checked configuration. It means something only if no problem was found.
///
/// `pools` are the names of all pools in the file, also of those that had problems of their own before.
pub(crate) fn check(
    root: &shape::Root,
    tree: &Node,
    pools: &[&str],
    outside: &Outside<'_>,
    findings: &mut Findings,
) -> Config {
    let at = At::root(tree);
    let listeners = doors::listeners(&root.listeners, at.key("listeners"), outside, findings);
    let admin = root.admin.as_ref().and_then(|admin| doors::admin(admin, at.key("admin"), findings));
    let metrics = root.metrics.as_ref().and_then(|metrics| doors::metrics(metrics, at.key("metrics"), findings));
    doors::overlapping(root, at, findings);
    let config = Config {
        proxy: proxy(&root.proxy, at.key("proxy"), outside.environment, findings),
        routes: routes::routes(root, at, pools, findings),
        pools: pools::pools(root, at.key("pools"), findings),
        keys: keys(root, at, findings),
        store: store::store(root, at, outside, findings),
        log: log(&root.log, at.key("log"), findings),
        listeners,
        admin,
        metrics,
        hash: String::new(),
    };
    routes::unused_pools(&config, at.key("pools"), findings);
    routes::splits_without_sessions(&config, at.key("routes"), findings);
    routes::redirects_without_end(&config, at.key("routes"), findings);
    persistence::shared_cookies(&config, at.key("pools"), findings);
    handoff::changed_by_routes(&config, at, findings);
    persistence::secure_on_plain_listeners(&config, at.key("pools"), findings);
    pools::circles(&config, at.key("pools"), findings);
    config
}

/// Clients may come by TLS: here, or at a proxy before this one that says so.
fn tls_is_seen(config: &Config) -> bool {
    config.listeners.iter().any(|listener| listener.tls.is_some() || !listener.trusted_proxies.is_empty())
}

fn proxy(proxy: &shape::Proxy, at: At<'_>, environment: &dyn Environment, findings: &mut Findings) -> Proxy {
    let node = proxy.node.clone().or_else(|| environment.variable("HOSTNAME")).filter(|node| !node.trim().is_empty());
    let node = node.unwrap_or_else(|| "edge".to_owned());
    if node.len() > 255 || node.chars().any(char::is_control) {
        findings.problem(at.key("node").place, "\"proxy.node\" is no name", "use at most 255 printable characters");
    }
    if proxy.pid_file.as_deref() == Some("") {
        findings.problem(at.key("pid_file").place, "\"proxy.pid_file\" is empty", "write a path, or null for none");
    }
    Proxy {
        threads: match proxy.threads {
            shape::Threads::Auto(_) => None,
            shape::Threads::Count(count) => Some(count),
        },
        node,
        pid_file: proxy.pid_file.as_ref().map(Into::into),
        shutdown_grace: proxy.shutdown_grace.0,
        upstream_idle_connections: proxy.upstream_idle_connections,
    }
}

fn keys(root: &shape::Root, at: At<'_>, findings: &mut Findings) -> Vec<Key> {
    let persistent = root.pools.values().any(|pool| pool.persistence.is_some());
    if root.keys.is_empty() && persistent {
        let message = "no keys are configured: sessions end with this process, and other proxies do not know them";
        findings.warn(at.name_of("keys"), message, "\"homing keys generate\" prints a key to add");
    }
    let mut ids = Unique::default();
    let mut keys = Vec::new();
    for (index, key) in root.keys.iter().enumerate() {
        let at = at.key("keys").item(index);
        name(&key.id, "key", at.key("id").place, findings);
        ids.see(&key.id, "key", at.key("id").place, findings);
        secret(key, at.key("secret"), findings);
        keys.push(Key { id: key.id.clone(), secret: Secret::new(&*key.secret) });
    }
    keys
}

fn secret(key: &shape::Key, at: At<'_>, findings: &mut Findings) {
    let id = suggest::quoted(&key.id);
    if key.secret.trim().chars().count() < MIN_SECRET {
        let message = format!("the secret of key {id} is shorter than {MIN_SECRET} characters");
        findings.problem(at.place, message, "\"homing keys generate\" prints a good one");
        return;
    }
    match at.origin() {
        Origin::Literal | Origin::Default => findings.warn(
            at.place,
            format!("the secret of key {id} stands in the configuration file"),
            "keep it elsewhere: \"${file:/run/secrets/name}\" or \"${NAME}\"",
        ),
        Origin::OpenFile => findings.warn(
            at.place,
            format!("every user of this machine may read the secret of key {id}"),
            "chmod 600, or 640 with a group for homing",
        ),
        Origin::Expanded | Origin::Broken => {}
    }
}

fn log(log: &shape::Log, at: At<'_>, findings: &mut Findings) -> Log {
    let access = match log.access.as_str() {
        "none" => AccessLog::None,
        "stdout" => AccessLog::Stdout,
        path => {
            if !path.starts_with('/') {
                let message = format!("\"log.access\" cannot be {}", suggest::quoted(path));
                findings.problem(
                    at.key("access").place,
                    message,
                    suggest::help(path, &["none", "stdout"], "it can be the absolute path of a file, or"),
                );
            }
            AccessLog::File(path.into())
        }
    };
    Log {
        level: match log.level {
            shape::LogLevel::Error => LogLevel::Error,
            shape::LogLevel::Warn => LogLevel::Warn,
            shape::LogLevel::Info => LogLevel::Info,
            shape::LogLevel::Debug => LogLevel::Debug,
            shape::LogLevel::Trace => LogLevel::Trace,
        },
        format: match log.format {
            shape::LogFormat::Text => LogFormat::Text,
            shape::LogFormat::Json => LogFormat::Json,
        },
        access,
    }
}
