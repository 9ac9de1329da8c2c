//! Redis and Valkey: URLs that lead somewhere, and that fit the mode.

use crate::config::check::At;
use crate::config::pools::ServerAddress;
use crate::config::problem::Findings;
use crate::config::redis_url::{self, RedisUrl};
use crate::config::secret::Secret;
use crate::config::shape;
use crate::config::store::{Redis, RedisMode};
use crate::config::suggest;
use crate::config::tree::Origin;

pub(super) fn redis(one: &shape::Redis, at: At<'_>, findings: &mut Findings) -> Redis {
    let mut read = Vec::new();
    for (index, text) in one.urls.iter().enumerate() {
        let at = at.key("urls").item(index);
        match redis_url::read(text) {
            Ok(url) => read.push((url, at)),
            Err((message, help)) => findings.problem(at.place, format!("the URL of Redis {message}"), help),
        }
        if !redis_url::password(text).is_empty() {
            password(at, findings);
        }
    }
    twice(&read, findings);
    alike(&read, findings);
    fits_mode(one.mode, one.urls.len(), &read, at, findings);
    let master_name = master_name(one, at, findings);
    Redis {
        urls: one.urls.iter().map(|url| Secret::new(&**url)).collect(),
        mode: match one.mode {
            shape::RedisMode::Standalone => RedisMode::Standalone,
            shape::RedisMode::Sentinel => RedisMode::Sentinel { master_name },
            shape::RedisMode::Cluster => RedisMode::Cluster,
        },
        key_prefix: super::key_prefix(&one.key_prefix, at.key("key_prefix"), findings),
    }
}

fn password(at: At<'_>, findings: &mut Findings) {
    match at.origin() {
        Origin::Literal | Origin::Default => findings.warn(
            at.place,
            "a password of Redis stands in the configuration file",
            "keep it elsewhere: \"redis://USER:${file:/run/secrets/redis}@HOST\" or \"${REDIS_URL}\"",
        ),
        Origin::OpenFile => findings.warn(
            at.place,
            "every user of this machine may read the password of Redis",
            "chmod 600, or 640 with a group for homing",
        ),
        Origin::Expanded | Origin::Broken => {}
    }
}

fn twice(read: &[(RedisUrl<'_>, At<'_>)], findings: &mut Findings) {
    for (index, (url, at)) in read.iter().enumerate() {
        if read.iter().take(index).any(|(before, _)| before.address == url.address) {
            let message = format!("\"store.redis.urls\" holds {} twice", url.address);
            findings.problem(at.place, message, "remove one of them");
        }
    }
}

/// Servers that stand in for one another take the same user, and the client knows one way to speak to all of them.
fn alike(read: &[(RedisUrl<'_>, At<'_>)], findings: &mut Findings) {
    let Some(((first, _), rest)) = read.split_first() else { return };
    for (url, at) in rest {
        let other = match () {
            () if url.tls != first.tls => "differs from the first in TLS",
            () if !url.same_user(first) => "has another user or password than the first",
            () if url.database != first.database => "has another database than the first",
            () => continue,
        };
        let help = "these are the same for all servers: write them alike in every URL";
        findings.problem(at.place, format!("the URL of Redis {other}"), help);
    }
}

fn fits_mode(
    mode: shape::RedisMode,
    count: usize,
    read: &[(RedisUrl<'_>, At<'_>)],
    at: At<'_>,
    findings: &mut Findings,
) {
    if mode == shape::RedisMode::Standalone {
        if count > 1 {
            let message = format!("one server has one URL, not {count}");
            let help = "keep one, or write mode: sentinel or mode: cluster, which have several";
            findings.problem(at.key("urls").place, message, help);
        }
        return;
    }
    let (word, is_cluster) = if mode == shape::RedisMode::Cluster { ("cluster", true) } else { ("sentinel", false) };
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
        findings.problem(at.place, refusal.0, refusal.1);
    }
}

/// Empty where there is none.
fn master_name(one: &shape::Redis, at: At<'_>, findings: &mut Findings) -> String {
    let place = at.key("master_name").place;
    match (&one.master_name, one.mode) {
        (None, shape::RedisMode::Sentinel) => {
            let message = "mode: sentinel needs the name of the server";
            let help = "write master_name, as in the sentinels' \"sentinel monitor NAME …\", like mymaster";
            findings.problem(at.key("mode").place, message, help);
        }
        (Some(name), _) if !is_master_name(name) => {
            let message = format!("{} is no name of a server of sentinels", suggest::quoted(name));
            let help = "use letters, digits, \"_\", \".\" and \"-\", as in the sentinels' \"sentinel monitor NAME …\"";
            findings.problem(place, message, help);
        }
        (Some(_), shape::RedisMode::Standalone | shape::RedisMode::Cluster) => {
            let message = "\"master_name\" means nothing without sentinels";
            findings.warn(place, message, "remove it, or write mode: sentinel");
        }
        _ => {}
    }
    one.master_name.clone().unwrap_or_default()
}

/// What sentinels take ("The valid charset is A-z 0-9 and the three characters .-_", sentinel.conf).
fn is_master_name(name: &str) -> bool {
    (1..=255).contains(&name.len()) && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
}
