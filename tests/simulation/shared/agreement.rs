//! Invariants of a session across all its records: proxies, store and client.

use std::collections::{BTreeMap, BTreeSet};

use homing::persistence::Outcome;
use homing::session::key::{ServerId, SessionKey};
use homing::session::token::Token;

use super::node::{Knows, MOST_NODES};
use super::request::Does;
use super::world::{Client, World};

/// What was known of epochs before.
#[derive(Default)]
pub struct Ledger {
    /// By proxy.
    tables: BTreeMap<(usize, u128), u32>,
    store: BTreeMap<u128, Knows>,
    /// Of what the store has forgotten.
    forgotten: BTreeSet<u128>,
    /// And no announcement said that it has.
    unnoticed: bool,
}

impl Ledger {
    /// Unless they are `told`, proxies find that out with each session that comes to them again.
    pub fn store_forgot(&mut self, told: bool) {
        self.unnoticed |= !told;
        self.forgotten.extend(self.store.keys());
        self.store.clear();
    }

    pub fn proxy_forgot(&mut self, at: usize) {
        self.tables.retain(|(one, _), _| *one != at);
    }
}

/// The proxies that know a session that faults have left behind.
#[derive(Debug, Default)]
pub struct KnownBy {
    key: Option<SessionKey>,
    proxies: Vec<Option<Knows>>,
    store: Option<Knows>,
    token: Option<Knows>,
}

impl KnownBy {
    fn all(&self) -> impl Iterator<Item = &Knows> {
        self.proxies.iter().flatten().chain(&self.store).chain(&self.token)
    }
}

impl World {
    /// After each step.
    pub fn epochs_rise(&self) {
        let keys: Vec<_> = self.clients.borrow().iter().filter_map(Client::key).collect();
        for key in keys {
            let tables: Vec<_> = (0..MOST_NODES).map(|at| self.node(at).knows(key)).collect();
            for (at, now) in tables.iter().enumerate() {
                self.rises_in_table(at, key, now.as_ref());
            }
            self.rises_in_store(key);
            let known: Vec<_> = tables.iter().flatten().collect();
            let at_odds = |one: &Knows, other: &Knows| one.1 == other.1 && one.0 != other.0;
            if known.iter().any(|one| known.iter().any(|other| at_odds(one, other))) {
                self.saw("two proxies said two servers in one epoch");
            }
        }
    }

    fn rises_in_table(&self, at: usize, key: SessionKey, now: Option<&Knows>) {
        let mut ledger = self.ledger.borrow_mut();
        // An absent session has expired; a new one begins.
        let before = match now {
            Some((_, epoch)) => ledger.tables.insert((at, key.0), *epoch),
            None => ledger.tables.remove(&(at, key.0)),
        };
        drop(ledger);
        if let (Some(before), Some((_, epoch))) = (before, now) {
            self.promise("an epoch never falls", before <= *epoch, || format!("at {at} {before} became {now:?}"));
        }
    }

    fn rises_in_store(&self, key: SessionKey) {
        let mut ledger = self.ledger.borrow_mut();
        let now = self.stored(key);
        let before = match &now {
            Some(now) => ledger.store.insert(key.0, now.clone()),
            None => ledger.store.remove(&key.0),
        };
        let again = now.is_some() && ledger.forgotten.remove(&key.0);
        drop(ledger);
        if again {
            self.saw("what an emptied store had forgotten was told again");
        }
        if let (Some(before), Some(now)) = (before, &now) {
            let rises = before.1 < now.1 || before == *now;
            self.promise("an epoch never falls", rises, || format!("in the store {before:?} became {now:?}"));
        }
    }

    pub fn proxies_that_know(&self, client: usize) -> KnownBy {
        let jar = self.clients.borrow()[client];
        let Some(key) = jar.key() else { return KnownBy::default() };
        let known = KnownBy {
            key: Some(key),
            proxies: (0..MOST_NODES).map(|at| self.node(at).knows(key)).collect(),
            store: self.stored(key).filter(|_| !self.has_lasted(key)),
            token: if let Client::Token(token) = jar { token.map(|token| self.says(&token)) } else { None },
        };
        self.note(format!("client {client}: {known:?}"));
        known
    }

    fn says(&self, token: &Token) -> Knows {
        let setup = self.setup.borrow();
        let server = setup.servers.iter().find(|server| ServerId::of(&server.name) == token.server);
        (server.map(|server| server.name.clone()).unwrap_or_default(), token.epoch)
    }

    /// After recovery, when every client has used every proxy: no session has two servers, and none is lost.
    pub async fn agree(&self, known: &[KnownBy]) {
        for (client, known) in known.iter().enumerate() {
            let mut home = None;
            for at in (0..MOST_NODES).chain(0..MOST_NODES) {
                let served = self.visit(client, at, Does::default()).await;
                let home = home.get_or_insert_with(|| served.by.clone());
                let stays = served.by.is_some() && served.by == *home && served.outcome != Some(Outcome::Moved);
                let promise = "after the faults all proxies, the store and the client agree";
                self.promise(promise, stays, || format!("client {client} at {at}: {served:?}, not {home:?}"));
            }
            self.says_one_server(client, home.flatten().as_deref());
            self.comes_home(client, known);
        }
    }

    fn says_one_server(&self, client: usize, served: Option<&str>) {
        let now = self.proxies_that_know(client);
        let all: BTreeSet<_> = now.all().collect();
        let jar = self.clients.borrow()[client];
        let mut one = all.len() <= 1;
        if let Some((server, _)) = all.first() {
            one &= server.is_empty() || served == Some(server);
            one &= now.token.is_some() || now.store.is_some();
        }
        let promise = "after the faults all proxies, the store and the client agree";
        self.promise(promise, one, || format!("client {client} {jar:?} by {served:?}: {now:?}"));
    }

    fn comes_home(&self, client: usize, before: &KnownBy) {
        let now = self.proxies_that_know(client);
        let before_all: Vec<_> = before.all().collect();
        let Some(highest) = before_all.iter().map(|(_, epoch)| *epoch).max() else { return };
        let ended = before_all.iter().any(|(server, _)| server.is_empty());
        if ended || before.key != now.key {
            return;
        }
        let newest: BTreeSet<_> = before_all.iter().filter(|knows| knows.1 == highest).map(|knows| &knows.0).collect();
        let home = now.all().next().is_some_and(|(server, _)| newest.contains(server));
        let promise = "a session that a proxy knew comes home";
        let lasts = self.setup.borrow().absolute_secs > 150 && !self.ledger.borrow().unnoticed;
        self.promise(promise, !lasts || home, || format!("client {client} {before:?} became {now:?}"));
        if before.store.as_ref().is_some_and(|(_, epoch)| *epoch > 0) {
            self.saw("a decision was written when the store was back");
        }
    }
}
