//! Three proxies, one store, and clients of each kind.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use homing::config::{Balance, OnServerDown, OnServerDrain};
use homing::persistence::Outcome;
use homing::pool::condition::Health;
use homing::session::key::SessionKey;
use homing::session::source::{ExternalId, SessionClaim};
use homing::session::token::Token;
use homing::store::engine::record::BindingRecord;
use homing::store::engine::{Kind, Name};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::sleep;

use super::agreement::Ledger;
use super::node::{Knows, MOST_NODES, NEAR_TTL, Node, set_clocks};
use super::request::{Does, Served, serve};
use crate::engine::Shared;
use crate::journal::Journal;
use crate::request::{Behaviour, Truth};
use crate::setup::{POOL, Setup};

const STEPS: usize = 64;
const CLIENTS: usize = 9;
pub const IDLE_SECS: u64 = 120;

/// By what its requests name their session.
#[derive(Debug, Clone, Copy)]
pub enum Client {
    Token(Option<Token>),
    Id(Option<SessionKey>),
    Address(SessionKey),
}

impl Client {
    fn claim(&self) -> SessionClaim {
        let named = |key| ExternalId { key, former: std::iter::empty().collect() };
        match self {
            Self::Token(Some(token)) => SessionClaim::Token { token: *token, sealed_by_first: true },
            // Here: a client that will take a token, as `Nobody` is one that will take an id.
            Self::Token(None) => SessionClaim::OtherPool,
            Self::Id(Some(key)) => SessionClaim::Ids(std::iter::once(named(*key)).collect()),
            Self::Id(None) => SessionClaim::Nothing,
            Self::Address(key) => SessionClaim::Address(named(*key)),
        }
    }

    pub fn key(&self) -> Option<SessionKey> {
        match self {
            Self::Token(token) => token.map(|token| token.session.into()),
            Self::Id(id) => *id,
            Self::Address(key) => Some(*key),
        }
    }
}

/// Everything.
pub struct World {
    pub shared: Arc<Shared>,
    pub nodes: RefCell<Vec<Rc<Node>>>,
    pub clients: RefCell<Vec<Client>>,
    pub truth: RefCell<Truth>,
    pub setup: RefCell<Setup>,
    pub random: RefCell<StdRng>,
    pub ledger: RefCell<Ledger>,
    journal: RefCell<Journal>,
    announces: bool,
    /// Servers fail too.
    servers_fail: bool,
    starts: RefCell<u32>,
}

impl World {
    /// A whole life of a world.
    pub fn lives(seed: u64) -> Journal {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let world = Self::new(seed);
            for step in 0..STEPS {
                world.journal.borrow_mut().step = step;
                world.happens().await;
                world.epochs_rise();
            }
            world.journal.borrow_mut().step = STEPS;
            world.calms_down().await;
            world.journal.into_inner()
        })
    }

    pub fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        set_clocks(std::array::from_fn(|_| random.gen_range(0..2_000)));
        let mut setup = Setup::plain(&[1, 1, 2, 1]);
        setup.balance = if seed.is_multiple_of(2) { Balance::RoundRobin } else { Balance::Hash };
        setup.down = if seed % 8 == 5 { OnServerDown::Borrow } else { OnServerDown::Reassign };
        setup.drain = if seed % 3 == 1 { OnServerDrain::Reassign } else { OnServerDrain::Keep };
        setup.idle_secs = IDLE_SECS;
        setup.absolute_secs = if seed % 4 == 2 { 150 } else { 3600 };
        let clients = (0..CLIENTS).map(|n| match n % 3 {
            0 => Client::Token(None),
            1 => Client::Id(None),
            _ => Client::Address(SessionKey(random.r#gen())),
        });
        let world = Self {
            clients: RefCell::new(clients.collect()),
            shared: Arc::default(),
            nodes: RefCell::default(),
            truth: RefCell::default(),
            setup: RefCell::new(setup),
            ledger: RefCell::default(),
            journal: RefCell::new(Journal::new(seed)),
            announces: seed % 4 != 3,
            servers_fail: !seed.is_multiple_of(4),
            starts: RefCell::new(0),
            random: RefCell::new(random),
        };
        for number in 0..MOST_NODES {
            let node = world.start(number);
            world.nodes.borrow_mut().push(node);
        }
        world
    }

    fn start(&self, number: usize) -> Rc<Node> {
        *self.starts.borrow_mut() += 1;
        let setup = self.setup.borrow();
        let node = Node::start(number, *self.starts.borrow(), &setup, &self.shared, self.announces);
        for server in &setup.servers {
            let down = self.behaviour(&server.name) == Behaviour::Refuses;
            node.check(&server.name, if down { Health::Down } else { Health::Up });
        }
        Rc::new(node)
    }

    async fn happens(&self) {
        match self.draw(100) {
            0..31 => self.visits(1).await,
            31..36 => self.begins_new_session().await,
            36..48 => self.visits(3).await,
            48..54 if self.servers_fail => self.views_differ(self.ratio(1, 3)).await,
            48..54 => self.visits(3).await,
            54..62 => self.time_passes().await,
            62..71 => self.store_fails(),
            71..77 => self.store_heals(),
            77..79 => self.store_is_emptied(),
            79..81 => self.restarts(),
            81..89 if self.servers_fail => self.server_changes(),
            89..95 if self.servers_fail => self.checks(),
            95..98 if self.servers_fail => self.checks_all(),
            98..100 if self.servers_fail => self.drains(),
            _ => self.visits(2).await,
        }
    }

    fn restarts(&self) {
        let at = self.draw_at(MOST_NODES);
        self.note(format!("proxy {at} restarts"));
        self.saw("a proxy restarted");
        self.node(at).dies(&self.shared);
        self.ledger.borrow_mut().proxy_forgot(at);
        let node = self.start(at);
        self.nodes.borrow_mut()[at] = node;
    }

    async fn time_passes(&self) {
        let seconds = [1, 1, 2, 6, 8, 20][self.draw_at(6)];
        self.note(format!("{seconds} s pass"));
        sleep(Duration::from_secs(seconds)).await;
    }

    /// One server is found down by all, and each proxy finds others down too; meanwhile clients are everywhere.
    async fn views_differ(&self, alone: bool) {
        let (one, share) = (self.any_server(), [0, 0, 1, 2][self.draw_at(4)]);
        self.note(format!("all find {one} down, and each others too; without the store: {alone}"));
        if alone {
            self.nodes.borrow().iter().for_each(|node| node.link.breaks());
        }
        let names: Vec<_> = self.setup.borrow().servers.iter().map(|server| server.name.clone()).collect();
        for (at, name) in (0..MOST_NODES).flat_map(|at| names.iter().map(move |name| (at, name))) {
            let down = *name == one || self.ratio(1, 2);
            self.node(at).check(name, if down { Health::Down } else { Health::Up });
        }
        for client in (0..CLIENTS).filter(|client| client % 3 == share) {
            self.visits_of(client, 4).await;
            self.visits_of(client, 2).await;
        }
    }

    /// A client with an empty jar, or from another address, opens several connections at once.
    async fn begins_new_session(&self) {
        let client = self.draw_at(CLIENTS);
        self.note(format!("client {client} begins a new session"));
        let jar = match self.clients.borrow()[client] {
            Client::Token(_) => Client::Token(None),
            Client::Id(_) => Client::Id(None),
            Client::Address(_) => Client::Address(self.new_id()),
        };
        self.clients.borrow_mut()[client] = jar;
        self.visits_of(client, 4).await;
    }

    async fn visits(&self, requests: usize) {
        self.visits_of(self.draw_at(CLIENTS), requests).await;
    }

    /// One client sends this many requests at once, each to any proxy.
    async fn visits_of(&self, client: usize, requests: usize) {
        let all = (0..requests).map(|_| {
            let does = Does { calls_its_own: self.ratio(1, 8), ends: self.ratio(1, 24) };
            (self.draw_at(MOST_NODES), does, self.draw(4) * self.draw(10))
        });
        let all: Vec<_> = all.collect();
        join_all(all.into_iter().map(|(at, does, after)| async move {
            sleep(Duration::from_millis(after)).await;
            self.visit(client, at, does).await
        }))
        .await;
    }

    /// A request of a client, and what the client takes of its answer.
    pub async fn visit(&self, client: usize, at: usize, does: Does) -> Served {
        let mut jar = self.clients.borrow()[client];
        let node = self.node(at);
        let served = serve(self, &node, &jar.claim(), does).await;
        self.note(format!(
            "client {client} at {at}: {:?} by {:?}, now {:?}{}",
            served.outcome,
            served.by,
            served.session.as_ref().map(|session| (session.home, session.binding.epoch)),
            if served.ended { ", ended" } else { "" }
        ));
        if !self.servers_fail {
            self.promise("nothing is refused because of the store", served.by.is_some(), || format!("{served:?}"));
            let moved = served.outcome == Some(Outcome::Moved);
            self.promise("no session moves because the store died", !moved, || format!("{served:?}"));
        }
        if let (Client::Token(Some(before)), Some(token)) = (jar, served.token) {
            let rises = before.session != token.session || before.epoch <= token.epoch;
            self.promise("an epoch never falls in the client's hand", rises, || format!("{before:?} {token:?}"));
        }
        match &mut jar {
            Client::Token(token) => *token = served.token.or(*token),
            // Of parallel first requests the last id stays.
            Client::Id(id) => *id = served.id.or(*id).filter(|_| !served.ended || self.ratio(1, 2)),
            Client::Address(_) => {}
        }
        if served.token.is_some() || served.id.is_some() || served.ended {
            self.clients.borrow_mut()[client] = jar;
        }
        served
    }

    /// The faults end: all servers are well, and all proxies reach the store and see the same.
    async fn calms_down(&self) {
        // The worst moment: other proxies do not know of these moves yet.
        if self.servers_fail {
            self.views_differ(true).await;
        }
        self.note("all is well again");
        self.truth.borrow_mut().clear();
        for server in &mut self.setup.borrow_mut().servers {
            server.state = homing::config::ServerState::Ready;
        }
        for node in &*self.nodes.borrow() {
            node.reload(&self.setup.borrow());
        }
        self.checks_all();
        for at in 0..MOST_NODES {
            self.link_heals(at);
        }
        // A breath for what is still under way.
        sleep(Duration::from_secs(1)).await;
        let known: Vec<_> = (0..CLIENTS).map(|client| self.proxies_that_know(client)).collect();
        for _ in 0..3 {
            for client in 0..CLIENTS {
                for at in 0..MOST_NODES {
                    self.visit(client, at, Does::default()).await;
                }
            }
            sleep(NEAR_TTL + Duration::from_secs(1)).await;
        }
        self.agree(&known).await;
    }

    pub fn node(&self, at: usize) -> Rc<Node> {
        Rc::clone(&self.nodes.borrow()[at])
    }

    fn record(&self, key: SessionKey) -> Option<BindingRecord> {
        BindingRecord::read(&self.shared.get(&Name::new(POOL, key, Kind::Binding))?)
    }

    /// Whether the store still holds a session past its absolute timeout: it may for a few seconds, without effect.
    pub fn has_lasted(&self, key: SessionKey) -> bool {
        let absolute = Duration::from_secs(self.setup.borrow().absolute_secs);
        self.record(key)
            .is_some_and(|record| self.node(0).now().since(record.created) + Duration::from_secs(3) > absolute)
    }

    /// What the store keeps.
    pub fn stored(&self, key: SessionKey) -> Option<Knows> {
        let record = self.record(key)?;
        Some((record.server.as_deref().unwrap_or_default().to_owned(), record.epoch))
    }

    pub fn behaviour(&self, name: &str) -> Behaviour {
        self.truth.borrow().get(name).copied().unwrap_or(Behaviour::Answers)
    }

    pub fn new_id(&self) -> SessionKey {
        SessionKey(self.random.borrow_mut().r#gen())
    }

    pub fn draw(&self, below: u64) -> u64 {
        self.random.borrow_mut().gen_range(0..below)
    }

    pub fn draw_at(&self, below: usize) -> usize {
        self.random.borrow_mut().gen_range(0..below)
    }

    pub fn ratio(&self, some: u32, of: u32) -> bool {
        self.random.borrow_mut().gen_ratio(some, of)
    }

    pub fn note(&self, line: impl AsRef<str>) {
        self.journal.borrow_mut().note(line);
    }

    pub fn saw(&self, what: &'static str) {
        self.journal.borrow_mut().saw(what);
    }

    pub fn promise(&self, promise: &'static str, holds: bool, how: impl FnOnce() -> String) {
        self.journal.borrow_mut().promise(promise, holds, how);
    }
}
