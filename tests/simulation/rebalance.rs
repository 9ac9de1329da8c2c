//! N servers become N+K while clients come and go: sessions level out, through the same verbs that the proxy's hooks call.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use homing::app::build::{BuildContext, build};
use homing::app::runtime::Runtime;
use homing::config::Config;
use homing::message::{Fields, RequestView, ResponseView};
use homing::persistence::select::Selection;
use homing::persistence::{Outcome, PoolRuntime, Reason, RequestSession, Scope, Sessions, TableHistory};
use homing::pool::ServerIndex;
use homing::session::token::UnixMillis;
use homing::session::token::keyring::Keyring;
use homing::store::local::data::SessionData;
use homing::store::local::first_requests::FirstRequests;
use homing::store::local::open_requests::OpenRequests;
use homing::store::local::table::Table;
use homing::telemetry::metrics::Metrics;
use http::{HeaderMap, Method, StatusCode, Version};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use crate::journal::Journal;
use crate::setup::Nothing;

const START: UnixMillis = UnixMillis(1_790_000_000_000);
/// The table has all sessions.
const COMPLETE: TableHistory = TableHistory { age: Duration::ZERO, restored: true, shared: false };
/// A stream may stay open for so long, in seconds.
const LONGEST_STREAM: u64 = 120;

/// What must have happened in all worlds together.
const MUST_HAPPEN: &[&str] = &[
    "levelled out",
    "a request of a crowded server's session was not the first after a pause",
    "a request came while another of its session was in flight",
    "a stream was open over the whole time",
    "nearly as many moved in a minute as may",
    "a session leaves only after a pause",
    "a session never moves while a request of it is in flight",
    "a session comes to a server with room",
    "no session moves twice for the same change",
    "no more sessions move in a minute than may",
    "the fewest moves level the servers out",
    "the servers level out in bounded time",
    "once level, nothing moves",
];

thread_local! {
    /// The clock, for what reads it when a request is over.
    static NOW: Cell<UnixMillis> = const { Cell::new(START) };
}

struct Client {
    address: IpAddr,
    home: Option<ServerIndex>,
    /// When its last request began.
    last: Option<u64>,
    in_flight: usize,
    moves: usize,
    /// Of its own: how long it pauses between two visits.
    pause: u64,
    next: u64,
}

/// A request in flight.
struct Visit {
    client: usize,
    state: RequestSession,
    server: ServerIndex,
    responded: bool,
    until: u64,
}

struct World {
    weights: Vec<u16>,
    idle_for: u64,
    per_minute: usize,
    above_mean: f64,
    runtime: Runtime,
    sessions: Sessions,
    metrics: Metrics,
    keys: Keyring,
    clients: Vec<Client>,
    visits: Vec<Visit>,
    /// Moments of the last moves, in milliseconds.
    moved_at: VecDeque<u64>,
    moves: u64,
    /// In milliseconds since the start.
    now: u64,
    random: StdRng,
    journal: Journal,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let weights: Vec<u16> =
            (0..random.gen_range(1..5)).map(|_| *[1, 1, 2, 3].choose(&mut random).unwrap()).collect();
        let idle_for = random.gen_range(20..60);
        let per_minute = *[12, 30, 600].choose(&mut random).unwrap();
        let above_mean = *[1.05, 1.25, 1.5].choose(&mut random).unwrap();
        let metrics = Metrics::new().unwrap();
        let keys = Keyring::random([7; 32]).unwrap();
        let table = Arc::new(Table::with_shards(100_000, 4, START, Box::new(|_, _| ())));
        let text = configuration(&weights, idle_for, per_minute, above_mean);
        let runtime = runtime(&text, &table, &metrics, &keys, None);
        let sessions = Sessions {
            data: Arc::new(SessionData::new(0, START, Box::new(|_| ()))),
            table,
            shared: None,
            first_requests: FirstRequests::new(),
            open: OpenRequests::new(),
        };
        let client = |number: u32, random: &mut StdRng| {
            let pause = random.gen_range(idle_for..3 * idle_for);
            Client {
                address: IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + number * 7)),
                home: None,
                last: None,
                in_flight: 0,
                moves: 0,
                pause: pause * 1000,
                next: random.gen_range(0..idle_for * 1000),
            }
        };
        let clients = (0..random.gen_range(60..400)).map(|number| client(number, &mut random)).collect();
        let mut journal = Journal::new(seed);
        journal.note(&text);
        Self {
            weights,
            idle_for,
            per_minute,
            above_mean,
            runtime,
            sessions,
            metrics,
            keys,
            clients,
            visits: Vec::new(),
            moved_at: VecDeque::new(),
            moves: 0,
            now: 0,
            random,
            journal,
        }
    }

    fn run(&mut self) {
        self.pass(4 * self.idle_for);
        self.everybody_has_a_session();
        assert_eq!(self.moves, 0, "servers of one age are level");
        self.servers_are_added();
        let excess = self.excess();
        let began = self.now;
        let (pace, pauses) = (60 * excess / u64::try_from(self.per_minute).unwrap(), 12 * self.idle_for);
        let bound = pace + pauses + 3 * LONGEST_STREAM;
        while !self.is_level() {
            self.pass(1);
            let took = (self.now - began) / 1000;
            let told = || format!("{:?} after {took} s", self.counts());
            assert!(took <= bound, "{}", told());
        }
        self.journal.promise("the servers level out in bounded time", true, String::new);
        let fewest = self.moves == excess;
        self.journal
            .promise("the fewest moves level the servers out", fewest, || format!("{} of {excess}", self.moves));
        if excess > 0 {
            self.journal.saw("levelled out");
        }
        self.pass(6 * self.idle_for);
        let still = self.moves == excess;
        self.journal.promise("once level, nothing moves", still, || format!("{} of {excess}", self.moves));
        self.visits.clear();
    }

    fn pool(&self) -> &PoolRuntime {
        self.runtime.pools.get(0).unwrap()
    }

    fn counts(&self) -> Vec<u64> {
        self.pool().persistence.as_ref().unwrap().targets.iter().map(|target| target.sessions()).collect()
    }

    /// What a server should have, rounded up, and with how many it is crowded.
    fn share(&self, server: ServerIndex) -> (u64, u64) {
        let sessions: u64 = self.counts().iter().sum();
        let weight: f64 = self.weights.iter().map(|weight| f64::from(*weight)).sum();
        let share = sessions as f64 * f64::from(self.weights[server]) / weight;
        (whole(share.ceil()), whole((share * self.above_mean).max(share.ceil())))
    }

    /// Sessions above what their server may have.
    fn excess(&self) -> u64 {
        let above = |(server, count): (usize, &u64)| count.saturating_sub(self.share(server).1);
        self.counts().iter().enumerate().map(above).sum()
    }

    fn is_level(&self) -> bool {
        self.excess() == 0
    }

    fn everybody_has_a_session(&self) {
        let sessions: u64 = self.counts().iter().sum();
        assert_eq!(sessions, u64::try_from(self.clients.len()).unwrap());
    }

    fn servers_are_added(&mut self) {
        for _ in 0..self.random.gen_range(1..4) {
            self.weights.push(*[1, 1, 2, 3].choose(&mut self.random).unwrap());
        }
        let text = configuration(&self.weights, self.idle_for, self.per_minute, self.above_mean);
        self.journal.note(&text);
        self.runtime = runtime(&text, &self.sessions.table, &self.metrics, &self.keys, Some(&self.runtime));
        // Some clients have a stream that outlasts everything.
        for client in 0..self.clients.len() {
            if self.random.gen_ratio(1, 40) {
                self.begins(client, u64::MAX);
                self.clients[client].next = self.now + self.clients[client].pause;
            }
        }
    }

    /// Some seconds, in steps of 100 ms.
    fn pass(&mut self, seconds: u64) {
        for step in 0..seconds * 10 {
            self.now += 100;
            NOW.set(UnixMillis(START.0 + self.now));
            self.journal.step = usize::try_from(self.now / 1000).unwrap();
            if step % 10 == 0 {
                self.pool().compare_servers(&COMPLETE);
            }
            self.responses_and_ends();
            for client in 0..self.clients.len() {
                if self.clients[client].next <= self.now {
                    self.comes(client);
                }
            }
        }
    }

    /// A client comes with one request or some at once, short ones and streams, and sometimes again soon.
    fn comes(&mut self, client: usize) {
        for _ in 0..*[1, 1, 1, 2, 3].choose(&mut self.random).unwrap() {
            let seconds = *[0, 0, 0, 1, 5, LONGEST_STREAM].choose(&mut self.random).unwrap();
            self.begins(client, self.now + seconds * 1000);
        }
        let Client { pause, .. } = self.clients[client];
        let soon = self.random.gen_ratio(1, 4);
        self.clients[client].next = self.now + if soon { self.random.gen_range(100..5000) } else { pause };
    }

    fn responses_and_ends(&mut self) {
        let mut at = 0;
        while at < self.visits.len() {
            if !self.visits[at].responded && self.random.gen_ratio(1, 2) {
                self.responds(at);
            }
            let visit = &self.visits[at];
            if visit.responded && visit.until <= self.now {
                let mut visit = self.visits.swap_remove(at);
                self.sessions.close(&mut visit.state, || NOW.get());
                self.clients[visit.client].in_flight -= 1;
            } else {
                at += 1;
            }
        }
    }

    fn begins(&mut self, client: usize, until: u64) {
        let before = self.counts();
        let fields = HeaderMap::new();
        let scope = scope(&self.runtime, &fields, self.clients[client].address);
        let mut state = RequestSession::default();
        state.pool = Some(0);
        assert!(matches!(self.sessions.try_resolve(&scope, &mut state), Some(Ok(()))));
        self.sessions.open(None, &scope, &mut state);
        let Some(Selection::Server(server)) = self.sessions.try_select(&scope, &mut state) else {
            panic!("a server is selected");
        };
        self.sessions.open(Some(server), &scope, &mut state);
        self.judges(client, server, &state, &before);
        let visitor = &mut self.clients[client];
        visitor.last = Some(self.now);
        visitor.in_flight += 1;
        self.visits.push(Visit { client, state, server, responded: false, until });
    }

    /// A move, or why there is none.
    fn judges(&mut self, client: usize, server: ServerIndex, state: &RequestSession, counts: &[u64]) {
        let Client { home: Some(home), last: Some(last), in_flight, moves, .. } = self.clients[client] else { return };
        let paused = (self.now - last) / 1000;
        let told = || format!("client {client} of s{home} to s{server}, {in_flight} in flight, {paused} s, {counts:?}");
        let moved = state.outcome == Some(Outcome::Moved);
        assert_eq!(moved, server != home, "{}", told());
        if !moved {
            if counts[home] > self.share(home).1 {
                if in_flight > 0 {
                    self.journal.saw("a request came while another of its session was in flight");
                } else if paused < self.idle_for {
                    self.journal.saw("a request of a crowded server's session was not the first after a pause");
                }
            }
            return;
        }
        assert_eq!(state.reason, Some(Reason::Rebalance), "{}", told());
        self.journal.promise("a session never moves while a request of it is in flight", in_flight == 0, told);
        self.journal.promise("a session leaves only after a pause", paused >= self.idle_for, told);
        self.journal.promise("no session moves twice for the same change", moves == 0, told);
        let (room, crowded) = (counts[server] < self.share(server).0, counts[home] > self.share(home).1);
        self.journal.promise("a session comes to a server with room", room && crowded, told);
        self.paces();
    }

    /// A move has begun. Moves are evenly spaced, so a minute has one more than may be at most.
    fn paces(&mut self) {
        self.moves += 1;
        self.moved_at.push_back(self.now);
        while self.moved_at.front().is_some_and(|first| self.now - first >= 60_000) {
            self.moved_at.pop_front();
        }
        let count = self.moved_at.len();
        let promise = "no more sessions move in a minute than may";
        self.journal.promise(promise, count <= self.per_minute + 1, || format!("{count}"));
        if count * 10 >= self.per_minute * 9 {
            self.journal.saw("nearly as many moved in a minute as may");
        }
    }

    /// The server responds: a move is made good.
    fn responds(&mut self, at: usize) {
        let Visit { client, server, .. } = self.visits[at];
        let fields = HeaderMap::new();
        let scope = scope(&self.runtime, &fields, self.clients[client].address);
        let response = ResponseView { status: StatusCode::OK, fields: Fields::Map(&fields) };
        let visit = &mut self.visits[at];
        assert!(self.sessions.try_commit(&response, server, &scope, &mut visit.state), "there is no store to wait for");
        self.sessions.reopen(server, false, &scope, &mut visit.state);
        visit.responded = true;
        let client = &mut self.clients[client];
        if client.home.is_some_and(|home| home != server) && visit.state.outcome == Some(Outcome::Moved) {
            client.moves += 1;
        }
        if visit.state.outcome != Some(Outcome::Kept) || client.home.is_none() {
            client.home = Some(server);
        }
        if visit.until == u64::MAX {
            self.journal.saw("a stream was open over the whole time");
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some hundred sessions at most")]
fn whole(number: f64) -> u64 {
    number as u64
}

fn scope<'c, 'r>(runtime: &'c Runtime, fields: &'r HeaderMap, client: IpAddr) -> Scope<'c, 'r> {
    Scope {
        pools: &runtime.pools,
        route: None,
        request: RequestView::http1(&Method::GET, b"/", Version::HTTP_11, Fields::Map(fields)),
        client: Some(client),
        secure: false,
        peer_trusted: false,
        forwarded_host: None,
        certificate: None,
        now: NOW.get(),
        random: |bytes| bytes.fill(7),
    }
}

fn configuration(weights: &[u16], idle_for: u64, per_minute: usize, above_mean: f64) -> String {
    let mut text = format!(
        "version: 1\nlisteners: [{{ address: 127.0.0.1:8080 }}]\npools:\n  shop:\n    rebalance: {{ idle_for: {idle_for}s, \
         per_minute: {per_minute}, above_mean: {above_mean} }}\n    persistence: {{ idle_timeout: 2h, sources: [client_ip: {{}}] }}\n    \
         servers:\n"
    );
    for (number, weight) in weights.iter().enumerate() {
        writeln!(text, "      - {{ name: s{number}, address: 10.0.0.1:{}, weight: {weight} }}", 9000 + number).unwrap();
    }
    text
}

fn runtime(text: &str, table: &Table, metrics: &Metrics, keys: &Keyring, previous: Option<&Runtime>) -> Runtime {
    let config =
        Config::parse("simulation.yaml", text, &Nothing).unwrap_or_else(|wrong| panic!("{wrong}\n{text}")).config;
    let runtime =
        build(config, &BuildContext { table, metrics, generated_keys: keys, acme: &Arc::default(), previous }).unwrap();
    for pool in runtime.pools.iter() {
        let limits = &pool.persistence.as_ref().unwrap().limits;
        table.set_limits(&pool.pool.name, limits.idle, limits.absolute);
        pool.pool.take_effect();
    }
    runtime
}

#[test]
fn sessions_level_out_over_added_servers_in_every_world() {
    let wanted: Option<u64> = std::env::var("SIM_SEED").ok().map(|seed| seed.parse().expect("SIM_SEED is a number"));
    let seeds = wanted.map_or(0..32, |seed| seed..seed + 1);
    let mut seen = BTreeMap::<&str, usize>::new();
    for seed in seeds {
        let mut world = World::new(seed);
        NOW.set(START);
        world.run();
        for (what, times) in world.journal.seen {
            *seen.entry(what).or_default() += times;
        }
    }
    for what in MUST_HAPPEN {
        let times = seen.get(what).copied().unwrap_or_default();
        assert!(wanted.is_some() || times >= 5, "\"{what}\" happened {times} times in all: {seen:#?}");
    }
}
