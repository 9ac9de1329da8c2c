//! One request on its way through a proxy with a shared store: `src/proxy/shared.rs`, `follow.rs` and `learn.rs` in their
//! order, with the library's own calls.

use std::rc::Rc;
use std::time::Duration;

use homing::persistence::Outcome;
use homing::persistence::resolve::{IdentifiedBy, ResolvedSession, UnboundKey, recognize, store_queries};
use homing::persistence::select::{Choice, FailureKind, History, Placement, choose};
use homing::pool::ServerIndex;
use homing::session::binding::{Binding, Lookup};
use homing::session::key::{SessionId, SessionKey};
use homing::session::source::SessionClaim;
use homing::session::token::Token;
use homing::store::TableLookup;
use homing::store::engine::Kind;
use homing::store::shared::Move;
use tokio::time::{Instant, sleep};

use super::node::{Node, TIMEOUT};
use super::world::World;
use crate::proxy::Version;
use crate::request::Behaviour;

/// What the server that answers does to the session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Does {
    /// Hands the client's id out again, though it came with it.
    pub calls_its_own: bool,
    /// Ends the session.
    pub ends: bool,
}

/// How it went.
#[derive(Debug, Default)]
pub struct Served {
    /// `None`: no server served it.
    pub by: Option<String>,
    pub outcome: Option<Outcome>,
    pub session: Option<ResolvedSession>,
    /// For the client.
    pub token: Option<Token>,
    pub id: Option<SessionKey>,
    pub ended: bool,
}

struct Request<'a> {
    world: &'a World,
    node: &'a Node,
    version: Rc<Version>,
    now: homing::session::token::UnixMillis,
    unanswered: bool,
    history: History,
    session: Option<ResolvedSession>,
    unbound: Option<UnboundKey>,
    outcome: Option<Outcome>,
}

/// From its arrival to its answer.
pub async fn serve(world: &World, node: &Node, claim: &SessionClaim, does: Does) -> Served {
    let (version, now) = (node.version(), node.now());
    let mut request = Request {
        world,
        node,
        version,
        now,
        unanswered: false,
        history: History::default(),
        session: None,
        unbound: None,
        outcome: None,
    };
    request.arrive(claim).await;
    let Some(server) = request.find_server().await else {
        return Served { outcome: request.outcome, session: request.session, ..Served::default() };
    };
    request.answered(server, claim, does).await
}

impl Request<'_> {
    /// Waits for the store, unless it did not answer this request before.
    async fn waits<T, E>(&mut self, at_most: u32, asked: impl Future<Output = Result<T, E>>) {
        assert!(!self.unanswered, "a request waits once");
        let began = Instant::now();
        let failed = asked.await.is_err();
        let waited = began.elapsed();
        self.unanswered = failed;
        let promise = "a request waits for the store no longer than it may";
        self.world.promise(promise, waited <= TIMEOUT * at_most, || format!("{waited:?}"));
        if failed {
            self.world.saw("the store did not answer");
        }
    }

    /// `request_filter`: `shared::ask`, then `identify`.
    async fn arrive(&mut self, claim: &SessionClaim) {
        let (node, version) = (self.node, Rc::clone(&self.version));
        let pool_sessions = node.pool_sessions(&version);
        let all = store_queries(claim, &node.store, &pool_sessions, self.now);
        if !all.is_empty() {
            self.waits(1, node.store.query(&all, self.now)).await;
        }
        if let SessionClaim::Token { token, .. } = claim
            && let TableLookup::Live(known) = node.table.find(&token.session.into(), self.now)
            && known.epoch == token.epoch
            && node.table.target_at(known.target).is_some_and(|place| place.id() != token.server)
        {
            self.world.saw("token and table said two servers in one epoch");
        }
        let found = recognize(claim, &pool_sessions, self.now);
        if found.lookup == Lookup::Ended {
            self.world.saw("came back after its end");
        }
        (self.session, self.unbound) = (found.session, found.unbound);
    }

    /// `upstream_peer`, until a server takes the request.
    async fn find_server(&mut self) -> Option<ServerIndex> {
        let version = Rc::clone(&self.version);
        for _ in 0..20 {
            let spread = match self.unbound {
                Some(UnboundKey::Id(key)) => Placement::ByKey(key),
                _ => Placement::Balanced(b"any client"),
            };
            let choice =
                choose(&version.pool, Some(&version.policy), self.session.as_ref(), &self.history, spread, self.now);
            let (mut server, outcome) = match choice {
                Choice::To { server, outcome, .. } => (server, outcome),
                Choice::Hold(_) => {
                    self.history.held = true;
                    continue;
                }
                _ => return None,
            };
            self.outcome = Some(outcome);
            if let (None, Some(UnboundKey::Address(key))) = (&self.session, self.unbound) {
                match self.bind(key, server).await {
                    Some(to) => server = to,
                    None => continue,
                }
            }
            if self.history.failed.len() > version.pool.retries.attempts as usize {
                return None;
            }
            let latency = Duration::from_millis(self.world.draw(20));
            sleep(latency).await;
            match self.world.behaviour(version.name(server)) {
                Behaviour::Answers => return Some(server),
                Behaviour::Refuses => self.history.failed.push((server, FailureKind::Connect)),
                Behaviour::BreaksOff if self.outcome == Some(Outcome::Kept) => return None,
                Behaviour::BreaksOff => self.history.failed.push((server, FailureKind::BrokeOff)),
            }
        }
        None
    }

    /// `follow::bind`: the server, or `None` when the request has a session now.
    async fn bind(&mut self, address: SessionKey, chosen: ServerIndex) -> Option<ServerIndex> {
        let (node, version) = (self.node, Rc::clone(&self.version));
        let pool_sessions = node.pool_sessions(&version);
        let before = node.knows(address);
        if !self.unanswered {
            // Twice when the address was ended: a new session begins.
            self.waits(2, node.store.claim(address, &version.targets[chosen], self.now)).await;
            if before != node.knows(address) && node.knows(address).is_some_and(|(server, _)| !server.is_empty()) {
                self.world.saw("another proxy was first to bind it");
            }
        }
        let theirs = pool_sessions.claim(address, chosen, self.now);
        if self.unanswered {
            node.store.write_behind(address, Kind::Binding);
        }
        match theirs {
            Some(theirs) if theirs.home.is_some_and(|home| self.history.failure_of(home).is_none()) => {
                self.session = Some(theirs);
                None
            }
            Some(theirs) => {
                let next = version.pool.pick_moved(&address.to_bytes(), &self.history.servers()).unwrap_or(chosen);
                self.session = Some(theirs);
                self.settle(next).await.then(|| self.begin(next))
            }
            None => {
                if before.is_some() {
                    self.world.saw("an ended session was begun again");
                }
                Some(self.begin(chosen))
            }
        }
    }

    fn begin(&mut self, chosen: ServerIndex) -> ServerIndex {
        self.session = None;
        self.outcome = Some(Outcome::New);
        chosen
    }

    /// `shared::settle`.
    async fn settle(&mut self, chosen: ServerIndex) -> bool {
        let (node, version) = (self.node, Rc::clone(&self.version));
        let Some(mut session) = self.session.take() else { return false };
        let before = session.binding.epoch;
        if !self.unanswered {
            let (epoch, to) = (before.saturating_add(1), &version.targets[chosen]);
            let one = Move { key: session.key, to, epoch, created: session.binding.created, moved_header: None };
            self.waits(1, node.store.rebind(one, self.now)).await;
        }
        let moved = session.settle(chosen, &node.pool_sessions(&version), self.now);
        if moved && self.unanswered {
            node.store.write_behind(session.key, Kind::Binding);
            self.world.saw("a move that the store was not told of");
        }
        if !moved && session.home != Some(chosen) {
            self.world.saw("another proxy was first to move it");
        }
        self.session = Some(session);
        moved
    }

    /// `upstream_response_filter` and `response_filter`.
    async fn answered(mut self, server: ServerIndex, claim: &SessionClaim, does: Does) -> Served {
        let by = self.version.name(server).to_owned();
        if self.outcome == Some(Outcome::Moved) {
            self.settle(server).await;
        }
        let ended = self.ends(does);
        let id = if ended { None } else { self.learns(server, claim, does).await };
        let token = if ended { None } else { self.token(server, claim) };
        self.world.saw(self.outcome.map_or("went tombstone", Outcome::label));
        Served { by: Some(by), outcome: self.outcome, session: self.session, token, id, ended }
    }

    fn ends(&self, does: Does) -> bool {
        let version = Rc::clone(&self.version);
        let Some(session) = self.session.as_ref().filter(|_| does.ends) else { return false };
        session.end(&self.node.pool_sessions(&version), self.now);
        self.world.saw("ended");
        true
    }

    /// A client without an id is handed one; and some ids are called a server's own once more. Returns what the client is
    /// to keep.
    async fn learns(&mut self, server: ServerIndex, claim: &SessionClaim, does: Does) -> Option<SessionKey> {
        let id = match claim {
            SessionClaim::Nothing => self.world.new_id(),
            SessionClaim::Ids(ids) if does.calls_its_own => ids[0].key,
            _ => return None,
        };
        let (node, place) = (self.node, &self.version.targets[server]);
        let brought =
            self.session.as_ref().filter(|session| session.identified_by == IdentifiedBy::Id && session.key == id);
        let guest = self.outcome == Some(Outcome::Borrowed);
        if brought.is_some_and(|session| session.binding.server == place.id() || guest) {
            return Some(id);
        }
        if node.knows(id).is_some_and(|(server, _)| server.is_empty()) {
            self.world.saw("an ended session was begun again");
        }
        if node.table.assign(id, place, self.now) {
            if self.unanswered {
                node.store.assign_behind(id);
            } else {
                // What it could not be told it is told later.
                let _ = node.store.assign(id, place, self.now).await;
            }
        }
        Some(id)
    }

    fn token(&self, server: ServerIndex, claim: &SessionClaim) -> Option<Token> {
        match (&self.session, claim) {
            (Some(session), _) => session.token_to_give(&self.version.limits, self.now).map(|(token, _)| token),
            (None, SessionClaim::OtherPool | SessionClaim::Token { .. }) => {
                let session = SessionId::from_random(self.world.new_id().to_bytes());
                Some(Binding::new(self.version.pool.servers[server].id, self.now).token(session, self.now))
            }
            _ => None,
        }
    }
}
