//! How large a shard is: how many of them, how much memory each takes, and when to build one again.
//!
//! The map underneath has a power of two of slots in each shard, of which seven in eight may be used, and doubles a
//! shard that needs more. So at capacity a session costs between 38 and 75 bytes, by where the capacity lies between
//! two powers of two: 55 at ten million, 69 at a million. What the allocator adds is its own: it rounds a shard's 66 KiB
//! up to 80, of which the end stays untouched and costs nothing, unless the kernel backs it by huge pages.

use std::mem::size_of;
use std::mem::take;

use crate::session::key::SessionKey;
use crate::store::memory::record::Record;

/// So many sessions a shard has at most when the table is full, and about two thirds of it usually: few enough that to
/// look at all of them takes ten microseconds or so and to double their memory a few dozen. Not fewer, because an
/// untouched end counts in pages of 4 KiB: 3 % of such a shard, 21 % of one with a quarter of its slots.
const SESSIONS_PER_SHARD: usize = 1_536;
/// More only costs memory.
pub(super) const MOST_SHARDS: usize = 1 << 20;

/// How many shards a table of that capacity has.
pub(super) fn shards_for(capacity: usize) -> usize {
    capacity.div_ceil(SESSIONS_PER_SHARD).next_power_of_two()
}

/// What the map spends on a slot: the pair and a control byte.
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

/// Whether a shard would double for its next session only because removed ones left marks behind: its capacity is used
/// up, but is not what a clean shard of its size has. Under a steady exchange of sessions the map would in the end take
/// twice its memory; building the shard again at the same size is as cheap.
pub(super) const fn is_clogged(len: usize, capacity: usize) -> bool {
    len == capacity && len > 7 && !(len.is_multiple_of(7) && (len / 7).is_power_of_two())
}

/// Whether a shard has four times the memory that its sessions need.
pub(super) const fn is_roomy(len: usize, capacity: usize) -> bool {
    capacity > 0 && len <= capacity / 4
}

/// Moves all entries into a shard with as much room as `reserve` makes. The map itself cannot: it does not drop marks
/// at the same size. Generic because dashmap does not name its shards' type.
pub(super) fn rebuild<M>(shard: &mut M, reserve: impl FnOnce(&mut M))
where
    M: Default + IntoIterator + Extend<<M as IntoIterator>::Item>,
{
    let old = take(shard);
    reserve(shard);
    shard.extend(old);
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn at_capacity_a_shard_has_about_a_thousand_sessions() {
        for capacity in [2_000, 50_000, 1_000_000, 10_000_000, 33_333_333] {
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
    fn only_a_shard_full_of_marks_is_clogged() {
        assert!(is_clogged(300, 300), "an odd capacity is one that marks have eaten into");
        assert!(!is_clogged(299, 300), "there is room for one");
        for full in [3, 7, 14, 28, 56, 112, 224, 448, 896] {
            assert!(!is_clogged(full, full), "{full} is what a clean shard holds");
        }
    }

    #[test]
    fn a_shard_that_was_built_again_is_not_roomy_and_not_full() {
        for len in 0..2_000 {
            let mut map: HashMap<usize, usize> = (0..len).map(|n| (n, n)).collect();
            rebuild(&mut map, |map| map.reserve(len + len / 2));
            assert_eq!(map.len(), len);
            assert!(len < 4 || !is_roomy(len, map.capacity()), "{len} of {}", map.capacity());
        }
    }
}
