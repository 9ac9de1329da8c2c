//! The size of a shard: how many shards, their memory, and when one is rebuilt.
//!
//! The map underneath has a power of two of slots in each shard, of which seven in eight may be used, and doubles a
//! shard that needs more. So at capacity a session costs between 38 and 75 bytes, by where the capacity lies between
//! two powers of two: 55 at ten million, 69 at a million. What the allocator adds is its own: it rounds a shard's 66 KiB
//! up to 80, of which the end stays untouched and costs nothing, unless the kernel backs it by huge pages.

use std::mem::replace;
use std::mem::size_of;

use crate::session::key::SessionKey;
use crate::store::local::table::record::Record;

/// Sessions of a shard at most when the table is full, and usually two thirds of that: few enough that reading all takes some
/// ten microseconds and doubling the memory a few dozen. Not fewer, because unused memory counts in pages of 4 KiB: 3 % of
/// such a shard, 21 % of one with a quarter of its slots.
const SESSIONS_PER_SHARD: usize = 1_536;
/// So that even in a small table visits seldom wait for inserts.
const MIN_SHARDS: usize = 64;
/// More only cost memory.
pub(super) const MAX_SHARDS: usize = 1 << 20;

/// How many shards a table of that capacity has.
pub(super) fn shards_for(capacity: usize) -> usize {
    capacity.div_ceil(SESSIONS_PER_SHARD).next_power_of_two().max(MIN_SHARDS)
}

/// The map's memory for a slot: the pair and a control byte.
pub(super) const SLOT_BYTES: usize = size_of::<(SessionKey, Record)>() + 1;

/// How many slots a shard of that capacity has: a power of two, of which seven in eight may be used.
pub(super) const fn slots(capacity: usize) -> usize {
    match capacity {
        0 => 0,
        1..4 => 4,
        4..8 => 8,
        _ => (capacity * 8).div_ceil(7).next_power_of_two(),
    }
}

/// The capacity that a full shard reserves for one more session. By itself the map would double it. But when its capacity is
/// not that of a clean shard, part of it is taken by marks of removed sessions: then the same size is enough, or a steady
/// exchange of sessions would finally take twice the memory.
pub(super) const fn room_for_one_more(len: usize) -> usize {
    let clean = len < 7 || len.is_multiple_of(7) && (len / 7).is_power_of_two();
    if clean { len + 1 } else { len + len / 16 + 1 }
}

/// Whether a shard has four times the memory that its sessions need.
pub(super) const fn is_roomy(len: usize, capacity: usize) -> bool {
    capacity > 0 && len <= capacity / 4
}

/// An empty shard of the same kind. Generic, as the next one, because dashmap does not name its shards' type.
pub(super) fn empty_like<M: Default>(_: &M) -> M {
    M::default()
}

/// Replaces `shard` by `new` with all its contents, and returns the old one, empty: the caller frees its memory after the
/// lock.
pub(super) fn move_into<M>(new: M, shard: &mut M, drain: impl FnOnce(&mut M, &mut M)) -> M {
    let mut old = replace(shard, new);
    drain(&mut old, shard);
    old
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn at_capacity_a_shard_has_about_a_thousand_sessions() {
        for capacity in [60_000, 100_000, 1_000_000, 10_000_000, 33_333_333] {
            let per_shard = capacity / shards_for(capacity);
            assert!((768..=1_536).contains(&per_shard), "{per_shard} a shard for {capacity}");
        }
    }

    #[test]
    fn slots_are_what_the_map_makes_of_a_capacity() {
        for (wanted, slots_made) in [(0, 0), (3, 4), (7, 8), (14, 16), (15, 32), (28, 32), (448, 512), (449, 1024)] {
            let map: HashMap<u32, u32> = HashMap::with_capacity(wanted);
            assert_eq!((slots(wanted), slots(map.capacity())), (slots_made, slots_made), "for {wanted}");
        }
    }

    #[test]
    fn a_shard_full_of_marks_keeps_its_size_and_a_full_one_doubles() {
        assert!(slots(room_for_one_more(300)) == 512, "an odd capacity is one that marks have eaten into");
        for full in [3, 7, 14, 28, 56, 112, 224, 448, 896] {
            assert_eq!(slots(room_for_one_more(full)), 2 * slots(full), "{full} is what a clean shard holds");
        }
    }

    #[test]
    fn a_shard_that_was_shrunk_is_not_roomy_and_complete() {
        for len in 0..2_000 {
            let mut map: HashMap<usize, usize> = (0..len).map(|n| (n, n)).collect();
            let mut smaller = empty_like(&map);
            smaller.reserve(len + len / 2);
            let old = move_into(smaller, &mut map, |from, to| to.extend(from.drain()));
            assert_eq!((map.len(), old.len()), (len, 0));
            assert!(len < 4 || !is_roomy(len, map.capacity()), "{len} of {}", map.capacity());
        }
    }
}
