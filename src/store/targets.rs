//! The targets that sessions are bound to: (pool, server) by name, numbered.
//!
//! A record of the table holds a target's number, not its name. A server that left the configuration keeps its number while
//! sessions are bound to it, and for the [`GRACE`] after the last: then another server of its pool may get the number, so that
//! memory does not grow with servers that come and go.

use std::array::from_fn;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use crate::session::key::ServerId;
use crate::store::expiry::Limits;

/// The number of a target in its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TargetIndex(pub(super) u32);

/// How long a target has no session, and no configuration has its server, before its number is free. A request that has read the
/// number from a record is over by then, or does not read the target again.
pub const GRACE: Duration = Duration::from_secs(60);
/// How many names are remembered of servers whose numbers are free: tokens may still name them.
const MOST_FORMER: usize = 4096;

/// A server of a pool, or the pool's tombstone.
#[derive(Debug)]
pub struct Target {
    index: TargetIndex,
    pool: Arc<str>,
    /// The server's name; empty for a tombstone. Changed when another server of the pool gets the number, under the lock of
    /// [`Targets::names`]; read where a name is shown or stored.
    server: RwLock<Arc<str>>,
    /// The server's id. Relaxed: a number is found in a record that was written after the id.
    id: AtomicU64,
    is_tombstone: bool,
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
    pub fn server(&self) -> Arc<str> {
        Arc::clone(&self.server.read())
    }

    /// Whether it is the target of a pool's ended sessions: no server has an empty name.
    pub fn is_tombstone(&self) -> bool {
        self.is_tombstone
    }

    /// The server's id in tokens.
    pub fn id(&self) -> ServerId {
        ServerId(self.id.load(Relaxed))
    }

    /// The number becomes another server's.
    fn rename(&self, server: &Arc<str>) {
        *self.server.write() = Arc::clone(server);
        self.id.store(ServerId::of(server).0, Relaxed);
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
    /// How many numbers there are.
    numbers: u32,
    pools: HashMap<Arc<str>, Pool>,
    /// Servers whose numbers are free, the last at the end.
    former: VecDeque<FormerServer>,
}

struct Pool {
    limits: Arc<Limits>,
    servers: HashMap<Arc<str>, NamedTarget>,
    /// Targets whose numbers are free, in the order in which they became so.
    free: VecDeque<Arc<Target>>,
}

struct NamedTarget {
    target: Arc<Target>,
    /// Since when it has no session and no configuration has it.
    unused_since: Option<Instant>,
}

struct FormerServer {
    pool: Arc<str>,
    server: Arc<str>,
    id: ServerId,
}

/// References to a target that is only known here: from its slot and from its name.
const OWN_REFERENCES: usize = 2;

impl Targets {
    pub(super) fn new() -> Self {
        Self { chunks: from_fn(|_| OnceLock::new()), names: Mutex::default() }
    }

    /// The target of that name, created at its first use.
    pub(super) fn intern(&self, pool: &str, server: &str) -> Arc<Target> {
        let mut names = self.names.lock();
        // After four billion names the last number is shared.
        let (index, next) = (names.numbers, names.numbers.saturating_add(1));
        let (pool, entry) = names.pool(pool);
        if let Some(named) = entry.servers.get_mut(server) {
            named.unused_since = None;
            return Arc::clone(&named.target);
        }
        let server: Arc<str> = Arc::from(server);
        let free = if server.is_empty() { None } else { entry.take_free() };
        let is_new = free.is_none();
        let target = free.unwrap_or_else(|| {
            Arc::new(Target {
                index: TargetIndex(index),
                pool,
                server: RwLock::new(Arc::clone(&server)),
                id: AtomicU64::new(ServerId::of(&server).0),
                is_tombstone: server.is_empty(),
                limits: Arc::clone(&entry.limits),
                sessions: Sessions::default(),
            })
        });
        target.rename(&server);
        entry.servers.insert(server, NamedTarget { target: Arc::clone(&target), unused_since: None });
        if is_new {
            names.numbers = next;
            self.publish(&target);
        }
        target
    }

    /// Frees the numbers of servers that have had no session for the grace, and that no configuration has: whoever has one holds a
    /// reference. To be called again and again; nothing waits for it but a reload.
    pub(super) fn free_unused(&self, now: Instant) {
        let mut names = self.names.lock();
        let Names { pools, former, .. } = &mut *names;
        for (pool, entry) in pools {
            let Pool { servers, free, .. } = entry;
            servers.retain(|server, NamedTarget { target, unused_since }| {
                let is_used =
                    target.is_tombstone || target.sessions() > 0 || Arc::strong_count(target) > OWN_REFERENCES;
                *unused_since = if is_used { None } else { Some(unused_since.unwrap_or(now)) };
                let stays = unused_since.is_none_or(|since| now.saturating_duration_since(since) < GRACE);
                if !stays {
                    former.push_back(FormerServer {
                        pool: Arc::clone(pool),
                        server: Arc::clone(server),
                        id: target.id(),
                    });
                    free.push_back(Arc::clone(target));
                }
                stays
            });
            if servers.capacity() / 4 > servers.len() {
                servers.shrink_to_fit();
            }
        }
        let surplus = former.len().saturating_sub(MOST_FORMER);
        former.drain(..surplus);
        former.shrink_to(MOST_FORMER);
    }

    /// The name of a pool's server, also of one that left some time ago.
    pub(super) fn name_of(&self, pool: &str, id: ServerId) -> Option<Arc<str>> {
        let names = self.names.lock();
        let mut servers = names.pools.get(pool)?.servers.iter();
        let named = servers.find(|(_, named)| named.target.id() == id).map(|(server, _)| Arc::clone(server));
        let former = || names.former.iter().rev().find(|former| former.id == id && &*former.pool == pool);
        named.or_else(|| former().map(|former| Arc::clone(&former.server)))
    }

    /// The target with that number.
    #[inline]
    pub(super) fn at(&self, index: TargetIndex) -> Option<&Arc<Target>> {
        let (chunk, offset) = position(index);
        self.chunks.get(chunk)?.get()?.get(offset)?.get()
    }

    /// Without those whose numbers are free, in the order of their numbers.
    pub(super) fn all(&self) -> Vec<Arc<Target>> {
        let names = self.names.lock();
        let servers = names.pools.values().flat_map(|pool| pool.servers.values());
        let mut all: Vec<_> = servers.map(|named| Arc::clone(&named.target)).collect();
        all.sort_unstable_by_key(|target| target.index.0);
        all
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
        let pool = self.pools.entry(Arc::clone(&name)).or_insert_with(|| Pool {
            limits: Arc::new(Limits::none()),
            servers: HashMap::new(),
            free: VecDeque::new(),
        });
        (name, pool)
    }
}

impl Pool {
    /// The target that has been free for the longest time, if it is still what it should be.
    fn take_free(&mut self) -> Option<Arc<Target>> {
        let is_free = |target: &Arc<Target>| target.sessions() == 0 && Arc::strong_count(target) == OWN_REFERENCES;
        if self.free.front().is_some_and(is_free) { self.free.pop_front() } else { None }
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
        assert_eq!((a.pool(), b.pool(), &*a.server()), ("shop", "chat", "s1"));
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
    fn servers_that_come_and_go_share_numbers() {
        let targets = Targets::new();
        let start = Instant::now();
        let kept = targets.intern("shop", "kept");
        let busy = targets.intern("shop", "busy").index();
        targets.at(busy).unwrap().add_session();
        targets.intern("shop", "");
        for round in 0..50_u32 {
            let name = |n| format!("s{round}-{n}");
            for n in 0..20 {
                targets.intern("shop", &name(n));
            }
            let now = start + GRACE * (2 * round);
            targets.free_unused(now);
            assert_eq!(targets.all().len(), 23, "within the grace they stay");
            targets.free_unused(now + GRACE);
            assert_eq!(targets.all().len(), 3, "one in use, one with a session, and the tombstone");
            let id = ServerId::of(&name(7));
            assert_eq!(targets.name_of("shop", id).as_deref(), Some(&*name(7)), "tokens may still name it");
        }
        assert!(targets.names.lock().numbers <= 23, "{} numbers", targets.names.lock().numbers);
        assert_eq!((&*kept.server(), targets.at(busy).unwrap().server().as_ref()), ("kept", "busy"));
        targets.at(busy).unwrap().remove_session();
        assert!(targets.at(busy).is_some_and(|target| target.id() == ServerId::of("busy")));
        let other = targets.intern("shop", "other");
        assert_eq!((other.id(), &*other.server()), (ServerId::of("other"), "other"));
        assert!(Arc::ptr_eq(&other, targets.at(other.index()).unwrap()));
        assert_eq!(targets.name_of("shop", ServerId::of("other")).as_deref(), Some("other"));
        assert_eq!(targets.name_of("chat", ServerId::of("other")), None);
    }

    #[test]
    fn a_server_that_returns_within_the_grace_keeps_its_number() {
        let targets = Targets::new();
        let start = Instant::now();
        let before = targets.intern("shop", "a").index();
        targets.free_unused(start);
        targets.free_unused(start + GRACE / 2);
        assert_eq!(targets.intern("shop", "a").index(), before);
        // Its clock begins again.
        targets.free_unused(start + GRACE);
        targets.free_unused(start + GRACE + GRACE / 2);
        assert_eq!(targets.intern("shop", "a").index(), before);
        assert_eq!(targets.intern("shop", "b").index(), TargetIndex(1));
    }

    #[test]
    fn a_target_that_a_configuration_holds_is_never_free() {
        let targets = Targets::new();
        let start = Instant::now();
        let held = targets.intern("shop", "a");
        for minute in 0..10 {
            targets.free_unused(start + GRACE * minute);
        }
        assert!(Arc::ptr_eq(&held, &targets.intern("shop", "a")));
        let index = held.index();
        drop(held);
        targets.free_unused(start + GRACE * 20);
        targets.free_unused(start + GRACE * 21);
        let late = Arc::clone(targets.at(index).unwrap());
        assert_ne!(targets.intern("shop", "b").index(), index, "a late reference keeps the number");
        drop(late);
        assert_eq!(targets.intern("shop", "c").index(), index);
    }

    #[test]
    fn every_number_has_a_chunk() {
        assert_eq!(position(TargetIndex(0)), (0, 0));
        assert_eq!(position(TargetIndex(63)), (0, 63));
        assert_eq!(position(TargetIndex(64)), (1, 0));
        assert!(position(TargetIndex(u32::MAX)).0 < CHUNKS);
    }
}
