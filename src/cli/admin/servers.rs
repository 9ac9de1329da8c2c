//! `pools`, `servers` and `server set`.

use std::thread::sleep;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::args::{Format, PoolAndName, SetArgs, State};
use super::client::{Client, ClientError, segment};
use super::failure::Failure;
use super::table::{Column, Table, cell, number, text};
use super::wait::{Observation, Reading, Verdict, Wait};
use crate::cli::output::{print_message, try_print};

/// Between two readings of a server.
const WAIT_INTERVAL: Duration = Duration::from_millis(500);

const POOL_COLUMNS: &[Column] = &[
    text("POOL"),
    text("BALANCE"),
    number("SERVERS"),
    number("READY"),
    number("UP"),
    number("SESSIONS"),
    number("IN_FLIGHT"),
    number("QUEUED"),
    number("STREAMS"),
];

const SERVER_COLUMNS: &[Column] = &[
    text("POOL"),
    text("SERVER"),
    text("ADDRESS"),
    text("STATE"),
    text("OVERRIDE"),
    text("HEALTH"),
    text("BREAKER"),
    number("WEIGHT"),
    number("SESSIONS"),
    number("IN_FLIGHT"),
    number("QUEUED"),
    number("STREAMS"),
    text("DRAIN"),
];

/// `pools`.
pub(super) fn pools(client: &Client, format: Format) -> Result<(), Failure> {
    let pools = read_pools(client)?;
    if format == Format::Json {
        return Ok(try_print(&format!("{:#}\n", json!({ "items": pools, "next": null })))?);
    }
    let mut table = Table::new(POOL_COLUMNS);
    for pool in &pools {
        let servers = servers_of(pool);
        let count = |field: &str, value: &str| {
            servers.iter().filter(|server| server.get(field).and_then(Value::as_str) == Some(value)).count().to_string()
        };
        let sum = |field: &str| {
            let numbers = servers.iter().filter_map(|server| server.get(field).and_then(Value::as_u64));
            numbers.sum::<u64>().to_string()
        };
        // A server that is not checked counts as up.
        let is_down = |server: &&Value| server.get("health").and_then(Value::as_str) == Some("down");
        let up = servers.len() - servers.iter().filter(is_down).count();
        table.push([
            cell(pool.get("name")),
            cell(pool.get("balance")),
            servers.len().to_string(),
            count("state", "ready"),
            up.to_string(),
            sum("sessions"),
            sum("in_flight"),
            sum("queued"),
            sum("streams"),
        ]);
    }
    Ok(try_print(&table.render())?)
}

/// `servers`.
pub(super) fn servers(client: &Client, format: Format) -> Result<(), Failure> {
    print_servers(&read_servers(client)?, format)
}

fn print_servers(servers: &[(String, Value)], format: Format) -> Result<(), Failure> {
    if format == Format::Json {
        let items: Vec<Value> = servers.iter().map(|(pool, server)| with_pool(pool, server)).collect();
        return Ok(try_print(&format!("{:#}\n", json!({ "items": items, "next": null })))?);
    }
    let mut table = Table::new(SERVER_COLUMNS);
    for (pool, server) in servers {
        table.push(row(pool, server));
    }
    Ok(try_print(&table.render())?)
}

/// All pools, page by page.
pub(super) fn read_pools(client: &Client) -> Result<Vec<Value>, ClientError> {
    let mut pools = Vec::new();
    let mut path = "/api/v1/pools?limit=1000".to_owned();
    loop {
        let page = client.get(&path)?;
        let items = page.get("items").and_then(Value::as_array);
        pools.extend(items.ok_or_else(|| ClientError::Invalid("the list of pools has no items".to_owned()))?.clone());
        match page.get("next").and_then(Value::as_str) {
            Some(cursor) => path = format!("/api/v1/pools?limit=1000&cursor={}", segment(cursor)),
            None => return Ok(pools),
        }
    }
}

/// All servers, each with its pool's name.
pub(super) fn read_servers(client: &Client) -> Result<Vec<(String, Value)>, ClientError> {
    let pools = read_pools(client)?;
    let of = |pool: &Value| {
        let name = cell(pool.get("name"));
        servers_of(pool).iter().map(move |server| (name.clone(), server.clone())).collect::<Vec<_>>()
    };
    Ok(pools.iter().flat_map(of).collect())
}

fn servers_of(pool: &Value) -> &[Value] {
    pool.get("servers").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn with_pool(pool: &str, server: &Value) -> Value {
    let mut fields = Map::from_iter([("pool".to_owned(), pool.into())]);
    fields.extend(server.as_object().cloned().unwrap_or_default());
    Value::Object(fields)
}

fn row(pool: &str, server: &Value) -> [String; 13] {
    [
        pool.to_owned(),
        cell(server.get("name")),
        cell(server.get("address")),
        state(server),
        override_text(server),
        cell(server.get("health")),
        cell(server.get("breaker")),
        cell(server.get("effective_weight")),
        sessions(server),
        cell(server.get("in_flight")),
        cell(server.get("queued")),
        cell(server.get("streams")),
        drain(server),
    ]
}

/// The state in force.
pub(super) fn state(server: &Value) -> String {
    let removed = server.get("removed").and_then(Value::as_bool) == Some(true);
    cell(server.get("state")) + if removed { ",removed" } else { "" }
}

/// `+`: sessions that the proxy knows only by a token may come back.
pub(super) fn sessions(server: &Value) -> String {
    let complete = server.get("sessions_complete").and_then(Value::as_bool) != Some(false);
    cell(server.get("sessions")) + if complete { "" } else { "+" }
}

fn override_text(server: &Value) -> String {
    let field = |name: &str| server.get("override").and_then(|set| set.get(name)).filter(|value| !value.is_null());
    let state = field("state").map(|state| cell(Some(state)));
    let weight = field("weight").map(|weight| format!("weight={weight}"));
    let parts: Vec<String> = state.into_iter().chain(weight).collect();
    parts.join(",")
}

/// How many sessions are left; `silent`: none, but clients with a token may come back.
pub(super) fn drain(server: &Value) -> String {
    let Some(drain) = server.get("drain").filter(|drain| drain.is_object()) else { return "-".to_owned() };
    if drain.get("empty").and_then(Value::as_bool) == Some(true) {
        return "empty".to_owned();
    }
    match drain.get("bound").and_then(Value::as_u64) {
        Some(0) => "silent".to_owned(),
        bound => bound.map_or_else(|| "-".to_owned(), |bound| bound.to_string()),
    }
}

/// `server set`.
pub(super) fn set(client: &Client, args: &SetArgs) -> Result<(), Failure> {
    if args.wait && args.state != Some(State::Drain) {
        return Err(Failure::Usage("--wait waits for a drain: use it with --state drain".to_owned()));
    }
    let PoolAndName { pool, name } = &args.server;
    let path = format!("/api/v1/pools/{}/servers/{}", segment(pool), segment(name));
    let mut server = if args.reset {
        client.send(&Method::DELETE, &format!("{path}/override"), None)?
    } else {
        client.send(&Method::PATCH, &path, Some(&change(args)))?
    };
    if args.wait {
        let wait = Wait { timeout: args.timeout, ignore_silent: args.ignore_silent };
        if let Some(last) = wait_until_empty(client, &args.server, wait)? {
            server = last;
        }
    }
    match args.client.output {
        Format::Json => Ok(try_print(&format!("{:#}\n", with_pool(pool, &server)))?),
        Format::Table => print_servers(&[(pool.clone(), server)], Format::Table),
    }
}

/// Only what is named changes.
fn change(args: &SetArgs) -> Value {
    let state = args.state.map(|state| ("state".to_owned(), Value::from(<&str>::from(state))));
    let weight = args.weight.map(|weight| ("weight".to_owned(), weight.into()));
    Value::Object(state.into_iter().chain(weight).collect())
}

/// The server as it is when it is empty; `None` if it is gone by then.
fn wait_until_empty(client: &Client, server: &PoolAndName, wait: Wait) -> Result<Option<Value>, Failure> {
    let name = format!("{}/{}", server.pool, server.name);
    let start = Instant::now();
    let (mut last, mut shown, mut seen_at) = (None, String::new(), start);
    loop {
        let found = match read_servers(client) {
            Ok(servers) => Ok(servers.into_iter().find(|(pool, found)| {
                *pool == server.pool && found.get("name").and_then(Value::as_str) == Some(&server.name)
            })),
            Err(error) if is_absence(&error) => Err(error),
            Err(error) => return Err(error.into()),
        };
        let now = Instant::now();
        let seen = match &found {
            Ok(Some((_, value))) => Observation::Server(Reading::from(value)),
            Ok(None) => Observation::Missing,
            Err(_) => Observation::Absent(now - seen_at),
        };
        match (wait.judge(&seen, last.as_ref(), now - start), found) {
            (Verdict::Empty, found) => return Ok(found.ok().flatten().map(|(_, value)| value)),
            (Verdict::Failed(why), _) => return Err(Failure::Failed(format!("{name}: {why}"))),
            (Verdict::Lost, Err(error)) => return Err(error.into()),
            (Verdict::Pending(progress), _) if progress != shown => {
                print_message(&format!("{name}: {progress}"));
                shown = progress;
            }
            (Verdict::Pending(_) | Verdict::Lost, _) => {}
        }
        if !matches!(seen, Observation::Absent(_)) {
            seen_at = now;
        }
        if let Observation::Server(reading) = seen {
            last = Some(reading);
        }
        let left = wait.timeout.map_or(WAIT_INTERVAL, |timeout| timeout.saturating_sub(start.elapsed()));
        sleep(left.min(WAIT_INTERVAL));
    }
}

/// A proxy that restarts refuses connections, or says that it is not ready.
pub(super) fn is_absence(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable(_) => true,
        ClientError::Refused(problem) => problem.status == StatusCode::SERVICE_UNAVAILABLE,
        ClientError::Invalid(_) => false,
    }
}
