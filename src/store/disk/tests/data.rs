//! Session data in a snapshot: it is loaded with its session or not at all.

use http::HeaderValue;

use super::*;
use crate::store::local::data::{HandoffPayload, Owner};

/// Table and data of one process.
struct Process {
    table: Table,
    data: SessionData,
}

impl Process {
    fn new() -> Self {
        Self::with_room(1 << 20)
    }

    fn with_room(most: usize) -> Self {
        Self { table: table(10_000), data: SessionData::new(most, NOW, Box::new(|_| ())) }
    }

    fn memory(&self) -> LocalStore<'_> {
        LocalStore { table: &self.table, data: &self.data }
    }

    fn owner(&self, number: u64, epoch: u32) -> Owner {
        Owner { key: key(number), epoch, created: NOW, pool: self.table.target("shop", "").index() }
    }

    fn keep(&self, number: u64, epoch: u32, text: &str) {
        assert!(self.data.keep(&self.owner(number, epoch), &value(text), &self.table, NOW));
    }

    fn found(&self, number: u64, epoch: u32) -> Option<String> {
        self.data.find(&key(number), epoch).map(|data| text(&data))
    }

    fn pending(&self, number: u64, epoch: u32) -> Option<(String, Option<String>)> {
        let payload = self.data.pending_handoff(&key(number), epoch)?;
        Some((text(&payload.moved_header.unwrap()), payload.data.as_ref().map(text)))
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let written = write(self.memory(), NOW, &mut bytes).unwrap();
        assert_eq!(written, self.amount());
        bytes
    }

    fn amount(&self) -> SessionCounts {
        SessionCounts { sessions: self.table.len() as u64, data: self.data.len() as u64 }
    }

    fn load(&self, bytes: &[u8], now: UnixMillis) -> Result<LoadResult, ReadError> {
        load(self.memory(), Cursor::new(bytes), now, &|_| LoadScope::SessionsAndData)
    }

    /// The process after this one.
    fn next(&self) -> Self {
        let next = Self::new();
        let loaded = next.load(&self.bytes(), NOW).unwrap();
        assert_eq!((loaded.loaded, loaded.skipped), (self.amount(), SessionCounts::default()));
        next
    }

    fn is_empty(&self) -> bool {
        self.table.is_empty() && self.data.is_empty() && self.data.bytes() == 0
    }
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap()
}

fn text(value: &HeaderValue) -> String {
    value.to_str().unwrap().to_owned()
}

const MOVED: &str = "from=a; reason=down; epoch=4";

/// Sessions in the table, data of some, a move that its server has not been told of, and data of a session that the table does not know.
fn shop() -> Process {
    let shop = Process::new();
    (0..4).for_each(|number| keep(&shop.table, number));
    shop.keep(1, 1, "cart=1");
    shop.keep(3, 3, "cart=3");
    shop.data.record_move(&shop.owner(3, 4), 3, Some(value(MOVED)), &shop.table, NOW);
    shop.data.record_move(&shop.owner(2, 4), 3, Some(value(MOVED)), &shop.table, NOW);
    shop.keep(77, 5, "of a session with a token");
    shop
}

#[test]
fn data_comes_back_with_what_is_still_to_be_told() {
    let after = shop().next().next();
    assert_eq!(after.found(1, 1).as_deref(), Some("cart=1"));
    assert_eq!(after.pending(1, 1), None);
    assert_eq!(after.pending(3, 4), Some((MOVED.to_owned(), Some("cart=3".to_owned()))));
    assert_eq!(after.pending(2, 4), Some((MOVED.to_owned(), None)));
    assert_eq!(after.found(77, 5).as_deref(), Some("of a session with a token"));
    assert_eq!((after.found(1, 2), after.pending(3, 5)), (None, None), "nor is it right for any later epoch");
    assert_eq!(after.data.bytes(), shop().data.bytes());
    after.data.mark_delivered(&key(2), 4);
    assert_eq!(after.pending(2, 4), None);
}

#[test]
fn data_that_came_back_is_not_printed() {
    let after = shop().next();
    let mut kept = Vec::new();
    (0..after.data.shards()).for_each(|shard| after.data.copy_shard(shard, &mut kept));
    let printed = format!("{kept:?} {:?}", after.data.find(&key(1), 1));
    assert!(kept.len() == 4 && !printed.contains("cart") && printed.contains("Sensitive"), "{printed}");
}

#[test]
fn as_much_as_a_server_may_hand_over_comes_back() {
    let before = Process::with_room(64 << 20);
    for number in 0..30 {
        before.keep(number, 0, &"x".repeat(64 * 1024));
    }
    let after = Process::with_room(64 << 20);
    after.load(&before.bytes(), NOW).unwrap();
    assert!((0..30).all(|number| after.found(number, 0).is_some_and(|data| data.len() == 64 * 1024)));
}

#[test]
fn what_no_block_could_hold_is_left_out_and_the_rest_is_not() {
    let before = Process::with_room(64 << 20);
    before.keep(1, 0, &"x".repeat(2 * BLOCK));
    before.keep(2, 0, &"x".repeat(BLOCK - DATUM));
    before.keep(3, 0, "cart=3");
    let mut bytes = Vec::new();
    assert_eq!(write(before.memory(), NOW, &mut bytes).unwrap().data, 2);
    let after = Process::with_room(64 << 20);
    after.load(&bytes, NOW).unwrap();
    assert_eq!(after.data.len(), 2);
}

#[test]
fn a_pool_that_hands_nothing_over_any_more_gets_its_sessions_only() {
    let bytes = shop().bytes();
    for (wanted, sessions) in [(LoadScope::Sessions, 4), (LoadScope::Skip, 0)] {
        let after = Process::new();
        let loaded = load(after.memory(), Cursor::new(&bytes), NOW, &|_| wanted).unwrap();
        assert_eq!((loaded.loaded, loaded.skipped.data), (SessionCounts { sessions, data: 0 }, 4));
        assert_eq!(after.data.bytes(), 0);
    }
}

#[test]
fn only_data_of_sessions_within_their_limits_comes_back() {
    let before = Process::new();
    before.keep(1, 0, "came back since");
    before.keep(2, 0, "did not");
    let later = |seconds| NOW.plus(Duration::from_secs(seconds));
    let target = before.table.target("shop", "a");
    before.table.claim(key(1), &target, NOW);
    before.table.visit(&key(1), later(1_700));
    let after = Process::new();
    let loaded = after.load(&before.bytes(), later(1_900)).unwrap();
    assert_eq!((loaded.loaded.data, loaded.skipped.data), (1, 1));
    assert_eq!(after.found(1, 0).as_deref(), Some("came back since"), "visits leave their trace in the table alone");
    after.table.visit(&key(1), later(1_900));
    assert!(
        after.load(&before.bytes(), later(86_401)).is_ok_and(|loaded| loaded.loaded.data == 1),
        "it is there already"
    );
    assert_eq!(
        Process::new().load(&before.bytes(), later(86_401)).unwrap().loaded,
        SessionCounts::default(),
        "too old"
    );
}

#[test]
fn a_clock_that_was_set_back_makes_no_data_immortal() {
    let before = Process::new();
    before.keep(1, 0, "cart=1");
    let earlier = NOW.minus(Duration::from_secs(86_400 * 365));
    let after = Process::new();
    assert_eq!(after.load(&before.bytes(), earlier).unwrap().loaded.data, 1);
    let sweep = |now| (0..after.data.shards()).map(|_| after.data.sweep_step(&after.table, now)).sum::<usize>();
    assert_eq!(sweep(earlier.plus(Duration::from_secs(1_799))), 0);
    assert_eq!(sweep(earlier.plus(Duration::from_secs(1_801))), 1);
}

#[test]
fn where_there_is_room_for_less_the_longest_idle_go() {
    let one = |number: u64| SessionKey(u128::from(number));
    let before = Process::new();
    let target = before.table.target("shop", "a");
    for number in 0..12 {
        let (owner, now) = (Owner { key: one(number), ..before.owner(0, 0) }, NOW.plus(Duration::from_secs(number)));
        before.data.keep(&owner, &value(&"x".repeat(1_000)), &before.table, now);
    }
    // The data of the first is the oldest, but it was here a moment ago.
    before.table.claim(one(0), &target, NOW.plus(Duration::from_secs(60)));
    let after = Process::with_room(10_000);
    let loaded = after.load(&before.bytes(), NOW.plus(Duration::from_secs(60))).unwrap();
    let there: Vec<u64> = (0..12).filter(|number| after.data.find(&one(*number), 0).is_some()).collect();
    let (kept, left_out) = (loaded.loaded.data, loaded.skipped.data);
    assert!((6..11).contains(&kept) && kept + left_out == 12, "{kept} and {left_out}");
    assert_eq!(there, [&[0], &(13 - kept..12).collect::<Vec<_>>()[..]].concat());
    assert!(after.data.bytes() <= 10_000);
}

#[test]
fn every_truncation_is_found_and_nothing_of_it_gets_in() {
    let bytes = shop().bytes();
    for length in 0..bytes.len() {
        let after = Process::new();
        assert!(matches!(after.load(&bytes[..length], NOW), Err(ReadError::Corrupt { .. })), "{length} bytes");
        assert!(after.is_empty(), "{length} bytes: loaded half");
    }
}

#[test]
fn every_flipped_bit_is_found_and_nothing_of_it_gets_in() {
    let bytes = shop().bytes();
    let after = Process::new();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(after.load(&flipped, NOW).is_err() && after.is_empty(), "bit {bit}");
    }
}

#[test]
fn damage_behind_data_that_is_in_already_leaves_nothing_behind() {
    let before = shop();
    (100..400).for_each(|number| before.keep(number, 0, &"x".repeat(2_000)));
    let mut bytes = before.bytes();
    let late = bytes.len() - 1_000;
    assert!(late > 2 * BLOCK, "a block of data is in the whole part of it");
    bytes[late] ^= 1;
    let after = Process::new();
    assert!(matches!(after.load(&bytes, NOW), Err(ReadError::Corrupt { .. })) && after.is_empty());
}

/// A snapshot with this block of data in it, all checksums right.
fn with_block(version: u32, data: &[u8], count: u64) -> Vec<u8> {
    let mut crc = crc32fast::Hasher::new();
    let mut bytes = Vec::new();
    let mut put = |part: &[u8]| {
        crc.update(part);
        bytes.extend_from_slice(part);
        bytes.extend_from_slice(&crc.clone().finalize().to_le_bytes());
    };
    let block = |kind: u32, payload: &[u8]| {
        let length = u32::try_from(payload.len()).unwrap();
        [&kind.to_le_bytes(), &length.to_le_bytes(), payload].concat()
    };
    put(&[&MAGIC[..], &version.to_le_bytes()].concat());
    put(&block(TARGETS, b"\x04\x00shop\x00\x00"));
    put(&block(DATA, data));
    put(&block(END, &[0_u64, NOW.0, count].map(u64::to_le_bytes).concat()));
    bytes
}

#[test]
fn what_makes_no_sense_is_not_believed_whatever_its_checksum_says() {
    let datum = |target: u32, length: u32, text: &[u8]| {
        let (time, none) = (NOW.0.to_le_bytes(), 0_u32.to_le_bytes());
        let numbers = [&[7; 16][..], &target.to_le_bytes(), &none, &time, &time, &length.to_le_bytes(), &none];
        [&numbers.concat(), text].concat()
    };
    let right = datum(0, 6, b"cart=1");
    assert_eq!(Process::new().load(&with_block(2, &right, 1), NOW).unwrap().loaded.data, 1);
    for (version, data, count) in [
        (1, right.clone(), 1),
        (2, right.clone(), 2),
        (2, datum(1, 6, b"cart=1"), 1),
        (2, datum(0, 7, b"cart=1"), 1),
        (2, datum(0, 5, b"cart=1"), 1),
        (2, datum(0, u32::MAX, b"cart=1"), 1),
        (2, datum(0, 6, b"cart\n1"), 1),
        (2, datum(0, 6, b"cart\x001"), 1),
    ] {
        let after = Process::new();
        let error = after.load(&with_block(version, &data, count), NOW).expect_err("no sense");
        assert!(matches!(error, ReadError::Corrupt { .. }) && after.is_empty(), "{error}");
    }
}

#[test]
fn a_snapshot_misses_no_data_that_stays_while_others_come_and_go() {
    let before = Process::with_room(64 << 20);
    (0..1_000).for_each(|number| before.keep(number, 0, "there"));
    let writing = AtomicBool::new(true);
    thread::scope(|scope| {
        let _stop = StopOnDrop(&writing);
        for thread in 1..=2_u64 {
            let (before, writing) = (&before, &writing);
            scope.spawn(move || {
                for turn in (0..).take_while(|_| writing.load(Relaxed)) {
                    let (mine, shared) = ((thread << 32) + turn % 500, turn % 1_000);
                    before.keep(mine, 0, "comes and goes");
                    before.keep(shared, 0, "there");
                    before.data.forget(&key((thread << 32) + (turn + 250) % 500));
                }
            });
        }
        for _ in 0..20 {
            let mut bytes = Vec::new();
            let written = write(before.memory(), NOW, &mut bytes).unwrap();
            let after = Process::with_room(64 << 20);
            assert_eq!(after.load(&bytes, NOW).unwrap().loaded, written, "each of them once");
            assert!((0..1_000).all(|number| after.found(number, 0).as_deref() == Some("there")));
        }
    });
}

type One = (u128, u32, Option<Vec<u8>>, Option<String>, u64, u64);

fn any_data() -> impl Strategy<Value = Vec<One>> {
    let bytes = proptest::collection::vec(prop_oneof![Just(9_u8), 32..=126_u8, 128..=255_u8], 1..40);
    let bytes = (bytes, 1..200_usize).prop_map(|(bytes, times)| bytes.repeat(times));
    let one = (
        any::<u128>(),
        any::<u32>(),
        proptest::option::of(bytes),
        proptest::option::of("[a-z=; ]{1,40}"),
        0_u64..800_000,
        0_u64..1_700_000,
    );
    proptest::collection::vec(one, 0..30)
}

proptest! {
    #[test]
    fn any_data_comes_back(all in any_data()) {
        let before = Process::new();
        let pool = before.table.target("chat", "").index();
        for (key, epoch, data, told, age, idle) in all {
            let seen = UnixMillis(NOW.0 - idle);
            let owner = Owner { key: SessionKey(key), epoch, created: UnixMillis(seen.0 - age), pool };
            let data = data.map(|data| HeaderValue::from_bytes(&data).unwrap());
            let payload = HandoffPayload { data, moved_header: told.as_deref().map(value) };
            before.data.import(DataRecord { owner, seen, payload }, &before.table, NOW);
        }
        let after = before.next();
        prop_assert_eq!(contents_of(&after), contents_of(&before));
        prop_assert_eq!(after.data.bytes(), before.data.bytes());
    }

    #[test]
    fn any_damage_is_found(at in any::<prop::sample::Index>(), bytes in proptest::collection::vec(any::<u8>(), 1..20)) {
        let whole = shop().bytes();
        let mut damaged = whole.clone();
        let at = at.index(whole.len());
        damaged.splice(at..whole.len().min(at + bytes.len()), bytes);
        let after = Process::new();
        prop_assert_eq!(after.load(&damaged, NOW).is_ok(), damaged == whole);
        prop_assert_eq!(after.is_empty(), damaged != whole);
    }
}

type Row = (SessionKey, u32, UnixMillis, UnixMillis, String, Option<HeaderValue>, Option<HeaderValue>);

/// What is kept, by name and in order of the keys.
fn contents_of(process: &Process) -> Vec<Row> {
    let mut kept = Vec::new();
    (0..process.data.shards()).for_each(|shard| process.data.copy_shard(shard, &mut kept));
    let row = |DataRecord { owner, seen, payload }: DataRecord| {
        let pool = process.table.target_at(owner.pool).unwrap().pool().to_owned();
        (owner.key, owner.epoch, owner.created, seen, pool, payload.data, payload.moved_header)
    };
    kept.sort_unstable_by_key(|kept| kept.owner.key);
    kept.into_iter().map(row).collect()
}
