//! What the texts mean: where a session is bound, and what its server handed over for it.
//!
//! A binding is `1 <epoch> <server> <created> <node>`: the server's name, or `-` for a session that has ended; when the
//! session began, in milliseconds of the Unix epoch; and which proxy wrote it: its name, for people, and a random word for its
//! process. A last word that begins with `!` is what the server has still to be told of the session's move:
//! `!from=a;reason=down;epoch=1`. A reader ignores further words.

use std::sync::Arc;

use super::value::Value;
use crate::session::token::UnixMillis;

/// Where a session is bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindingRecord {
    /// The server's name; `None` when the session has ended.
    pub server: Option<Arc<str>>,
    /// How often it has moved.
    pub epoch: u32,
    /// When it began.
    pub created: UnixMillis,
    /// What its server has still to be told of its move, as the header `Homing-Session-Moved` says it; `None` when the
    /// server has answered below 500.
    pub moved_header: Option<Arc<str>>,
}

/// For `<server>` of a session that has ended. No server's name begins with it.
const ENDED: &str = "-";
/// Before the moved header.
const MOVED_HEADER: &str = " !";

impl BindingRecord {
    /// Its text. `node` is this proxy's name.
    pub fn value(&self, node: &str) -> Value {
        let server = self.server.as_deref().unwrap_or(ENDED);
        let mut rest = format!("{server} {} {node}", self.created.0);
        if let Some(moved_header) = &self.moved_header {
            rest.push_str(MOVED_HEADER);
            rest.push_str(&moved_header.replace("; ", ";"));
        }
        Value::new(self.epoch, rest.as_bytes())
    }

    /// What a text says; `None` when it is none of a binding.
    pub fn read(value: &Value) -> Option<Self> {
        let mut words = std::str::from_utf8(value.rest()).ok()?.split(' ');
        let server = words.next().filter(|server| !server.is_empty())?;
        let created = words.next()?.parse().ok()?;
        words.next()?;
        let moved_header = words.find_map(|word| word.strip_prefix('!'));
        let server = (server != ENDED).then(|| Arc::from(server));
        let moved_header = moved_header.map(|moved_header| moved_header.replace(';', "; ").into());
        Some(Self { server, epoch: value.epoch(), created: UnixMillis(created), moved_header })
    }
}

/// The name of a proxy as a word of a record: what no name may have becomes `_`.
pub fn node_word(node: &str) -> String {
    let word: String =
        node.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' }).take(64).collect();
    if word.is_empty() { "_".to_owned() } else { word }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_a_line_that_people_can_read() {
        let record = BindingRecord {
            server: Some("b".into()),
            epoch: 2,
            created: UnixMillis(1_764_000_000_000),
            moved_header: None,
        };
        let value = record.value("edge-1");
        assert_eq!(value.text(), b"1 2 b 1764000000000 edge-1");
        assert_eq!(BindingRecord::read(&value), Some(record));
    }

    #[test]
    fn what_a_server_has_still_to_be_told_is_one_word() {
        let moved_header: Arc<str> = "from=a; reason=connect_failure; epoch=1".into();
        let record = BindingRecord {
            server: Some("b".into()),
            epoch: 1,
            created: UnixMillis(7),
            moved_header: Some(moved_header),
        };
        let value = record.value("edge-1 5f0e93c1");
        assert_eq!(value.text(), b"1 1 b 7 edge-1 5f0e93c1 !from=a;reason=connect_failure;epoch=1");
        assert_eq!(BindingRecord::read(&value), Some(record));
    }

    #[test]
    fn an_ended_session_has_no_server() {
        let record = BindingRecord { server: None, epoch: 3, created: UnixMillis(7), moved_header: None };
        assert_eq!(record.value("edge-1").text(), b"1 3 - 7 edge-1");
        assert_eq!(BindingRecord::read(&record.value("edge-1")), Some(record));
    }

    #[test]
    fn further_words_are_left_to_later_versions() {
        let read = BindingRecord::read(&Value::new(1, b"b 7 edge-1 more words")).unwrap();
        assert_eq!(
            read,
            BindingRecord { server: Some("b".into()), epoch: 1, created: UnixMillis(7), moved_header: None }
        );
    }

    #[test]
    fn what_is_no_record_is_not_read() {
        for text in ["", "b", "b 7", "b x edge-1", " 7 edge-1", "b -7 edge-1"] {
            assert_eq!(BindingRecord::read(&Value::new(1, text.as_bytes())), None, "{text:?}");
        }
    }

    #[test]
    fn a_nodes_name_is_one_word() {
        for (node, word) in [("edge-1", "edge-1"), ("Köln 1", "K_ln_1"), ("", "_")] {
            assert_eq!(node_word(node), word);
        }
    }
}
