//! What the design promises of sessions, each promise by name, judged by file, checks and tokens alone.

use std::collections::{BTreeSet, HashMap, HashSet};

use homing::config::{OnServerDown, OnServerDrain, ServerState};
use homing::persistence::resolve::{IdentifiedBy, ResolvedSession};
use homing::persistence::select::{Choice, FailureKind};
use homing::persistence::{Outcome, Reason};
use homing::pool::ServerIndex;
use homing::pool::condition::Health;
use homing::session::binding::{Binding, Lookup};
use homing::session::key::{ServerId, SessionId, SessionKey};
use homing::session::token::Token;
use homing::session::token::UnixMillis;
use homing::store::TableLookup;

use crate::proxy::Version;
use crate::request::{Around, End, Request};
use crate::setup::Written;

/// What was ever true of sessions, kept from outside.
#[derive(Default)]
pub struct Ledger {
    sessions: HashMap<[u8; 16], Life>,
    /// Outages so far of each server: anything that takes it from its sessions.
    outages: HashMap<String, usize>,
    /// (session, server that it left, outage of that server), since a proxy last forgot.
    left: HashSet<(SessionKey, ServerId, usize)>,
    /// One proxy with room for all sessions in its table: then no session moves twice for one outage.
    pub once_each: bool,
}

struct Life {
    created: UnixMillis,
    /// Where it ever belonged: (epoch, server).
    bindings: BTreeSet<(u32, ServerId)>,
}

impl Ledger {
    pub fn begins(&mut self, session: SessionId, binding: &Binding) {
        let bindings = BTreeSet::from([(binding.epoch, binding.server)]);
        self.sessions.insert(session.to_bytes(), Life { created: binding.created, bindings });
    }

    pub fn outage(&mut self, server: &str) {
        *self.outages.entry(server.to_owned()).or_default() += 1;
    }

    /// A proxy lost its memory; what old tokens say is true again.
    pub fn forget(&mut self) {
        self.left.clear();
    }
}

fn known(
    found: TableLookup,
    around: &Around<'_>,
    request: &Request,
) -> Option<(u32, ServerId, UnixMillis, UnixMillis)> {
    let TableLookup::Live(known) = found else { return None };
    let place = around.proxies[request.proxy].table.target_at(known.target)?;
    Some((known.epoch, place.id(), known.created, known.last_seen))
}

/// After looking for the session of a token that opened.
pub fn recognised(request: &Request, token: &Token, before: TableLookup, around: &mut Around<'_>) {
    let table = known(before, around, request);
    let told =
        format!("{token:?} and {table:?} at {:?} came to {:?} {:?}", request.now, request.lookup, request.session);
    let limits = &request.version.limits;
    let Some(life) = around.ledger.sessions.get(&token.session.to_bytes()) else {
        around.journal.promise("a token that opens is of a session that began", false, || told);
        return;
    };
    let made = life.bindings.contains(&(token.epoch, token.server)) && life.created == token.created;
    around.journal.promise("a token says what was once true", made, || told.clone());
    let seen = table.map_or(token.issued, |(.., last_seen)| last_seen.max(token.issued));
    let over = request.now.since(life.created) >= limits.absolute || request.now.since(seen) >= limits.idle;
    let lives = request.session.is_some();
    around.journal.promise("an expired token names no session", !(over && lives), || told.clone());
    around.journal.promise("a session within its limits lives", over || lives, || told.clone());
    let Some(session) = &request.session else { return };
    if table.is_some_and(|(epoch, server, ..)| epoch == token.epoch && server != token.server) {
        around.journal.saw("table and token of one epoch differed");
    }
    let expected = match table {
        Some((epoch, server, ..)) if epoch > token.epoch => (epoch, server),
        _ => (token.epoch, token.server),
    };
    let came_to = (session.binding.epoch, session.binding.server);
    around.journal.promise("the higher epoch wins, and the token between equals", came_to == expected, || told.clone());
    if request.home().is_some() {
        remembers(request, &told, around);
    }
}

fn remembers(request: &Request, told: &str, around: &mut Around<'_>) {
    let Some(session) = &request.session else { return };
    let table = &around.proxies[request.proxy].table;
    let after = known(table.find(&session.key, request.now), around, request);
    let same = after.is_some_and(|(epoch, server, created, last_seen)| {
        let age = session.binding.created.0.abs_diff(created.0);
        (epoch, server) == (session.binding.epoch, session.binding.server)
            && age < 100
            && last_seen.0 + 100 > request.now.0
    });
    around.journal.promise("the table holds clients that came back", same, || format!("{told}, then {after:?}"));
}

/// After looking for the session of whatever the client sent.
pub fn named(request: &Request, around: &mut Around<'_>) {
    let opened = !matches!(request.lookup, Lookup::Forged | Lookup::Unknown | Lookup::None);
    let none = opened || request.session.is_none();
    around.journal.promise("a forged token names no session", none, || format!("{:?}", request.session));
}

/// The servers that may take a new or moved session, by configuration and checks.
fn takers(request: &Request) -> Vec<&Written> {
    let version = &request.version;
    let tried = |server: &Written| request.sent_to.iter().any(|sent| version.name(*sent) == server.name);
    let left: Vec<_> = version.setup.servers.iter().filter(|server| version.takes(server) && !tried(server)).collect();
    let backups_only = left.iter().all(|server| server.backup);
    left.into_iter().filter(|server| server.backup == backups_only).collect()
}

/// A choice, and what it has to be judged by.
struct Case<'a> {
    request: &'a Request,
    choice: Choice,
    home: Option<&'a Written>,
    failure: Option<FailureKind>,
    told: String,
}

impl Case<'_> {
    fn leaves_draining(&self) -> bool {
        let version = &self.request.version;
        let drains = self.home.is_some_and(|home| version.drains(home));
        let told = matches!(self.choice, Choice::To { reason: Some(Reason::Drain), .. });
        let due = self.past_deadline().is_some_and(|past| past >= version.drain_window() || (past >= 0 && told));
        drains && (due || version.policy.on_server_drain == OnServerDrain::Reassign)
    }

    fn past_deadline(&self) -> Option<i64> {
        self.request.version.past_deadline(self.home?, self.request.now)
    }

    fn home_could(&self) -> bool {
        self.failure.is_none() && self.home.is_some_and(|home| self.request.version.keeps(home))
    }
}

/// After each choice of a server.
pub fn chosen(request: &Request, choice: Choice, around: &mut Around<'_>) {
    let version = &request.version;
    let home = request.home().and_then(|name| version.written(name));
    let failure = home.and_then(|home| {
        let failed = &request.history.failed;
        failed.iter().rev().find(|(failed, _)| version.name(*failed) == home.name).map(|(_, how)| *how)
    });
    let told = format!("{choice:?} for a session of {home:?} ({failure:?}) that was sent to {:?}", request.sent_to);
    let case = Case { request, choice, home, failure, told };
    if request.session.is_some() {
        stays(&case, around);
        follows_policy(&case, around);
    }
    match choice {
        Choice::To { server, outcome: Outcome::Kept, .. } => kept_by(&case, server, around),
        Choice::To { server, outcome, .. } => {
            taken_by(&case, server, around);
            if matches!(outcome, Outcome::Moved | Outcome::Borrowed) {
                proxies_agree(&case, server, around);
            }
        }
        Choice::NoServer { .. } => {
            let none = takers(request).is_empty();
            around.journal.promise("a request that some server could take is served", none, || case.told.clone());
            let promise = "a draining server still serves its sessions when no other can";
            around.journal.promise(promise, !case.home_could(), || case.told.clone());
        }
        _ => {}
    }
    if let Choice::To { server, .. } = choice {
        let again = request.sent_to.contains(&server);
        around.journal.promise("no server is tried twice for one request", !again, || case.told.clone());
    }
}

fn stays(case: &Case<'_>, around: &mut Around<'_>) {
    let version = &case.request.version;
    let may_keep = case.home_could() && !case.leaves_draining();
    let kept = matches!(case.choice, Choice::To { outcome: Outcome::Kept, .. });
    let promise = "a session stays while its server may keep it";
    around.journal.promise(promise, !may_keep || kept, || case.told.clone());
    let is_over = case.failure.is_none() && case.past_deadline().is_some_and(|past| past >= version.drain_window());
    let left = is_over && kept && !takers(case.request).is_empty();
    around.journal.promise("after a deadline no session is left", !left, || case.told.clone());
    if is_over {
        around.journal.saw("drain over");
    }
    let Choice::To { outcome: Outcome::Moved, reason, .. } = case.choice else { return };
    let caused = match (reason, case.home) {
        (Some(Reason::Removed), home) => home.is_none(),
        (Some(Reason::Maint), Some(home)) => home.state == ServerState::Maint,
        (Some(Reason::Down), Some(home)) => matches!(version.verdict(&home.name), Health::Down | Health::Unknown),
        (Some(Reason::Drain), Some(_)) => case.leaves_draining(),
        (Some(Reason::ConnectFailure), Some(_)) => case.failure == Some(FailureKind::Connect),
        _ => false,
    };
    around.journal.promise("a session moves only for the reason that is told", caused, || case.told.clone());
}

fn follows_policy(case: &Case<'_>, around: &mut Around<'_>) {
    let policy = &case.request.version.policy;
    let drained = matches!(case.choice, Choice::To { reason: Some(Reason::Drain), .. });
    let (moved, borrowed) = match case.choice {
        Choice::To { outcome, .. } => (outcome == Outcome::Moved, outcome == Outcome::Borrowed),
        _ => (false, false),
    };
    let told = || case.told.clone();
    match policy.on_server_down {
        OnServerDown::Reassign => {}
        OnServerDown::Borrow => {
            let promise = "borrow moves a session only from a server that is removed or draining";
            around.journal.promise(promise, !moved || case.home.is_none() || drained, told);
        }
        OnServerDown::Refuse => {
            let elsewhere = borrowed || (moved && !drained);
            around.journal.promise("refuse never serves a session elsewhere", !elsewhere, told);
        }
    }
    let refused = matches!(case.choice, Choice::Refuse(_) | Choice::Fail);
    let may = policy.on_server_down == OnServerDown::Refuse;
    around.journal.promise("only refuse refuses", may || !refused, told);
    let replaced = matches!(case.choice, Choice::To { outcome: Outcome::New | Outcome::Balanced, .. });
    around.journal.promise("a living session is never replaced by a new one", !replaced, told);
}

fn kept_by(case: &Case<'_>, server: ServerIndex, around: &mut Around<'_>) {
    let version = &case.request.version;
    let at_home = case.home.is_some_and(|home| home.name == version.name(server));
    around.journal.promise("kept means at its own server", at_home, || case.told.clone());
    let keeps = case.home.is_some_and(|home| version.keeps(home));
    around.journal.promise("a server in maint or down gets no request", keeps, || case.told.clone());
}

/// A server takes a session that was not bound to it.
fn taken_by(case: &Case<'_>, server: ServerIndex, around: &mut Around<'_>) {
    let version = &case.request.version;
    let server = version.written(version.name(server)).expect("the pool has what the file has");
    let journal = &mut *around.journal;
    let told = || case.told.clone();
    let down =
        server.state == ServerState::Maint || !matches!(version.verdict(&server.name), Health::Up | Health::Draining);
    journal.promise("a server in maint or down gets no request", !down, told);
    journal.promise("a draining server takes no new session", !version.drains(server), told);
    journal.promise("a server of weight 0 takes no new session", server.weight > 0, told);
    let chosen = takers(case.request).contains(&server);
    let promise = "a backup takes new sessions only when no other can";
    journal.promise(promise, chosen || !server.backup, told);
    journal.promise("a new server is one of those that may take sessions", chosen, told);
}

/// Another proxy that sees the same would send the session to the same server, though they never talked.
fn proxies_agree(case: &Case<'_>, server: ServerIndex, around: &mut Around<'_>) {
    let (request, home, told) = (case.request, case.home, &case.told);
    let version = &request.version;
    let Some(session) = &request.session else { return };
    if request.sent_to.iter().any(|sent| home.is_none_or(|home| version.name(*sent) != home.name)) {
        return;
    }
    for other in around.proxies.iter().filter(|other| other.number != request.proxy) {
        let other: &Version = &other.current;
        if other.view() != version.view() {
            continue;
        }
        let not: Vec<_> = home.and_then(|home| other.pool.find(ServerId::of(&home.name))).into_iter().collect();
        let theirs = other.pool.pick_moved(&session.key.to_bytes(), &not).map(|theirs| other.name(theirs));
        let agree = theirs == Some(version.name(server));
        let promise = "proxies that see the same send a session to the same server";
        around.journal.promise(promise, agree, || format!("{told}, the other: {theirs:?}"));
    }
}

/// After a new server answered. `known` is what the table said just before.
pub fn settled(request: &Request, before: &Binding, found: TableLookup, moved: bool, around: &mut Around<'_>) {
    let table = known(found, around, request);
    let Some(session) = &request.session else { return };
    let now = (session.binding.epoch, session.binding.server);
    let told = format!("{before:?} with {table:?} settled to {now:?}, moved: {moved}");
    let first = table.is_none_or(|(epoch, ..)| epoch <= before.epoch);
    around.journal.promise(
        "the first of parallel requests moves the session, the others follow",
        moved == first,
        || told.clone(),
    );
    if !moved {
        let followed = table.is_some_and(|(epoch, server, ..)| (epoch, server) == now);
        around.journal.promise("a request that comes second follows", followed, || told);
        around.journal.saw("followed");
        return;
    }
    around.journal.promise("an epoch rises by one with each move", now.0 == before.epoch + 1, || told.clone());
    if let Some(life) = around.ledger.sessions.get_mut(&of(session).session.to_bytes()) {
        life.bindings.insert(now);
    }
    let left = request.version.written_by_id(before.server).map(|server| server.name.clone());
    let outage = left.and_then(|name| around.ledger.outages.get(&name).copied());
    if around.ledger.once_each
        && let Some(outage) = outage
    {
        let fresh = around.ledger.left.insert((session.key, before.server, outage));
        around.journal.promise("a session moves once for each failure of its server", fresh, || told);
    }
}

/// Before a token goes to the client.
pub fn given(request: &Request, token: &Token, around: &mut Around<'_>) {
    let told = || format!("{token:?} for {:?}", request.session);
    let Some(life) = around.ledger.sessions.get(&token.session.to_bytes()) else { return };
    let made = life.bindings.contains(&(token.epoch, token.server)) && life.created.0 / 1000 == token.created.0 / 1000;
    around.journal.promise("a token given says what is true", made, told);
    if let Some(session) = &request.session {
        let rises =
            token.epoch > of(session).epoch || (token.epoch == of(session).epoch && token.issued >= of(session).issued);
        around.journal.promise("an epoch never falls in the client's hand", rises, told);
    }
}

/// After the request.
pub fn ended(request: &Request, around: &mut Around<'_>) {
    let proxy = &around.proxies[request.proxy];
    let (sessions, most) = (proxy.table.len(), proxy.table.capacity());
    around
        .journal
        .promise("the table never exceeds its capacity", sessions <= most, || format!("{sessions} of {most}"));
    let counted: u64 = proxy.table.targets().iter().map(|place| place.sessions()).sum();
    let promise = "sessions of all servers together are the sessions of the table";
    around.journal.promise(promise, counted == sessions as u64, || format!("{counted} and {sessions}"));
    let Some(End::Failed(why)) = &request.end else { return };
    let attempts = request.version.pool.retries.attempts as usize;
    let tries = request.sent_to.len();
    let told = || format!("{why} after {:?}", request.history);
    let exhausted = *why != "attempts exhausted" || request.history.failed.len() == attempts + 1;
    around.journal.promise("a request fails for its attempts only when they are used up", exhausted, told);
    around.journal.promise("no request is sent more often than allowed", tries <= attempts + 1, told);
}

/// The token that named a session: every client here has one.
fn of(session: &ResolvedSession) -> &Token {
    match &session.identified_by {
        IdentifiedBy::Token { token, .. } => token,
        other => panic!("named by {other:?}"),
    }
}
