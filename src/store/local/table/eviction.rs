//! Which shard has the longest idle session, without a look into any: what a full table asks before it sends somebody away.
//!
//! A newcomer's shard and the shard that gives up a session for it are two random ones. If the latter did so regardless of
//! how idle its own are, shards would exchange sessions at random, their sizes would wander, and one that has lost all its idle
//! sessions would send away those who keep coming back. As it is, the one goes that is idle for longest in the table, or, in
//! a table of many shards, in a sample of them: the least of a few random choices is close to the least of all
//! (M. Mitzenmacher, *The power of two choices in randomized load balancing*, 2001), and here the choices are 64.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use crate::store::expiry::Tick;

/// For each shard a moment at or before which none of its sessions was last seen; visits make it too early, and whoever
/// looks into the shard puts it right. Written under the shard's lock, read without. Relaxed, because it is a hint: at
/// worst the wrong shard is looked into.
pub(super) struct IdleIndex(Box<[AtomicU32]>);

/// So many shards are asked, all of a table for up to 98,304 sessions: a tenth of a microsecond.
pub(super) const ASKED: usize = 64;
/// Of a shard that is empty.
const EMPTY: Tick = Tick::MAX;

impl IdleIndex {
    /// For empty shards, a power of two of them.
    pub(super) fn new(shards: usize) -> Self {
        Self((0..shards).map(|_| AtomicU32::new(EMPTY)).collect())
    }

    /// A session of the shard was last seen then. Under its write lock, if the session is new there.
    pub(super) fn lower(&self, shard: usize, last_seen: Tick) {
        let last_seen = last_seen.min(EMPTY - 1);
        if let Some(since) = self.0.get(shard)
            && since.load(Relaxed) > last_seen
        {
            since.fetch_min(last_seen, Relaxed);
        }
    }

    /// The first of the shard was last seen then; `None` when nobody is there. Under its lock, and that of readers will do.
    pub(super) fn set(&self, shard: usize, first: Option<Tick>) {
        if let Some(since) = self.0.get(shard) {
            since.store(first.map_or(EMPTY, |tick| tick.min(EMPTY - 1)), Relaxed);
        }
    }

    /// Of `home` and others, in odd steps from there, the shard with the longest idle session, and since when that may be
    /// idle. `None` when all are empty.
    pub(super) fn longest_idle(&self, home: usize, step: usize) -> Option<(usize, Tick)> {
        // An odd step meets every one of a power of two before it meets one again.
        let (shards, step) = (self.0.len(), step | 1);
        let mut eviction = None;
        for turn in 0..shards {
            if turn >= ASKED && eviction.is_some() {
                break;
            }
            let shard = home.wrapping_add(turn.wrapping_mul(step)) & (shards - 1);
            let since = self.0.get(shard)?.load(Relaxed);
            if since < eviction.map_or(EMPTY, |(_, earliest)| earliest) {
                eviction = Some((shard, since));
            }
        }
        eviction
    }

    /// Its memory.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_idle_is_found_wherever_it_is() {
        for shards in [2, 64] {
            for (at, home, step) in (0..shards).flat_map(|at| [(at, 0, 0), (at, 1, 77), (at, shards - 1, 65_535)]) {
                let eviction = IdleIndex::new(shards);
                assert_eq!(eviction.longest_idle(home, step), None);
                (0..shards).for_each(|shard| eviction.lower(shard, 1_000));
                eviction.lower(at, 999);
                assert_eq!(eviction.longest_idle(home, step), Some((at, 999)), "from {home} in steps of {step}");
            }
        }
    }

    #[test]
    fn the_only_session_of_a_huge_table_is_found() {
        let eviction = IdleIndex::new(1 << 16);
        eviction.lower(54_321, Tick::MAX);
        assert_eq!(eviction.longest_idle(77, 1_234), Some((54_321, EMPTY - 1)));
    }

    #[test]
    fn of_many_shards_one_is_found_that_is_idler_than_most() {
        let eviction = IdleIndex::new(4_096);
        (0..4_096).for_each(|shard| eviction.lower(shard, u32::try_from(shard * 2_654_435 % 4_096).unwrap()));
        let found: Vec<u32> = (0..1_000).map(|n| eviction.longest_idle(n * 4, n * 7_919).unwrap().1).collect();
        let mean = found.iter().sum::<u32>() / 1_000;
        assert!(mean < 4_096 / 32, "{mean} on average, a sixty-fourth of 4,096 is what chance would give");
    }

    #[test]
    fn a_look_puts_a_shard_right() {
        let eviction = IdleIndex::new(2);
        eviction.lower(0, 5);
        eviction.lower(0, 7);
        assert_eq!(eviction.longest_idle(1, 1), Some((0, 5)), "the first counts");
        eviction.set(0, Some(9));
        assert_eq!(eviction.longest_idle(1, 1), Some((0, 9)));
        eviction.set(0, None);
        assert_eq!(eviction.longest_idle(1, 1), None);
    }
}
