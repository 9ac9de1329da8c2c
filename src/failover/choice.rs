//! Which server does this request go to: its session's, or what the [`decision`](super::decision) says, or a balanced one.

use smallvec::SmallVec;

use crate::config::{Issue, Persistence};
use crate::pool::{Pool, ServerIndex};
use crate::session::key::SessionKey;

use super::decision::{Bound, Decision, decide};
use super::returning::{Named, Returning};
use super::{Outcome, Reason};

/// How a server failed a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It took no connection.
    Connect,
    /// It broke off before the answer.
    BrokeOff,
}

/// What became of this request so far.
#[derive(Debug, Default)]
pub struct History {
    /// Servers that failed it, and how; never tried again.
    pub failed: SmallVec<[(ServerIndex, Failure); 2]>,
    /// It has waited for its server.
    pub held: bool,
}

impl History {
    /// How this server failed it.
    pub fn failure_of(&self, server: ServerIndex) -> Option<Failure> {
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
    /// Nowhere, since the pool wants it so.
    Refuse(Reason),
    /// Nowhere: its server broke off, and the pool wants its sessions nowhere else.
    Fail,
    /// Nowhere: no server may take it now.
    Nobody {
        /// What it would have meant.
        outcome: Outcome,
        /// Why the session does not stay.
        reason: Option<Reason>,
    },
}

/// How a request without a session is spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread<'a> {
    /// As the pool balances; what is hashed matters to `balance: hash` only.
    Balanced(&'a [u8]),
    /// To the consistent-hash server of a key that the client brings, so that all of its requests, on every proxy, agree.
    By(SessionKey),
}

/// Chooses. `policy` = `None`: the pool keeps no sessions. `spread` matters to requests without a session.
pub fn choose(
    pool: &Pool,
    policy: Option<&Persistence>,
    session: Option<&Returning>,
    history: &History,
    spread: Spread<'_>,
) -> Choice {
    let (Some(policy), Some(session)) = (policy, session) else {
        let gives = policy.is_some_and(|policy| policy.issue != Issue::None);
        let outcome = if gives { Outcome::New } else { Outcome::Balanced };
        let server = match spread {
            Spread::Balanced(hash_key) => pool.pick_new(hash_key, &history.servers()),
            Spread::By(key) => pool.pick_moved(&key.to_bytes(), &history.servers()),
        };
        return to(server, outcome, None);
    };
    let home = session.home.filter(|home| *home < pool.servers.len());
    match (decide(stands(pool, home, history), policy, history.held), home) {
        (Decision::Stay, home) => to(home, Outcome::Kept, None),
        (Decision::Hold, Some(home)) => Choice::Hold(home),
        (Decision::Hold, None) => to(None, Outcome::Kept, None),
        // Only the application can put another mark into its id: until then the session is guest elsewhere.
        (Decision::Move(reason), home) if session.named == Named::Mark => {
            leave(pool, session, home, history, Outcome::Borrowed, Some(reason))
        }
        (Decision::Move(reason), home) => leave(pool, session, home, history, Outcome::Moved, Some(reason)),
        (Decision::Borrow(reason), home) => leave(pool, session, home, history, Outcome::Borrowed, reason),
        (Decision::Refuse(reason), _) => Choice::Refuse(reason),
        (Decision::Fail, _) => Choice::Fail,
    }
}

/// How the session's server stands, as this request sees it.
fn stands(pool: &Pool, home: Option<ServerIndex>, history: &History) -> Bound {
    let Some((home, server)) = home.and_then(|home| Some((home, pool.servers.get(home)?))) else { return Bound::Gone };
    match history.failure_of(home) {
        Some(Failure::Connect) => Bound::ConnectFailed,
        Some(Failure::BrokeOff) => Bound::BrokeOff,
        None => Bound::Is(server.condition()),
    }
}

/// To the server that the consistent hash of the session's key says: on every proxy the same.
fn leave(
    pool: &Pool,
    session: &Returning,
    home: Option<ServerIndex>,
    history: &History,
    outcome: Outcome,
    reason: Option<Reason>,
) -> Choice {
    let mut not = history.servers();
    not.extend(home);
    match (pool.pick_moved(&session.key.to_bytes(), &not), reason, home) {
        // A draining server still serves: better there than nowhere.
        (None, Some(Reason::Drain), Some(home)) => to(Some(home), Outcome::Kept, None),
        (next, ..) => to(next, outcome, reason),
    }
}

fn to(server: Option<ServerIndex>, outcome: Outcome, reason: Option<Reason>) -> Choice {
    match server {
        Some(server) => Choice::To { server, outcome, reason },
        None => Choice::Nobody { outcome, reason },
    }
}
