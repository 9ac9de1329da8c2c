//! Notices an id that is nobody's: one value that many clients bring.
//!
//! `SockJS` servers set `JSESSIONID=dummy` for everybody, as a hint to proxies that know no better. Learned, it would send
//! all clients to one server. The most frequent id is found as in Misra and Gries' "Finding repeated elements" (1982),
//! with a counter for each of a few slots; the clients that bring it are counted by linear counting (Whang, 1990) over 64
//! bits: forty addresses set about 30 of them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::session::key::SessionKey;

/// How many ids are watched at a time.
const SLOTS: usize = 16;
/// So many of the 64 bits are set by some forty different addresses, and no household has as many.
const CROWD: u32 = 30;
/// The count of one id is cut off here, so that it gives way some time after it has gone out of use.
const MOST: u64 = 1024;

/// The watch over one source. Everything is relaxed and may be lost in a race: it is an estimate.
#[derive(Debug, Default)]
pub struct Crowd {
    slots: Box<[Slot; SLOTS]>,
    told: AtomicBool,
}

#[derive(Debug, Default)]
struct Slot {
    /// High half of the id's key, its last ten bits replaced by how often it was seen more than others of this slot.
    seen: AtomicU64,
    /// One bit for every 64th of all addresses that brought it.
    addresses: AtomicU64,
}

impl Crowd {
    /// A client at this address (as any number that stands for it) brings this id. True when that makes a crowd, once.
    pub fn notice(&self, id: SessionKey, address: u64) -> bool {
        if self.told.load(Relaxed) {
            return false;
        }
        let tag = u64::try_from(id.0 >> 64).unwrap_or(0) & !(MOST - 1);
        let Some(slot) = usize::try_from(id.0 % SLOTS as u128).ok().and_then(|slot| self.slots.get(slot)) else {
            return false;
        };
        let bit = 1_u64 << (address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58);
        let seen = slot.seen.load(Relaxed);
        let (known, count) = (seen & !(MOST - 1), seen & (MOST - 1));
        if known != tag && count > 0 {
            slot.seen.store(known | (count - 1), Relaxed);
            return false;
        }
        if known != tag {
            slot.seen.store(tag | 1, Relaxed);
            slot.addresses.store(bit, Relaxed);
            return false;
        }
        slot.seen.store(tag | (count + 1).min(MOST - 1), Relaxed);
        let before = slot.addresses.load(Relaxed);
        let addresses = before | bit;
        if addresses != before {
            slot.addresses.store(addresses, Relaxed);
        }
        addresses.count_ones() >= CROWD && !self.told.swap(true, Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key that stands for an id, spread as hashes are.
    fn id(number: u64) -> SessionKey {
        let spread = u128::from(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        SessionKey(spread << 64 | spread)
    }

    #[test]
    fn one_id_of_many_addresses_is_noticed_once_among_thousands_of_others() {
        let crowd = Crowd::default();
        let mut told = 0;
        for n in 0..10_000 {
            told += u32::from(crowd.notice(id(n), n));
            told += u32::from(crowd.notice(id(u64::MAX), n));
        }
        assert_eq!(told, 1);
    }

    #[test]
    fn sessions_of_their_own_are_no_crowd() {
        let crowd = Crowd::default();
        for round in 0..20 {
            for session in 0..5_000 {
                // A phone that changes its network now and then.
                assert!(!crowd.notice(id(session), session * 31 + round / 5));
            }
        }
    }

    #[test]
    fn a_single_busy_client_is_no_crowd() {
        let crowd = Crowd::default();
        assert!((0..100_000).all(|_| !crowd.notice(id(7), 42)));
    }
}
