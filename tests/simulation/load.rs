//! Many requests at a time, at servers that fail, are slow and have limits: circuit breakers and queues by the seed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use homing::config::{OnServerDown, ServerState};
use homing::persistence::Outcome;
use homing::persistence::resolve::ResolvedSession;
use homing::persistence::select::{Choice, History, Placement, choose};
use homing::pool::ServerIndex;
use homing::pool::breaker::BreakerState;
use homing::pool::live_state::InFlight;
use homing::pool::queue::{Lane, QueuedRequest, WaitEnd};
use homing::pool::server::{NotAdmitted, Server};
use homing::session::key::SessionKey;
use homing::session::token::UnixMillis;
use homing::telemetry::metrics::Metrics;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use crate::journal::Journal;
use crate::proxy::Proxy;
use crate::setup::Setup;

const STEPS: usize = 300;
const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

/// What must have happened in all worlds together.
const MUST_HAPPEN: &[&str] = &[
    "ejected",
    "half open",
    "probe lost",
    "probe succeeded",
    "probe failed",
    "waited",
    "waited for any",
    "left the queue",
    "selected again",
    "limit changed",
    "one probe at a time while half-open",
    "a lost probe makes room for the next",
    "a client that leaves is no failure",
    "a session goes nowhere else while its server may keep it",
    "no more servers are ejected than may be",
    "a slot goes to the request that has waited longest",
    "no request waits for a server that has room",
    "no server is sent more requests than it may have in flight",
];

/// A request that is at a server or waits for one.
struct Request {
    session: Option<ResolvedSession>,
    history: History,
    place: Place,
}

enum Place {
    At(ServerIndex, InFlight),
    /// The number is that of its arrival in the queue.
    Queue(Option<ServerIndex>, u64, QueuedRequest<InFlight>),
}

/// Everything.
struct World {
    setup: Setup,
    proxy: Proxy,
    metrics: Metrics,
    limit: u32,
    percent: u32,
    requests: Vec<Request>,
    /// Arrivals of those that wait, oldest first, by what they wait for.
    queues: Vec<(Option<ServerIndex>, VecDeque<u64>)>,
    /// Of those that wait for any server, which suit them.
    suits: BTreeMap<u64, Vec<Arc<Lane>>>,
    arrivals: u64,
    keys: u128,
    now: Instant,
    random: StdRng,
    journal: Journal,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let weights: Vec<u16> =
            (0..random.gen_range(2..6)).map(|_| *[1, 1, 2, 0].choose(&mut random).unwrap()).collect();
        let mut setup = Setup::plain(&weights);
        setup.down = *[OnServerDown::Reassign, OnServerDown::Borrow, OnServerDown::Refuse].choose(&mut random).unwrap();
        let (limit, percent) = (random.gen_range(1..4), *[0, 34, 50, 100].choose(&mut random).unwrap());
        setup.load = load(limit, percent);
        let metrics = Metrics::new().unwrap();
        let proxy = Proxy::start(0, &setup, &metrics, NOW, |_| true);
        proxy.current.pool.take_effect();
        let mut journal = Journal::new(seed);
        journal.note(format!("{setup:?}"));
        let (requests, queues, suits) = (Vec::new(), Vec::new(), BTreeMap::new());
        let now = Instant::now();
        Self {
            setup,
            proxy,
            metrics,
            limit,
            percent,
            requests,
            queues,
            suits,
            arrivals: 0,
            keys: 0,
            now,
            random,
            journal,
        }
    }

    fn run(&mut self) {
        for step in 0..STEPS {
            self.journal.step = step;
            match self.random.gen_range(0..100) {
                0..40 => self.arrives(),
                40..75 => self.ends(),
                75..82 => self.leaves(),
                82..94 => self.time_passes(),
                94..97 => self.limit_changes(),
                _ => self.state_changes(),
            }
            self.turns();
            self.holds();
        }
        self.empties();
    }

    fn pool(&self) -> &homing::pool::Pool {
        &self.proxy.current.pool
    }

    fn server(&self, index: ServerIndex) -> &Server {
        &self.pool().servers[index]
    }

    fn arrives(&mut self) {
        let home = self.random.gen_ratio(2, 3).then(|| self.random.gen_range(0..self.pool().servers.len()));
        let session = home.map(|home| {
            self.keys += 1;
            let key = SessionKey(self.keys.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
            let sessions = self.proxy.current.pool_sessions(&self.proxy.table);
            sessions.claim(key, home, NOW);
            sessions.claim(key, home, NOW).expect("bound just now")
        });
        self.selects(session, History::default(), None);
    }

    /// `upstream_peer`: selects a server until the request is at one, waits for one, or has failed.
    fn selects(&mut self, session: Option<ResolvedSession>, history: History, mut slot: Option<InFlight>) {
        for _ in 0..20 {
            let choice = {
                let version = &self.proxy.current;
                choose(&version.pool, Some(&version.policy), session.as_ref(), &history, Placement::Balanced(b""), NOW)
            };
            self.judges(session.as_ref(), choice);
            let to = match choice {
                Choice::To { server, .. } => match self.server(server).admit(slot.take()) {
                    Ok(in_flight) => return self.is_at(server, in_flight, session, history),
                    Err(NotAdmitted::Ejected) => continue,
                    Err(NotAdmitted::Full) => session.as_ref().map(|_| server),
                },
                Choice::Full(_) => None,
                _ => return,
            };
            self.waits(to, session, history);
            return;
        }
        self.journal.promise("a selection comes to an end", false, String::new);
    }

    fn is_at(&mut self, at: ServerIndex, slot: InFlight, session: Option<ResolvedSession>, history: History) {
        let (in_flight, limit) = (self.server(at).live.in_flight(), usize::try_from(self.limit).unwrap());
        let promise = "no server is sent more requests than it may have in flight";
        self.journal.promise(promise, in_flight <= limit, || format!("{in_flight} of {limit} at s{at}"));
        self.requests.push(Request { session, history, place: Place::At(at, slot) });
    }

    fn waits(&mut self, to: Option<ServerIndex>, session: Option<ResolvedSession>, mut history: History) {
        history.queued = true;
        let takes = self.pool().servers.iter().filter(|one| one.takes_new());
        let taking: Vec<_> = takes.map(|one| Arc::clone(&one.live.lane)).collect();
        let suits = taking.clone();
        let waiting = match to {
            Some(server) => self.pool().wait_for(server).expect("the server"),
            None => self.pool().wait_for_any(Box::new(move |lane| suits.iter().any(|one| Arc::ptr_eq(one, lane)))),
        };
        let Ok(waiting) = waiting else { return };
        self.arrivals += 1;
        self.journal.saw(if to.is_some() { "waited" } else { "waited for any" });
        let arrival = self.arrivals;
        self.suits.insert(arrival, taking);
        self.queue(to).push_back(arrival);
        let place = Place::Queue(to, arrival, waiting);
        self.requests.push(Request { session, history, place });
    }

    fn queue(&mut self, of: Option<ServerIndex>) -> &mut VecDeque<u64> {
        let known = self.queues.iter().position(|(place, _)| *place == of);
        let at = known.unwrap_or_else(|| {
            self.queues.push((of, VecDeque::new()));
            self.queues.len() - 1
        });
        &mut self.queues[at].1
    }

    /// Everything whose turn has come goes on.
    fn turns(&mut self) {
        let mut at = 0;
        while at < self.requests.len() {
            let Place::Queue(of, number, waiting) = &mut self.requests[at].place else {
                at += 1;
                continue;
            };
            let (of, number) = (*of, *number);
            let turn = Box::pin(waiting.turn()).as_mut().poll(&mut Context::from_waker(Waker::noop()));
            let Poll::Ready(turn) = turn else {
                at += 1;
                continue;
            };
            let Request { session, history, .. } = self.requests.remove(at);
            let before: Vec<_> = self.queue(of).iter().copied().take_while(|one| *one != number).collect();
            self.queue(of).retain(|one| *one != number);
            match turn {
                WaitEnd::Slot(slot) => {
                    let at = self.pool().servers.iter().find(|one| slot.is_of(&one.live)).map(|one| &one.live.lane);
                    let suits =
                        |one: &u64| at.is_some_and(|at| self.suits[one].iter().any(|lane| Arc::ptr_eq(lane, at)));
                    let first = !before.iter().any(|one| of.is_some() || suits(one));
                    let promise = "a slot goes to the request that has waited longest";
                    self.journal.promise(promise, first, || format!("arrival {number} for {of:?}"));
                    match self.pool().servers.iter().position(|one| slot.is_of(&one.live)).filter(|_| of.is_none()) {
                        // `place`: a new session begins where it has room now.
                        Some(server) => match self.server(server).admit(Some(slot)) {
                            Ok(slot) => self.is_at(server, slot, session, history),
                            Err(_) => self.selects(session, history, None),
                        },
                        None => self.selects(session, history, Some(slot)),
                    }
                }
                WaitEnd::Reselect => {
                    self.journal.saw("selected again");
                    self.selects(session, history, None);
                }
            }
            // Another may have got its turn by that.
            at = 0;
        }
    }

    /// A request that is at a server, taken from there.
    fn any_at_a_server(&mut self) -> Option<(ServerIndex, InFlight)> {
        let at: Vec<_> =
            (0..self.requests.len()).filter(|at| matches!(self.requests[*at].place, Place::At(..))).collect();
        let request = self.requests.remove(*at.choose(&mut self.random)?);
        if let Place::At(server, in_flight) = request.place { Some((server, in_flight)) } else { None }
    }

    fn ends(&mut self) {
        let Some((server, mut in_flight)) = self.any_at_a_server() else { return };
        let (probe, before) = (in_flight.is_probe(), self.server(server).breaker());
        let status = *[200, 200, 500, 503].choose(&mut self.random).unwrap();
        let fails = self.random.gen_ratio(1, 3) || status == 503;
        match self.random.gen_ratio(1, 2) || status == 503 {
            _ if !fails => self.pool().note_status(server, &mut in_flight, status, self.now),
            true => self.pool().note_status(server, &mut in_flight, 503, self.now),
            false => {
                self.pool().note_failure(server, &mut in_flight, self.now);
            }
        }
        let after = self.server(server).breaker();
        self.journal.note(format!("s{server}: {before:?}, probe {probe}, fails {fails}: {after:?}"));
        match (before, after) {
            (Some(BreakerState::Closed), Some(BreakerState::Open)) => self.journal.saw("ejected"),
            (Some(BreakerState::HalfOpen), Some(BreakerState::Closed)) => self.journal.saw("probe succeeded"),
            (Some(BreakerState::HalfOpen), Some(BreakerState::Open)) => self.journal.saw("probe failed"),
            _ => {}
        }
        let decided = before == after || (probe || before == Some(BreakerState::Closed));
        self.journal.promise("only the probe decides while half-open", decided, || format!("{before:?} {after:?}"));
        drop(in_flight);
    }

    /// A client leaves, from a server or from the queue.
    fn leaves(&mut self) {
        if self.random.gen_ratio(1, 2) {
            let queued = |request: &Request| matches!(request.place, Place::Queue(..));
            let waiting: Vec<_> = (0..self.requests.len()).filter(|at| queued(&self.requests[*at])).collect();
            let Some(at) = waiting.choose(&mut self.random) else { return };
            let Place::Queue(of, number, waiting) = self.requests.remove(*at).place else { return };
            self.queue(of).retain(|one| *one != number);
            self.journal.saw("left the queue");
            drop(waiting);
            return;
        }
        let Some((server, in_flight)) = self.any_at_a_server() else { return };
        let (probe, before) =
            (in_flight.is_probe(), self.server(server).live.breaker.change(|breaker| breaker.clone()));
        drop(in_flight);
        let after = self.server(server).live.breaker.change(|breaker| breaker.clone());
        let same = (before.state(), before.failures()) == (after.state(), after.failures());
        self.journal.promise("a client that leaves is no failure", same, || format!("{before:?} {after:?}"));
        if probe && before.state() == BreakerState::HalfOpen {
            self.journal.saw("probe lost");
            // Unless the slot it leaves goes to the next one at once, which is then the probe.
            let room = !after.excludes();
            self.journal.promise("a lost probe makes room for the next", room, || format!("{after:?}"));
        }
    }

    fn time_passes(&mut self) {
        self.now += Duration::from_secs(*[1, 5, 10, 30].choose(&mut self.random).unwrap());
        let state = |world: &Self| -> Vec<_> { world.pool().servers.iter().map(Server::breaker).collect() };
        let before = state(self);
        self.pool().tick(self.now);
        let half_open = Some(BreakerState::HalfOpen);
        for (before, after) in before.into_iter().zip(state(self)) {
            if before != after && after == half_open {
                self.journal.saw("half open");
            }
        }
    }

    fn limit_changes(&mut self) {
        self.limit = self.random.gen_range(1..4);
        self.journal.saw("limit changed");
        self.setup.load = load(self.limit, self.percent);
        self.reloads();
    }

    fn state_changes(&mut self) {
        let at = self.random.gen_range(0..self.setup.servers.len());
        self.setup.servers[at].state =
            *[ServerState::Ready, ServerState::Ready, ServerState::Drain, ServerState::Maint]
                .choose(&mut self.random)
                .unwrap();
        self.journal.note(format!("{:?}", self.setup.servers[at]));
        self.reloads();
    }

    fn reloads(&mut self) {
        self.proxy.reload(&self.setup, &self.metrics, |_| true);
        self.pool().take_effect();
        self.pool().tick(self.now);
    }

    /// What a selection must be, whatever else is the case.
    fn judges(&mut self, session: Option<&ResolvedSession>, choice: Choice) {
        let Some(home) = session.and_then(|session| session.home) else { return };
        let server = self.server(home);
        let serves = server.state() != ServerState::Maint && !server.live.breaker.excludes();
        let kept = matches!(choice, Choice::To { server, outcome: Outcome::Kept, .. } if server == home);
        let promise = "a session goes nowhere else while its server may keep it";
        self.journal.promise(promise, serves == kept, || format!("{choice:?} at home {home}"));
    }

    /// What holds after every step.
    fn holds(&mut self) {
        let counted: Vec<_> =
            self.pool().servers.iter().filter(|one| one.weight() > 0 && one.state() == ServerState::Ready).collect();
        let ejected = counted.iter().filter(|one| one.breaker() != Some(BreakerState::Closed)).count();
        let most = counted.len() * usize::try_from(self.percent).unwrap() / 100;
        let told = format!("{ejected} of {}", counted.len());
        // A change of states is noticed by the next tick, which every reload has here.
        self.journal.promise("no more servers are ejected than may be", ejected <= most, || told);
        for index in 0..self.pool().servers.len() {
            let at = |request: &&Request| matches!(&request.place, Place::At(server, _) if *server == index);
            let here: Vec<_> = self.requests.iter().filter(at).collect();
            let probes =
                here.iter().filter(|one| matches!(&one.place, Place::At(_, flight) if flight.is_probe())).count();
            let (here, server) = (here.len(), &self.proxy.current.pool.servers[index]);
            let (state, in_flight, queued) = (server.breaker(), server.live.in_flight(), server.live.queued());
            let told =
                || format!("s{index}: {state:?}, {in_flight} in flight, {here} here, {probes} probes, {queued} queued");
            let one = state != Some(BreakerState::HalfOpen) || probes <= 1;
            self.journal.promise("one probe at a time while half-open", one, told);
            self.journal.promise("every request at a server has a slot, and no other", in_flight == here, told);
            let limit = usize::try_from(self.limit).unwrap();
            let busy = queued == 0 || in_flight >= limit || !server.condition().accepts_bound();
            self.journal.promise("no request waits for a server that has room", busy, told);
        }
    }

    /// All requests end, and nothing is left of them.
    fn empties(&mut self) {
        while !self.requests.is_empty() {
            let ended = self.requests.remove(0);
            if let Place::Queue(of, number, _) = &ended.place {
                let (of, number) = (*of, *number);
                self.queue(of).retain(|one| *one != number);
            }
            drop(ended);
            self.turns();
        }
        let left: usize = self.pool().servers.iter().map(|one| one.live.in_flight() + one.live.queued()).sum();
        let empty = left == 0 && self.pool().queue.is_empty();
        self.journal.promise("every slot is given back in the end", empty, || format!("{left}"));
    }
}

fn load(limit: u32, percent: u32) -> String {
    format!(
        "    limits: {{ max_requests_per_server: {limit}, max_queued: 6 }}\n    circuit_breaker: {{ consecutive_failures: 2, \
         ejection_time: 10s, max_ejection_time: 30s, max_ejected_percent: {percent}, failure_status: [503] }}\n"
    )
}

#[test]
fn breakers_and_queues_keep_every_promise_in_every_world() {
    let wanted: Option<u64> = std::env::var("SIM_SEED").ok().map(|seed| seed.parse().expect("SIM_SEED is a number"));
    let seeds = wanted.map_or(0..48, |seed| seed..seed + 1);
    let mut seen = BTreeMap::<&str, usize>::new();
    for seed in seeds {
        let mut world = World::new(seed);
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
