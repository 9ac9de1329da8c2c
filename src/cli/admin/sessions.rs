//! `sessions list|show|move|end`.

use http::Method;
use serde_json::{Value, json};

use super::args::{ClientArgs, Format, ListArgs, SessionArgs, SessionsCommand};
use super::client::{Client, ClientError, segment};
use super::explain::{credential, explain_in};
use super::failure::Failure;
use super::status::print_object;
use super::table::{Column, Table, cell, number, text};
use crate::cli::output::{print_message, read_input, try_print};

/// The most that the API gives at once.
const PAGE: u64 = 1000;

/// Pages are printed as they come, so the widths are not those of all rows.
const COLUMNS: &[Column] = &[
    text("POOL").at_least(8),
    text("KEY").at_least(32),
    text("SERVER").at_least(8),
    number("EPOCH"),
    text("CREATED").at_least(24),
    text("LAST_SEEN").at_least(24),
    text("SOURCE"),
];

impl SessionsCommand {
    /// The proxy to ask.
    pub(super) fn client(&self) -> &ClientArgs {
        match self {
            Self::List(args) => &args.client,
            Self::Show(args) | Self::Move { session: args, .. } | Self::End(args) => &args.client,
        }
    }
}

/// One of the commands.
pub(super) fn run(client: &Client, command: &SessionsCommand) -> Result<(), Failure> {
    match command {
        SessionsCommand::List(args) => list(client, args),
        SessionsCommand::Show(args) => {
            let session = client.get(&find(client, args)?)?;
            print_object(&session, args.client.output)
        }
        SessionsCommand::Move { session: args, to } => {
            let path = format!("{}/move", find(client, args)?);
            let moved = client.send(&Method::POST, &path, Some(&json!({ "server": to })))?;
            print_object(&moved, args.client.output)
        }
        SessionsCommand::End(args) => {
            client.send(&Method::DELETE, &find(client, args)?, None)?;
            print_message("the session has ended");
            Ok(())
        }
    }
}

/// The path of the session, by its key or by what its client sends.
fn find(client: &Client, args: &SessionArgs) -> Result<String, Failure> {
    let path = |pool: &str, key: &str| format!("/api/v1/sessions/{}/{}", segment(pool), segment(key));
    match args.session.split_once('/') {
        Some((pool, key)) if !pool.is_empty() && !key.is_empty() => return Ok(path(pool, key)),
        Some(_) => return Err(Failure::Usage("write POOL/KEY, or POOL and the secret on standard input".to_owned())),
        None => {}
    }
    let pool = &args.session;
    if pool.len() == 32 && pool.chars().all(|c| c.is_ascii_hexdigit()) {
        return Err(Failure::Usage(format!("{pool} is a key: write POOL/{pool}")));
    }
    let explained = explain_in(client, pool, &credential(read_input()?.trim(), args.id)?, (None, None))?;
    let key = explained.get("key").or_else(|| explained.pointer("/session/key")).and_then(Value::as_str);
    key.map(|key| path(pool, key)).ok_or_else(|| Failure::Failed(format!("it names no session of the pool {pool}")))
}

fn list(client: &Client, args: &ListArgs) -> Result<(), Failure> {
    let mut query = filter(args)?;
    if let Some(cursor) = &args.cursor {
        query.push(("cursor", cursor.clone()));
    }
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut printer = Printer::start(args)?;
    loop {
        let page = client.get(&page_path(&query, left.min(PAGE)))?;
        let items = page.get("items").and_then(Value::as_array);
        let items = items.ok_or_else(|| ClientError::Invalid("the list of sessions has no items".to_owned()))?;
        printer.print(items)?;
        left = left.saturating_sub(items.len() as u64);
        let next = page.get("next").and_then(Value::as_str);
        let Some(cursor) = next.filter(|_| left > 0) else { return printer.end(next) };
        query.retain(|(name, _)| *name != "cursor");
        query.push(("cursor", cursor.to_owned()));
    }
}

fn filter(args: &ListArgs) -> Result<Vec<(&'static str, String)>, Failure> {
    let (pool, server) = match args.server.as_ref().map(|server| (server, server.split_once('/'))) {
        Some((_, Some((pool, server)))) => match &args.pool {
            Some(other) if other != pool => {
                return Err(Failure::Usage(format!(
                    "--pool {other} and --server {pool}/{server} contradict each other"
                )));
            }
            _ => (Some(pool.to_owned()), Some(server.to_owned())),
        },
        Some((server, None)) if args.pool.is_some() => (args.pool.clone(), Some(server.clone())),
        Some((server, None)) => {
            return Err(Failure::Usage(format!("--server {server}: name its pool too, as --server POOL/{server}")));
        }
        None => (args.pool.clone(), None),
    };
    Ok(pool.map(|pool| ("pool", pool)).into_iter().chain(server.map(|server| ("server", server))).collect())
}

fn page_path(query: &[(&'static str, String)], limit: u64) -> String {
    let fields = query.iter().map(|(name, value)| format!("&{name}={}", segment(value)));
    format!("/api/v1/sessions?limit={limit}{}", fields.collect::<String>())
}

/// Prints page after page, so that a million sessions are never held.
struct Printer<'a> {
    args: &'a ListArgs,
    table: Table,
    is_first: bool,
}

impl<'a> Printer<'a> {
    fn start(args: &'a ListArgs) -> Result<Self, Failure> {
        let table = Table::new(COLUMNS);
        try_print(&match args.client.output {
            Format::Json => "{\"items\": [".to_owned(),
            Format::Table => table.header() + "\n",
        })?;
        Ok(Self { args, table, is_first: true })
    }

    fn print(&mut self, items: &[Value]) -> Result<(), Failure> {
        let mut text = String::new();
        for session in items {
            if self.args.client.output == Format::Json {
                text.push_str(if self.is_first { "\n" } else { ",\n" });
                text.push_str(&session.to_string());
            } else {
                self.table.push(self.row(session));
            }
            self.is_first = false;
        }
        text.push_str(&self.table.take_lines());
        Ok(try_print(&text)?)
    }

    fn row(&self, session: &Value) -> [String; 7] {
        let pool =
            session.get("pool").map_or_else(|| self.args.pool.clone().unwrap_or_default(), |pool| cell(Some(pool)));
        let of = |name: &str| cell(session.get(name));
        [pool, of("key"), of("server"), of("epoch"), of("created"), of("last_seen"), of("source")]
    }

    fn end(self, next: Option<&str>) -> Result<(), Failure> {
        match (self.args.client.output, next) {
            (Format::Json, next) => try_print(&format!("\n], \"next\": {}}}\n", Value::from(next)))?,
            (Format::Table, Some(next)) => print_message(&format!("there are more: --cursor {next}")),
            (Format::Table, None) => {}
        }
        Ok(())
    }
}
