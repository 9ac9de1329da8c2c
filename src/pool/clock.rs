//! What changes in a pool with time alone: ejections end, shares of new sessions rise, requests that wait get their turn.

use std::time::Instant;

use super::Pool;
use super::breaker::BreakerState;
use super::server::Server;

impl Pool {
    /// Time has passed. Called many times a second.
    pub fn tick(&self, now: Instant) {
        self.tick_breakers(now);
        for server in &self.servers {
            server.live.ramp.step(serves(server), now, self.slow_start);
        }
        self.review_queue();
    }
}

/// A server that was only draining had its sessions all the time.
fn serves(server: &Server) -> bool {
    let closed = server.breaker().is_none_or(|state| state == BreakerState::Closed);
    closed && server.condition().accepts_bound()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::config::{Config, ProcessEnvironment};
    use crate::pool::condition::Health;
    use crate::telemetry::metrics::Metrics;

    fn pool(servers: &str, more: &str, previous: Option<&Pool>) -> Pool {
        let servers = servers.split(' ').map(|name| format!("{{ name: {name}, address: '127.0.0.1:1' }}"));
        let text = format!(
            "version: 1\nlisteners: [{{ address: '127.0.0.1:8080' }}]\npools: {{ p: {{ servers: [{}], slow_start: 100s, \
             health_check: {{}}, {more} }} }}\n",
            servers.collect::<Vec<_>>().join(", ")
        );
        let config =
            Config::parse("f", text, &ProcessEnvironment).unwrap_or_else(|problems| panic!("{problems}")).config;
        let pool = Pool::build(&config.pools[0], None, previous, &Metrics::new().unwrap());
        for server in &pool.servers {
            if server.live.health() == Health::Unknown {
                server.live.set_health(Health::Up);
            }
        }
        pool
    }

    /// Of a thousand new sessions, how many each server gets.
    fn shares(pool: &Pool) -> BTreeMap<&str, usize> {
        let mut shares = BTreeMap::new();
        for _ in 0..1000 {
            *shares.entry(&*pool.servers[pool.pick_new(b"", &[]).unwrap()].name).or_default() += 1;
        }
        shares
    }

    fn share(pool: &Pool, name: &str) -> usize {
        shares(pool).get(name).copied().unwrap_or_default()
    }

    #[test]
    fn a_server_that_was_down_gets_its_share_bit_by_bit() {
        for (balance, tolerance) in [("round_robin", 5), ("random", 60)] {
            let (pool, start) = (pool("a b", &format!("balance: {balance}"), None), Instant::now());
            pool.tick(start);
            assert!(share(&pool, "a").abs_diff(500) <= tolerance, "all at once at the start");
            pool.servers[0].live.set_health(Health::Down);
            pool.tick(start);
            assert_eq!(share(&pool, "a"), 0);
            pool.servers[0].live.set_health(Health::Up);
            for (second, expected) in [(1, 91), (51, 355), (101, 500)] {
                pool.tick(start + Duration::from_secs(second));
                let share = share(&pool, "a");
                assert!(share.abs_diff(expected) <= tolerance, "{balance}, {second} s: {share}, not {expected}");
            }
        }
    }

    #[test]
    fn the_least_requests_are_counted_by_the_part_of_the_weight() {
        let (pool, start) = (pool("a b", "balance: least_requests", None), Instant::now());
        pool.servers[0].live.set_health(Health::Down);
        pool.tick(start);
        pool.servers[0].live.set_health(Health::Up);
        pool.tick(start);
        let mut open = Vec::new();
        for _ in 0..22 {
            open.push(pool.servers[pool.pick_new(b"", &[]).unwrap()].admit(None).unwrap());
        }
        assert_eq!((pool.servers[0].live.in_flight(), pool.servers[1].live.in_flight()), (2, 20));
    }

    #[test]
    fn a_server_that_a_reload_adds_starts_slowly_and_the_others_do_not() {
        let before = pool("a b", "balance: round_robin", None);
        let after = pool("a b c", "balance: round_robin", Some(&before));
        let (start, shown) = (Instant::now(), |name: &str| after.weight_now(after.server_named(name).unwrap()));
        after.tick(start);
        assert_eq!((shown("a"), shown("b"), shown("c")), (1.0, 1.0, 0.1));
        assert!(share(&after, "c").abs_diff(48) <= 3, "{:?}", shares(&after));
        after.tick(start + Duration::from_secs(50));
        assert!((shown("c") - 0.55).abs() < 1e-9, "{}", shown("c"));
    }

    #[test]
    fn a_draining_server_that_is_ready_again_has_its_whole_share() {
        let (pool, start) = (pool("a b", "balance: round_robin", None), Instant::now());
        pool.servers[0].live.set_health(Health::Draining);
        pool.tick(start);
        pool.servers[0].live.set_health(Health::Up);
        pool.tick(start);
        assert_eq!(share(&pool, "a"), 500);
    }
}
