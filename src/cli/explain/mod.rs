//! `explain`: prints what a token contains, and what is known of an application's id or of an address.

mod external;

use std::path::Path;
use std::process::ExitCode;

use crate::app::build::keyring;
use crate::config::{self, BindTo, Config};
use crate::persistence::{named_identity, parse_fingerprint};
use crate::proxy::context::wall_clock;
use crate::session::binding::{Limits, Lookup, Resolution, resolve};
use crate::session::client_identity::ClientIdentity;
use crate::session::key::{ServerId, SessionKey};
use crate::session::token::explain::{Explanation, open_any};
use crate::session::token::keyring::Keyring;
use crate::session::token::{Token, TokenError};

use self::external::ExternalName;
use super::args::ExplainArgs;
use super::load::load;
use super::output::{failure, print, read_input, time};

pub(super) fn explain(args: &ExplainArgs, path: Option<&Path>) -> ExitCode {
    let loaded = match load(path) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let (text, is_argument) = match args.value.as_deref() {
        Some(value) if value != "-" => (value.to_owned(), true),
        _ => match read_input() {
            Ok(text) => (text, false),
            Err(error) => return failure(&error.to_string()),
        },
    };
    match answer(text.trim(), is_argument, args, &loaded.config) {
        Ok(answer) => {
            print(&answer);
            ExitCode::SUCCESS
        }
        Err(why) => failure(&why),
    }
}

fn answer(text: &str, is_argument: bool, args: &ExplainArgs, config: &Config) -> Result<String, String> {
    let keys = keyring(config).map_err(|error| error.to_string())?;
    let keys = keys.ok_or("the configuration has no keys: the running proxy generated its own, which only it has")?;
    let only = args.pool.as_deref();
    if let Some(only) = only.filter(|only| config.pools.iter().all(|pool| pool.name != *only)) {
        let pools: Vec<&str> = config.pools.iter().map(|pool| pool.name.as_str()).collect();
        return Err(format!("pool {only:?} does not exist; pools: {}", pools.join(", ")));
    }
    if args.id {
        return external_id(text, is_argument, config, only);
    }
    let pools = config.pools.iter().map(|pool| pool.name.as_str()).filter(|pool| only.is_none_or(|only| only == *pool));
    let explanation = open_any(&keys, pools, value_of(text).as_bytes());
    if let Explanation::Valid { pool, key, token, .. } = explanation {
        let client = client_line(config, pool, &token, args)?;
        return Ok(description(config, &keys, pool, key, &token) + &client);
    }
    if let Ok(address) = text.parse() {
        return external::describe(ExternalName::Address(address), config, only);
    }
    let is_token = matches!(explanation, Explanation::Forged(error) if error != TokenError::Length);
    if !is_token && !text.is_empty() && external::reads_ids(config) {
        return external_id(text, is_argument, config, only);
    }
    Err(match explanation {
        Explanation::Forged(error) => format!("the token does not open: {error}"),
        _ => "the token is for a pool that this configuration does not have".to_owned(),
    })
}

/// The arguments of a process can be read by every user of the machine, and by its shell's history.
fn external_id(text: &str, is_argument: bool, config: &Config, only: Option<&str>) -> Result<String, String> {
    if is_argument {
        return Err(
            "this is no token and no address; an application's session id is a secret, and is read from standard \
                    input only: `homing explain < FILE`"
                .to_owned(),
        );
    }
    external::describe(ExternalName::Id(text), config, only)
}

/// The value itself, or a whole `name=value; …` as pasted from a browser or a log.
fn value_of(text: &str) -> &str {
    let value = text.rsplit_once('=').map_or(text, |(_, value)| value);
    value.trim_end_matches(';').trim_matches('"')
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

/// Whether the session belongs to the client that is named.
fn client_line(config: &Config, pool: &str, token: &Token, args: &ExplainArgs) -> Result<String, String> {
    let configured = config.pools.iter().find(|candidate| candidate.name == pool);
    let bind_to = configured.and_then(|pool| pool.persistence.as_ref()?.bind_to.as_deref());
    let Some((text, bind_to)) = bind_to.and_then(|text| Some((text, BindTo::parse(text)?))) else {
        return Ok(String::new());
    };
    let certificate = match args.certificate.as_deref() {
        Some(text) => Some(parse_fingerprint(text).ok_or("--certificate: a SHA-256 has 64 hexadecimal digits")?),
        None => None,
    };
    let said = match named_identity(&bind_to, certificate.as_ref(), args.user.as_deref()) {
        Some(named) if named.owns(token.session) => "the named client's own",
        Some(_) => "not honoured: it belongs to another client than the named one",
        None if ClientIdentity::none().owns(token.session) => "of clients without certificate or user",
        None => "honoured from one client only: name it with --certificate or --user to see whether it is this one",
    };
    Ok(format!("client   {said}   (bind_to: {text})\n"))
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
