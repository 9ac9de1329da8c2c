//! What the operator wrote: random, but always a file that the proxy takes.

use std::fmt::Write as _;
use std::path::Path;

use homing::config::{Balance, Config, Environment, FileText, OnServerDown, OnServerDrain, ServerState};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

/// The pool of the simulation.
pub const POOL: &str = "shop";

/// A server as the operator writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    pub name: String,
    pub weight: u16,
    pub backup: bool,
    pub state: ServerState,
}

impl Written {
    pub fn new(name: impl Into<String>, weight: u16) -> Self {
        Self { name: name.into(), weight, backup: false, state: ServerState::Ready }
    }
}

/// What the operator wants, before it is text.
#[derive(Debug, Clone)]
pub struct Setup {
    pub balance: Balance,
    pub down: OnServerDown,
    pub drain: OnServerDrain,
    pub hold: bool,
    pub checked: bool,
    pub attempts: u32,
    pub idle_secs: u64,
    pub absolute_secs: u64,
    pub capacity: usize,
    /// In seconds.
    pub drain_deadline: Option<u64>,
    /// Which of the two keys seals.
    pub first_key: usize,
    pub servers: Vec<Written>,
    /// More lines of the pool: limits and circuit breakers.
    pub load: String,
}

impl Setup {
    /// All policies and balances in turn, the rest by chance.
    pub fn random(seed: u64, random: &mut StdRng) -> Self {
        let turn = |of: u64, every: u64| usize::try_from(seed / every % of).unwrap();
        let servers = (0..random.gen_range(2..6)).map(|n| Self::server(n, random)).collect();
        Self {
            balance: [Balance::RoundRobin, Balance::Hash, Balance::Random, Balance::LeastRequests][turn(4, 1)],
            down: [OnServerDown::Reassign, OnServerDown::Borrow, OnServerDown::Refuse][turn(3, 4)],
            drain: [OnServerDrain::Keep, OnServerDrain::Reassign][turn(2, 12)],
            hold: random.gen_ratio(1, 4),
            checked: random.gen_ratio(3, 4),
            attempts: random.gen_range(0..4),
            idle_secs: *[60, 1800].choose(random).unwrap(),
            absolute_secs: *[3600, 86_400].choose(random).unwrap(),
            capacity: *[4, 10_000, 10_000, 10_000].choose(random).unwrap(),
            drain_deadline: *[None, Some(20), Some(400)].choose(random).unwrap(),
            first_key: 0,
            servers,
            load: String::new(),
        }
    }

    /// A calm world for scenarios: `weights` in the order of the file, nothing checked away.
    pub fn plain(weights: &[u16]) -> Self {
        let servers = weights.iter().enumerate().map(|(n, weight)| Written::new(format!("s{n}"), *weight)).collect();
        Self {
            balance: Balance::RoundRobin,
            down: OnServerDown::Reassign,
            drain: OnServerDrain::Keep,
            hold: false,
            checked: true,
            attempts: 2,
            idle_secs: 1800,
            absolute_secs: 86_400,
            capacity: 100_000,
            drain_deadline: None,
            first_key: 0,
            servers,
            load: String::new(),
        }
    }

    fn server(n: usize, random: &mut StdRng) -> Written {
        let mut server = Written::new(format!("s{n}"), *[1, 1, 1, 2, 3, 0].choose(random).unwrap());
        server.backup = random.gen_ratio(1, 8);
        server
    }

    /// A server that the file does not have comes, or one that it has changes or goes.
    pub fn edit(&mut self, random: &mut StdRng) -> String {
        let at = random.gen_range(0..self.servers.len());
        match random.gen_range(0..8) {
            0 if self.servers.len() > 1 => format!("removed {}", self.servers.remove(at).name),
            0 | 1 => {
                let free = (0..7).find(|n| self.servers.iter().all(|server| server.name != format!("s{n}")));
                let Some(free) = free else { return "nothing".into() };
                let server = Self::server(free, random);
                let told = format!("added {server:?}");
                self.servers.insert(random.gen_range(0..=self.servers.len()), server);
                told
            }
            2 | 3 => {
                let server = &mut self.servers[at];
                server.weight = *[0, 1, 2, 3].choose(random).unwrap();
                format!("weight of {} is {}", server.name, server.weight)
            }
            4 => {
                let server = &mut self.servers[at];
                server.backup = !server.backup;
                format!("backup of {} is {}", server.name, server.backup)
            }
            5 if random.gen_ratio(1, 2) => {
                self.first_key = 1 - self.first_key;
                format!("key {} seals", self.first_key)
            }
            _ => {
                let server = &mut self.servers[at];
                server.state = *[ServerState::Ready, ServerState::Drain, ServerState::Maint].choose(random).unwrap();
                format!("{} is {:?}", server.name, server.state)
            }
        }
    }

    /// The checked configuration of one proxy: each reaches the servers at addresses of its own, and lists them in an
    /// order of its own.
    pub fn config(&self, proxy: usize) -> Config {
        let text = self.yaml(proxy);
        Config::parse("simulation.yaml", &text, &Nothing).unwrap_or_else(|wrong| panic!("{wrong}\n{text}")).config
    }

    fn yaml(&self, proxy: usize) -> String {
        let mut servers: Vec<_> = self.servers.iter().collect();
        if proxy % 2 == 1 {
            servers.reverse();
        }
        let balance = match self.balance {
            Balance::RoundRobin => "round_robin",
            Balance::Random => "random",
            Balance::LeastRequests => "least_requests",
            Balance::Hash => "hash",
        };
        let mut text = format!(
            "version: 1\nlisteners: [{{ address: 127.0.0.1:8080 }}]\npools:\n  {POOL}:\n    balance: {balance}\n    servers:\n"
        );
        for (port, server) in servers.iter().enumerate() {
            let Written { name, weight, backup, state } = server;
            let (state, port) = (word(*state), 9000 + port);
            writeln!(
                text,
                "      - {{ name: {name}, address: 10.0.{proxy}.1:{port}, weight: {weight}, state: {state}, backup: {backup} }}"
            )
            .unwrap();
        }
        if self.checked {
            text.push_str("    health_check: { type: tcp }\n");
        }
        text.push_str(&self.load);
        if let Some(seconds) = self.drain_deadline {
            writeln!(text, "    drain_deadline: {seconds}s").unwrap();
        }
        self.write_rest(&mut text);
        text
    }

    fn write_rest(&self, text: &mut String) {
        let down = match self.down {
            OnServerDown::Reassign => "reassign",
            OnServerDown::Borrow => "borrow",
            OnServerDown::Refuse => "refuse",
        };
        let drain = match self.drain {
            OnServerDrain::Keep => "keep",
            OnServerDrain::Reassign => "reassign",
        };
        let hold = if self.hold { "5s" } else { "0s" };
        let (attempts, idle, absolute, capacity) = (self.attempts, self.idle_secs, self.absolute_secs, self.capacity);
        let keys = ["{ id: k1, secret: one-very-secret-secret }", "{ id: k2, secret: two-very-secret-secrets }"];
        let (first, second) = (keys[self.first_key], keys[1 - self.first_key]);
        write!(
            text,
            "    retries: {{ attempts: {attempts}, budget_percent: 100 }}
    persistence:
      idle_timeout: {idle}s
      absolute_timeout: {absolute}s
      on_server_down: {down}
      on_server_drain: {drain}
      hold: {hold}
keys: [{first}, {second}]
store: {{ max_sessions: {capacity} }}
"
        )
        .unwrap();
    }
}

fn word(state: ServerState) -> &'static str {
    match state {
        ServerState::Ready => "ready",
        ServerState::Drain => "drain",
        ServerState::Maint => "maint",
    }
}

/// No variables, no files.
pub(crate) struct Nothing;

impl Environment for Nothing {
    fn variable(&self, _: &str) -> Option<String> {
        None
    }

    fn file(&self, _: &Path) -> Result<FileText, String> {
        Err("there are no files here".into())
    }
}
