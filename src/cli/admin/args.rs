//! The grammar and help texts of the commands that ask a running proxy.

use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};

use crate::config::units::parse_duration;

use super::address::AdminAddress;

/// The proxy, and how its response is printed.
#[derive(Debug, Args)]
pub(in crate::cli) struct ClientArgs {
    /// The proxy's admin address: `HOST:PORT`, `http://HOST:PORT` or `unix:/PATH`. The token is read from
    /// `HOMING_ADMIN_TOKEN`
    #[arg(long, value_name = "ADDR", env = "HOMING_ADMIN", default_value = crate::demo::DEFAULT_ADMIN)]
    pub(super) admin: AdminAddress,
    /// A table for people or JSON for scripts
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(super) output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Aligned columns under a header
    Table,
    /// As the admin API responds
    Json,
}

/// A pool and a name in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PoolAndName {
    pub(super) pool: String,
    pub(super) name: String,
}

fn pool_and_name(text: &str) -> Result<PoolAndName, String> {
    match text.split_once('/') {
        Some((pool, name)) if !pool.is_empty() && !name.is_empty() => {
            Ok(PoolAndName { pool: pool.to_owned(), name: name.to_owned() })
        }
        _ => Err("write POOL/NAME, for example web/a".to_owned()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "write a number with a unit: 500ms, 30s, 10m, 2h".to_owned())
}

fn weight(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_no_number| "write a whole number from 0 to 65535".to_owned())
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    if interval < Duration::from_millis(100) { Err("at least 100ms".to_owned()) } else { Ok(interval) }
}

/// The commands that ask a running proxy.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum AdminCommand {
    /// Print what runs: version, uptime, configuration, last reload, store, table
    Status(ClientArgs),
    /// List the pools of a running proxy
    Pools(ClientArgs),
    /// List the servers of a running proxy: state, health, breaker, weight, sessions, requests
    Servers(ClientArgs),
    /// Change a server while the proxy runs
    Server {
        #[command(subcommand)]
        what: ServerCommand,
    },
    /// List, show, move and end sessions
    Sessions {
        #[command(subcommand)]
        what: SessionsCommand,
    },
    /// Print changes of state as they come, after the last so far, with their reason and cause; --once ends there
    Events(EventsArgs),
    /// Show pools and servers live in the terminal
    Top(TopArgs),
    /// Reload the configuration file; exits with 78 and prints all problems when that is refused
    Reload(ClientArgs),
    /// Replace the running program by the one that lies at its path now, without losing a request; exits with 1 and the reason
    /// when the new one cannot serve, and the old one serves on
    ///
    /// The running proxy starts the program with its own arguments and hands its listeners and sessions over
    /// (`proxy.upgrade_socket`). Then it finishes its requests and open streams within `proxy.shutdown_grace`, and ends.
    Upgrade(ClientArgs),
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ServerCommand {
    /// Set a server's state or weight while the proxy runs; reloads keep it
    ///
    /// The stricter of this state, the file's and the health check's is in force.
    ///
    /// With --wait the exit code is 0 once the server is empty: no session is bound to it, and no client that was silent can
    /// still come back to it. It is 1 when the time is up, or when another state was set meanwhile.
    Set(SetArgs),
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("change").required(true).multiple(true).args(["state", "weight", "reset"])))]
pub(in crate::cli) struct SetArgs {
    /// The server
    #[arg(value_name = "POOL/NAME", value_parser = pool_and_name)]
    pub(super) server: PoolAndName,
    /// ready: gets new sessions; drain: keeps its sessions and gets no new ones; maint: its sessions move at once
    #[arg(long, value_enum)]
    pub(super) state: Option<State>,
    /// Its share of new sessions, relative to other servers
    #[arg(long, value_name = "N", value_parser = weight)]
    pub(super) weight: Option<u16>,
    /// Back to the file's state and weight
    #[arg(long, conflicts_with_all = ["state", "weight"])]
    pub(super) reset: bool,
    /// Return when the server is empty, with progress on standard error; for --state drain
    #[arg(long, requires = "state")]
    pub(super) wait: bool,
    /// Wait no longer than this (30s, 10m); default: without end
    #[arg(long, value_name = "DURATION", value_parser = duration, requires = "wait")]
    pub(super) timeout: Option<Duration>,
    /// Wait only for the sessions that the proxy knows, not for clients that have a token and have been silent
    #[arg(long, requires = "wait")]
    pub(super) ignore_silent: bool,
    #[command(flatten)]
    pub(super) client: ClientArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(super) enum State {
    Ready,
    Drain,
    Maint,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum SessionsCommand {
    /// List the sessions in the proxy's table, by pool and server
    List(ListArgs),
    /// Show a session: its server, its age, its last moves
    Show(SessionArgs),
    /// Move a session to another server with its next request
    Move {
        #[command(flatten)]
        session: SessionArgs,
        /// The server that it goes to
        #[arg(long, value_name = "SERVER")]
        to: String,
    },
    /// End a session on every proxy: its client begins a new one
    End(SessionArgs),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ListArgs {
    /// Only of this pool
    #[arg(long, value_name = "NAME")]
    pub(super) pool: Option<String>,
    /// Only on this server: NAME with --pool, or POOL/NAME
    #[arg(long, value_name = "NAME")]
    pub(super) server: Option<String>,
    /// At most so many; default: all
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) limit: Option<u64>,
    /// Go on after an earlier list: its `next`
    #[arg(long, value_name = "CURSOR")]
    pub(super) cursor: Option<String>,
    #[command(flatten)]
    pub(super) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct SessionArgs {
    /// POOL/KEY with the key of a list; or POOL alone: the session's token, cookie, id or client address is read from standard
    /// input
    #[arg(value_name = "POOL[/KEY]")]
    pub(super) session: String,
    /// Take the input for an application's session id, whatever it looks like
    #[arg(long)]
    pub(super) id: bool,
    #[command(flatten)]
    pub(super) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct EventsArgs {
    /// Print what there is and end, in place of printing new events as they come until interrupted
    #[arg(long)]
    pub(super) once: bool,
    /// What is the default
    #[arg(short, long, hide = true, conflicts_with = "once")]
    pub(super) follow: bool,
    /// Only events after this id
    #[arg(long, value_name = "ID")]
    pub(super) after: Option<u64>,
    /// Only events of the last 10m, 2h …
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(super) since: Option<Duration>,
    /// Only events of this kind; repeatable
    #[arg(long, value_name = "KIND", value_parser = clap::builder::PossibleValuesParser::new(kinds()))]
    pub(super) kind: Vec<String>,
    #[command(flatten)]
    pub(super) client: ClientArgs,
}

fn kinds() -> &'static [&'static str] {
    <crate::telemetry::events::EventKind as strum::VariantNames>::VARIANTS
}

#[derive(Debug, Args)]
pub(in crate::cli) struct TopArgs {
    /// Time between two readings
    #[arg(long, value_name = "DURATION", value_parser = interval, default_value = "1s")]
    pub(super) interval: Duration,
    /// End after so many readings; default: at q or Ctrl-C
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) iterations: Option<u64>,
    #[command(flatten)]
    pub(super) client: ClientArgs,
}
