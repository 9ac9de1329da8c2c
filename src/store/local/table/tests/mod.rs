//! The table against what it promises: by hand, against a model with a hand-moved clock, and from many threads.

mod eviction;
mod model;
mod promises;
mod threads;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::session::key::SessionKey;
use crate::session::token::UnixMillis;
use crate::store::EndReason;
use crate::store::local::table::Table;
use crate::store::local::table::shard::shards_for;
use crate::store::targets::Target;

/// When the tests begin.
const START: UnixMillis = UnixMillis(1_790_000_000_000);
const IDLE: Duration = Duration::from_secs(10);
const ABSOLUTE: Duration = Duration::from_secs(60);

/// All sessions that left, in order.
type Departures = Arc<Mutex<Vec<(String, EndReason)>>>;

fn table(capacity: usize) -> (Table, Departures) {
    table_of(shards_for(capacity), capacity)
}

fn table_of(shards: usize, capacity: usize) -> (Table, Departures) {
    let departures = Departures::default();
    let told = Arc::clone(&departures);
    let on_end = move |target: &Target, reason| told.lock().push((target.server().to_string(), reason));
    let table = Table::with_shards(capacity, shards, START, Box::new(on_end));
    table.set_limits("shop", IDLE, ABSOLUTE);
    (table, departures)
}

fn after(seconds: u64) -> UnixMillis {
    UnixMillis(START.0 + seconds * 1000)
}

/// A key as good as random for each number.
fn key(number: u64) -> SessionKey {
    SessionKey(u128::from(scrambled(number)) << 64 | u128::from(scrambled(!number)))
}

/// splitmix64.
fn scrambled(number: u64) -> u64 {
    let mut bits = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

fn sweep_a_round(table: &Table, now: UnixMillis) -> usize {
    (0..table.shards()).map(|_| table.sweep_step(now)).sum()
}
