//! What stores and files hold: records, and snapshots of the table.

use std::io::Cursor;
use std::time::Duration;

use crc32fast::Hasher;

use super::choice;
use crate::session::token::UnixMillis;
use crate::store::TableEntry;
use crate::store::disk::{self, LoadResult, LoadScope, LocalStore, ReadError};
use crate::store::engine::record::BindingRecord;
use crate::store::engine::{Name, Value};
use crate::store::local::data::SessionData;
use crate::store::local::table::Table;

const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

/// A name has one text, and a value or a binding that is read is written the same.
pub fn store_record(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let name = Name::from_stored(text);
        if let Some((pool, key, kind)) = name.parts() {
            assert_eq!(Name::new(pool, key, kind).as_str(), text, "two texts of one name");
            assert!(text.starts_with(name.session()));
        }
    }
    let Some(value) = Value::parse(data) else { return };
    assert_eq!(value.text(), data);
    assert_eq!(Value::new(value.epoch(), value.rest()), value, "two texts of one value");
    let Some(record) = BindingRecord::read(&value) else { return };
    assert_eq!(record.epoch, value.epoch());
    let written = record.value("edge-1 5f0e93c1");
    assert_eq!(BindingRecord::read(&written).as_ref(), Some(&record), "{}", written.text().escape_ascii());
}

struct Store {
    table: Table,
    data: SessionData,
}

impl Store {
    fn new() -> Self {
        let table = Table::with_shards(40, 4, NOW, Box::new(|_, _| ()));
        for pool in ["shop", "chat"] {
            table.set_limits(pool, Duration::from_secs(1_800), Duration::from_secs(86_400));
        }
        Self { table, data: SessionData::new(1 << 20, NOW, Box::new(|_| ())) }
    }

    fn load(&self, snapshot: &[u8]) -> Result<LoadResult, ReadError> {
        let scope = |pool: &str| match pool {
            "chat" => LoadScope::Sessions,
            "none" => LoadScope::Skip,
            _ => LoadScope::SessionsAndData,
        };
        disk::load(self.local(), Cursor::new(snapshot), NOW, &scope)
    }

    fn local(&self) -> LocalStore<'_> {
        LocalStore { table: &self.table, data: &self.data }
    }

    fn contents(&self) -> Vec<String> {
        let mut sessions = Vec::new();
        (0..self.table.shards()).for_each(|shard| self.table.copy_shard(shard, &mut sessions));
        let by_name = |(key, entry): (_, TableEntry)| {
            let target = self.table.target_at(entry.target).expect("the target of a session");
            format!("{key:?} {} {} {} {:?}", target.pool(), target.server(), entry.epoch, entry.created)
        };
        let mut contents: Vec<_> = sessions.into_iter().map(by_name).collect();
        contents.sort();
        contents
    }
}

/// A snapshot is loaded as a whole or not at all, and what was loaded is written and loaded again as it is.
pub fn snapshot(data: &[u8]) {
    let (form, rest) = choice(data);
    let framed = if form & 1 == 1 { with_checksums(rest, u32::from(form >> 1 & 1) + 1) } else { rest.to_vec() };
    let store = Store::new();
    let Ok(result) = store.load(&framed) else {
        return assert!(store.table.is_empty() && store.data.is_empty(), "a part of a refused snapshot was loaded");
    };
    assert!(result.loaded.sessions <= 40 && result.loaded.sessions == store.table.len() as u64);
    let mut written = Vec::new();
    disk::write(store.local(), NOW, &mut written).expect("memory takes it");
    let again = Store::new();
    let second = again.load(&written).expect("what was written is read");
    assert_eq!(second.loaded, result.loaded);
    assert_eq!(again.contents(), store.contents());
}

/// Blocks (a byte for the kind, one for the length, the payload) with the checksums that they need, and an end that fits, so
/// that what is behind the checksums is reached.
fn with_checksums(mut blocks: &[u8], version: u32) -> Vec<u8> {
    let mut file = b"homingss".to_vec();
    let mut crc = Hasher::new();
    file.extend_from_slice(&version.to_le_bytes());
    crc.update(&file);
    file.extend_from_slice(&crc.clone().finalize().to_le_bytes());
    let mut block = |kind: u32, payload: &[u8]| {
        let length = u32::try_from(payload.len()).unwrap_or_default();
        let bytes = [&kind.to_le_bytes()[..], &length.to_le_bytes(), payload].concat();
        crc.update(&bytes);
        file.extend_from_slice(&bytes);
        file.extend_from_slice(&crc.clone().finalize().to_le_bytes());
    };
    let (mut sessions, mut data) = (0_u64, 0_u64);
    while let [kind, length, rest @ ..] = blocks {
        let (payload, after) = rest.split_at(usize::from(*length).min(rest.len()));
        blocks = after;
        match kind % 4 {
            1 => sessions += payload.len() as u64 / 40,
            3 => data += 1,
            _ => {}
        }
        block([1, 2, 1, 4][usize::from(kind % 4)], payload);
    }
    let mut end = [sessions.to_le_bytes(), NOW.0.to_le_bytes()].concat();
    if version > 1 {
        end.extend_from_slice(&data.to_le_bytes());
    }
    block(3, &end);
    file
}
