//! `explain`: what a token says.

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

use super::{FAILED, complain, load, say};

/// Longer than any token; the rest of a pasted file is not read.
const MAX_BYTES: u64 = 64 * 1024;

pub(super) fn explain(token: &str, path: Option<&Path>) -> ExitCode {
    let loaded = match load(path) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let text = match text_of(token) {
        Ok(text) => text,
        Err(error) => return fail(&format!("the token cannot be read from standard input: {error}")),
    };
    let keys = match keyring(&loaded.config) {
        Ok(Some(keys)) => keys,
        Ok(None) => {
            return fail("the configuration has no keys: the running proxy made its own, which nobody else has");
        }
        Err(error) => return fail(&error.to_string()),
    };
    let pools = loaded.config.pools.iter().map(|pool| pool.name.as_str());
    match open_any(&keys, pools, text.trim().as_bytes()) {
        Explanation::Valid { pool, key, token, .. } => {
            say(&told(&loaded.config, &keys, pool, key, &token));
            ExitCode::SUCCESS
        }
        Explanation::UnknownPool => fail("the token is for a pool that this configuration does not have"),
        Explanation::Forged(flaw) => fail(&format!("the token does not open: {flaw}")),
    }
}

fn fail(message: &str) -> ExitCode {
    complain(&format!("error: {message}"));
    ExitCode::from(FAILED)
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

fn told(config: &Config, keys: &Keyring, pool: &str, key: &str, token: &Token) -> String {
    let found = config.pools.iter().find(|candidate| candidate.name == pool);
    let server = found
        .and_then(|pool| pool.servers.iter().find(|server| ServerId::of(&server.name) == token.server))
        .map_or("(not in this configuration)", |server| &server.name);
    let session = keys.log_key().digest8(SessionKey::from(token.session));
    let persistence = found.and_then(|pool| pool.persistence.as_ref());
    let state = persistence.map_or("the pool keeps no sessions", |persistence| state_of(token, persistence));
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
        Resolution::Live { .. } => "live, by the token alone; a proxy's table may know later",
        Resolution::Expired(Lookup::ExpiredAbsolute) => "expired: older than absolute_timeout",
        Resolution::Expired(_) => "expired by the token alone: issued longer than idle_timeout ago",
    }
}

fn time(time: UnixMillis) -> String {
    let time = UNIX_EPOCH.checked_add(Duration::from_millis(time.0));
    time.filter(|time| *time < UNIX_EPOCH + Duration::from_secs(253_402_300_800))
        .map_or_else(|| "beyond the year 9999".to_owned(), |time| humantime::format_rfc3339_millis(time).to_string())
}
