//! The pool's part in circuit breaking: which results of attempts are counted, how many servers may be ejected at a time, and
//! the log.

use std::time::Instant;

use crate::config::{CircuitBreaker as Settings, ServerState};
use crate::telemetry::events::{self, Change, EventKind, cause};

use super::Pool;
use super::breaker::{Breaker, BreakerState};
use super::live_state::InFlight;
use super::server::{Server, ServerIndex};

impl Pool {
    /// A server has responded to an attempt with this status.
    pub fn note_status(&self, server: ServerIndex, attempt: &mut InFlight, status: u16, now: Instant) {
        let Some((settings, server)) = self.circuit_breaker.as_ref().zip(self.servers.get(server)) else { return };
        if settings.failure_status.contains(&status) {
            self.note_failure_of(server, attempt, now, settings);
        } else if !server.live.breaker.is_quiet()
            && let Some(ticket) = attempt.resolve()
        {
            change(self, server, settings, |breaker| breaker.succeed(ticket, now));
        }
    }

    /// A server has failed an attempt before it responded. True when that ejects it.
    pub fn note_failure(&self, server: ServerIndex, attempt: &mut InFlight, now: Instant) -> bool {
        let Some((settings, server)) = self.circuit_breaker.as_ref().zip(self.servers.get(server)) else {
            return false;
        };
        self.note_failure_of(server, attempt, now, settings)
    }

    fn note_failure_of(&self, server: &Server, attempt: &mut InFlight, now: Instant, settings: &Settings) -> bool {
        let Some(ticket) = attempt.resolve() else { return false };
        // One ejection at a time, so that two do not both find room for one.
        let _guard = self.ejecting.lock();
        let may_eject = || self.ejected(server.backup) < self.ejectable(server.backup, settings);
        change(self, server, settings, |breaker| breaker.fail(ticket, now, settings, may_eject))
            == Some(BreakerState::Open)
    }

    /// Breakers whose ejection is over become half-open. After a reload or a change of states there may be
    /// fewer servers than before, of which fewer may be ejected.
    pub(super) fn tick_breakers(&self, now: Instant) {
        for server in self.servers.iter().filter(|server| !server.live.breaker.is_quiet()) {
            match &self.circuit_breaker {
                Some(settings) => {
                    change(self, server, settings, |breaker| breaker.tick(now, settings));
                }
                None => server.live.breaker.change(Breaker::reset),
            }
        }
        if let Some(settings) = &self.circuit_breaker {
            for backup in [false, true] {
                self.reinstate(backup, settings, now);
            }
        }
    }

    /// Closes the breakers that were opened first, while more are open than may be.
    fn reinstate(&self, backup: bool, settings: &Settings, now: Instant) {
        while self.ejected(backup) > self.ejectable(backup, settings) {
            let _guard = self.ejecting.lock();
            let ejected = self.counted(backup).filter(|server| is_ejected(server));
            let first = ejected.min_by_key(|server| server.live.breaker.change(|breaker| breaker.opened_at()));
            let Some(server) = first else { return };
            change(self, server, settings, |breaker| breaker.close(now));
        }
    }

    /// How many of its servers may be ejected at a time.
    fn ejectable(&self, backup: bool, settings: &Settings) -> usize {
        let percent = usize::try_from(settings.max_ejected_percent).unwrap_or_default();
        self.counted(backup).count() * percent / 100
    }

    fn ejected(&self, backup: bool) -> usize {
        self.counted(backup).filter(|server| is_ejected(server)).count()
    }

    /// The servers that the limit of ejections is a share of.
    fn counted(&self, backup: bool) -> impl Iterator<Item = &Server> {
        let counts = move |server: &&Server| {
            server.backup == backup && server.weight() > 0 && server.state() == ServerState::Ready
        };
        self.servers.iter().filter(counts)
    }
}

fn is_ejected(server: &Server) -> bool {
    server.live.breaker.state() != BreakerState::Closed
}

/// Changes the state machine of a server's breaker; returns and logs its state when that has changed.
fn change(
    pool: &Pool,
    server: &Server,
    settings: &Settings,
    change: impl FnOnce(&mut Breaker),
) -> Option<BreakerState> {
    let (before, after, ejection) = server.live.breaker.change(|breaker| {
        let before = breaker.state();
        change(breaker);
        (before, breaker.state(), breaker.ejection(settings))
    });
    if before == after {
        return None;
    }
    let (pool, server) = (&pool.name, &server.name);
    let event = Change::new(EventKind::Breaker).pool(pool).server(server).values(before.label(), after.label());
    events::record(event.who(cause::BREAKER));
    match after {
        BreakerState::Open => {
            tracing::warn!(%pool, %server, breaker = after.label(), ?ejection, "server ejected: its requests fail");
        }
        BreakerState::HalfOpen => {
            tracing::info!(%pool, %server, breaker = after.label(), "ejection over: one request at a time tests the server");
        }
        BreakerState::Closed => tracing::info!(%pool, %server, breaker = after.label(), "server takes requests again"),
    }
    Some(after)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{Balance, Config, ProcessEnvironment};
    use crate::pool::condition::Condition;
    use crate::telemetry::metrics::Metrics;

    fn config(servers: &str, percent: u32) -> Config {
        let text = format!(
            "version: 1\nlisteners: [{{ address: '127.0.0.1:8080' }}]\npools: {{ p: {{ servers: [{servers}], circuit_breaker: \
             {{ consecutive_failures: 1, ejection_time: 1s, max_ejected_percent: {percent} }} }} }}\n"
        );
        Config::parse("f", text, &ProcessEnvironment).unwrap_or_else(|problems| panic!("{problems}")).config
    }

    fn servers(names: &str) -> String {
        let entry = |name: &str| {
            let (name, more) = name.split_once('(').unwrap_or((name, ""));
            format!("{{ name: {name}, address: 'app:1', {} }}", more.trim_end_matches(')').replace('=', ": "))
        };
        names.split(' ').map(entry).collect::<Vec<_>>().join(", ")
    }

    fn pool(names: &str, percent: u32, previous: Option<&Pool>) -> Pool {
        let metrics = Metrics::new().unwrap();
        let pool = Pool::build(&config(&servers(names), percent).pools[0], None, previous, &metrics);
        for server in &pool.servers {
            server.live.set_resolved(Some("127.0.0.1:1".parse().unwrap()));
        }
        pool
    }

    /// Fails a request at every server, and says which are ejected.
    fn fail_all(pool: &Pool, now: Instant) -> String {
        for (index, server) in pool.servers.iter().enumerate() {
            if let Ok(mut attempt) = server.admit(None) {
                pool.note_failure(index, &mut attempt, now);
            }
        }
        ejected(pool)
    }

    fn ejected(pool: &Pool) -> String {
        let all = pool.servers.iter().filter(|server| server.condition() == Condition::Ejected);
        all.map(|server| &*server.name).collect()
    }

    #[test]
    fn no_more_servers_are_ejected_than_the_percentage_of_those_that_take_new_sessions() {
        let now = Instant::now();
        for (names, percent, expected) in [
            ("a", 50, ""),
            ("a b", 50, "a"),
            ("a b c", 50, "a"),
            ("a b c d", 50, "ab"),
            ("a b c", 100, "abc"),
            ("a b c", 0, ""),
            ("a b c(weight=0)", 50, "a"),
            ("a b(state=drain) c(state=maint) d", 50, "a"),
            ("a b c(backup=true) d(backup=true)", 50, "ac"),
            ("a b c(backup=true)", 50, "a"),
        ] {
            assert_eq!(fail_all(&pool(names, percent, None), now), expected, "{names}, {percent} %");
        }
    }

    #[test]
    fn a_reload_that_allows_fewer_ejections_brings_back_those_that_were_ejected_first() {
        let now = Instant::now();
        let before = pool("a b c d", 100, None);
        for (index, seconds) in [(1, 0), (0, 100), (3, 200)] {
            let mut attempt = before.servers[index].admit(None).unwrap();
            before.note_failure(index, &mut attempt, now + Duration::from_millis(seconds));
        }
        let after = pool("a b c d", 50, Some(&before));
        assert_eq!(ejected(&after), "abd");
        after.tick(now + Duration::from_millis(300));
        assert_eq!(ejected(&after), "ad");
    }

    #[test]
    fn ejections_are_carried_over_and_end_with_the_breaker() {
        let now = Instant::now();
        let before = pool("a b", 50, None);
        assert_eq!(fail_all(&before, now), "a");
        let after = pool("b a", 50, Some(&before));
        assert_eq!(ejected(&after), "a");
        let mut off = config(&servers("a b"), 50);
        off.pools[0].circuit_breaker = None;
        off.pools[0].balance = Balance::Random;
        let off = Pool::build(&off.pools[0], None, Some(&after), &Metrics::new().unwrap());
        assert_eq!(ejected(&off), "", "without a breaker at once");
        off.tick(now);
        assert_eq!(ejected(&pool("a b", 50, Some(&off))), "", "and it is not remembered");
    }

    #[test]
    fn statuses_that_count_as_failures_eject_and_others_do_not() {
        let (pool, now) = (pool("a b", 50, None), Instant::now());
        for status in [200, 404, 500, 101] {
            pool.note_status(0, &mut pool.servers[0].admit(None).unwrap(), status, now);
        }
        assert_eq!(ejected(&pool), "");
        pool.note_status(0, &mut pool.servers[0].admit(None).unwrap(), 503, now);
        assert_eq!(ejected(&pool), "a");
        pool.tick(now + Duration::from_secs(1));
        assert_eq!(ejected(&pool), "");
        let probe = pool.servers[0].admit(None).unwrap();
        assert!(pool.servers[0].admit(None).is_err() && ejected(&pool) == "a", "one at a time");
        drop(probe);
        pool.note_status(0, &mut pool.servers[0].admit(None).unwrap(), 200, now);
        assert!(pool.servers[0].live.breaker.is_quiet());
    }
}
