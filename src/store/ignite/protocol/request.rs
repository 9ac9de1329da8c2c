//! The operations, as frames to be sent. Each response carries the id of its request, which is written when it is sent.

use std::time::Duration;

use super::{cache_id, type_code};

/// A frame that is being written.
pub(in crate::store::ignite) struct Frame(Vec<u8>);

/// A frame that lacks only its id.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::store::ignite) struct Request(Vec<u8>);

/// Which cache, and how it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::ignite) struct Cache(i32);

/// A key or a value to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::ignite) enum Datum<'a> {
    /// A string, in UTF-8.
    Text(&'a [u8]),
    /// An array of bytes.
    Bytes(&'a [u8]),
}

const HEARTBEAT: i16 = 1;
const GET: i16 = 1000;
const GET_ALL: i16 = 1003;
const GET_AND_PUT_IF_ABSENT: i16 = 1008;
const REPLACE_IF_EQUALS: i16 = 1010;
const REMOVE_KEYS: i16 = 1018;
const GET_OR_CREATE_WITH_CONFIGURATION: i16 = 1054;
const CACHE_PARTITIONS: i16 = 1101;
const QUERY_SCAN: i16 = 2000;
const QUERY_SCAN_NEXT_PAGE: i16 = 2001;
const QUERY_CONTINUOUS: i16 = 2006;

/// Where the id of a request stands in its frame.
const ID: std::ops::Range<usize> = 6..14;
/// The flag of a cache operation that carries an expiry policy.
const WITH_EXPIRY_POLICY: u8 = 0x04;
/// A life of a policy that stays as it is.
const UNCHANGED: i64 = -2;
/// Most events of a continuous query that a node gathers before it tells of them, and for how long it gathers.
const EVENTS_GATHERED: i32 = 256;
const GATHERED_FOR: Duration = Duration::from_millis(5);

impl Cache {
    pub(in crate::store::ignite) fn named(name: &str) -> Self {
        Self(cache_id(name))
    }
}

impl Frame {
    pub(in crate::store::ignite) fn new() -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&[0; 4]);
        Self(bytes)
    }

    /// An operation without its fields.
    fn operation(code: i16) -> Self {
        let mut frame = Self::new();
        frame.i16(code);
        frame.i64(0);
        frame
    }

    /// An operation on a cache, which may set how long entries live: from their creation or change, or from this access on.
    fn on_cache(code: i16, Cache(id): Cache, expiry: Option<[i64; 3]>) -> Self {
        let mut frame = Self::operation(code);
        frame.i32(id);
        frame.u8(if expiry.is_some() { WITH_EXPIRY_POLICY } else { 0 });
        for life in expiry.into_iter().flatten() {
            frame.i64(life);
        }
        frame
    }

    pub(in crate::store::ignite) fn u8(&mut self, byte: u8) {
        self.0.push(byte);
    }

    pub(in crate::store::ignite) fn i16(&mut self, number: i16) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn i32(&mut self, number: i32) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn i64(&mut self, number: i64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    /// A length or a count. What is longer than the protocol can say is cut off by the check of [`Self::finish`].
    fn length(&mut self, length: usize) {
        self.i32(i32::try_from(length).unwrap_or(i32::MAX));
    }

    pub(in crate::store::ignite) fn string(&mut self, text: &[u8]) {
        self.u8(type_code::STRING);
        self.length(text.len());
        self.0.extend_from_slice(text);
    }

    pub(in crate::store::ignite) fn byte_array(&mut self, bytes: &[u8]) {
        self.u8(type_code::BYTE_ARRAY);
        self.length(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    fn datum(&mut self, datum: Datum<'_>) {
        match datum {
            Datum::Text(text) => self.string(text),
            Datum::Bytes(bytes) => self.byte_array(bytes),
        }
    }

    /// With its length before it.
    pub(in crate::store::ignite) fn finish(mut self) -> Vec<u8> {
        let length = i32::try_from(self.0.len().saturating_sub(4)).unwrap_or(i32::MAX);
        if let Some(head) = self.0.first_chunk_mut() {
            *head = length.to_le_bytes();
        }
        self.0
    }

    fn request(self) -> Request {
        Request(self.finish())
    }
}

impl Request {
    /// Whether the node answers.
    pub(in crate::store::ignite) fn heartbeat() -> Self {
        Frame::operation(HEARTBEAT).request()
    }

    /// Is anything kept under this key?
    pub(in crate::store::ignite) fn get(cache: Cache, key: &str) -> Self {
        let mut frame = Frame::on_cache(GET, cache, None);
        frame.string(key.as_bytes());
        frame.request()
    }

    /// What is kept under these keys?
    pub(in crate::store::ignite) fn get_all<'a>(cache: Cache, keys: impl ExactSizeIterator<Item = &'a str>) -> Self {
        Self::keys(Frame::on_cache(GET_ALL, cache, None), keys)
    }

    /// The same, and each entry that is there lives for `life` from now.
    pub(in crate::store::ignite) fn get_all_and_renew<'a>(
        cache: Cache,
        keys: impl ExactSizeIterator<Item = &'a str>,
        life: Duration,
    ) -> Self {
        let expiry = [UNCHANGED, UNCHANGED, millis(life)];
        Self::keys(Frame::on_cache(GET_ALL, cache, Some(expiry)), keys)
    }

    /// Keeps a value for `life` unless there is one, which is the response.
    pub(in crate::store::ignite) fn get_and_put_if_absent(
        cache: Cache,
        key: &str,
        value: Datum<'_>,
        life: Duration,
    ) -> Self {
        let mut frame = Frame::on_cache(GET_AND_PUT_IF_ABSENT, cache, Some(written(life)));
        frame.string(key.as_bytes());
        frame.datum(value);
        frame.request()
    }

    /// Keeps a value for `life` in the place of another, if that is still kept.
    pub(in crate::store::ignite) fn replace_if_equals(
        cache: Cache,
        key: &str,
        [before, after]: [Datum<'_>; 2],
        life: Duration,
    ) -> Self {
        let mut frame = Frame::on_cache(REPLACE_IF_EQUALS, cache, Some(written(life)));
        frame.string(key.as_bytes());
        frame.datum(before);
        frame.datum(after);
        frame.request()
    }

    /// Forgets what is kept under these keys.
    pub(in crate::store::ignite) fn remove_keys<'a>(
        cache: Cache,
        keys: impl ExactSizeIterator<Item = &'a str>,
    ) -> Self {
        Self::keys(Frame::on_cache(REMOVE_KEYS, cache, None), keys)
    }

    fn keys<'a>(mut frame: Frame, keys: impl ExactSizeIterator<Item = &'a str>) -> Self {
        frame.length(keys.len());
        for key in keys {
            frame.string(key.as_bytes());
        }
        frame.request()
    }

    /// How the partitions of a cache are spread over the nodes.
    pub(in crate::store::ignite) fn partitions(Cache(id): Cache) -> Self {
        let mut frame = Frame::operation(CACHE_PARTITIONS);
        frame.length(1);
        frame.i32(id);
        frame.request()
    }

    /// The first page of all that is kept in a partition.
    pub(in crate::store::ignite) fn scan(cache: Cache, partition: i32, page: i32) -> Self {
        let mut frame = Frame::on_cache(QUERY_SCAN, cache, None);
        // No filter: it would be a class of the server's.
        frame.u8(type_code::NULL);
        frame.i32(page);
        frame.i32(partition);
        // Not only what the node itself keeps.
        frame.u8(0);
        frame.request()
    }

    /// The next page of a cursor.
    pub(in crate::store::ignite) fn next_page(cursor: i64) -> Self {
        let mut frame = Frame::operation(QUERY_SCAN_NEXT_PAGE);
        frame.i64(cursor);
        frame.request()
    }

    /// Tell of everything that is written into a cache from now on.
    pub(in crate::store::ignite) fn continuous_query(cache: Cache) -> Self {
        let mut frame = Frame::on_cache(QUERY_CONTINUOUS, cache, None);
        frame.i32(EVENTS_GATHERED);
        frame.i64(millis(GATHERED_FOR));
        // Not of what expires.
        frame.u8(0);
        frame.u8(type_code::NULL);
        frame.request()
    }

    /// Makes a cache if there is none of this name: partitioned, each partition on two nodes, single operations atomic, a
    /// write acknowledged when all copies have it.
    pub(in crate::store::ignite) fn get_or_create(name: &str) -> Self {
        const NAME: i16 = 0;
        const MODE: (i16, i32) = (1, 2);
        const ATOMIC: (i16, i32) = (2, 1);
        const ONE_BACKUP: (i16, i32) = (3, 1);
        const FULL_SYNC: (i16, i32) = (4, 0);
        let numbers = [MODE, ATOMIC, ONE_BACKUP, FULL_SYNC];
        let mut frame = Frame::operation(GET_OR_CREATE_WITH_CONFIGURATION);
        // In bytes: the count of properties, a name, and the numbers.
        frame.length(2 + (2 + 5 + name.len()) + 6 * numbers.len());
        frame.i16(5);
        frame.i16(NAME);
        frame.string(name.as_bytes());
        for (property, number) in numbers {
            frame.i16(property);
            frame.i32(number);
        }
        frame.request()
    }

    /// The frame, ready to be sent.
    pub(in crate::store::ignite) fn with_id(mut self, id: i64) -> Vec<u8> {
        if let Some(place) = self.0.get_mut(ID) {
            place.copy_from_slice(&id.to_le_bytes());
        }
        self.0
    }
}

/// The policy of a write.
fn written(life: Duration) -> [i64; 3] {
    [millis(life), millis(life), UNCHANGED]
}

/// At least one: none would mean that the entry has expired already.
fn millis(life: Duration) -> i64 {
    i64::try_from(life.as_millis()).unwrap_or(i64::MAX).max(1)
}
