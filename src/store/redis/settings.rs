//! The settings of Redis and Valkey: valid URLs that fit the mode.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

use super::url::{self, RedisUrl};
use crate::config::address::ServerAddress;
use crate::config::check_context::NodeRef;
use crate::config::diagnostics::Diagnostics;
use crate::config::key_prefix::check_key_prefix;
use crate::config::secret::Secret;
use crate::config::suggest;
use crate::config::yaml::Origin;

/// Redis 6.2 or later, or Valkey 7.2 or later; with `type: redis`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Redis")]
pub struct RedisSettings {
    /// With `standalone` the server, with `sentinel` the sentinels, with `cluster` some of its nodes:
    /// `redis://USER:PASSWORD@HOST:PORT/DATABASE`, or `rediss://` for TLS, whose certificate is checked. All but the host may
    /// be absent: port 6379 (sentinels have none by default), database 0. With `standalone` also a unix socket:
    /// `unix:/run/redis.sock?user=USER&pass=PASSWORD&db=0`. In users and passwords `/`, `?`, `#`, `%` and blanks are written
    /// `%2F`, `%3F`, `%23`, `%25` and `%20`. Several URLs have the same user, password and database, and all or none of them TLS;
    /// with `sentinel` these are of the servers, and of the sentinels if they ask for a password. Better not written here:
    /// `"redis://homing:${file:/run/secrets/redis}@10.0.0.5"` or `"${REDIS_URL}"`.
    #[schemars(length(min = 1), extend("x-secret" = true, "examples" = [["rediss://homing:${REDIS_PASSWORD}@redis.example.org:6380/0"]]))]
    pub urls: Vec<Secret>,
    /// The topology.
    pub mode: RedisMode,
    /// The sentinels' name of the server, with `mode: sentinel`.
    #[schemars(extend("examples" = ["mymaster"]))]
    pub master_name: Option<String>,
    /// Prefix of all names, followed by a colon: letters, digits, `_`, `.`, `-`, and `:` between them, at most 64.
    /// The same for all proxies that share sessions; another for others on the same server.
    pub key_prefix: String,
}

impl Default for RedisSettings {
    fn default() -> Self {
        Self {
            urls: vec![Secret::new("redis://127.0.0.1:6379")],
            mode: RedisMode::Standalone,
            master_name: None,
            key_prefix: "homing".to_owned(),
        }
    }
}

/// The topology of Redis or Valkey.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
#[schemars(inline)]
pub enum RedisMode {
    /// One server.
    Standalone,
    /// One server of several, watched by sentinels; a failover is followed.
    Sentinel,
    /// Names spread over several servers.
    Cluster,
}

impl RedisSettings {
    /// Reports URLs that are invalid or do not fit the mode.
    pub(super) fn check(&self, at: NodeRef<'_>, diagnostics: &mut Diagnostics) {
        let mut read = Vec::new();
        for (index, text) in self.urls.iter().map(Secret::expose).enumerate() {
            let at = at.key("urls").item(index);
            match url::read(text) {
                Ok(url) => read.push((url, at)),
                Err((message, help)) => diagnostics.problem(at.location, format!("the URL of Redis {message}"), help),
            }
            if !url::password(text).is_empty() {
                password(at, diagnostics);
            }
        }
        twice(&read, diagnostics);
        alike(&read, diagnostics);
        fits_mode(self.mode, self.urls.len(), &read, at, diagnostics);
        master_name(self, at, diagnostics);
        check_key_prefix(&self.key_prefix, at.key("key_prefix"), diagnostics);
    }

    /// The URLs as they are shown.
    pub(super) fn urls_without_passwords(&self) -> Vec<String> {
        self.urls.iter().map(|url| url::without_password(url.expose())).collect()
    }
}

fn password(at: NodeRef<'_>, diagnostics: &mut Diagnostics) {
    match at.origin() {
        Origin::Literal | Origin::Default => diagnostics.warn(
            at.location,
            "a password of Redis stands in the configuration file",
            "keep it elsewhere: \"redis://USER:${file:/run/secrets/redis}@HOST\" or \"${REDIS_URL}\"",
        ),
        Origin::OpenFile => diagnostics.warn(
            at.location,
            "every user of this machine may read the password of Redis",
            "chmod 600, or 640 with a group for homing",
        ),
        Origin::Expanded | Origin::Broken => {}
    }
}

fn twice(read: &[(RedisUrl<'_>, NodeRef<'_>)], diagnostics: &mut Diagnostics) {
    for (index, (url, at)) in read.iter().enumerate() {
        if read.iter().take(index).any(|(before, _)| before.address == url.address) {
            let message = format!("\"store.redis.urls\" holds {} twice", url.address);
            diagnostics.problem(at.location, message, "remove one of them");
        }
    }
}

/// Servers that stand in for one another take the same user, and the client knows one way to speak to all of them.
fn alike(read: &[(RedisUrl<'_>, NodeRef<'_>)], diagnostics: &mut Diagnostics) {
    let Some(((first, _), rest)) = read.split_first() else { return };
    for (url, at) in rest {
        let other = match () {
            () if url.tls != first.tls => "differs from the first in TLS",
            () if !url.same_user(first) => "has another user or password than the first",
            () if url.database != first.database => "has another database than the first",
            () => continue,
        };
        let help = "these are the same for all servers: write them alike in every URL";
        diagnostics.problem(at.location, format!("the URL of Redis {other}"), help);
    }
}

fn fits_mode(
    mode: RedisMode,
    count: usize,
    read: &[(RedisUrl<'_>, NodeRef<'_>)],
    at: NodeRef<'_>,
    diagnostics: &mut Diagnostics,
) {
    if mode == RedisMode::Standalone {
        if count > 1 {
            let message = format!("one server has one URL, not {count}");
            let help = "keep one, or write mode: sentinel or mode: cluster, which have several";
            diagnostics.problem(at.key("urls").location, message, help);
        }
        return;
    }
    let (word, is_cluster) = if mode == RedisMode::Cluster { ("cluster", true) } else { ("sentinel", false) };
    for (url, at) in read {
        let refusal = if matches!(url.address, ServerAddress::Unix(_)) {
            (format!("mode: {word} needs hosts, not a unix socket"), "write redis://HOST:PORT, or mode: standalone")
        } else if is_cluster && url.database != 0 {
            ("a cluster has no databases".to_owned(), "remove the number; key_prefix keeps users of one cluster apart")
        } else if !is_cluster && !url.has_port {
            ("the URL of a sentinel needs a port".to_owned(), "sentinels mostly listen on 26379: redis://HOST:26379")
        } else {
            continue;
        };
        diagnostics.problem(at.location, refusal.0, refusal.1);
    }
}

fn master_name(one: &RedisSettings, at: NodeRef<'_>, diagnostics: &mut Diagnostics) {
    let location = at.key("master_name").location;
    match (&one.master_name, one.mode) {
        (None, RedisMode::Sentinel) => {
            let message = "mode: sentinel needs the name of the server";
            let help = "write master_name, as in the sentinels' \"sentinel monitor NAME …\", like mymaster";
            diagnostics.problem(at.key("mode").location, message, help);
        }
        (Some(name), _) if !is_master_name(name) => {
            let message = format!("{} is no name of a server of sentinels", suggest::quoted(name));
            let help = "use letters, digits, \"_\", \".\" and \"-\", as in the sentinels' \"sentinel monitor NAME …\"";
            diagnostics.problem(location, message, help);
        }
        (Some(_), RedisMode::Standalone | RedisMode::Cluster) => {
            let message = "\"master_name\" means nothing without sentinels";
            diagnostics.warn(location, message, "remove it, or write mode: sentinel");
        }
        _ => {}
    }
}

/// What sentinels take ("The valid charset is A-z 0-9 and the three characters .-_", sentinel.conf).
fn is_master_name(name: &str) -> bool {
    (1..=255).contains(&name.len()) && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
}
