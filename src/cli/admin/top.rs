//! `top`: pools and servers, live.

use std::time::Instant;

use serde_json::{Map, Value, json};

use super::args::{Format, TopArgs};
use super::client::{Client, ClientError};
use super::failure::Failure;
use super::metrics_text::{Counters, Rates};
use super::servers::{drain, is_absence, read_servers, sessions, state};
use super::table::{Column, Table, cell, number, printable, text};
use super::terminal::{Screen, Signals};
use crate::cli::output::{print_message, try_print, uses_colour_on};

const COLUMNS: &[Column] = &[
    text("POOL"),
    text("SERVER"),
    text("STATE"),
    text("HEALTH"),
    text("BREAKER"),
    number("WEIGHT"),
    number("SESSIONS"),
    number("IN_FLIGHT"),
    number("QUEUED"),
    number("RESP/S"),
    number("5XX/S"),
    number("MOVES/S"),
    text("DRAIN"),
];

/// What was read at one moment.
struct Reading {
    status: Value,
    servers: Vec<(String, Value)>,
    counters: Counters,
    at: Instant,
}

/// `top`.
pub(super) fn top(client: &Client, args: &TopArgs) -> Result<(), Failure> {
    let first = read(client)?;
    match if args.client.output == Format::Table { Screen::open() } else { None } {
        Some(screen) => live(client, args, first, screen),
        None => print_tables(client, args, first),
    }
}

fn read(client: &Client) -> Result<Reading, ClientError> {
    let status = client.get("/api/v1/status")?;
    let servers = read_servers(client)?;
    let counters = Counters::parse(&client.text("/metrics")?);
    Ok(Reading { status, servers, counters, at: Instant::now() })
}

fn live(client: &Client, args: &TopArgs, first: Reading, mut screen: Screen) -> Result<(), Failure> {
    let mut signals = client.block_on(async { Signals::new() })?;
    let colour = uses_colour_on(&std::io::stdout());
    let (mut earlier, mut latest, mut absence) = (None, first, None);
    let mut drawn = 0;
    loop {
        screen.draw(&view(&latest, earlier.as_ref(), absence.as_ref(), colour));
        drawn += 1;
        if args.iterations.is_some_and(|most| drawn >= most) {
            return Ok(());
        }
        if client.block_on(screen.is_left_within(args.interval, &mut signals)) {
            return Ok(());
        }
        match read(client) {
            Ok(reading) => {
                earlier = Some(std::mem::replace(&mut latest, reading));
                absence = None;
            }
            Err(error) if is_absence(&error) => absence = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
}

fn view(latest: &Reading, earlier: Option<&Reading>, absence: Option<&ClientError>, colour: bool) -> Vec<String> {
    let table = table(latest, earlier);
    let title = absence.map_or_else(|| title(latest, earlier), ClientError::to_string);
    let mut lines = vec![printable(&title), String::new(), table.header()];
    lines.extend(table.lines().zip(&latest.servers).map(|(line, (_, server))| match tint(server).filter(|_| colour) {
        Some(tint) => format!("\x1b[{tint}m{line}\x1b[0m"),
        None => line,
    }));
    lines.extend([String::new(), "q: quit".to_owned()]);
    lines
}

fn title(latest: &Reading, earlier: Option<&Reading>) -> String {
    let field = |name: &str| latest.status.get(name).map(|value| cell(Some(value)));
    let rates = latest.servers.iter().filter_map(|(pool, server)| rates(latest, earlier, pool, server));
    let total = rates.fold(None, |total: Option<Rates>, rates| {
        let total = total.unwrap_or_default();
        Some(Rates {
            responses: total.responses + rates.responses,
            errors: total.errors + rates.errors,
            moves: total.moves + rates.moves,
        })
    });
    let mut title = format!("homing {}", field("version").unwrap_or_default());
    if let Some(node) = field("node") {
        title.push_str(&format!("  {node}"));
    }
    if let Some(total) = total {
        let Rates { responses, errors, moves } = total;
        title.push_str(&format!("  {responses:.1} responses/s  {errors:.1} 5xx/s  {moves:.1} moves/s"));
    }
    title
}

/// Red: takes no requests. Yellow: takes no new sessions.
fn tint(server: &Value) -> Option<u8> {
    let is = |name: &str, value: &str| server.get(name).and_then(Value::as_str) == Some(value);
    if is("health", "down") || is("breaker", "open") {
        Some(31)
    } else if is("state", "drain") || is("state", "maint") {
        Some(33)
    } else {
        None
    }
}

fn rates(latest: &Reading, earlier: Option<&Reading>, pool: &str, server: &Value) -> Option<Rates> {
    let earlier = earlier?;
    let name = (pool.to_owned(), cell(server.get("name")));
    Some(latest.counters.rates(&earlier.counters, &name, latest.at.saturating_duration_since(earlier.at)))
}

fn table(latest: &Reading, earlier: Option<&Reading>) -> Table {
    let mut table = Table::new(COLUMNS);
    for (pool, server) in &latest.servers {
        let rates = rates(latest, earlier, pool, server);
        let rate =
            |of: fn(&Rates) -> f64| rates.as_ref().map_or_else(|| "-".to_owned(), |rates| format!("{:.1}", of(rates)));
        table.push([
            pool.clone(),
            cell(server.get("name")),
            state(server),
            cell(server.get("health")),
            cell(server.get("breaker")),
            cell(server.get("effective_weight")),
            sessions(server),
            cell(server.get("in_flight")),
            cell(server.get("queued")),
            rate(|rates| rates.responses),
            rate(|rates| rates.errors),
            rate(|rates| rates.moves),
            drain(server),
        ]);
    }
    table
}

/// Without a terminal: one table an interval, or one JSON object a line.
fn print_tables(client: &Client, args: &TopArgs, first: Reading) -> Result<(), Failure> {
    let mut earlier = first;
    let mut printed = 0;
    while args.iterations.is_none_or(|most| printed < most) {
        std::thread::sleep(args.interval);
        let latest = match read(client) {
            Ok(latest) => latest,
            Err(error) if is_absence(&error) && args.iterations.is_none() => {
                print_message(&error.to_string());
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let text = match args.client.output {
            Format::Table if printed == 0 => table(&latest, Some(&earlier)).render(),
            Format::Table => format!("\n{}", table(&latest, Some(&earlier)).render()),
            Format::Json => format!("{}\n", as_json(&latest, &earlier)),
        };
        try_print(&text)?;
        printed += 1;
        earlier = latest;
    }
    Ok(())
}

fn as_json(latest: &Reading, earlier: &Reading) -> Value {
    let items = latest.servers.iter().map(|(pool, server)| {
        let mut fields = Map::from_iter([("pool".to_owned(), Value::from(pool.as_str()))]);
        fields.extend(server.as_object().cloned().unwrap_or_default());
        let rates = rates(latest, Some(earlier), pool, server).unwrap_or_default();
        fields.insert("responses_per_second".to_owned(), rates.responses.into());
        fields.insert("errors_per_second".to_owned(), rates.errors.into());
        fields.insert("moves_per_second".to_owned(), rates.moves.into());
        Value::Object(fields)
    });
    json!({ "items": items.collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn reading(at: Instant, responses: u64) -> Reading {
        let metrics = format!("homing_server_responses_total{{class=\"2xx\",pool=\"web\",server=\"a\"}} {responses}\n");
        let server = |name: &str, health: &str| {
            json!({ "name": name, "state": "ready", "health": health, "breaker": "closed", "effective_weight": 1,
                    "sessions": 5, "sessions_complete": name == "a", "in_flight": 2, "queued": 0, "drain": null })
        };
        Reading {
            status: json!({ "version": "0.1.0" }),
            servers: vec![("web".to_owned(), server("a", "up")), ("web".to_owned(), server("b", "down"))],
            counters: Counters::parse(&metrics),
            at,
        }
    }

    #[test]
    fn the_view_has_a_line_for_each_server_with_its_rates() {
        let start = Instant::now();
        let (earlier, latest) = (reading(start, 100), reading(start + Duration::from_secs(2), 150));
        let lines = view(&latest, Some(&earlier), None, true);
        let words = |line: &String| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert!(lines[0].starts_with("homing 0.1.0  25.0 responses/s"), "{lines:#?}");
        assert_eq!(
            words(&lines[3]),
            ["web", "a", "ready", "up", "closed", "1", "5", "2", "0", "25.0", "0.0", "0.0", "-"]
        );
        assert!(lines[4].starts_with("\x1b[31mweb") && lines[4].ends_with("\x1b[0m"), "red: down\n{lines:#?}");
        assert!(lines[4].contains(" 5+ "), "more sessions may come back: {lines:#?}");
        let plain = view(&latest, None, None, false);
        assert!(plain.iter().all(|line| !line.contains('\x1b')), "{plain:#?}");
        assert_eq!(words(&plain[3])[9..], ["-", "-", "-", "-"], "no rates from one reading");
    }

    #[test]
    fn the_view_says_that_the_proxy_is_away() {
        let error = ClientError::Unreachable("no proxy can be reached".to_owned());
        let lines = view(&reading(Instant::now(), 1), None, Some(&error), false);
        assert_eq!(lines[0], "no proxy can be reached");
        assert!(lines[3].starts_with("web"), "the last reading stays: {lines:#?}");
    }
}
