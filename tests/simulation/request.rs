//! One request on its way through a proxy, step by step as the hooks of `src/proxy/` take it, with the same calls in the
//! same order. Between two steps of it anything may happen.

use std::collections::BTreeMap;
use std::rc::Rc;

use homing::persistence::resolve::{ResolvedSession, recognize};
use homing::persistence::select::{Choice, FailureKind, History, Placement, choose};
use homing::persistence::{Outcome, Reason};
use homing::pool::ServerIndex;
use homing::pool::live_state::InFlight;
use homing::session::binding::{Binding, Lookup};
use homing::session::key::SessionId;
use homing::session::source::SessionClaim;
use homing::session::token::{Token, UnixMillis};
use rand::rngs::StdRng;
use rand::{Rng, RngCore};

use crate::journal::Journal;
use crate::proxy::{Proxy, Version};
use crate::rules;
use crate::rules::Ledger;

/// How a server behaves, whatever the checks think.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    Answers,
    Refuses,
    BreaksOff,
}

/// All servers that ever were, by name.
pub type Truth = BTreeMap<String, Behaviour>;

/// How it went.
#[derive(Debug, Clone)]
pub enum End {
    /// By this server, with a token for the client when it was given one.
    Answered { server: String, token: Option<String> },
    /// Without an answer of a server.
    Failed(&'static str),
}

/// A request.
pub struct Request {
    pub client: usize,
    pub proxy: usize,
    pub version: Rc<Version>,
    pub now: UnixMillis,
    pub cookie: Option<String>,
    pub idempotent: bool,
    pub lookup: Lookup,
    pub session: Option<ResolvedSession>,
    pub history: History,
    /// Every server that it was sent to.
    pub sent_to: Vec<ServerIndex>,
    pub outcome: Option<Outcome>,
    pub reason: Option<Reason>,
    pub end: Option<End>,
    /// The client's token is worth nothing any more and is taken away.
    pub clears_token: bool,
    stage: Stage,
    in_flight: Option<InFlight>,
}

#[derive(Clone, Copy)]
enum Stage {
    Arrives,
    Chooses,
    Tries(ServerIndex),
}

/// What a step needs besides the request.
pub struct Around<'a> {
    pub proxies: &'a [Proxy],
    pub truth: &'a mut Truth,
    pub ledger: &'a mut Ledger,
    pub journal: &'a mut Journal,
    pub random: &'a mut StdRng,
}

impl Around<'_> {
    fn behaviour(&self, name: &str) -> Behaviour {
        self.truth.get(name).copied().unwrap_or(Behaviour::Answers)
    }
}

impl Request {
    pub fn new(client: usize, proxy: &Proxy, cookie: Option<String>, now: UnixMillis, idempotent: bool) -> Self {
        Self {
            client,
            proxy: proxy.number,
            version: Rc::clone(&proxy.current),
            now,
            cookie,
            idempotent,
            lookup: Lookup::None,
            session: None,
            history: History::default(),
            sent_to: Vec::new(),
            outcome: None,
            reason: None,
            end: None,
            clears_token: false,
            stage: Stage::Arrives,
            in_flight: None,
        }
    }

    pub fn home(&self) -> Option<&str> {
        let session = self.session.as_ref()?;
        self.version.written_by_id(session.binding.server).map(|server| &*server.name)
    }

    /// One step; true while there is more to do.
    pub fn step(&mut self, around: &mut Around<'_>) -> bool {
        match self.stage {
            Stage::Arrives => self.arrive(around),
            Stage::Chooses => self.choose(around),
            Stage::Tries(server) => self.attempt(server, around),
        }
        self.end.is_none()
    }

    /// `request_filter`.
    fn arrive(&mut self, around: &mut Around<'_>) {
        self.stage = Stage::Chooses;
        let Some(cookie) = &self.cookie else { return };
        let claim = SessionClaim::first_that_opens([cookie.as_bytes()].into_iter(), &self.version.codec);
        let table = &around.proxies[self.proxy].table;
        let before = match &claim {
            SessionClaim::Token { token, .. } => Some((*token, table.find(&token.session.into(), self.now))),
            _ => None,
        };
        let found = recognize(&claim, &self.version.pool_sessions(table), self.now);
        (self.lookup, self.session) = (found.lookup, found.session);
        if let Some((token, before)) = before {
            rules::recognised(self, &token, before, around);
        }
        rules::named(self, around);
    }

    /// `upstream_peer`.
    fn choose(&mut self, around: &mut Around<'_>) {
        self.in_flight = None;
        let version = Rc::clone(&self.version);
        let hash_key = self.client.to_le_bytes();
        let spread = Placement::Balanced(&hash_key);
        let choice =
            choose(&version.pool, Some(&version.policy), self.session.as_ref(), &self.history, spread, self.now);
        rules::chosen(self, choice, around);
        match choice {
            Choice::To { server, outcome, reason } => {
                (self.outcome, self.reason) = (Some(outcome), reason);
                self.begin_try(server, around);
            }
            Choice::Hold(home) => self.hold(home, around),
            Choice::Refuse(_) => {
                self.clears_token = true;
                self.outcome = Some(Outcome::Refused);
                self.end(End::Failed("refused"), around);
            }
            Choice::Fail => self.end(End::Failed("broke off"), around),
            Choice::NoServer { .. } => self.end(End::Failed("no server"), around),
        }
    }

    fn begin_try(&mut self, server: ServerIndex, around: &mut Around<'_>) {
        if self.history.failed.len() > self.version.pool.retries.attempts as usize {
            self.end(End::Failed("attempts exhausted"), around);
            return;
        }
        self.in_flight = Some(InFlight::begin(&self.version.pool.servers[server].live));
        self.sent_to.push(server);
        self.stage = Stage::Tries(server);
    }

    /// Time does not pass here, so chance says whether the server is back.
    fn hold(&mut self, home: ServerIndex, around: &mut Around<'_>) {
        self.history.held = true;
        let name = self.version.name(home).to_owned();
        let server = &self.version.pool.servers[home];
        around.journal.saw("held");
        if around.random.gen_ratio(1, 2) {
            around.truth.insert(name.clone(), Behaviour::Answers);
            around.proxies[self.proxy].check(&name, homing::pool::condition::Health::Up);
            around.journal.note(format!("{name} comes back while a request waits"));
        }
        if server.condition().accepts_bound() && around.behaviour(&name) != Behaviour::Refuses {
            self.history.failed.retain(|(failed, _)| *failed != home);
            self.sent_to.retain(|sent| *sent != home);
        }
    }

    /// The server's turn; `fail_to_connect`, `error_while_proxy` or `upstream_response_filter`.
    fn attempt(&mut self, server: ServerIndex, around: &mut Around<'_>) {
        let retries = self.version.pool.retries;
        match around.behaviour(self.version.name(server)) {
            Behaviour::Refuses => {
                self.history.failed.push((server, FailureKind::Connect));
                self.stage = Stage::Chooses;
                around.journal.saw("connect failed");
            }
            Behaviour::BreaksOff => {
                around.journal.saw("broke off");
                // A session's server is asked once more, and breaks off again.
                let bound = self.outcome == Some(Outcome::Kept);
                if !self.idempotent || bound || self.history.failed.len() >= retries.attempts as usize {
                    self.end(End::Failed("broke off"), around);
                    return;
                }
                self.history.failed.push((server, FailureKind::BrokeOff));
                self.stage = Stage::Chooses;
            }
            Behaviour::Answers => self.answered(server, around),
        }
        self.in_flight = None;
    }

    fn answered(&mut self, server: ServerIndex, around: &mut Around<'_>) {
        if self.outcome == Some(Outcome::Moved) {
            self.rebind(server, around);
        }
        let token = self.token_to_give(server, around).map(|token| {
            rules::given(self, &token, around);
            let mut nonce = [0; 24];
            around.random.fill_bytes(&mut nonce);
            self.version.codec.seal(&token, nonce).as_str().to_owned()
        });
        let server = self.version.name(server).to_owned();
        self.end(End::Answered { server, token }, around);
    }

    fn rebind(&mut self, server: ServerIndex, around: &mut Around<'_>) {
        let Some(mut session) = self.session.take() else { return };
        let before = session.binding;
        let table = &around.proxies[self.proxy].table;
        let known = table.find(&session.key, self.now);
        let moved = session.settle(server, &self.version.pool_sessions(table), self.now);
        self.session = Some(session);
        rules::settled(self, &before, known, moved, around);
    }

    fn token_to_give(&self, server: ServerIndex, around: &mut Around<'_>) -> Option<Token> {
        match (&self.session, self.outcome?) {
            (None, Outcome::New) => {
                let mut bytes = [0; 16];
                around.random.fill_bytes(&mut bytes);
                let session = SessionId::from_random(bytes);
                let binding = Binding::new(self.version.pool.servers[server].id, self.now);
                around.ledger.begins(session, &binding);
                Some(binding.token(session, self.now))
            }
            (Some(session), _) => session.token_to_give(&self.version.limits, self.now).map(|(token, _)| token),
            _ => None,
        }
    }

    fn end(&mut self, end: End, around: &mut Around<'_>) {
        self.in_flight = None;
        let told = match &end {
            End::Answered { server, token } => {
                format!("by {server}{}", if token.is_some() { ", with a token" } else { "" })
            }
            End::Failed(why) => format!("failed: {why}"),
        };
        let (client, proxy) = (self.client, self.proxy);
        let home = self.home().unwrap_or("-");
        let epoch = self.session.as_ref().map(|session| session.binding.epoch);
        let line = format!(
            "client {client} at proxy {proxy}: {:?}, now of {home} epoch {epoch:?}, {:?} {told}",
            self.lookup, self.outcome
        );
        around.journal.note(line);
        around.journal.saw(match self.outcome {
            Some(outcome) => outcome.label(),
            None => "went tombstone",
        });
        around.journal.saw(self.lookup.label());
        self.end = Some(end);
        rules::ended(self, around);
    }
}
