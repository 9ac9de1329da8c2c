//! When an answer changes the servers of a pool. An error says nothing about the servers, and a name server that has just lost its zone says that
//! there are none: neither may empty a pool.

use std::time::{Duration, Instant};

use crate::config::Server;

use super::Answer;

/// So long all answers must say that a name has no servers before its pool is emptied.
const EMPTY_AFTER: Duration = Duration::from_secs(60);
/// However long a TTL is, a name is asked for again after this.
const MAX_TTL: Duration = Duration::from_secs(60 * 60);

/// A pool's servers as last found out.
#[derive(Debug)]
pub struct KnownServers {
    min_ttl: Duration,
    servers: Vec<Server>,
    /// Since when all answers say that there are none.
    nothing_since: Option<Instant>,
}

/// What an answer changes.
#[derive(Debug, PartialEq, Eq)]
pub struct Update {
    /// The servers, when they are others than before.
    pub changed: Option<Vec<Server>>,
    /// When to ask again.
    pub ask_again_in: Duration,
}

impl KnownServers {
    /// These servers are known so far.
    pub fn new(min_ttl: Duration, servers: Vec<Server>) -> Self {
        Self { min_ttl, servers, nothing_since: None }
    }

    /// Takes an answer.
    pub fn take(&mut self, answer: &Answer, now: Instant) -> Update {
        match answer {
            Answer::Servers { servers, ttl } => {
                self.nothing_since = None;
                // A TTL of 0 must not become a loop.
                self.replace(servers.clone(), (*ttl).min(MAX_TTL).max(self.min_ttl))
            }
            Answer::Nothing => {
                let since = *self.nothing_since.get_or_insert(now);
                let left = EMPTY_AFTER.saturating_sub(now.saturating_duration_since(since));
                if left.is_zero() {
                    return self.replace(Vec::new(), self.min_ttl);
                }
                Update { changed: None, ask_again_in: self.min_ttl.min(left) }
            }
            Answer::Failed(_) => {
                self.nothing_since = None;
                Update { changed: None, ask_again_in: self.min_ttl }
            }
        }
    }

    fn replace(&mut self, servers: Vec<Server>, ask_again_in: Duration) -> Update {
        let changed = (servers != self.servers).then(|| {
            self.servers.clone_from(&servers);
            servers
        });
        Update { changed, ask_again_in }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN_TTL: Duration = Duration::from_secs(5);
    const SECOND: Duration = Duration::from_secs(1);

    fn servers(names: &str) -> Vec<Server> {
        let one =
            |name: &str| Server::discovered(name.to_owned(), crate::config::ServerAddress::Ip(name.parse().unwrap()));
        names.split_whitespace().map(one).collect()
    }

    fn answer(names: &str, ttl: Duration) -> Answer {
        Answer::Servers { servers: servers(names), ttl }
    }

    #[test]
    fn a_change_is_told_once_and_the_ttl_is_kept_within_bounds() {
        let (mut known, now) = (KnownServers::new(MIN_TTL, Vec::new()), Instant::now());
        let one = "10.0.0.1:80";
        assert_eq!(
            known.take(&answer(one, 30 * SECOND), now),
            Update { changed: Some(servers(one)), ask_again_in: 30 * SECOND }
        );
        for (ttl, pause) in [(0, 5), (1, 5), (6, 6), (1_000_000, 3600)] {
            let update = known.take(&answer(one, ttl * SECOND), now);
            assert_eq!(update, Update { changed: None, ask_again_in: pause * SECOND }, "a TTL of {ttl} s");
        }
    }

    #[test]
    fn errors_keep_the_last_answer() {
        let (mut known, now) = (KnownServers::new(MIN_TTL, Vec::new()), Instant::now());
        known.take(&answer("10.0.0.1:80", SECOND), now);
        for minutes in 1..600 {
            let update = known.take(&Answer::Failed("no answer".into()), now + minutes * 60 * SECOND);
            assert_eq!(update, Update { changed: None, ask_again_in: MIN_TTL });
        }
    }

    #[test]
    fn a_pool_is_emptied_after_a_minute_of_answers_without_servers() {
        let (mut known, start) = (KnownServers::new(MIN_TTL, Vec::new()), Instant::now());
        known.take(&answer("10.0.0.1:80", SECOND), start);
        for second in [0, 30, 57] {
            let update = known.take(&Answer::Nothing, start + second * SECOND);
            assert_eq!(update, Update { changed: None, ask_again_in: (60 - second).min(5) * SECOND });
        }
        let update = known.take(&Answer::Nothing, start + 60 * SECOND);
        assert_eq!(update, Update { changed: Some(Vec::new()), ask_again_in: MIN_TTL });
        assert_eq!(known.take(&Answer::Nothing, start + 65 * SECOND).changed, None, "told once");
    }

    #[test]
    fn one_answer_with_servers_or_an_error_begins_the_minute_again() {
        for between in [answer("10.0.0.1:80", SECOND), Answer::Failed("refused".into())] {
            let (mut known, start) = (KnownServers::new(MIN_TTL, Vec::new()), Instant::now());
            known.take(&answer("10.0.0.1:80", SECOND), start);
            known.take(&Answer::Nothing, start);
            known.take(&between, start + 30 * SECOND);
            assert_eq!(known.take(&Answer::Nothing, start + 61 * SECOND).changed, None);
            assert_eq!(known.take(&Answer::Nothing, start + 121 * SECOND).changed, Some(Vec::new()));
        }
    }
}
