//! How often clients ask, for a fixed number of clients.
//!
//! Each client has a bucket that holds one second's worth and fills at the rate. It is kept as one instant: when the bucket is
//! full again (the generic cell rate algorithm). A client whose bucket is full needs no entry. So a table has to hold those
//! that asked within the last second, and of these a fixed number: entries are in sets of [`WAYS`], and where a set is full
//! the entry goes whose bucket is fullest. Clients are told apart exactly. So a client may be forgotten, and is then allowed
//! more than its rate, but no client is ever charged for another: a sketch would refuse the innocent when it is flooded.

use std::time::Instant;

use parking_lot::Mutex;

use super::client::ClientId;

/// Entries that a client may be in.
const WAYS: usize = 8;
/// What a bucket holds, in nanoseconds of its rate.
const BURST: u64 = 1_000_000_000;
/// An odd number without a pattern (the golden ratio).
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// The buckets of clients.
pub struct RateTable {
    /// A power of two of them. Each is locked for one look-up.
    sets: Box<[Mutex<[Entry; WAYS]>]>,
    seed: u64,
    begun: Instant,
}

/// The bucket of a client, or an empty place.
#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    client: u64,
    /// When the bucket is full again, in nanoseconds since the table began; a place whose time has passed is empty.
    full_at: u64,
}

impl RateTable {
    /// For so many clients at a time. `seed`: decides which clients are in one set.
    pub fn new(clients: u32, seed: u64, now: Instant) -> Self {
        let sets = usize::try_from(clients).unwrap_or(usize::MAX).div_ceil(WAYS).next_power_of_two();
        Self { sets: (0..sets).map(|_| Mutex::default()).collect(), seed, begun: now }
    }

    /// Takes one from a client's bucket. False: it is empty.
    pub fn take(&self, client: ClientId, per_second: u32, now: Instant) -> bool {
        self.find(client, per_second, now, true)
    }

    /// Whether there is one in a client's bucket.
    pub fn has_room(&self, client: ClientId, per_second: u32, now: Instant) -> bool {
        self.find(client, per_second, now, false)
    }

    fn find(&self, client: ClientId, per_second: u32, now: Instant, takes: bool) -> bool {
        let now = u64::try_from(now.saturating_duration_since(self.begun).as_nanos()).unwrap_or(u64::MAX / 2);
        let one = BURST / u64::from(per_second.max(1));
        let client = client.number();
        let Some(set) = self.sets.get(self.set_of(client)) else { return true };
        let mut set = set.lock();
        let own = set.iter_mut().find(|entry| entry.client == client);
        let full_at = own.as_ref().map_or(0, |entry| entry.full_at).max(now) + one;
        let has_room = full_at - now <= BURST;
        if !has_room || !takes {
            return has_room;
        }
        let entry = match own {
            Some(entry) => Some(entry),
            None => set.iter_mut().min_by_key(|entry| entry.full_at),
        };
        if let Some(entry) = entry {
            *entry = Entry { client, full_at };
        }
        true
    }

    fn set_of(&self, client: u64) -> usize {
        let mut mixed = client ^ self.seed;
        mixed = (mixed ^ (mixed >> 32)).wrapping_mul(MIX);
        mixed = (mixed ^ (mixed >> 29)).wrapping_mul(MIX);
        mixed ^= mixed >> 32;
        // As many as a power of two, so that their last index is a mask.
        let last = u64::try_from(self.sets.len() - 1).unwrap_or(u64::MAX);
        usize::try_from(mixed & last).unwrap_or_default()
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.sets)
    }
}

/// How many seconds a client that was refused has to wait at most: then its bucket is full.
pub const LONGEST_WAIT_SECONDS: u16 = 1;

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::net::{IpAddr, Ipv6Addr};
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn client(number: u64) -> ClientId {
        ClientId::of(IpAddr::V6(Ipv6Addr::from(u128::from(number) << 64)))
    }

    #[test]
    fn one_seconds_worth_passes_at_once_and_no_more() {
        let begun = Instant::now();
        for rate in [1, 2, 3, 7, 100, 999, 1000] {
            let table = RateTable::new(1024, 1, begun);
            let now = begun + Duration::from_secs(5);
            let passed = (0..2 * rate).filter(|_| table.take(client(1), rate, now)).count();
            assert_eq!(passed, rate as usize, "at {rate} a second");
            let later = now + Duration::from_secs(LONGEST_WAIT_SECONDS.into());
            assert!(table.take(client(1), rate, later), "after the longest wait");
        }
    }

    #[test]
    fn a_client_that_keeps_to_its_rate_is_never_refused() {
        let begun = Instant::now();
        let table = RateTable::new(1024, 1, begun);
        for n in 0..1000 {
            assert!(table.take(client(1), 10, begun + Duration::from_millis(100 * n)));
        }
    }

    #[test]
    fn a_look_takes_nothing() {
        let (begun, one) = (Instant::now(), client(1));
        let table = RateTable::new(1024, 1, begun);
        for _ in 0..10 {
            assert!(table.has_room(one, 1, begun));
        }
        assert!(table.take(one, 1, begun));
        assert!(!table.has_room(one, 1, begun + Duration::from_millis(999)));
        assert!(table.has_room(one, 1, begun + Duration::from_secs(1)));
    }

    #[test]
    fn a_flood_of_addresses_takes_no_memory_refuses_no_other_client_and_frees_no_heavy_one() {
        let begun = Instant::now();
        let table = RateTable::new(1024, 7, begun);
        let bytes = table.bytes();
        let heavy = client(u64::MAX);
        while table.take(heavy, 10, begun) {}
        for n in 0..1_000_000 {
            assert!(table.take(client(n), 10, begun), "the first request of client {n}");
        }
        assert!(!table.take(heavy, 10, begun), "what asks most is kept longest");
        assert_eq!(table.bytes(), bytes);
        assert!(bytes <= 1024 * 20, "{bytes} bytes");
    }

    #[test]
    fn clients_spread_over_the_sets() {
        let table = RateTable::new(65_536, 0x1234_5678_9abc_def0, Instant::now());
        for step in [1_u64, 1 << 8, 1 << 16, 1 << 32] {
            let mut sets = HashMap::new();
            for n in 0..65_536_u64 {
                *sets.entry(table.set_of(n.wrapping_mul(step))).or_insert(0) += 1;
            }
            let most = sets.values().max().copied().unwrap_or_default();
            assert!(most < 40, "{most} of 65536 neighbours in one set of 8192, with step {step}");
        }
    }

    proptest! {
        #[test]
        fn no_client_passes_more_than_its_rate_allows_nor_is_charged_for_another(
            rate in 1u32..50,
            requests in prop::collection::vec((0u64..6, 0u64..400), 1..300),
        ) {
            let begun = Instant::now();
            let table = RateTable::new(1024, 3, begun);
            let mut now = begun;
            // Exactly, in nanoseconds of each client's debt.
            let mut model: HashMap<u64, (Instant, u64)> = HashMap::new();
            for (number, pause) in requests {
                now += Duration::from_millis(pause);
                let (last, debt) = model.get(&number).copied().unwrap_or((now, 0));
                let paid = u64::try_from((now - last).as_nanos()).unwrap();
                let debt = debt.saturating_sub(paid) + BURST / u64::from(rate);
                let fits = debt <= BURST;
                prop_assert_eq!(table.take(client(number), rate, now), fits);
                if fits {
                    model.insert(number, (now, debt));
                }
            }
        }
    }
}
