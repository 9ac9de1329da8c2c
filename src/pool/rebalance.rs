//! Sessions leave crowded servers for emptier ones, a few a minute: after servers were added, most sessions are still on the
//! old ones.
//!
//! Once a second each server that takes new sessions is compared with its share by weight: with more than `above_mean` times its
//! share it is crowded, with less than its share it has room. A session that has been idle for `idle_for` leaves a crowded server at its next
//! request. Only what is above the threshold moves, and only to where room is, so no session moves twice for this reason.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::config;
use crate::session::token::UnixMillis;

/// A server and its sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Sessions that are bound to it.
    pub sessions: u64,
    /// Its share of new sessions now; 0 = it takes none, and is not compared.
    pub weight: u16,
}

/// What a server should have of a pool's sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// With more it is crowded: idle sessions leave it.
    pub most: u64,
    /// With less there is room: they may come.
    pub share: u64,
}

impl Bounds {
    /// Of a server that is not compared: no session leaves it or comes to it.
    const NONE: Self = Self { most: u64::MAX, share: 0 };
}

/// Compares the servers of a pool.
pub fn compare(loads: &[Load], above_mean: f64) -> Vec<Bounds> {
    let compared = || loads.iter().filter(|load| load.weight > 0);
    let sessions: u64 = compared().map(|load| load.sessions).sum();
    let weight: u64 = compared().map(|load| u64::from(load.weight)).sum();
    let bounds = |load: &Load| {
        if load.weight == 0 {
            return Bounds::NONE;
        }
        let share = sessions as f64 * f64::from(load.weight) / weight.max(1) as f64;
        // Rounded up: then there is room somewhere whenever a server is crowded.
        let rounded = share.ceil();
        Bounds { most: whole((share * above_mean).max(rounded)), share: whole(rounded) }
    };
    loads.iter().map(bounds).collect()
}

/// Without the fraction. Not negative, and far below the limit of the type.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, and is never negative")]
fn whole(number: f64) -> u64 {
    number as u64
}

/// The rebalancing of a pool.
pub struct Rebalance {
    settings: config::Rebalance,
    /// By server. Written once a second, read by requests. Relaxed: a request may see those of the second before.
    servers: Box<[Compared]>,
    /// The next session may leave then, in microseconds since 1970.
    next: AtomicU64,
}

/// A server as it was compared last.
struct Compared {
    crowded: AtomicBool,
    most: AtomicU64,
    share: AtomicU64,
}

impl Compared {
    fn store(&self, bounds: Bounds, sessions: u64) {
        self.most.store(bounds.most, Ordering::Relaxed);
        self.share.store(bounds.share, Ordering::Relaxed);
        self.crowded.store(sessions > bounds.most, Ordering::Relaxed);
    }
}

impl Rebalance {
    /// For so many servers, of which none is crowded yet.
    pub fn new(settings: config::Rebalance, servers: usize) -> Self {
        let none = || Compared {
            crowded: AtomicBool::new(false),
            most: AtomicU64::new(Bounds::NONE.most),
            share: AtomicU64::new(Bounds::NONE.share),
        };
        Self { settings, servers: (0..servers).map(|_| none()).collect(), next: AtomicU64::new(0) }
    }

    /// Compares the servers; with `None` the counts are not complete, and no session leaves.
    pub fn update(&self, loads: Option<&[Load]>) {
        let loads = loads.unwrap_or_default();
        let bounds = compare(loads, self.settings.above_mean);
        for (index, server) in self.servers.iter().enumerate() {
            let sessions = loads.get(index).map_or(0, |load| load.sessions);
            server.store(bounds.get(index).copied().unwrap_or(Bounds::NONE), sessions);
        }
    }

    /// Whether a server was crowded when the servers were compared.
    pub fn is_crowded(&self, server: usize) -> bool {
        self.servers.get(server).is_some_and(|server| server.crowded.load(Ordering::Relaxed))
    }

    /// Whether it is still crowded with so many sessions.
    pub fn is_above(&self, server: usize, sessions: u64) -> bool {
        self.servers.get(server).is_some_and(|server| sessions > server.most.load(Ordering::Relaxed))
    }

    /// The servers without room, by their sessions of now.
    pub fn full(&self, sessions: impl Fn(usize) -> u64) -> Vec<usize> {
        let is_full = |(index, server): (usize, &Compared)| {
            (sessions(index) >= server.share.load(Ordering::Relaxed)).then_some(index)
        };
        self.servers.iter().enumerate().filter_map(is_full).collect()
    }

    /// Whether a session that was last seen then has been idle for long enough.
    pub fn is_idle(&self, last_seen: UnixMillis, now: UnixMillis) -> bool {
        now.since(last_seen) >= self.settings.idle_for
    }

    /// Takes the place of one move, if there is one now. Moves are evenly spaced, so that none are saved up for a burst.
    pub fn take(&self, now: UnixMillis) -> bool {
        let now = now.0.saturating_mul(1000);
        let pause = 60_000_000 / u64::from(self.settings.per_minute.max(1));
        let next = |next: u64| (next <= now).then(|| now.saturating_add(pause));
        self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const START: UnixMillis = UnixMillis(1_790_000_000_000);

    fn settings(per_minute: u32) -> config::Rebalance {
        config::Rebalance { idle_for: Duration::from_secs(300), per_minute, above_mean: 1.25 }
    }

    fn loads(loads: &[(u64, u16)]) -> Vec<Load> {
        loads.iter().map(|(sessions, weight)| Load { sessions: *sessions, weight: *weight }).collect()
    }

    #[test]
    fn servers_are_compared_with_their_share_by_weight() {
        let compared = |all: &[(u64, u16)]| -> Vec<(u64, u64)> {
            compare(&loads(all), 1.25).iter().map(|bounds| (bounds.most, bounds.share)).collect()
        };
        assert_eq!(compared(&[(100, 1), (100, 1), (100, 1), (0, 1)]), [(93, 75); 4]);
        assert_eq!(compared(&[(200, 2), (100, 1)]), [(250, 200), (125, 100)]);
        let draining = (u64::MAX, 0);
        assert_eq!(compared(&[(100, 1), (500, 0), (0, 1)]), [(62, 50), draining, (62, 50)]);
        assert_eq!(compared(&[(1, 1), (0, 1)]), [(1, 1), (1, 1)], "one session is no crowd");
        assert_eq!(compared(&[(5, 0)]), [draining]);
        assert_eq!(compared(&[]), []);
    }

    #[test]
    fn nothing_moves_while_the_counts_are_not_complete() {
        let rebalance = Rebalance::new(settings(100), 2);
        rebalance.update(Some(&loads(&[(100, 1), (0, 1)])));
        assert!(rebalance.is_crowded(0) && !rebalance.is_crowded(1));
        assert!(rebalance.is_above(0, 63) && !rebalance.is_above(0, 62), "by the sessions of now");
        assert_eq!(rebalance.full(|server| [70, 30][server]), [0]);
        rebalance.update(None);
        assert!(!rebalance.is_crowded(0) && !rebalance.is_above(0, 100));
        assert_eq!(rebalance.full(|_| 0), [0, 1]);
    }

    #[test]
    fn so_many_sessions_move_in_a_minute_and_none_are_saved_up() {
        let rebalance = Rebalance::new(settings(100), 3);
        let taken = |from: u64| (from..from + 60_000).filter(|at| rebalance.take(UnixMillis(START.0 + at))).count();
        assert_eq!(taken(0), 100);
        assert_eq!(taken(3_600_000), 100, "an hour without a move changes nothing");
    }

    proptest! {
        /// N servers are full, and K more are added. Every second some idle sessions come with a request.
        #[test]
        fn added_servers_fill_up_in_bounded_time_with_the_fewest_moves(
            weights in prop::collection::vec(1_u16..5, 2..6),
            added in prop::collection::vec(1_u16..5, 1..4),
            per_weight in 50_u64..400,
            seed: u64,
        ) {
            let per_minute = 600;
            let rebalance = Rebalance::new(settings(per_minute), weights.len() + added.len());
            let full = weights.iter().map(|weight| (u64::from(*weight) * per_weight, *weight));
            let mut servers = loads(&full.chain(added.iter().map(|weight| (0, *weight))).collect::<Vec<_>>());
            let total: u64 = servers.iter().map(|load| load.sessions).sum();
            let weight: u64 = servers.iter().map(|load| u64::from(load.weight)).sum();
            let share = |load: &Load| total as f64 * f64::from(load.weight) / weight as f64;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small number of sessions")]
            let most = |load: &Load| (share(load) * 1.25).max(share(load).ceil()) as u64;
            let excess: u64 = servers.iter().map(|load| load.sessions.saturating_sub(most(load))).sum();
            let mut random = seed;
            let mut draw = |below: usize| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                usize::try_from((random >> 33) % below as u64).unwrap()
            };
            let (mut moves, mut seconds) = (0_u64, 0_u64);
            loop {
                rebalance.update(Some(&servers));
                if (0..servers.len()).all(|server| !rebalance.is_crowded(server)) {
                    break;
                }
                for request in 0..200 {
                    let now = UnixMillis(START.0 + seconds * 1000 + request * 5);
                    let home = draw(servers.len());
                    let leaves = rebalance.is_crowded(home) && rebalance.is_above(home, servers[home].sessions);
                    if !leaves || !rebalance.take(now) {
                        continue;
                    }
                    let full = rebalance.full(|server| servers[server].sessions);
                    let room: Vec<_> = (0..servers.len()).filter(|server| !full.contains(server)).collect();
                    prop_assert!(!room.is_empty(), "where one is above the mean, another is below");
                    let next = room[draw(room.len())];
                    servers[home].sessions -= 1;
                    servers[next].sessions += 1;
                    moves += 1;
                }
                seconds += 1;
                prop_assert!(seconds <= excess / 5 + 60, "{} s for {} sessions: {:?}", seconds, excess, servers);
            }
            prop_assert_eq!(moves, excess, "the fewest");
            prop_assert_eq!(servers.iter().map(|load| load.sessions).sum::<u64>(), total);
        }
    }
}
