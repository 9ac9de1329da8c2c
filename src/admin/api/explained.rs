//! Sessions that an operator has just asked about and that the table does not have: a token is all there is of them. They are
//! remembered for some minutes, so that they can be moved and ended by their keys.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;

use crate::session::key::SessionKey;
use crate::session::token::UnixMillis;

/// How many are remembered.
const KEPT: usize = 1000;
/// For how long.
const KEPT_FOR: Duration = Duration::from_secs(10 * 60);

/// What the token said.
#[derive(Debug, Clone)]
pub(crate) struct ExplainedSession {
    pub(crate) key: SessionKey,
    pub(crate) pool: String,
    pub(crate) server: String,
    pub(crate) epoch: u32,
    pub(crate) created: UnixMillis,
    /// When it was asked about.
    pub(crate) at: UnixMillis,
}

/// The last of them.
#[derive(Debug, Default)]
pub(crate) struct ExplainedSessions(Mutex<VecDeque<ExplainedSession>>);

impl ExplainedSessions {
    pub(crate) fn note(&self, session: ExplainedSession) {
        let mut sessions = self.0.lock();
        sessions.retain(|known| known.key != session.key);
        if sessions.len() >= KEPT {
            sessions.pop_front();
        }
        sessions.push_back(session);
    }

    pub(crate) fn find(
        &self,
        pool: &str,
        now: UnixMillis,
        is: impl Fn(SessionKey) -> bool,
    ) -> Option<ExplainedSession> {
        let sessions = self.0.lock();
        let fresh = |session: &&ExplainedSession| session.pool == pool && now.since(session.at) < KEPT_FOR;
        sessions.iter().filter(fresh).find(|session| is(session.key)).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_thousand_are_remembered_for_ten_minutes() {
        let sessions = ExplainedSessions::default();
        let at = |seconds: u64| UnixMillis(1_790_000_000_000 + seconds * 1000);
        for n in 0..=KEPT as u128 {
            let (key, pool, server) = (SessionKey(n), "web".to_owned(), "a".to_owned());
            sessions.note(ExplainedSession { key, pool, server, epoch: 0, created: at(0), at: at(0) });
        }
        let find =
            |pool: &str, n: u128, seconds| sessions.find(pool, at(seconds), |key| key == SessionKey(n)).is_some();
        assert!(find("web", 1, 0) && find("web", 1, 599));
        assert!(!find("web", 0, 0), "the oldest made room");
        assert!(!find("web", 1, 600) && !find("other", 1, 0));
    }
}
