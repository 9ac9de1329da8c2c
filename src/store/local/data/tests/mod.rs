//! What session data promises: [`promises`] one by one, [`model`] against a plain map, [`room`] when memory runs out.

mod model;
mod promises;
mod room;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use super::*;

const NOW: UnixMillis = UnixMillis(1_790_000_000_000);
const IDLE: Duration = Duration::from_secs(60);
const ABSOLUTE: Duration = Duration::from_secs(600);

struct World {
    data: SessionData,
    table: Table,
    shop: Arc<Target>,
    evicted: Arc<AtomicUsize>,
}

impl World {
    fn new(most: usize, shards: usize) -> Self {
        let table = Table::new(10_000, NOW, Box::new(|_, _| ()));
        table.set_limits("shop", IDLE, ABSOLUTE);
        let evicted = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&evicted);
        let on_eviction = Box::new(move |_: &Target| {
            counted.fetch_add(1, SeqCst);
        });
        let data = SessionData::with_shards(most, shards, NOW, on_eviction);
        Self { data, shop: table.target("shop", "a"), table, evicted }
    }

    fn owner(&self, key: SessionKey, epoch: u32) -> Owner {
        Owner { key, epoch, created: NOW, pool: self.shop.index() }
    }

    fn keep(&self, key: SessionKey, epoch: u32, text: &str, now: UnixMillis) -> bool {
        self.data.keep(&self.owner(key, epoch), &value(text), &self.table, now)
    }

    fn found(&self, key: SessionKey, epoch: u32) -> Option<String> {
        self.data.find(&key, epoch).map(|data| text(&data))
    }

    fn record_move(&self, key: SessionKey, from: u32, moved_header: Option<&str>) {
        self.data.record_move(&self.owner(key, from + 1), from, moved_header.map(value), &self.table, NOW);
    }

    /// Told and data, while the session's new server has not answered below 500.
    fn pending(&self, key: SessionKey, epoch: u32) -> Option<(String, Option<String>)> {
        let given = self.data.pending_handoff(&key, epoch)?;
        Some((text(&given.moved_header?), given.data.as_ref().map(text)))
    }

    /// Looks at every shard once; how many left.
    fn sweep(&self, now: UnixMillis) -> usize {
        (0..self.data.shards.len()).map(|_| self.data.sweep_step(&self.table, now)).sum()
    }

    fn sessions(&self) -> usize {
        self.data.len()
    }
}

fn key(n: u128) -> SessionKey {
    // Spread as real keys are.
    SessionKey(n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap()
}

fn text(value: &HeaderValue) -> String {
    value.to_str().unwrap().to_owned()
}
