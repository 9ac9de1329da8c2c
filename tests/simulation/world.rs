//! A world of proxies, servers and clients, in which anything happens that may.

use std::collections::{BTreeMap, VecDeque};

use homing::config::ServerState;
use homing::pool::condition::Health;
use homing::session::token::UnixMillis;
use homing::telemetry::metrics::Metrics;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use crate::journal::Journal;
use crate::proxy::Proxy;
use crate::request::{Around, Behaviour, End, Request, Truth};
use crate::rules::Ledger;
use crate::setup::Setup;

/// Steps of a run.
pub const STEPS: usize = 64;
const CLIENTS: usize = 8;

/// A client with a cookie jar.
#[derive(Default, Clone)]
pub struct Client {
    pub cookie: Option<String>,
    /// Cookies it had, the newest last.
    pub old: VecDeque<String>,
    /// Cookies for it do not arrive.
    pub keeps_none: bool,
}

impl Client {
    fn takes(&mut self, token: String) {
        if self.keeps_none {
            return;
        }
        if let Some(old) = self.cookie.replace(token) {
            self.old.push_back(old);
            if self.old.len() > 5 {
                self.old.pop_front();
            }
        }
    }
}

/// Everything.
pub struct World {
    pub setup: Setup,
    pub now: UnixMillis,
    pub proxies: Vec<Proxy>,
    pub truth: Truth,
    pub clients: Vec<Client>,
    pub ledger: Ledger,
    pub journal: Journal,
    pub random: StdRng,
    metrics: Metrics,
}

/// A whole second, so that nothing is lost in clocks of seconds and tenths.
const START: UnixMillis = UnixMillis(1_790_000_000_000);

impl World {
    pub fn random(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let setup = Setup::random(seed, &mut random);
        let proxies = random.gen_range(1..=2);
        let mut world = Self::new(seed, setup, proxies, CLIENTS);
        world.random = random;
        world.clients[0].keeps_none = true;
        world.ledger.once_each = proxies == 1 && world.setup.capacity > CLIENTS * STEPS;
        world
    }

    pub fn new(seed: u64, setup: Setup, proxies: usize, clients: usize) -> Self {
        let metrics = Metrics::new().unwrap();
        let mut journal = Journal::new(seed);
        journal.note(format!("{proxies} proxies of {setup:?}"));
        Self {
            proxies: (0..proxies).map(|number| Proxy::start(number, &setup, &metrics, START, |_| true)).collect(),
            truth: Truth::new(),
            clients: vec![Client::default(); clients],
            ledger: Ledger::default(),
            random: StdRng::seed_from_u64(seed),
            now: START,
            setup,
            journal,
            metrics,
        }
    }

    /// A whole life of this world.
    pub fn run(&mut self) {
        for step in 0..STEPS {
            self.journal.step = step;
            self.happens();
            self.proxies.iter().for_each(|proxy| proxy.observe_drains(self.now));
        }
        self.journal.step = STEPS;
        self.calms_down();
    }

    fn happens(&mut self) {
        match self.random.gen_range(0..100) {
            0..45 => self.visits(1),
            45..57 => self.visits(3),
            57..60 => self.views_differ(),
            60..64 => self.replays(),
            64..66 => self.forges(),
            66..68 => self.loses_cookie(),
            68..74 => self.time_passes(),
            74..80 => self.server_changes(),
            80..87 => self.checks_say_the_truth(),
            87..89 => self.checks_say_something(),
            89..93 => self.operator_edits(),
            93..95 => self.reloads(),
            95..99 => self.sweeps(),
            _ => self.restarts(),
        }
    }

    /// One client sends this many requests at once, and meanwhile something may happen.
    fn visits(&mut self, requests: usize) {
        let client = self.random.gen_range(0..self.clients.len());
        self.visits_of(client, requests, 4);
    }

    /// One server is found down by all, and one proxy sees but one that is well; meanwhile clients are at both.
    fn views_differ(&mut self) {
        let mut names: Vec<_> = self.setup.servers.iter().map(|server| server.name.clone()).collect();
        names.shuffle(&mut self.random);
        self.journal.note(format!("all find {:?} down, proxy 0 all but the last of {names:?}", names.first()));
        for at in 0..self.proxies.len() {
            let down = if at == 0 { names.len() - 1 } else { 1 };
            for name in names.iter().take(down) {
                self.check(at, name, Health::Down);
            }
        }
        for client in 1..self.clients.len() {
            self.visits_of(client, 3, 1);
        }
    }

    /// One in `astray` of them goes to any proxy, the others to one.
    fn visits_of(&mut self, client: usize, requests: usize, astray: u32) {
        let cookie = self.clients[client].cookie.clone();
        let proxy = self.random.gen_range(0..self.proxies.len());
        let mut all: Vec<_> = (0..requests)
            .map(|_| {
                let proxy =
                    if self.random.gen_ratio(1, astray) { self.random.gen_range(0..self.proxies.len()) } else { proxy };
                let idempotent = self.random.gen_ratio(2, 3);
                Request::new(client, &self.proxies[proxy], cookie.clone(), self.now, idempotent)
            })
            .collect();
        let before: Vec<_> = self.proxies.iter().map(|proxy| proxy.table.len()).collect();
        let calm = self.serves(&mut all);
        self.parallel_requests_end_together(&all, calm);
        if cookie.is_none() {
            self.leaves_no_entry(&before);
        }
    }

    /// Serves requests step by step, in any order. Returns whether nothing happened meanwhile.
    pub fn serves(&mut self, requests: &mut [Request]) -> bool {
        let mut calm = true;
        let mut open: Vec<usize> = (0..requests.len()).collect();
        while !open.is_empty() {
            let at = self.random.gen_range(0..open.len());
            let request = &mut requests[open[at]];
            if !request.step(&mut self.around()) {
                let client = request.client;
                if request.clears_token {
                    self.clients[client].cookie = None;
                }
                if let Some(End::Answered { token: Some(token), .. }) = &request.end {
                    self.clients[client].takes(token.clone());
                }
                open.swap_remove(at);
            }
            if requests.len() > 1 && self.random.gen_ratio(1, 20) {
                calm = false;
                match self.random.gen_range(0..3) {
                    0 => self.server_changes(),
                    1 => self.checks_say_the_truth(),
                    _ => self.operator_edits(),
                }
            }
        }
        calm
    }

    fn around(&mut self) -> Around<'_> {
        Around {
            proxies: &self.proxies,
            truth: &mut self.truth,
            ledger: &mut self.ledger,
            journal: &mut self.journal,
            random: &mut self.random,
        }
    }

    fn parallel_requests_end_together(&mut self, requests: &[Request], calm: bool) {
        let evicts = self.setup.capacity <= CLIENTS * STEPS;
        if !calm || evicts || requests.len() < 2 || requests.iter().any(|request| request.history.held) {
            return;
        }
        let mut ends = BTreeMap::new();
        for request in requests {
            let Some(End::Answered { server, .. }) = &request.end else { continue };
            let Some(session) = &request.session else { continue };
            let ends = ends.entry((request.proxy, session.key.0)).or_insert_with(Vec::new);
            ends.push((session.binding.epoch, session.binding.server, server.clone()));
        }
        for ends in ends.values() {
            let together = ends.iter().all(|end| *end == ends[0]);
            let promise = "parallel requests of one session end on one server";
            self.journal.promise(promise, together, || format!("{ends:?}"));
        }
    }

    fn leaves_no_entry(&mut self, before: &[usize]) {
        let now: Vec<_> = self.proxies.iter().map(|proxy| proxy.table.len()).collect();
        let promise = "a client without a cookie leaves no entry";
        self.journal.promise(promise, now == before, || format!("{before:?} entries became {now:?}"));
    }

    /// A client sends an old cookie, and accepts the response or not.
    fn replays(&mut self) {
        let client = self.random.gen_range(0..self.clients.len());
        let Some(old) = self.clients[client].old.iter().next().cloned() else { return };
        self.journal.note(format!("client {client} replays an old token"));
        self.journal.saw("replayed");
        let proxy = self.random.gen_range(0..self.proxies.len());
        let mut request = Request::new(client, &self.proxies[proxy], Some(old), self.now, true);
        while request.step(&mut self.around()) {}
        if let Some(End::Answered { token: Some(token), .. }) = request.end
            && self.random.gen_ratio(1, 2)
        {
            self.clients[client].takes(token);
        }
    }

    fn forges(&mut self) {
        let client = self.random.gen_range(0..self.clients.len());
        let Some(cookie) = self.clients[client].cookie.clone() else { return };
        let mut bytes = cookie.into_bytes();
        let at = self.random.gen_range(0..bytes.len());
        let other = *b"ABCDwxyz0189-_"
            .iter()
            .filter(|byte| **byte != bytes[at])
            .collect::<Vec<_>>()
            .choose(&mut self.random)
            .unwrap();
        bytes[at] = *other;
        let proxy = self.random.gen_range(0..self.proxies.len());
        let forged = String::from_utf8(bytes).unwrap();
        let mut request = Request::new(client, &self.proxies[proxy], Some(forged), self.now, true);
        while request.step(&mut self.around()) {}
        let promise = "a changed token names no session";
        self.journal.promise(promise, request.session.is_none(), || format!("byte {at} changed"));
    }

    fn loses_cookie(&mut self) {
        let client = self.random.gen_range(0..self.clients.len());
        self.clients[client] = Client { keeps_none: client == 0, ..Client::default() };
    }

    fn time_passes(&mut self) {
        let idle = self.setup.idle_secs;
        let seconds = *[1, 1, 1, idle / 4, idle / 4, idle / 2, idle - 1, idle].choose(&mut self.random).unwrap();
        self.now = UnixMillis(self.now.0 + seconds * 1000);
        self.journal.note(format!("{seconds} s pass"));
    }

    fn server_changes(&mut self) {
        let Some(server) = self.setup.servers.choose(&mut self.random) else { return };
        let name = server.name.clone();
        let all = [Behaviour::Answers, Behaviour::Answers, Behaviour::Refuses, Behaviour::BreaksOff];
        let behaviour = *all.choose(&mut self.random).unwrap();
        self.journal.note(format!("{name} {behaviour:?}"));
        if self.truth.insert(name.clone(), behaviour) != Some(Behaviour::Refuses) && behaviour == Behaviour::Refuses {
            self.ledger.outage(&name);
        }
    }

    fn checks_say_the_truth(&mut self) {
        let at = self.random.gen_range(0..self.proxies.len());
        self.journal.note(format!("proxy {at} checks its servers"));
        let names: Vec<_> = self.setup.servers.iter().map(|server| server.name.clone()).collect();
        for name in names {
            let verdict = if well(&self.truth, &name) { Health::Up } else { Health::Down };
            self.check(at, &name, verdict);
        }
    }

    fn checks_say_something(&mut self) {
        let at = self.random.gen_range(0..self.proxies.len());
        let Some(server) = self.setup.servers.choose(&mut self.random) else { return };
        let name = server.name.clone();
        let verdict = *[Health::Down, Health::Draining].choose(&mut self.random).unwrap();
        self.journal.note(format!("proxy {at} finds {name} {verdict:?}"));
        self.check(at, &name, verdict);
    }

    fn check(&mut self, at: usize, name: &str, verdict: Health) {
        if self.proxies[at].current.verdict(name) != verdict && verdict != Health::Up {
            self.ledger.outage(name);
        }
        self.proxies[at].check(name, verdict);
    }

    fn operator_edits(&mut self) {
        let told = self.setup.edit(&mut self.random);
        self.journal.note(format!("the operator: {told}"));
        if self.random.gen_ratio(3, 4) {
            for at in 0..self.proxies.len() {
                self.reload(at);
            }
        }
    }

    fn reloads(&mut self) {
        let at = self.random.gen_range(0..self.proxies.len());
        self.reload(at);
    }

    pub fn reload(&mut self, at: usize) {
        let former = std::rc::Rc::clone(&self.proxies[at].current);
        let truth = &self.truth;
        self.proxies[at].reload(&self.setup, &self.metrics, |name| well(truth, name));
        let current = std::rc::Rc::clone(&self.proxies[at].current);
        // Gone, or taken away: an outage for its sessions.
        for before in &former.setup.servers {
            let state = current.written(&before.name).map(|server| server.state);
            if state.is_none_or(|state| state != before.state && state != ServerState::Ready) {
                self.ledger.outage(&before.name);
            }
        }
        // A server that is new begins with a verdict.
        for server in &current.setup.servers {
            if former.written(&server.name).is_none() && !current.keeps(server) {
                self.ledger.outage(&server.name);
            }
        }
        self.journal.note(format!("proxy {at} reloads"));
    }

    fn sweeps(&mut self) {
        for proxy in &self.proxies {
            for _ in 0..proxy.table.shards() {
                proxy.table.sweep_step(self.now);
            }
        }
    }

    fn restarts(&mut self) {
        let all = self.random.gen_ratio(1, 2);
        let one = self.random.gen_range(0..self.proxies.len());
        for at in 0..self.proxies.len() {
            if all || at == one {
                self.restart(at);
            }
        }
    }

    pub fn restart(&mut self, at: usize) {
        self.journal.note(format!("proxy {at} restarts"));
        let truth = &self.truth;
        self.proxies[at] = Proxy::start(at, &self.setup, &self.metrics, self.now, |name| well(truth, name));
        self.ledger.forget();
    }

    /// Faults end, and all proxies see the same.
    pub fn heals(&mut self) {
        self.truth.clear();
        for server in &mut self.setup.servers {
            (server.state, server.weight) = (ServerState::Ready, server.weight.max(1));
        }
        for at in 0..self.proxies.len() {
            self.reload(at);
            self.proxies[at].check_all(|_| true);
        }
    }

    /// A request of a client, served at once; where it was served.
    pub fn visit(&mut self, client: usize, proxy: usize) -> (Request, Option<String>) {
        let cookie = self.clients[client].cookie.clone();
        let mut requests = [Request::new(client, &self.proxies[proxy], cookie, self.now, true)];
        self.serves(&mut requests);
        let [request] = requests;
        let served = match &request.end {
            Some(End::Answered { server, .. }) => Some(server.clone()),
            _ => None,
        };
        (request, served)
    }

    /// Whatever was, one more request at each later both proxies and the client agree.
    fn calms_down(&mut self) {
        self.heals();
        self.journal.note("all is well again");
        for client in 1..self.clients.len() {
            let first = self.random.gen_range(0..self.proxies.len());
            self.visit(client, first);
            // An answer that was overtaken may have left it with a token of before its move; the other proxy knows better.
            let (_, agreed) = self.visit(client, self.proxies.len() - 1 - first);
            let moved = self.journal.seen.get("moved").copied();
            for round in 0..4 {
                let (request, served) = self.visit(client, round % self.proxies.len());
                let stays = served.is_some() && served == agreed && request.home() == served.as_deref();
                let promise = "after the faults all proxies and the client agree";
                self.journal.promise(promise, stays, || format!("client {client}: {served:?}, not {agreed:?}"));
            }
            let still = moved == self.journal.seen.get("moved").copied();
            self.journal.promise("no session moves when nothing fails", still, || format!("client {client}"));
        }
    }
}

fn well(truth: &Truth, name: &str) -> bool {
    truth.get(name) != Some(&Behaviour::Refuses)
}
