//! A table is loaded as it was written; any change to the bytes is detected, and then nothing is loaded. The same for session
//! data is in [`data`].

mod data;

use std::io::{self, Cursor, Read, Seek};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use proptest::prelude::*;

use super::format::{BLOCK, BLOCK_HEADING, CHECKSUM, DATA, DATUM, END, HEADING, MAGIC, TARGETS};
use super::*;
use crate::session::key::SessionKey;
use crate::session::token::UnixMillis;
use crate::store::local::data::{DataRecord, SessionData};
use crate::store::local::table::Table;
use crate::store::{TableEntry, TableLookup};

const NOW: UnixMillis = UnixMillis(1_790_000_000_000);
const SERVERS: [(&str, &str); 5] = [("shop", "a"), ("shop", "b"), ("shop", ""), ("chat", "a"), ("chat", "ü/long name")];

/// Stops the threads that write when the test ends, by a failed assertion too.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(false, Relaxed);
    }
}

fn table(capacity: usize) -> Table {
    let table = Table::new(capacity, NOW, Box::new(|_, _| ()));
    for pool in ["shop", "chat"] {
        table.set_limits(pool, Duration::from_secs(1_800), Duration::from_secs(86_400));
    }
    table
}

fn key(number: u64) -> SessionKey {
    SessionKey(u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
}

/// Session *n* is at server *n* of five, has moved *n* times, and was last here *n* seconds ago.
fn keep(table: &Table, number: u64) {
    let (pool, server) = SERVERS[usize::try_from(number % 5).unwrap()];
    let ago = |seconds| NOW.minus(Duration::from_secs(seconds));
    let target = table.target(pool, server).index();
    let epoch = u32::try_from(number).unwrap();
    let known = TableEntry { target, epoch, created: ago(number + 1), last_seen: ago(number) };
    assert_eq!(table.import([(key(number), known)].into_iter(), NOW), 1);
}

fn full(sessions: u64) -> Table {
    let table = table(usize::try_from(sessions).unwrap() + 1);
    (0..sessions).for_each(|number| keep(&table, number));
    table
}

/// Many sessions that are all in use.
fn crowd(sessions: u64) -> Table {
    let table = table(30_000);
    let target = table.target("shop", "a");
    for number in 0..sessions {
        table.claim(key(number), &target, NOW);
    }
    table
}

fn bytes_of(table: &Table) -> Vec<u8> {
    let mut bytes = Vec::new();
    let written = write(LocalStore { table, data: &no_data() }, NOW, &mut bytes).unwrap();
    assert_eq!(written, SessionCounts { sessions: table.len() as u64, data: 0 });
    bytes
}

fn no_data() -> SessionData {
    SessionData::new(0, NOW, Box::new(|_| ()))
}

fn load_into(table: &Table, input: impl Read + Seek + Send, now: UnixMillis) -> Result<LoadResult, ReadError> {
    load(LocalStore { table, data: &no_data() }, input, now, &|_| LoadScope::Sessions)
}

fn load_all(table: &Table, bytes: &[u8]) -> Result<LoadResult, ReadError> {
    load_into(table, Cursor::new(bytes), NOW)
}

/// What a table knows, by name.
fn contents(table: &Table) -> Vec<(SessionKey, String, u32, UnixMillis, UnixMillis)> {
    let mut sessions = Vec::new();
    (0..table.shards()).for_each(|shard| table.copy_shard(shard, &mut sessions));
    let by_name = |(key, known): (SessionKey, TableEntry)| {
        let target = table.target_at(known.target).unwrap();
        (key, format!("{}/{}", target.pool(), target.server()), known.epoch, known.created, known.last_seen)
    };
    let mut contents: Vec<_> = sessions.into_iter().map(by_name).collect();
    contents.sort();
    contents
}

#[test]
fn a_table_comes_back_as_it_was() {
    for sessions in [0, 1, 5, 1_700] {
        let before = full(sessions);
        let after = table(10_000);
        // Numbers of targets are of one process.
        after.target("chat", "another server");
        let loaded = load_all(&after, &bytes_of(&before)).unwrap();
        assert_eq!((loaded.loaded.sessions, loaded.skipped.sessions, loaded.taken_at), (sessions, 0, NOW));
        assert_eq!(contents(&after), contents(&before));
        for target in after.targets() {
            let same =
                before.targets().iter().find(|p| (p.pool(), p.server()) == (target.pool(), target.server())).cloned();
            assert_eq!(target.sessions(), same.map_or(0, |target| target.sessions()), "{}", target.server());
        }
    }
}

#[test]
fn sessions_of_several_blocks_come_back() {
    let before = crowd(20_000);
    let bytes = bytes_of(&before);
    assert!(bytes.len() > 3 * BLOCK, "{} bytes", bytes.len());
    let after = table(30_000);
    assert_eq!(load_all(&after, &bytes).unwrap().loaded.sessions, 20_000);
    assert_eq!(contents(&after), contents(&before));
}

/// Written by the first homing that wrote one.
const VERSION_1: &[u8] = include_bytes!("../../../../tests/data/snapshot/version-1");

#[test]
fn a_file_of_the_first_version_is_read() {
    assert_eq!(VERSION_1[8..12], 1_u32.to_le_bytes());
    let after = table(100);
    let loaded = load_all(&after, VERSION_1).unwrap();
    assert_eq!((loaded.loaded, loaded.skipped), (SessionCounts { sessions: 7, data: 0 }, SessionCounts::default()));
    assert_eq!(contents(&after), contents(&full(7)));
    assert!(check_heading(VERSION_1).is_ok(), "so it may be replaced");
    for length in 0..VERSION_1.len() {
        assert!(load_all(&table(100), &VERSION_1[..length]).is_err(), "{length} bytes of it");
    }
}

#[test]
fn a_target_without_sessions_is_not_written() {
    let before = full(5);
    before.target("shop", "gone for years");
    let bytes = bytes_of(&before);
    assert!(!bytes.windows(4).any(|bytes| bytes == b"gone"), "its name is in the file");
}

#[test]
fn an_ended_session_stays_ended() {
    let before = table(10);
    let tombstone = before.target("shop", "");
    before.insert_tombstone(key(1), &tombstone, Table::FINAL_EPOCH, (NOW, NOW), crate::store::EndReason::Ended);
    let after = table(10);
    load_all(&after, &bytes_of(&before)).unwrap();
    let TableLookup::Live(known) = after.visit(&key(1), NOW) else { panic!("it is forgotten") };
    assert!(after.target_at(known.target).unwrap().is_tombstone());
}

#[test]
fn sessions_that_expired_meanwhile_do_not_come_back() {
    let before = full(1_000);
    let later = NOW.plus(Duration::from_secs(1_300));
    let after = table(1_000);
    let loaded = load_into(&after, Cursor::new(bytes_of(&before)), later).unwrap();
    assert_eq!((loaded.loaded.sessions, loaded.skipped.sessions), (501, 499), "sessions of the last 1800 s are back");
    assert_eq!(after.len(), 501);
}

#[test]
fn those_of_a_pool_that_is_gone_do_not_come_back() {
    let before = full(10);
    let after = table(10);
    let shop_only = |pool: &str| if pool == "shop" { LoadScope::Sessions } else { LoadScope::Skip };
    let memory = LocalStore { table: &after, data: &no_data() };
    let loaded = load(memory, Cursor::new(bytes_of(&before)), NOW, &shop_only).unwrap();
    assert_eq!((loaded.loaded.sessions, loaded.skipped.sessions, after.len()), (6, 4, 6));
    assert!(after.targets().iter().all(|target| target.pool() == "shop"));
}

#[test]
fn a_smaller_table_takes_the_most_recently_seen_sessions() {
    let bytes = bytes_of(&full(1_000));
    for capacity in [0_u16, 1, 10, 999, 1_000] {
        let after = table(usize::from(capacity));
        assert_eq!(load_all(&after, &bytes).unwrap().loaded.sessions, u64::from(capacity));
        let newest = (0..u64::from(capacity)).filter(|n| matches!(after.find(&key(*n), NOW), TableLookup::Live(_)));
        assert_eq!(newest.count(), usize::from(capacity));
    }
    let after = table(30);
    assert_eq!(
        load_all(&after, &bytes_of(&crowd(100))).unwrap().loaded.sessions,
        30,
        "of those at one moment, as many as fit"
    );
}

#[test]
fn a_clock_that_was_set_back_makes_no_session_immortal() {
    let before = full(1);
    let earlier = NOW.minus(Duration::from_secs(86_400 * 365));
    let after = Table::new(10, earlier, Box::new(|_, _| ()));
    after.set_limits("shop", Duration::from_secs(1_800), Duration::from_secs(86_400));
    load_into(&after, Cursor::new(bytes_of(&before)), earlier).unwrap();
    assert!(matches!(after.find(&key(0), earlier.plus(Duration::from_secs(1_799))), TableLookup::Live(_)));
    assert_eq!(after.find(&key(0), earlier.plus(Duration::from_secs(1_801))), TableLookup::ExpiredIdle);
}

#[test]
fn every_truncation_is_found_and_nothing_of_it_gets_in() {
    let bytes = bytes_of(&full(7));
    for length in 0..bytes.len() {
        let after = table(100);
        let error = load_all(&after, &bytes[..length]).expect_err("a part of a snapshot");
        assert!(matches!(error, ReadError::Corrupt { .. }), "{length} bytes: {error}");
        assert!(after.is_empty(), "{length} bytes: loaded half");
    }
    let mut longer = bytes;
    longer.push(0);
    assert!(load_all(&table(100), &longer).unwrap_err().to_string().contains("continues after its end"));
}

#[test]
fn every_flipped_bit_is_found_and_nothing_of_it_gets_in() {
    let bytes = bytes_of(&full(7));
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let after = table(100);
        let error = load_all(&after, &flipped).expect_err("a damaged snapshot");
        let foreign = matches!(error, ReadError::NotASnapshot);
        assert_eq!(foreign, bit < 64, "bit {bit}: {error}");
        assert!(after.is_empty(), "bit {bit}: loaded half");
    }
}

#[test]
fn blocks_that_are_missing_repeated_or_out_of_order_are_found() {
    let bytes = bytes_of(&full(7));
    // Heading, target, session, … each of them is whole.
    let mut starts = vec![HEADING];
    while let Some(length) = bytes.get(starts[starts.len() - 1] + 4..).and_then(|rest| rest.first_chunk::<4>()) {
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap();
        starts.push(starts[starts.len() - 1] + BLOCK_HEADING + length + CHECKSUM);
    }
    let blocks: Vec<&[u8]> = starts.windows(2).map(|ends| &bytes[ends[0]..ends[1]]).collect();
    assert!(blocks.len() > 6, "{} blocks", blocks.len());
    let refused = |blocks: &[&[u8]]| {
        let after = table(100);
        let all = [&bytes[..HEADING], &blocks.concat()].concat();
        assert!(load_all(&after, &all).is_err() && after.is_empty());
    };
    for one in 0..blocks.len() {
        let mut missing = blocks.clone();
        missing.remove(one);
        refused(&missing);
        let mut repeated = blocks.clone();
        repeated.insert(one, blocks[one]);
        refused(&repeated);
        let mut swapped = blocks.clone();
        swapped.swap(one, (one + 1) % blocks.len());
        refused(&swapped);
    }
}

#[test]
fn a_file_of_a_later_version_and_a_foreign_file_are_distinguished() {
    let mut bytes = bytes_of(&full(7));
    bytes[8] = 9;
    let crc = crc32fast::hash(&bytes[..12]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    assert!(
        matches!(check_heading(&bytes[..]), Err(ReadError::UnsupportedVersion(9))),
        "its heading stays where it is in every version"
    );
    assert!(matches!(load_all(&table(10), &bytes), Err(ReadError::UnsupportedVersion(9))));
    bytes[8] = u8::try_from(VERSION).unwrap() + 1;
    let crc = crc32fast::hash(&bytes[..12]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    assert!(matches!(check_heading(&bytes[..]), Err(ReadError::UnsupportedVersion(_))), "the next one");
    assert!(matches!(check_heading(&b"root:x:0:0:root:/root:/bin/sh\n"[..]), Err(ReadError::NotASnapshot)));
    assert!(matches!(check_heading(&b"home"[..]), Err(ReadError::NotASnapshot)));
    assert!(matches!(check_heading(&b""[..]), Err(ReadError::Corrupt { .. })), "a file that was never written to");
}

/// One file when its end is looked at, and another when it is read from its start.
struct Fickle(Cursor<Vec<u8>>, Option<Vec<u8>>);

impl Read for Fickle {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl Seek for Fickle {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        if to == io::SeekFrom::Start(0) {
            self.0 = self.1.take().map_or_else(Cursor::default, Cursor::new);
        }
        self.0.seek(to)
    }
}

#[test]
fn damage_behind_sessions_that_are_in_already_leaves_nothing_behind() {
    let mut bytes = bytes_of(&crowd(20_000));
    let late = bytes.len() - 200;
    assert!(late > 2 * BLOCK, "a block of sessions is in the whole part of it");
    bytes[late] ^= 1;
    let after = table(30_000);
    assert!(matches!(load_all(&after, &bytes), Err(ReadError::Corrupt { .. })));
    assert!(after.is_empty() && after.targets().iter().all(|target| target.sessions() == 0));
    assert!(after.bytes() < 100_000, "its memory is free again: {} B", after.bytes());
}

#[test]
fn a_file_that_changes_while_it_is_read_leaves_nothing_behind() {
    let (few, many) = (bytes_of(&crowd(10)), bytes_of(&crowd(20_000)));
    let after = table(30_000);
    let error = load_into(&after, Fickle(Cursor::new(few), Some(many)), NOW).unwrap_err();
    assert!(error.to_string().contains("changed while it was read"), "{error}");
    assert!(after.is_empty() && after.targets().iter().all(|target| target.sessions() == 0));
}

#[test]
fn an_end_that_promises_more_than_the_file_could_hold_takes_no_memory() {
    let mut bytes = bytes_of(&crowd(10));
    let told = bytes.len() - CHECKSUM - 24;
    bytes[told..told + 8].copy_from_slice(&u64::MAX.to_le_bytes());
    let after = table(30_000);
    assert!(matches!(load_all(&after, &bytes), Err(ReadError::Corrupt { .. })));
    assert!(after.is_empty() && after.bytes() < 100_000, "{} B", after.bytes());
}

#[test]
fn an_error_of_the_writer_is_passed_on() {
    let mut disk = [0; 100];
    assert_eq!(
        write(LocalStore { table: &full(50), data: &no_data() }, NOW, &mut disk[..]).unwrap_err().kind(),
        io::ErrorKind::WriteZero
    );
}

#[test]
fn a_snapshot_has_each_session_that_stays_once_while_others_come_and_go() {
    let before = table(30_000);
    (0..1_000).for_each(|number| keep(&before, number));
    let (writing, target) = (AtomicBool::new(true), before.target("shop", "b"));
    let files: Vec<Vec<u8>> = thread::scope(|scope| {
        let _stop = StopOnDrop(&writing);
        for thread in 1..=2_u64 {
            let (before, writing, target) = (&before, &writing, &target);
            scope.spawn(move || {
                for turn in (0..).take_while(|_| writing.load(Relaxed)) {
                    let other = key((thread << 32) + turn % 5_000);
                    before.claim(other, target, NOW);
                    before.visit(&key(turn % 1_000), NOW);
                    before.end(&key((thread << 32) + (turn + 2_500) % 5_000));
                    before.sweep_step(NOW);
                }
            });
        }
        let write_one = |_| {
            let mut bytes = Vec::new();
            write(LocalStore { table: &before, data: &no_data() }, NOW, &mut bytes).unwrap();
            bytes
        };
        (0..30).map(write_one).collect()
    });
    for bytes in &files {
        let after = table(30_000);
        let loaded = load_all(&after, bytes).unwrap();
        assert_eq!(loaded.loaded.sessions, after.len() as u64, "each of them once");
        let there = (0..1_000).filter(|number| matches!(after.find(&key(*number), NOW), TableLookup::Live(_)));
        assert_eq!(there.count(), 1_000, "sessions that stayed are in the file");
    }
}

fn sessions() -> impl Strategy<Value = Vec<(u128, usize, u32, u64, u64)>> {
    let session = (any::<u128>(), 0..SERVERS.len(), any::<u32>(), 0_u64..800_000, 0_u64..1_700_000);
    proptest::collection::vec(session, 0..300)
}

proptest! {
    #[test]
    fn any_table_comes_back(sessions in sessions()) {
        let (before, after) = (table(1_000), table(1_000));
        for (key, server, epoch, age, idle) in sessions {
            let target = before.target(SERVERS[server].0, SERVERS[server].1).index();
            let last_seen = UnixMillis(NOW.0 - idle);
            let known = TableEntry { target, epoch, created: UnixMillis(last_seen.0 - age), last_seen };
            prop_assert_eq!(before.import([(SessionKey(key), known)].into_iter(), NOW), 1);
        }
        let loaded = load_all(&after, &bytes_of(&before)).unwrap();
        prop_assert_eq!((loaded.loaded.sessions, loaded.skipped.sessions), (before.len() as u64, 0));
        prop_assert_eq!(contents(&after), contents(&before));
    }

    #[test]
    fn any_damage_is_found(sessions in 1_u64..60, at in any::<prop::sample::Index>(), bytes in proptest::collection::vec(any::<u8>(), 1..20)) {
        let whole = bytes_of(&full(sessions));
        let mut damaged = whole.clone();
        let at = at.index(whole.len());
        damaged.splice(at..whole.len().min(at + bytes.len()), bytes);
        let after = table(100);
        let loaded = load_all(&after, &damaged);
        prop_assert_eq!(loaded.is_ok(), damaged == whole);
        prop_assert_eq!(after.is_empty(), damaged != whole);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), headed in any::<bool>()) {
        let heading = if headed { bytes_of(&table(1))[..HEADING].to_vec() } else { Vec::new() };
        let after = table(10);
        prop_assert!(load_all(&after, &[heading, bytes].concat()).is_err());
        prop_assert!(after.is_empty());
    }
}
