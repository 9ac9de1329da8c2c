//! Encoding of requests. Pure.

use uuid::Uuid;

use super::frame::Request;

/// Service, method, and 0 for a request. An answer's type is one higher, an event's two or more.
pub(super) const AUTHENTICATE: u32 = 0x00_01_00;
pub(super) const CLUSTER_VIEW: u32 = 0x00_03_00;
const PING: u32 = 0x00_0B_00;
pub(super) const GET: u32 = 0x01_02_00;
pub(super) const REPLACE_IF_SAME: u32 = 0x01_05_00;
pub(super) const DELETE: u32 = 0x01_09_00;
pub(super) const PUT_IF_ABSENT: u32 = 0x01_0E_00;
pub(super) const ENTRY_LISTENER: u32 = 0x01_19_00;
pub(super) const ENTRY_VIEW: u32 = 0x01_1D_00;
pub(super) const GET_ALL: u32 = 0x01_23_00;
pub(super) const FETCH_ENTRIES: u32 = 0x01_38_00;
pub(super) const SET_TTL: u32 = 0x01_43_00;
pub(super) const MAP_CONFIG: u32 = 0x20_03_00;

/// A request for no partition.
const NONE: i32 = -1;
/// Locks belong to threads; nothing is locked here.
const THREAD: i64 = 1;
/// The only version of the serialization format.
const SERIALIZATION: u8 = 1;
/// Each request goes to the owner of its partition.
const ROUTING_ALL_MEMBERS: u8 = 1;
/// Entries that are added, updated, and merged after a split of the cluster.
const ADDED_UPDATED_MERGED: i32 = ADDED | 4 | 128;
/// An event of an entry that was not there before.
pub(super) const ADDED: i32 = 1;

/// For authentication.
#[derive(Debug)]
pub(super) struct Credentials {
    pub(super) cluster_name: String,
    /// A random id of this engine.
    pub(super) client: Uuid,
}

/// A write is acknowledged by the partition's owner, as with Redis; backups follow. Waiting for them would let one frozen backup
/// member delay every write until the cluster removes it, after a minute by default.
fn write(kind: u32, partition: i32) -> Request {
    Request::new(kind, partition).without_backups()
}

pub(super) fn authenticate(credentials: &Credentials) -> Vec<u8> {
    Request::new(AUTHENTICATE, NONE)
        .uuid(credentials.client)
        .byte(SERIALIZATION)
        .byte(ROUTING_ALL_MEMBERS)
        .boolean(false)
        .text(&credentials.cluster_name)
        // Users are of the Enterprise edition.
        .nullable(None)
        .nullable(None)
        // The kind of client, the version of Hazelcast that it was written for, and its name; and no labels.
        .text("HMG")
        .text("5.3.0")
        .text("homing")
        .begin()
        .end()
        .finish()
}

pub(super) fn ping() -> Vec<u8> {
    Request::new(PING, NONE).finish()
}

pub(super) fn cluster_view() -> Vec<u8> {
    Request::new(CLUSTER_VIEW, NONE).finish()
}

/// Of the entries of all members.
pub(super) fn entry_listener(map: &str) -> Vec<u8> {
    let (with_value, local_only) = (true, false);
    Request::new(ENTRY_LISTENER, NONE)
        .boolean(with_value)
        .int(ADDED_UPDATED_MERGED)
        .boolean(local_only)
        .text(map)
        .finish()
}

pub(super) fn map_config(map: &str) -> Vec<u8> {
    Request::new(MAP_CONFIG, NONE).text(map).finish()
}

pub(super) fn get(map: &str, partition: i32, key: &[u8]) -> Vec<u8> {
    Request::new(GET, partition).long(THREAD).text(map).blob(key).finish()
}

/// All keys are of that partition.
pub(super) fn get_all<'a>(map: &str, partition: i32, keys: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let request = Request::new(GET_ALL, partition).text(map).begin();
    keys.into_iter().fold(request, Request::blob).end().finish()
}

/// A life in milliseconds.
pub(super) fn put_if_absent(map: &str, partition: i32, key: &[u8], value: &[u8], ttl: i64) -> Vec<u8> {
    write(PUT_IF_ABSENT, partition).long(THREAD).long(ttl).text(map).blob(key).blob(value).finish()
}

pub(super) fn replace_if_same(map: &str, partition: i32, key: &[u8], kept: &[u8], value: &[u8]) -> Vec<u8> {
    write(REPLACE_IF_SAME, partition).long(THREAD).text(map).blob(key).blob(kept).blob(value).finish()
}

pub(super) fn set_ttl(map: &str, partition: i32, key: &[u8], ttl: i64) -> Vec<u8> {
    write(SET_TTL, partition).long(ttl).text(map).blob(key).finish()
}

pub(super) fn delete(map: &str, partition: i32, key: &[u8]) -> Vec<u8> {
    write(DELETE, partition).long(THREAD).text(map).blob(key).finish()
}

pub(super) fn entry_view(map: &str, partition: i32, key: &[u8]) -> Vec<u8> {
    Request::new(ENTRY_VIEW, partition).long(THREAD).text(map).blob(key).finish()
}

/// About `batch` entries of a partition, from the pointers of the previous response.
pub(super) fn fetch_entries(map: &str, partition: i32, pointers: &[(i32, i32)], batch: i32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(pointers.len() * 8);
    for (index, size) in pointers {
        bytes.extend_from_slice(&index.to_le_bytes());
        bytes.extend_from_slice(&size.to_le_bytes());
    }
    Request::new(FETCH_ENTRIES, partition).int(batch).text(map).blob(&bytes).finish()
}
