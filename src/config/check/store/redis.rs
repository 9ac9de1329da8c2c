//! Redis and Valkey: URLs that lead somewhere, and that fit the mode.

use crate::config::check_context::NodeRef;
use crate::config::diagnostics::Diagnostics;
use crate::config::key_prefix::check_key_prefix;
use crate::config::pools::ServerAddress;
use crate::config::raw;
use crate::config::redis_url::{self, RedisUrl};
use crate::config::secret::Secret;
use crate::config::store::{Redis, RedisMode};
use crate::config::suggest;
use crate::config::yaml::Origin;

pub(super) fn redis(one: &raw::Redis, at: NodeRef<'_>, diagnostics: &mut Diagnostics) -> Redis {
    let mut read = Vec::new();
    for (index, text) in one.urls.iter().enumerate() {
        let at = at.key("urls").item(index);
        match redis_url::read(text) {
            Ok(url) => read.push((url, at)),
            Err((message, help)) => diagnostics.problem(at.location, format!("the URL of Redis {message}"), help),
        }
        if !redis_url::password(text).is_empty() {
            password(at, diagnostics);
        }
    }
    twice(&read, diagnostics);
    alike(&read, diagnostics);
    fits_mode(one.mode, one.urls.len(), &read, at, diagnostics);
    let master_name = master_name(one, at, diagnostics);
    Redis {
        urls: one.urls.iter().map(|url| Secret::new(&**url)).collect(),
        mode: match one.mode {
            raw::RedisMode::Standalone => RedisMode::Standalone,
            raw::RedisMode::Sentinel => RedisMode::Sentinel { master_name },
            raw::RedisMode::Cluster => RedisMode::Cluster,
        },
        key_prefix: check_key_prefix(&one.key_prefix, at.key("key_prefix"), diagnostics),
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
    mode: raw::RedisMode,
    count: usize,
    read: &[(RedisUrl<'_>, NodeRef<'_>)],
    at: NodeRef<'_>,
    diagnostics: &mut Diagnostics,
) {
    if mode == raw::RedisMode::Standalone {
        if count > 1 {
            let message = format!("one server has one URL, not {count}");
            let help = "keep one, or write mode: sentinel or mode: cluster, which have several";
            diagnostics.problem(at.key("urls").location, message, help);
        }
        return;
    }
    let (word, is_cluster) = if mode == raw::RedisMode::Cluster { ("cluster", true) } else { ("sentinel", false) };
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

/// Empty where there is none.
fn master_name(one: &raw::Redis, at: NodeRef<'_>, diagnostics: &mut Diagnostics) -> String {
    let location = at.key("master_name").location;
    match (&one.master_name, one.mode) {
        (None, raw::RedisMode::Sentinel) => {
            let message = "mode: sentinel needs the name of the server";
            let help = "write master_name, as in the sentinels' \"sentinel monitor NAME …\", like mymaster";
            diagnostics.problem(at.key("mode").location, message, help);
        }
        (Some(name), _) if !is_master_name(name) => {
            let message = format!("{} is no name of a server of sentinels", suggest::quoted(name));
            let help = "use letters, digits, \"_\", \".\" and \"-\", as in the sentinels' \"sentinel monitor NAME …\"";
            diagnostics.problem(location, message, help);
        }
        (Some(_), raw::RedisMode::Standalone | raw::RedisMode::Cluster) => {
            let message = "\"master_name\" means nothing without sentinels";
            diagnostics.warn(location, message, "remove it, or write mode: sentinel");
        }
        _ => {}
    }
    one.master_name.clone().unwrap_or_default()
}

/// What sentinels take ("The valid charset is A-z 0-9 and the three characters .-_", sentinel.conf).
fn is_master_name(name: &str) -> bool {
    (1..=255).contains(&name.len()) && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
}
