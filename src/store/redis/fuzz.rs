//! Fuzz subject: what a server of Redis or Valkey, a sentinel or a node of a cluster answers and announces.

use redis::{Value as Response, parse_redis_value};

use super::keys::{Keys, announcement, parse_announcement};
use super::{cluster, commands, connect, list, sentinel};
use crate::store::engine::{Value, WriteResult};

/// Every response is a value, an error or foreign, whatever the command was. Announcements and keys are read as they are
/// written.
pub fn redis(data: &[u8]) {
    let keys = Keys::new("homing");
    if let Some(name) = keys.name(data) {
        assert_eq!(keys.key(&name).to_string().as_bytes(), data, "two keys of one name");
    }
    if let Some((name, value)) = parse_announcement(data) {
        assert_eq!(announcement(&name, &value), data, "two texts of one announcement");
    }
    if let Some(node) = sentinel::parse_switch(data, "shop") {
        assert_eq!(connect::Node::parse(&node.to_string()), Some(node));
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = connect::ServerInfo::parse(text);
    }
    if let Ok(response) = parse_redis_value(data) {
        answer(response);
    }
}

fn answer(response: Response) {
    let written = Value::new(3, b"b 7 edge-1");
    let read = commands::value(response.clone(), "GET");
    match commands::write_result(response.clone(), &written, "EVALSHA") {
        Ok(WriteResult::Conflict(existing)) => assert!(existing != written && read == Ok(Some(existing))),
        Ok(WriteResult::Stored) => assert!(matches!(read, Ok(None)) || read == Ok(Some(written))),
        Err(_) => assert!(read.is_err()),
    }
    if let Ok(ranges) = cluster::parse_slots(&response, "10.0.0.1") {
        assert!(ranges.is_sorted());
    }
    let _ = sentinel::parse_address(response.clone());
    let _ = list::parse_scan(response);
}
