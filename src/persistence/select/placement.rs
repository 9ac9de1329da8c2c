//! Which server does this request go to: its session's, or what the pool's policy says, or a balanced one.

use smallvec::SmallVec;

use crate::config::{Issue, OnServerDrain, Persistence};
use crate::persistence::failover::{BoundServer, Decision, decide};
use crate::persistence::outcome::{Outcome, Reason};
use crate::persistence::resolve::lookup::{IdentifiedBy, ResolvedSession};
use crate::pool::condition::Condition;
use crate::pool::server::Server;
use crate::pool::{Pool, ServerIndex};
use crate::session::key::SessionKey;
use crate::session::token::UnixMillis;

/// How a server failed a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// It took no connection.
    Connect,
    /// It broke off before the answer.
    BrokeOff,
    /// It had drained, and the proxy ended the connection before the answer.
    Drained,
}

/// What became of this request so far.
#[derive(Debug, Default)]
pub struct History {
    /// Servers that failed it, and how; never tried again.
    pub failed: SmallVec<[(ServerIndex, FailureKind); 2]>,
    /// It has waited for its server to come back.
    pub held: bool,
    /// It has waited for a server that had no room.
    pub queued: bool,
}

impl History {
    /// How this server failed it.
    pub fn failure_of(&self, server: ServerIndex) -> Option<FailureKind> {
        self.failed.iter().rev().find(|(failed, _)| *failed == server).map(|(_, failure)| *failure)
    }

    /// The servers that failed it.
    pub fn servers(&self) -> SmallVec<[ServerIndex; 4]> {
        self.failed.iter().map(|(server, _)| *server).collect()
    }
}

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// To this server.
    To {
        /// The server.
        server: ServerIndex,
        /// What that means to the session.
        outcome: Outcome,
        /// Why the session does not stay.
        reason: Option<Reason>,
    },
    /// Nowhere yet: wait for this server to come back, then choose again.
    Hold(ServerIndex),
    /// Nowhere yet: it begins a session, and all servers that would take it are full.
    Full(Outcome),
    /// Nowhere, since the pool wants it so.
    Refuse(Reason),
    /// Nowhere: its server broke off, and the pool wants its sessions nowhere else.
    Fail,
    /// Nowhere: no server may take it now.
    NoServer {
        /// What it would have meant.
        outcome: Outcome,
        /// Why the session does not stay.
        reason: Option<Reason>,
    },
}

/// How a request without a session is spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement<'a> {
    /// As the pool balances; what is hashed matters to `balance: hash` only.
    Balanced(&'a [u8]),
    /// To the consistent-hash server of a key that the client brings, so that all of its requests, on every proxy, agree.
    ByKey(SessionKey),
}

/// Chooses at `now`. `policy` = `None`: the pool keeps no sessions. `spread` matters to requests without a session.
pub fn choose(
    pool: &Pool,
    policy: Option<&Persistence>,
    session: Option<&ResolvedSession>,
    history: &History,
    spread: Placement<'_>,
    now: UnixMillis,
) -> Choice {
    let (Some(policy), Some(session)) = (policy, session) else {
        let gives = policy.is_some_and(|policy| policy.issue != Issue::None);
        let outcome = if gives { Outcome::New } else { Outcome::Balanced };
        let server = match spread {
            Placement::Balanced(hash_key) => pool.pick_new(hash_key, &history.servers()),
            Placement::ByKey(key) => pool.pick_moved(&key.to_bytes(), &history.servers()),
        };
        return match server {
            None if pool.is_full(&history.servers()) => Choice::Full(outcome),
            server => to(server, outcome, None),
        };
    };
    let home = session.home.filter(|home| *home < pool.servers.len());
    match (decide(stands(pool, home, session.key, policy, history, now), policy, history.held), home) {
        (Decision::Stay, home) => to(home, Outcome::Kept, None),
        (Decision::Hold, Some(home)) => Choice::Hold(home),
        (Decision::Hold, None) => to(None, Outcome::Kept, None),
        // Only the application can change the route id; until then the session is a guest on another server.
        (Decision::Move(reason), home) if session.identified_by == IdentifiedBy::RouteId => {
            leave(pool, session, home, history, Outcome::Borrowed, Some(reason))
        }
        (Decision::Move(reason), home) => leave(pool, session, home, history, Outcome::Moved, Some(reason)),
        (Decision::Borrow(reason), home) => leave(pool, session, home, history, Outcome::Borrowed, Some(reason)),
        (Decision::Refuse(reason), _) => Choice::Refuse(reason),
        (Decision::Fail, _) => Choice::Fail,
    }
}

/// How the session's server stands, as this request sees it.
fn stands(
    pool: &Pool,
    home: Option<ServerIndex>,
    key: SessionKey,
    policy: &Persistence,
    history: &History,
    now: UnixMillis,
) -> BoundServer {
    let Some((home, server)) = home.and_then(|home| Some((home, pool.servers.get(home)?))) else {
        return BoundServer::Gone;
    };
    match history.failure_of(home) {
        Some(FailureKind::Connect) => BoundServer::ConnectFailed,
        Some(FailureKind::Drained) => BoundServer::Drained(reason_of_drain(server)),
        // What broke may have been ended with its server.
        Some(FailureKind::BrokeOff) => match server.condition_after_failure() {
            condition if condition.accepts_bound() => BoundServer::BrokeOff,
            condition => BoundServer::Is(condition),
        },
        None => {
            let condition = if history.queued { server.condition_after_wait() } else { server.condition() };
            match condition {
                Condition::BoundOnly => draining(server, key, policy, now),
                condition => BoundServer::Is(condition),
            }
        }
    }
}

/// A draining server, for one of its sessions.
fn draining(server: &Server, key: SessionKey, policy: &Persistence, now: UnixMillis) -> BoundServer {
    let is_due = server.drain_schedule().is_some_and(|schedule| schedule.is_session_due(key, now));
    let reassigned = policy.on_server_drain == OnServerDrain::Reassign;
    if is_due || reassigned {
        BoundServer::Drained(reason_of_drain(server))
    } else {
        BoundServer::Is(Condition::BoundOnly)
    }
}

fn reason_of_drain(server: &Server) -> Reason {
    if server.removed { Reason::Removed } else { Reason::Drain }
}

/// To the server that the consistent hash of the session's key says: on every proxy the same.
fn leave(
    pool: &Pool,
    session: &ResolvedSession,
    home: Option<ServerIndex>,
    history: &History,
    outcome: Outcome,
    reason: Option<Reason>,
) -> Choice {
    let mut not = history.servers();
    not.extend(home);
    match (pool.pick_moved(&session.key.to_bytes(), &not), reason, home) {
        // A draining server still serves: better there than nowhere.
        (None, Some(Reason::Drain | Reason::Removed), Some(home)) => to(Some(home), Outcome::Kept, None),
        (next, ..) => to(next, outcome, reason),
    }
}

fn to(server: Option<ServerIndex>, outcome: Outcome, reason: Option<Reason>) -> Choice {
    match server {
        Some(server) => Choice::To { server, outcome, reason },
        None => Choice::NoServer { outcome, reason },
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::persistence::resolve::{NOW, World, recognize};
    use crate::pool::condition::Health;
    use crate::session::key::ServerId;
    use crate::session::source::SessionClaim;

    /// A key as good as random for each number.
    fn key(number: u128) -> SessionKey {
        SessionKey(number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
    }

    fn routed(world: &World, key: SessionKey, server: &str) -> ResolvedSession {
        let claim = SessionClaim::Routed { key, server: ServerId::of(server) };
        recognize(&claim, &world.pool_sessions(), NOW).session.unwrap()
    }

    fn chosen(choice: Choice) -> ServerIndex {
        match choice {
            Choice::To { server, .. } => server,
            other => panic!("a server was expected: {other:?}"),
        }
    }

    #[test]
    fn an_unbound_key_always_goes_to_one_server() {
        let (one, other) = (World::new("issue: none"), World::new("issue: none"));
        let mut went = [0; 4];
        for n in 1..=400 {
            let to = |world: &World| {
                choose(&world.pool, Some(&world.policy), None, &History::default(), Placement::ByKey(key(n)), NOW)
            };
            assert_eq!(to(&one), to(&other), "on every proxy alike");
            assert!(matches!(to(&one), Choice::To { outcome: Outcome::Balanced, reason: None, .. }));
            went[chosen(to(&one))] += 1;
        }
        assert!(went.iter().all(|count| (60..=140).contains(count)), "all servers have their share: {went:?}");
    }

    #[test]
    fn an_unbound_key_passes_over_servers_that_failed_or_are_down() {
        let world = World::new("");
        let to = |history: &History, key| {
            chosen(choose(&world.pool, Some(&world.policy), None, history, Placement::ByKey(key), NOW))
        };
        for n in 1..=50 {
            let first = to(&History::default(), key(n));
            let failed =
                History { failed: [(first, FailureKind::Connect)].into_iter().collect(), ..History::default() };
            let second = to(&failed, key(n));
            assert_ne!(second, first);
            let name = world.pool.servers[first].name.to_string();
            world.set(&name, Health::Down);
            assert_eq!(to(&History::default(), key(n)), second, "found down or just failed: the same place");
            world.set(&name, Health::Up);
        }
    }

    #[test]
    fn a_marked_session_is_guest_elsewhere_and_never_moves() {
        for (policy, drains) in [
            ("on_server_down: reassign", false),
            ("on_server_down: borrow", false),
            ("on_server_drain: reassign", true),
        ] {
            let world = World::new(policy);
            for n in 1..=20 {
                let session = routed(&world, key(n), "b");
                let ask = || {
                    choose(
                        &world.pool,
                        Some(&world.policy),
                        Some(&session),
                        &History::default(),
                        Placement::Balanced(&[]),
                        NOW,
                    )
                };
                let home = world.server("b");
                assert_eq!(ask(), Choice::To { server: home, outcome: Outcome::Kept, reason: None });
                world.set("b", if drains { Health::Draining } else { Health::Down });
                let guest = ask();
                let why = if drains { Reason::Drain } else { Reason::Down };
                assert!(
                    matches!(guest, Choice::To { outcome: Outcome::Borrowed, reason: Some(reason), .. } if reason == why),
                    "{policy}: {guest:?}"
                );
                assert_ne!(chosen(guest), home);
                assert_eq!(ask(), guest, "always the same host");
                world.set("b", Health::Up);
            }
        }
    }

    #[test]
    fn a_marked_session_is_refused_where_the_pool_wants_sessions_nowhere_else() {
        let world = World::new("on_server_down: refuse");
        let session = routed(&world, key(1), "b");
        let ask = |history: &History| {
            choose(&world.pool, Some(&world.policy), Some(&session), history, Placement::Balanced(&[]), NOW)
        };
        let failed = |how| History { failed: [(world.server("b"), how)].into_iter().collect(), ..History::default() };
        assert_eq!(ask(&failed(FailureKind::Connect)), Choice::Refuse(Reason::ConnectFailure));
        assert_eq!(ask(&failed(FailureKind::BrokeOff)), Choice::Fail);
        world.set("b", Health::Down);
        assert_eq!(ask(&History::default()), Choice::Refuse(Reason::Down));
    }

    #[test]
    fn a_session_and_the_first_request_of_its_key_leave_a_failed_server_for_the_same_place() {
        let world = World::new("");
        for n in 1..=50 {
            let home = world.server("b");
            assert!(world.pool_sessions().claim(key(n), home, NOW).is_none());
            let follower = world.pool_sessions().claim(key(n), home, NOW).unwrap();
            let history =
                History { failed: [(home, FailureKind::Connect)].into_iter().collect(), ..History::default() };
            let ask =
                |session| choose(&world.pool, Some(&world.policy), session, &history, Placement::ByKey(key(n)), NOW);
            assert_eq!(chosen(ask(Some(&follower))), chosen(ask(None)));
        }
    }
}
