//! What the command line asks for.

use std::net::SocketAddr;
use std::time::Duration;

use nix::unistd::Pid;

pub(crate) const USAGE: &str = "\
usage: load ADDRESS [options]
  --connections N   at a time (64)
  --seconds S       how long to measure (2), after
  --warm S          seconds that do not count (0)
  --requests N      end after so many answers instead
  --rate R          so many requests a second, whatever the answers do; without it the next request follows the answer
  --path PATH       what to ask for (/)
  --sessions N      as so many returning clients (256), whose cookies are collected from /s first
  --spread S        they begin evenly over so many seconds (0)
  --new             as a new client with each request
  --by-address      every connection is a client with a loopback address of its own, and no cookies
  --close           a connection for each request
  --tls             any certificate will do
  --pid PID         whose CPU time to measure
  --core CPU        where that runs, to see what else runs there
  --freeze PID      a process that stands still while it is measured";

/// The kinds of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clients {
    /// So many, each with the cookies that it was given.
    Returning(usize),
    /// Without cookies.
    New,
    /// A connection is a client.
    ByAddress,
}

#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) address: SocketAddr,
    pub(crate) connections: usize,
    pub(crate) warm: Duration,
    pub(crate) end: End,
    /// Requests a second; `None`: as fast as the answers come.
    pub(crate) rate: Option<f64>,
    pub(crate) path: String,
    pub(crate) clients: Clients,
    pub(crate) spread: Duration,
    pub(crate) close: bool,
    pub(crate) tls: bool,
    pub(crate) process: Option<u32>,
    pub(crate) core: Option<u32>,
    pub(crate) frozen: Option<Pid>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    After(Duration),
    Answers(u64),
}

impl Plan {
    pub(crate) fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let address = arguments.next().ok_or("no address")?;
        let mut plan = Self {
            address: address.parse().map_err(|error| format!("{address}: {error}"))?,
            connections: 64,
            warm: Duration::ZERO,
            end: End::After(Duration::from_secs(2)),
            rate: None,
            path: "/".to_owned(),
            clients: Clients::Returning(256),
            spread: Duration::ZERO,
            close: false,
            tls: false,
            process: None,
            core: None,
            frozen: None,
        };
        while let Some(option) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{option} needs a value"));
            match option.as_str() {
                "--connections" => plan.connections = whole(&value()?)?,
                "--seconds" => plan.end = End::After(seconds(&value()?)?),
                "--warm" => plan.warm = seconds(&value()?)?,
                "--requests" => plan.end = End::Answers(whole(&value()?)?),
                "--rate" => plan.rate = Some(whole::<u32>(&value()?)?.into()),
                "--path" => plan.path = value()?,
                "--sessions" => plan.clients = Clients::Returning(whole(&value()?)?),
                "--spread" => plan.spread = seconds(&value()?)?,
                "--new" => plan.clients = Clients::New,
                "--by-address" => plan.clients = Clients::ByAddress,
                "--close" => plan.close = true,
                "--tls" => plan.tls = true,
                "--pid" => plan.process = Some(whole(&value()?)?),
                "--core" => plan.core = Some(value()?.parse().map_err(|error| format!("--core: {error}"))?),
                "--freeze" => plan.frozen = Some(Pid::from_raw(whole(&value()?)?)),
                _ => return Err(format!("{option} is not an option")),
            }
        }
        Ok(plan)
    }
}

/// A whole number above zero.
fn whole<T: std::str::FromStr + PartialOrd + From<u8>>(text: &str) -> Result<T, String> {
    text.parse().ok().filter(|number| *number >= T::from(1)).ok_or_else(|| format!("{text} is not a number above zero"))
}

fn seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| format!("{text} is not a number of seconds"))
}
