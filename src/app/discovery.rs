//! Pools whose servers are discovered: one task each, whose findings the reloader puts into force.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::Notify;
use tokio::sync::mpsc::Sender;
use tokio::task::JoinHandle;

use crate::config::{self, Config, Discovery, DnsDiscovery, Server, parse_targets, watch};
use crate::pool::discovery::{Answer, DnsClient, KnownServers};
use crate::session::token::UnixMillis;
use crate::store::local::table::Table;

use super::reload_trigger::ReloadTrigger;

/// A file that cannot be watched is read this often.
const READ_ANYWAY: Duration = Duration::from_secs(10);
/// Largest file of targets, in bytes: 100,000 targets and more.
const MAX_FILE: u64 = 16 << 20;
/// How long the start, or a reload, waits for the first answers.
const FIRST_ANSWER: Duration = Duration::from_secs(5);
/// How long a server that has left is remembered when its pool has no sessions.
const FORGET_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// The discovered pools.
pub(super) struct Discoveries {
    pools: HashMap<String, Discovered>,
    reloads: Sender<ReloadTrigger>,
}

struct Discovered {
    settings: Discovery,
    /// `None` only while it passes to the next configuration.
    task: Option<JoinHandle<()>>,
    /// Names of servers that were in force before, and when they left for good.
    left: HashMap<String, UnixMillis>,
}

impl Drop for Discovered {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Discoveries {
    /// Starts the tasks of a configuration that is in force.
    pub(super) fn start(config: &Config, reloads: Sender<ReloadTrigger>, now: UnixMillis) -> Self {
        let mut discoveries = Self { pools: HashMap::new(), reloads };
        discoveries.update(config, config, now);
        discoveries
    }

    /// Starts and stops tasks so that they match the configuration that is now in force, and notes which servers have left.
    pub(super) fn update(&mut self, previous: &Config, config: &Config, now: UnixMillis) {
        let mut known = std::mem::take(&mut self.pools);
        for pool in &config.pools {
            let Some(settings) = &pool.discovery else { continue };
            let before = known.remove(&pool.name);
            let mut left = HashMap::new();
            let task = match before {
                Some(mut before) => {
                    left = std::mem::take(&mut before.left);
                    if before.settings == *settings { before.task.take() } else { None }
                }
                None => None,
            };
            note_departures(&mut left, discovered(previous, &pool.name), pool, now);
            let task = task.unwrap_or_else(|| {
                let servers = pool.servers.iter().filter(|server| !server.removed).cloned().collect();
                tokio::spawn(follow(pool.name.clone(), settings.clone(), servers, self.reloads.clone()))
            });
            self.pools.insert(pool.name.clone(), Discovered { settings: settings.clone(), task: Some(task), left });
        }
    }

    /// A configuration as it is in the file, with the servers that are known; those of a new pool are asked for.
    pub(super) async fn fill(config: &mut Config, running: &Config) {
        let (mut known, new): (Vec<_>, Vec<_>) = config
            .pools
            .iter_mut()
            .filter(|pool| pool.discovery.is_some())
            .partition(|pool| discovered(running, &pool.name).is_some());
        for pool in &mut known {
            let servers = discovered(running, &pool.name).map_or(&[][..], |running| &running.servers);
            pool.servers = servers.iter().filter(|server| !server.removed).cloned().collect();
        }
        discover(new.into_iter()).await;
    }

    /// The servers of a pool as they were found, each with the time since when sessions are its own.
    pub(super) fn with_times(&self, running: &config::Pool, found: Vec<Server>, now: UnixMillis) -> Vec<Server> {
        let has_left = |name: &str| self.pools.get(&running.name).is_some_and(|pool| pool.left.contains_key(name));
        let since = |name: &str| match running.servers.iter().find(|server| server.name == name) {
            Some(server) => server.since,
            None => has_left(name).then_some(now.0),
        };
        found.into_iter().map(|server| Server { since: since(&server.name), ..server }).collect()
    }
}

/// The pool of that name, if its servers are discovered.
fn discovered<'a>(config: &'a Config, name: &str) -> Option<&'a config::Pool> {
    config.pools.iter().find(|pool| pool.name == name && pool.discovery.is_some())
}

/// Notes the servers that were in force before and are not any more, and forgets those whose sessions would be over by now.
fn note_departures(
    left: &mut HashMap<String, UnixMillis>,
    before: Option<&config::Pool>,
    pool: &config::Pool,
    now: UnixMillis,
) {
    let is_present = |name: &str| pool.servers.iter().any(|server| server.name == name);
    let servers = before.map_or(&[][..], |before| &before.servers);
    let gone = servers.iter().filter(|server| !is_present(&server.name));
    left.extend(gone.map(|server| (server.name.clone(), now)));
    let longest = pool.persistence.as_ref().map_or(FORGET_AFTER, |policy| policy.absolute_timeout);
    left.retain(|name, at| now.since(*at) <= longest && !is_present(name));
}

/// Fills in the servers of all discovered pools, before the first start.
pub(super) async fn discover_all(config: &mut Config) {
    discover(config.pools.iter_mut()).await;
}

/// Asks for the servers of these pools once, at the same time. Without an answer a pool has none.
async fn discover(pools: impl Iterator<Item = &mut config::Pool>) {
    join_all(pools.map(async |pool| {
        let Some(settings) = &pool.discovery else { return };
        let answer = match settings {
            Discovery::Dns(dns) => match DnsClient::new(dns) {
                Ok(client) => tokio::time::timeout(FIRST_ANSWER, client.ask())
                    .await
                    .unwrap_or_else(|_| Answer::Failed(format!("no answer within {FIRST_ANSWER:?}"))),
                Err(error) => Answer::Failed(error.to_string()),
            },
            Discovery::File(path) => read(path),
        };
        match answer {
            Answer::Servers { servers, .. } => pool.servers = servers,
            Answer::Nothing => tracing::warn!(pool = pool.name, "discovery found no servers; the pool has none"),
            Answer::Failed(why) => {
                tracing::warn!(pool = pool.name, why, "discovery failed; the pool has no servers until it succeeds");
            }
        }
    }))
    .await;
}

/// Sessions of this proxy that are still bound to a server which left and is not the same any more.
pub(super) fn forget_sessions(table: &Table, pool: &str, servers: &[Server], now: UnixMillis) {
    let returned = servers.iter().filter(|server| server.since == Some(now.0));
    let targets: Vec<_> = returned.map(|server| table.target(pool, &server.name).index()).collect();
    if targets.is_empty() {
        return;
    }
    let mut entries = Vec::new();
    for shard in 0..table.shards() {
        entries.clear();
        table.copy_shard(shard, &mut entries);
        for (key, entry) in &entries {
            if targets.contains(&entry.target) {
                table.end(key);
            }
        }
    }
}

/// Follows a pool's servers until it is aborted.
async fn follow(pool: String, settings: Discovery, servers: Vec<Server>, reloads: Sender<ReloadTrigger>) {
    let finding = Finding { pool, reloads, failed: None };
    match settings {
        Discovery::Dns(dns) => follow_dns(finding, &dns, servers).await,
        Discovery::File(path) => follow_file(finding, path, servers).await,
    }
}

/// Where findings go.
struct Finding {
    pool: String,
    reloads: Sender<ReloadTrigger>,
    /// The last failure: logged once, not every few seconds.
    failed: Option<String>,
}

impl Finding {
    async fn changed(&self, servers: Vec<Server>) {
        // The reloader lives as long as the process.
        let _ = self.reloads.send(ReloadTrigger::Discovered { pool: self.pool.clone(), servers }).await;
    }

    fn note(&mut self, answer: &Answer) {
        let failed = match answer {
            Answer::Failed(why) => Some(why.clone()),
            Answer::Servers { .. } | Answer::Nothing => None,
        };
        if let Some(why) = failed.as_ref().filter(|_| failed != self.failed) {
            tracing::warn!(pool = self.pool, why, "discovery failed; the last servers stay");
        } else if failed.is_none() && self.failed.is_some() {
            tracing::info!(pool = self.pool, "discovery succeeds again");
        }
        self.failed = failed;
    }
}

async fn follow_dns(mut finding: Finding, dns: &DnsDiscovery, servers: Vec<Server>) {
    let mut known = KnownServers::new(dns.min_ttl, servers);
    let mut client = DnsClient::new(dns);
    loop {
        let answer = match &client {
            Ok(client) => client.ask().await,
            Err(error) => Answer::Failed(error.to_string()),
        };
        finding.note(&answer);
        let update = known.take(&answer, Instant::now());
        if let Some(servers) = update.changed {
            finding.changed(servers).await;
        }
        tokio::time::sleep(update.ask_again_in).await;
        if client.is_err() {
            client = DnsClient::new(dns);
        }
    }
}

async fn follow_file(mut finding: Finding, path: PathBuf, mut servers: Vec<Server>) {
    let changed = Arc::new(Notify::new());
    let of_watch = Arc::clone(&changed);
    // A directory that cannot be watched is read every few seconds.
    let _watch = watch(&[&path], move || of_watch.notify_one());
    loop {
        let file = path.clone();
        let answer = tokio::task::spawn_blocking(move || read(&file)).await;
        let answer = answer.unwrap_or_else(|error| Answer::Failed(error.to_string()));
        finding.note(&answer);
        if let Answer::Servers { servers: found, .. } = answer
            && found != servers
        {
            servers.clone_from(&found);
            finding.changed(found).await;
        }
        let _ = tokio::time::timeout(READ_ANYWAY, changed.notified()).await;
    }
}

/// The servers of a file; an empty list is an answer, too.
fn read(path: &Path) -> Answer {
    use std::io::Read;
    let text = std::fs::File::open(path).and_then(|file| {
        let mut text = String::new();
        file.take(MAX_FILE).read_to_string(&mut text).map(|_| text)
    });
    let text = match text {
        Ok(text) => text,
        Err(error) => return Answer::Failed(format!("{}: {error}", path.display())),
    };
    let yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
    match parse_targets(&text, yaml) {
        Ok(servers) => Answer::Servers { servers, ttl: Duration::MAX },
        Err(why) => Answer::Failed(format!("{}: {why}", path.display())),
    }
}
