//! The targets that sessions are bound to: (pool, server) by name, numbered for the life of the process.
//!
//! A record of the table holds a target's number, not its name. Numbers are never reused: a server that left the configuration
//! keeps its number, because sessions may still be bound to it and because it may return.

use std::array::from_fn;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use parking_lot::Mutex;

use crate::session::key::ServerId;
use crate::store::expiry::Limits;

/// The number of a target in its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TargetIndex(pub(super) u32);

/// A server of a pool, or the pool's tombstone.
#[derive(Debug)]
pub struct Target {
    index: TargetIndex,
    pool: Arc<str>,
    server: Arc<str>,
    id: ServerId,
    pub(super) limits: Arc<Limits>,
    sessions: Sessions,
}

/// A target's number of sessions: changed under a shard's lock when one is added, moves or ends, read by the metrics.
/// Relaxed, because nothing is published by it. On a separate cache line, because every visit reads the other fields.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Sessions(AtomicU64);

impl Target {
    /// Its number, as in [`TableEntry::target`](crate::store::TableEntry::target).
    pub const fn index(&self) -> TargetIndex {
        self.index
    }

    /// The pool's name.
    pub fn pool(&self) -> &str {
        &self.pool
    }

    /// The server's name.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Whether it is the target of a pool's ended sessions: no server has an empty name.
    pub fn is_tombstone(&self) -> bool {
        self.server.is_empty()
    }

    /// The server's id in tokens.
    pub const fn id(&self) -> ServerId {
        self.id
    }

    /// The pool's idle limit.
    pub fn idle(&self) -> Duration {
        self.limits.idle()
    }

    /// The pool's absolute limit.
    pub fn absolute(&self) -> Duration {
        self.limits.absolute()
    }

    /// How many sessions the table has for it.
    pub fn sessions(&self) -> u64 {
        self.sessions.0.load(Relaxed)
    }

    pub(super) fn add_session(&self) {
        self.sessions.0.fetch_add(1, Relaxed);
    }

    pub(super) fn remove_session(&self) {
        self.sessions.0.fetch_sub(1, Relaxed);
    }
}

/// All targets. Lookup by number takes no lock and no reference count, since every visit does it on every thread.
pub(super) struct Targets {
    /// Numbers to targets, append-only: chunk *n* holds `FIRST_CHUNK << n` of them. Each is written once,
    /// under the lock of `names`.
    chunks: [OnceLock<Chunk>; CHUNKS],
    /// Names to numbers. Locked by a reload and by the metrics, never by a visit.
    names: Mutex<Names>,
}

type Chunk = Box<[OnceLock<Arc<Target>>]>;

const FIRST_CHUNK: u64 = 64;
/// Enough for every `u32`.
const CHUNKS: usize = 27;

#[derive(Default)]
struct Names {
    /// All targets in the order of their numbers.
    all: Vec<Arc<Target>>,
    pools: HashMap<Arc<str>, Pool>,
}

struct Pool {
    limits: Arc<Limits>,
    servers: HashMap<Arc<str>, Arc<Target>>,
}

impl Targets {
    pub(super) fn new() -> Self {
        Self { chunks: from_fn(|_| OnceLock::new()), names: Mutex::default() }
    }

    /// The target of that name, created at its first use.
    pub(super) fn intern(&self, pool: &str, server: &str) -> Arc<Target> {
        let mut names = self.names.lock();
        // After four billion names the last number is shared.
        let index = u32::try_from(names.all.len()).unwrap_or(u32::MAX);
        let (pool, entry) = names.pool(pool);
        if let Some(target) = entry.servers.get(server) {
            return Arc::clone(target);
        }
        let id = ServerId::of(server);
        let server: Arc<str> = Arc::from(server);
        let target = Arc::new(Target {
            index: TargetIndex(index),
            pool,
            server: Arc::clone(&server),
            id,
            limits: Arc::clone(&entry.limits),
            sessions: Sessions::default(),
        });
        entry.servers.insert(server, Arc::clone(&target));
        names.all.push(Arc::clone(&target));
        self.publish(&target);
        target
    }

    /// The target with that number.
    #[inline]
    pub(super) fn at(&self, index: TargetIndex) -> Option<&Arc<Target>> {
        let (chunk, offset) = position(index);
        self.chunks.get(chunk)?.get()?.get(offset)?.get()
    }

    pub(super) fn all(&self) -> Vec<Arc<Target>> {
        self.names.lock().all.clone()
    }

    pub(super) fn set_limits(&self, pool: &str, idle: Duration, absolute: Duration) {
        self.names.lock().pool(pool).1.limits.set(idle, absolute);
    }

    pub(super) fn shortest_limit(&self) -> Option<Duration> {
        self.names.lock().pools.values().filter_map(|pool| pool.limits.shortest()).min()
    }

    fn publish(&self, target: &Arc<Target>) {
        let (number, offset) = position(target.index);
        let Some(chunk) = self.chunks.get(number) else { return };
        let chunk = chunk.get_or_init(|| (0..FIRST_CHUNK << number).map(|_| OnceLock::new()).collect());
        if let Some(slot) = chunk.get(offset) {
            slot.get_or_init(|| Arc::clone(target));
        }
    }
}

impl Names {
    fn pool(&mut self, name: &str) -> (Arc<str>, &mut Pool) {
        let name = self.pools.get_key_value(name).map_or_else(|| Arc::from(name), |(name, _)| Arc::clone(name));
        let pool = self
            .pools
            .entry(Arc::clone(&name))
            .or_insert_with(|| Pool { limits: Arc::new(Limits::none()), servers: HashMap::new() });
        (name, pool)
    }
}

/// The chunk of a number, and the offset in it.
#[inline]
fn position(index: TargetIndex) -> (usize, usize) {
    let number = u64::from(index.0) + FIRST_CHUNK;
    let chunk = number.ilog2() - FIRST_CHUNK.ilog2();
    let offset = number - (FIRST_CHUNK << chunk);
    (chunk as usize, usize::try_from(offset).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::thread;

    use super::*;

    #[test]
    fn a_target_keeps_its_number_and_is_found_by_it() {
        let targets = Targets::new();
        let first: Vec<_> = (0..1000).map(|n| targets.intern("shop", &format!("s{n}"))).collect();
        for (n, target) in first.iter().enumerate() {
            let again = targets.intern("shop", &format!("s{n}"));
            assert!(Arc::ptr_eq(target, &again), "the same name is the same target");
            assert!(Arc::ptr_eq(target, targets.at(target.index()).unwrap()));
        }
        assert_eq!(targets.all().len(), 1000);
        assert!(targets.at(TargetIndex(1000)).is_none(), "a number that was never assigned has no target");
        assert!(targets.at(TargetIndex(u32::MAX)).is_none());
    }

    #[test]
    fn servers_of_two_pools_may_share_a_name() {
        let targets = Targets::new();
        let (a, b) = (targets.intern("shop", "s1"), targets.intern("chat", "s1"));
        assert_ne!(a.index(), b.index());
        assert_eq!((a.pool(), b.pool(), a.server()), ("shop", "chat", "s1"));
    }

    #[test]
    fn a_pools_limits_apply_to_targets_created_before_and_after() {
        let targets = Targets::new();
        let before = targets.intern("shop", "s1");
        targets.set_limits("shop", Duration::from_secs(1), Duration::from_secs(9));
        let after = targets.intern("shop", "s2");
        let other = targets.intern("chat", "s1");
        assert!(before.limits.verdict(0, 0, 11).is_some());
        assert!(after.limits.verdict(0, 0, 11).is_some());
        assert!(other.limits.verdict(0, 0, 11).is_none());
        assert_eq!(targets.shortest_limit(), Some(Duration::from_secs(1)));
    }

    #[test]
    fn threads_that_name_the_same_servers_get_the_same_numbers() {
        let targets = Targets::new();
        let seen: Vec<Vec<TargetIndex>> = thread::scope(|scope| {
            let name_all = || (0..500).map(|n| targets.intern("p", &format!("s{n}")).index()).collect();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(name_all)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(seen.windows(2).all(|pair| pair[0] == pair[1]));
        assert_eq!(seen[0].iter().collect::<HashSet<_>>().len(), 500);
    }

    #[test]
    fn every_number_has_a_chunk() {
        assert_eq!(position(TargetIndex(0)), (0, 0));
        assert_eq!(position(TargetIndex(63)), (0, 63));
        assert_eq!(position(TargetIndex(64)), (1, 0));
        assert!(position(TargetIndex(u32::MAX)).0 < CHUNKS);
    }
}
