//! `explain`: prints what a token contains.

use std::io::Read;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use crate::app::build::keyring;
use crate::config::{self, Config};
use crate::proxy::context::wall_clock;
use crate::session::binding::{Limits, Lookup, Resolution, resolve};
use crate::session::key::{ServerId, SessionKey};
use crate::session::token::explain::{Explanation, open_any};
use crate::session::token::keyring::Keyring;
use crate::session::token::{Token, UnixMillis};

use super::load::load;
use super::output::{failure, print};

/// Longer than any token; the rest of the input is not read.
const MAX_BYTES: u64 = 64 * 1024;

pub(super) fn explain(token: &str, path: Option<&Path>) -> ExitCode {
    let loaded = match load(path) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let text = match text_of(token) {
        Ok(text) => text,
        Err(error) => return failure(&format!("the token cannot be read from standard input: {error}")),
    };
    let keys = match keyring(&loaded.config) {
        Ok(Some(keys)) => keys,
        Ok(None) => {
            return failure("the configuration has no keys: the running proxy generated its own, which only it has");
        }
        Err(error) => return failure(&error.to_string()),
    };
    let pools = loaded.config.pools.iter().map(|pool| pool.name.as_str());
    match open_any(&keys, pools, text.trim().as_bytes()) {
        Explanation::Valid { pool, key, token, .. } => {
            print(&description(&loaded.config, &keys, pool, key, &token));
            ExitCode::SUCCESS
        }
        Explanation::UnknownPool => failure("the token is for a pool that this configuration does not have"),
        Explanation::Forged(flaw) => failure(&format!("the token does not open: {flaw}")),
    }
}

/// The value itself, or a whole `name=value; …` as pasted from a browser or a log.
fn text_of(token: &str) -> std::io::Result<String> {
    let mut text = token.to_owned();
    if token == "-" {
        text.clear();
        std::io::stdin().take(MAX_BYTES).read_to_string(&mut text)?;
    }
    let value = text.trim();
    let value = value.rsplit_once('=').map_or(value, |(_, value)| value);
    Ok(value.trim_end_matches(';').trim_matches('"').to_owned())
}

fn description(config: &Config, keys: &Keyring, pool: &str, key: &str, token: &Token) -> String {
    let configured = config.pools.iter().find(|candidate| candidate.name == pool);
    let server = configured
        .and_then(|pool| pool.servers.iter().find(|server| ServerId::of(&server.name) == token.server))
        .map_or("(not in this configuration)", |server| &server.name);
    let session = keys.log_key().digest8(SessionKey::from(token.session));
    let persistence = configured.and_then(|pool| pool.persistence.as_ref());
    let state = persistence.map_or("the pool has no persistence", |persistence| state_of(token, persistence));
    format!(
        "pool     {pool}\nserver   {server}\nepoch    {}\ncreated  {}\nissued   {}\nkey      {key}\n\
         session  {session}   (as the access log writes it)\nstate    {state}\n",
        token.epoch,
        time(token.created),
        time(token.issued),
    )
}

fn state_of(token: &Token, persistence: &config::Persistence) -> &'static str {
    let limits = Limits { idle: persistence.idle_timeout, absolute: persistence.absolute_timeout };
    match resolve(token, None, &limits, wall_clock()) {
        Resolution::Live { .. } => "live by the token alone; a proxy's table may have a later state",
        Resolution::Expired(Lookup::ExpiredAbsolute) => "expired: older than absolute_timeout",
        Resolution::FromTheFuture => "not honoured: its times are more than five minutes ahead of this clock",
        Resolution::Expired(_) => "expired by the token alone: issued more than idle_timeout ago",
    }
}

fn time(time: UnixMillis) -> String {
    let time = UNIX_EPOCH.checked_add(Duration::from_millis(time.0));
    time.filter(|time| *time < UNIX_EPOCH + Duration::from_secs(253_402_300_800))
        .map_or_else(|| "after the year 9999".to_owned(), |time| humantime::format_rfc3339_millis(time).to_string())
}
