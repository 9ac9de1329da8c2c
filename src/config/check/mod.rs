//! From the raw configuration to the checked [`Config`]: what the schema cannot say. Reports all problems at once.

use std::path::PathBuf;

use super::address;
use super::diagnostics::Diagnostics;
use super::environment::Environment;
use super::process::{AccessLog, Log, Proxy};
use super::raw::{self, Key};
use super::settings::Config;
use super::suggest;
use super::yaml::Node;
use crate::config::check_context::{CheckContext, NodeRef, UniqueNames, check_name};

mod acme;
mod certificates;
mod discovery;
mod files;
mod listeners;
mod handoff;
mod persistence;
mod pools;
mod routes;
mod secrets;
mod server_tls;
mod shared_cookies;
mod sources;
mod store;
mod tracing;

/// Builds the checked configuration. It means something only if no problem was found.
///
/// `pools` are the names of all pools in the file, also of those that had problems of their own before.
pub(crate) fn check(
    root: &raw::Root,
    tree: &Node,
    pools: &[&str],
    context: &CheckContext<'_>,
    diagnostics: &mut Diagnostics,
) -> Config {
    let at = NodeRef::root(tree);
    let listeners = listeners::listeners(&root.listeners, at.key("listeners"), context, diagnostics);
    let admin = root.admin.as_ref().and_then(|admin| listeners::admin(admin, at.key("admin"), context, diagnostics));
    let metrics = root.metrics.as_ref().and_then(|metrics| listeners::metrics(metrics, at.key("metrics"), diagnostics));
    listeners::overlapping(root, at, diagnostics);
    acme::answerable(&root.listeners, at.key("listeners"), diagnostics);
    let config = Config {
        proxy: proxy(&root.proxy, at.key("proxy"), context.environment, diagnostics),
        routes: routes::routes(root, at, pools, diagnostics).into(),
        pools: pools::pools(root, at.key("pools"), context, diagnostics),
        keys: keys(root, at, diagnostics),
        store: store::store(root, at, context, diagnostics),
        log: log(&root.log, at.key("log"), diagnostics),
        tracing: tracing::tracing(&root.tracing, at.key("tracing"), diagnostics),
        listeners,
        admin,
        metrics,
        hash: String::new(),
    };
    routes::unused_pools(&config, at.key("pools"), diagnostics);
    routes::splits_without_sessions(&config, at.key("routes"), diagnostics);
    routes::redirects_without_end(&config, at.key("routes"), diagnostics);
    shared_cookies::shared_cookies(&config, at.key("pools"), diagnostics);
    handoff::changed_by_routes(&config, at, diagnostics);
    persistence::unreachable_cookies(&config, at.key("pools"), diagnostics);
    persistence::secure_on_plain_listeners(&config, at.key("pools"), diagnostics);
    persistence::certificates_for_sessions(&config, at.key("pools"), diagnostics);
    files::shared_files(&config, at, diagnostics);
    pools::circles(&config, at.key("pools"), diagnostics);
    config
}

fn proxy(proxy: &raw::Proxy, at: NodeRef<'_>, environment: &dyn Environment, diagnostics: &mut Diagnostics) -> Proxy {
    let node = proxy.node.clone().or_else(|| environment.variable("HOSTNAME")).filter(|node| !node.trim().is_empty());
    let node = node.unwrap_or_else(|| "edge".to_owned());
    if node.len() > 255 || node.chars().any(char::is_control) {
        diagnostics.problem(
            at.key("node").location,
            "\"proxy.node\" is no name",
            "use at most 255 printable characters",
        );
    }
    if proxy.pid_file.as_deref() == Some("") {
        diagnostics.problem(
            at.key("pid_file").location,
            "\"proxy.pid_file\" is empty",
            "write a path, or null for none",
        );
    }
    Proxy {
        threads: match proxy.threads {
            raw::Threads::Auto(_) => None,
            raw::Threads::Count(count) => Some(count),
        },
        node,
        pid_file: proxy.pid_file.as_ref().map(Into::into),
        upgrade_socket: proxy
            .upgrade_socket
            .as_ref()
            .and_then(|path| upgrade_socket(path, at.key("upgrade_socket"), environment, diagnostics)),
        shutdown_grace: proxy.shutdown_grace,
        upstream_idle_connections: proxy.upstream_idle_connections,
        fast_path: proxy.fast_path,
    }
}

/// Keys and sessions go through the socket, so no other user may put another one in its place.
fn upgrade_socket(
    path: &str,
    at: NodeRef<'_>,
    environment: &dyn Environment,
    diagnostics: &mut Diagnostics,
) -> Option<PathBuf> {
    let file =
        files::WrittenFile { key: "proxy.upgrade_socket", what: "upgrade socket", example: "/run/homing/upgrade.sock" };
    let socket = file.check(path, at, environment, diagnostics)?;
    if let Err(why) = address::listen_address(&format!("unix:{path}")) {
        diagnostics.problem(at.location, format!("\"proxy.upgrade_socket\" cannot be {}", suggest::quoted(path)), why);
        return None;
    }
    let directory = socket.parent()?;
    if environment.others_may_write(directory) {
        let message =
            format!("\"proxy.upgrade_socket\" is in a directory that every user may write to: {}", directory.display());
        let help =
            "use a directory of the proxy's own, like /run/homing/upgrade.sock (in systemd: RuntimeDirectory=homing)";
        diagnostics.problem(at.location, message, help);
        return None;
    }
    Some(socket)
}

fn keys(root: &raw::Root, at: NodeRef<'_>, diagnostics: &mut Diagnostics) -> Vec<Key> {
    let persistent = root.pools.values().any(|pool| pool.persistence.is_some());
    if root.keys.is_empty() && persistent {
        let message = "no keys are configured: sessions end with this process, and other proxies do not know them";
        diagnostics.warn(at.key_location("keys"), message, "\"homing keys generate\" prints a key to add");
    }
    let mut ids = UniqueNames::default();
    let mut keys = Vec::new();
    for (index, key) in root.keys.iter().enumerate() {
        let at = at.key("keys").item(index);
        check_name(&key.id, "key", at.key("id").location, diagnostics);
        ids.see(&key.id, "key", at.key("id").location, diagnostics);
        secrets::secret(&key.secret, &format!("key {}", suggest::quoted(&key.id)), at.key("secret"), diagnostics);
        keys.push(key.clone());
    }
    keys
}

fn log(log: &raw::Log, at: NodeRef<'_>, diagnostics: &mut Diagnostics) -> Log {
    let access = match log.access.as_str() {
        "none" => AccessLog::None,
        "stdout" => AccessLog::Stdout,
        path => {
            if !path.starts_with('/') {
                let message = format!("\"log.access\" cannot be {}", suggest::quoted(path));
                diagnostics.problem(
                    at.key("access").location,
                    message,
                    suggest::help(path, &["none", "stdout"], "it can be the absolute path of a file, or"),
                );
            }
            AccessLog::File(path.into())
        }
    };
    Log { level: log.level, format: log.format, access }
}
