//! The sessions that the bench works with: number *n* has always the same key.

use std::env;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use homing::session::key::SessionKey;
use homing::session::token::UnixMillis;
use homing::store::local::table::Table;
use homing::store::targets::Target;

pub(crate) const NOW: UnixMillis = UnixMillis(1_790_000_000_000);
/// The time when sessions that were not touched after [`NOW`] have expired.
pub(crate) const LATER: UnixMillis = UnixMillis(NOW.0 + 1_801_000);
pub(crate) const MILLION: u64 = 1_000_000;

/// splitmix64: key number *n* is as good as random.
pub(crate) fn scrambled(number: u64) -> u64 {
    let mut bits = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

pub(crate) fn key(number: u64) -> SessionKey {
    SessionKey(u128::from(scrambled(number)) << 64 | u128::from(scrambled(!number)))
}

/// One of `sessions`, as good as at random.
pub(crate) fn any_of(sessions: u64, turn: u64) -> SessionKey {
    key(((u128::from(scrambled(turn ^ 0xabcd)) * u128::from(sessions)) >> 64) as u64)
}

/// The key of an unknown session, different for each `turn`.
pub(crate) fn unknown_key(turn: u64) -> SessionKey {
    key(turn | 1 << 60)
}

/// The number of a newcomer, another one for each `turn` and `wave` (up to 500).
pub(crate) fn newcomer(wave: u64, turn: u64) -> u64 {
    turn | (wave + 1) << 50
}

/// A table, and twenty servers.
pub(crate) struct Bench {
    pub(crate) table: Table,
    pub(crate) targets: Vec<Arc<Target>>,
}

impl Bench {
    pub(crate) fn new(capacity: u64) -> Self {
        let capacity = usize::try_from(capacity).unwrap();
        let table = match env::var("SHARDS").ok().and_then(|shards| shards.parse().ok()) {
            Some(shards) => Table::with_shards(capacity, shards, NOW, Box::new(|_, _| {})),
            None => Table::new(capacity, NOW, Box::new(|_, _| {})),
        };
        table.set_limits("shop", Duration::from_secs(1_800), Duration::from_secs(86_400));
        let targets = (0..20).map(|n| table.target("shop", &format!("server-{n}"))).collect();
        Self { table, targets }
    }

    pub(crate) fn full(sessions: u64) -> Self {
        let bench = Self::new(sessions);
        (0..sessions).for_each(|n| bench.insert(n, NOW));
        bench
    }

    pub(crate) fn insert(&self, number: u64, now: UnixMillis) {
        let place = &self.targets[number as usize % self.targets.len()];
        black_box(self.table.restore(key(number), place, 0, NOW, now));
    }

    pub(crate) fn visit(&self, key: &SessionKey, now: UnixMillis) {
        black_box(self.table.visit(key, now));
    }

    pub(crate) fn rebind(&self, sessions: u64, turn: u64) {
        let to = &self.targets[turn as usize % self.targets.len()];
        black_box(self.table.rebind(any_of(sessions, turn), turn as u32, to, NOW, NOW));
    }
}
