//! Concurrent first requests of one client are pinned to one server.
//!
//! A browser opens several connections at once, and its first requests carry no session. Each would begin a session on a
//! different server, and the cookie of the last response would win. So the server of an address's last new client is
//! remembered for [`LIFETIME`]. It is no binding: another address may overwrite it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::session::key::SessionKey;
use crate::session::token::UnixMillis;

use crate::store::targets::{Target, TargetIndex};

/// How long new clients of an address are sent to the server of the first.
pub const LIFETIME: Duration = Duration::from_secs(10);

/// Remembered addresses, each by its hash: 64 KiB.
const SLOTS: usize = 8192;

/// An entry in 64 bits, so that it is read and written atomically: 22 bits of the address's hash, 24 of the target, 18 of the
/// time in tenths of a second, which wrap every seven hours.
#[derive(Clone, Copy, PartialEq, Eq)]
struct FirstRequest(u64);

impl FirstRequest {
    const TICK_BITS: u32 = 18;
    const TARGET_BITS: u32 = 24;

    fn new(address: SessionKey, target: TargetIndex, tick: u64) -> Option<Self> {
        let target = u64::from(target.0);
        let fits = target >> Self::TARGET_BITS == 0;
        fits.then(|| Self(Self::tag(address) | target << Self::TICK_BITS | (tick & Self::TICKS)))
    }

    const TICKS: u64 = (1 << Self::TICK_BITS) - 1;

    fn tag(address: SessionKey) -> u64 {
        let high = u64::try_from(address.0 >> 64).unwrap_or(0);
        high >> (Self::TICK_BITS + Self::TARGET_BITS) << (Self::TICK_BITS + Self::TARGET_BITS)
    }

    /// The target, if the entry is of this address and recent enough.
    fn target(self, address: SessionKey, tick: u64) -> Option<TargetIndex> {
        let bits = Self::TICK_BITS + Self::TARGET_BITS;
        let age = tick.wrapping_sub(self.0) & Self::TICKS;
        // A request reads the clock when it begins, so it may find an entry of one that began later.
        let distance = age.min(Self::TICKS + 1 - age);
        let fresh = u128::from(distance) * 100 < LIFETIME.as_millis();
        let target = self.0 >> Self::TICK_BITS & ((1 << Self::TARGET_BITS) - 1);
        (self.0 >> bits == Self::tag(address) >> bits && fresh).then(|| u32::try_from(target).map(TargetIndex).ok())?
    }
}

/// All entries. Relaxed: nothing else is published by a slot.
pub struct FirstRequests(Box<[AtomicU64]>);

impl FirstRequests {
    /// Empty.
    pub fn new() -> Self {
        Self((0..SLOTS).map(|_| AtomicU64::new(0)).collect())
    }

    /// The target of the address's last new client, if it is recent.
    pub fn find(&self, address: SessionKey, now: UnixMillis) -> Option<TargetIndex> {
        FirstRequest(self.slot(address)?.load(Relaxed)).target(address, now.0 / 100)
    }

    /// Records that a new client of this address is about to be sent to `target`, unless another was first: then that one's
    /// target is returned.
    pub fn claim(&self, address: SessionKey, target: &Target, now: UnixMillis) -> Option<TargetIndex> {
        self.decide(address, None, target, now)
    }

    /// The same when the recorded target is `gone`: the first request to find that decides again, and the others follow.
    pub fn replace(
        &self,
        address: SessionKey,
        gone: TargetIndex,
        target: &Target,
        now: UnixMillis,
    ) -> Option<TargetIndex> {
        self.decide(address, Some(gone), target, now)
    }

    fn decide(
        &self,
        address: SessionKey,
        gone: Option<TargetIndex>,
        target: &Target,
        now: UnixMillis,
    ) -> Option<TargetIndex> {
        let (slot, tick) = (self.slot(address)?, now.0 / 100);
        let entry = FirstRequest::new(address, target.index(), tick)?;
        let mut seen = slot.load(Relaxed);
        loop {
            let existing = FirstRequest(seen).target(address, tick);
            if existing.is_some() && existing != gone {
                return existing;
            }
            match slot.compare_exchange_weak(seen, entry.0, Relaxed, Relaxed) {
                Ok(_) => return None,
                Err(now) => seen = now,
            }
        }
    }

    fn slot(&self, address: SessionKey) -> Option<&AtomicU64> {
        usize::try_from(address.0 % SLOTS as u128).ok().and_then(|slot| self.0.get(slot))
    }
}

impl Default for FirstRequests {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;
    use crate::store::local::table::Table;

    const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

    fn targets() -> Vec<Arc<Target>> {
        let table = Table::new(10, NOW, Box::new(|_, _| ()));
        (0..4).map(|n| table.target("web", &format!("s{n}"))).collect()
    }

    fn address(n: u128) -> SessionKey {
        SessionKey(n << 100 | n)
    }

    #[test]
    fn new_clients_of_one_address_follow_the_first_for_ten_seconds() {
        let (requests, targets) = (FirstRequests::new(), targets());
        assert_eq!(requests.find(address(7), NOW), None);
        assert_eq!(requests.claim(address(7), &targets[2], NOW), None);
        assert_eq!(requests.claim(address(7), &targets[1], NOW), Some(targets[2].index()));
        assert_eq!(requests.find(address(7), NOW.plus(Duration::from_millis(9_900))), Some(targets[2].index()));
        assert_eq!(requests.find(address(7), NOW.plus(LIFETIME)), None);
        assert_eq!(requests.claim(address(7), &targets[1], NOW.plus(LIFETIME)), None);
        assert_eq!(requests.find(address(8), NOW), None);
    }

    #[test]
    fn a_request_follows_one_that_began_after_it() {
        let (requests, targets) = (FirstRequests::new(), targets());
        assert_eq!(requests.claim(address(7), &targets[2], NOW.plus(Duration::from_millis(150))), None);
        assert_eq!(requests.claim(address(7), &targets[1], NOW), Some(targets[2].index()));
        assert_eq!(requests.find(address(7), NOW.minus(LIFETIME)), None);
    }

    #[test]
    fn the_first_target_is_remembered_too() {
        let (requests, targets) = (FirstRequests::new(), targets());
        assert_eq!(requests.claim(address(7), &targets[0], NOW), None);
        assert_eq!(requests.find(address(7), NOW), Some(targets[0].index()));
    }

    #[test]
    fn of_several_requests_that_find_a_target_gone_the_first_decides_for_all() {
        let (requests, targets) = (FirstRequests::new(), targets());
        let (gone, next) = (targets[0].index(), targets[1].index());
        assert_eq!(requests.claim(address(7), &targets[0], NOW), None);
        assert_eq!(requests.replace(address(7), gone, &targets[1], NOW), None, "the first decides");
        assert_eq!(requests.replace(address(7), gone, &targets[2], NOW), Some(next), "the second follows");
        assert_eq!(requests.claim(address(7), &targets[0], NOW), Some(next), "and every later client");
    }

    #[test]
    fn of_many_at_once_one_decides() {
        let (requests, targets) = (FirstRequests::new(), targets());
        let went: Vec<TargetIndex> = thread::scope(|scope| {
            let client = |n: usize| {
                let (requests, target) = (&requests, &targets[n % 4]);
                move || requests.claim(address(9), target, NOW).unwrap_or(target.index())
            };
            let clients: Vec<_> = (0..32).map(|n| scope.spawn(client(n))).collect();
            clients.into_iter().map(|client| client.join().unwrap()).collect()
        });
        assert!(went.windows(2).all(|pair| pair[0] == pair[1]), "{went:?}");
    }
}
