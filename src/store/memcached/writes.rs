//! Bind (the first writer wins) and rebind (the higher epoch wins).

use super::connection::Connection;
use super::request::{Batch, Condition, Prefix};
use super::response::Response;
use crate::store::engine::{Name, StoreError, Value, WriteResult};

/// A value to write.
pub(super) struct Write<'a> {
    pub(super) prefix: &'a Prefix,
    pub(super) name: &'a Name,
    pub(super) value: &'a Value,
    pub(super) seconds: u64,
}

/// How often a write is tried against concurrent writes of the same name.
const MAX_ATTEMPTS: usize = 256;

/// What a server holds under a name: a value with its CAS number.
enum Existing {
    None,
    Value(Value, u64),
}

impl Write<'_> {
    /// Adds the value if there is none. The read of the existing value goes along with the attempt, so it takes one round
    /// trip, won or lost.
    pub(super) async fn bind(&self, connection: &Connection) -> Result<WriteResult, StoreError> {
        for _ in 0..MAX_ATTEMPTS {
            let mut batch = Batch::new(self.prefix);
            batch.write(self.name, self.value, self.seconds, Condition::Absent)?;
            batch.find(self.name)?;
            let mut answers = connection.send(batch).await?.into_iter();
            if is_done(answers.next())? {
                return Ok(WriteResult::Stored);
            }
            match value_of(answers.next())? {
                Some((kept, _)) if kept == *self.value => return Ok(WriteResult::Stored),
                Some((kept, _)) => return Ok(WriteResult::Conflict(kept)),
                // It has expired or was removed between the two.
                None => {}
            }
        }
        Err(too_many_races())
    }

    /// Reads the value with its CAS number, and writes if that has not changed. Both on one connection: a restarted server
    /// counts from the start again.
    pub(super) async fn rebind(&self, connection: &Connection) -> Result<WriteResult, StoreError> {
        for _ in 0..MAX_ATTEMPTS {
            let when = match self.read_existing(connection).await? {
                Existing::None => Condition::Absent,
                Existing::Value(kept, number) if self.replaces(&kept) => Condition::Unchanged(number),
                Existing::Value(kept, _) => return Ok(WriteResult::Conflict(kept)),
            };
            let mut batch = Batch::new(self.prefix);
            batch.write(self.name, self.value, self.seconds, when)?;
            if is_done(connection.send(batch).await?.into_iter().next())? {
                return Ok(WriteResult::Stored);
            }
        }
        Err(too_many_races())
    }

    async fn read_existing(&self, connection: &Connection) -> Result<Existing, StoreError> {
        let mut batch = Batch::new(self.prefix);
        batch.find_with_cas(self.name)?;
        let kept = value_of(connection.send(batch).await?.into_iter().next())?;
        Ok(kept.map_or(Existing::None, |(value, number)| Existing::Value(value, number.unwrap_or_default())))
    }

    /// The same value is written again too, to extend its lifetime.
    fn replaces(&self, kept: &Value) -> bool {
        self.value.supersedes(kept, self.name.kind()) || self.value == kept
    }
}

/// The value of a response, with its CAS number where that was requested.
pub(super) fn value_of(answer: Option<Response>) -> Result<Option<(Value, Option<u64>)>, StoreError> {
    match answer {
        Some(Response::Miss) => Ok(None),
        Some(Response::Value { text, cas }) => match Value::parse(&text) {
            Some(value) => Ok(Some((value, cas))),
            None => Err(StoreError::Unreadable("a value in another format".to_owned())),
        },
        other => Err(refusal(other)),
    }
}

/// Whether a write was done.
fn is_done(answer: Option<Response>) -> Result<bool, StoreError> {
    match answer {
        Some(Response::Done { .. }) => Ok(true),
        Some(Response::NotStored | Response::Exists | Response::NotFound) => Ok(false),
        other => Err(refusal(other)),
    }
}

/// The error for any other response.
pub(super) fn refusal(answer: Option<Response>) -> StoreError {
    match answer {
        Some(Response::ServerError(words)) => StoreError::Refused(words.into()),
        // The connection rejects everything else.
        _ => StoreError::Unreadable("an unexpected response".to_owned()),
    }
}

fn too_many_races() -> StoreError {
    StoreError::Refused(format!("{MAX_ATTEMPTS} concurrent writes of the same name"))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::super::connection::MetaCodec;
    use super::*;
    use crate::store::connection::drive;

    /// The result of a write and what it sent in each round trip, against scripted responses: races that a test could not
    /// time.
    async fn against(script: &[&str], bind: bool) -> (Result<WriteResult, StoreError>, Vec<String>) {
        let (connection, requests) = Connection::new("memcached at x:1".into());
        let (client, mut server) = tokio::io::duplex(4096);
        let task = tokio::spawn(drive(client, requests, MetaCodec::default(), "memcached at x:1"));
        let script: Vec<String> = script.iter().map(ToString::to_string).collect();
        let server = tokio::spawn(async move {
            let mut bytes = [0; 4096];
            let mut heard = Vec::new();
            // A batch is written as a whole.
            while let Some(length) = server.read(&mut bytes).await.ok().filter(|length| *length > 0) {
                server.write_all(script[heard.len()].as_bytes()).await.unwrap();
                heard.push(String::from_utf8_lossy(&bytes[..length]).replace("\r\n", "|"));
            }
            heard
        });
        let (prefix, name, value) = (Prefix::new("t").unwrap(), Name::from_stored("shop:k"), Value::new(2, b"b"));
        let write = Write { prefix: &prefix, name: &name, value: &value, seconds: 60 };
        let written = if bind { write.bind(&connection).await } else { write.rebind(&connection).await };
        drop(connection);
        task.await.unwrap();
        (written, server.await.unwrap())
    }

    const BIND: &str = "ms t:shop:k 5 T60 ME|1 2 b|mg t:shop:k v|";
    const FIND: &str = "mg t:shop:k v c|";
    const ADD: &str = "ms t:shop:k 5 T60 ME|1 2 b|";
    const SET_7: &str = "ms t:shop:k 5 T60 C7|1 2 b|";
    const SET_8: &str = "ms t:shop:k 5 T60 C8|1 2 b|";

    #[tokio::test]
    async fn a_value_that_expires_between_add_and_read_is_bound_again() {
        let script = ["NS\r\nEN\r\n", "HD\r\nVA 5\r\n1 2 b\r\n"];
        assert_eq!(against(&script, true).await, (Ok(WriteResult::Stored), vec![BIND.to_owned(); 2]));
    }

    #[tokio::test]
    async fn first_and_second_writer_need_one_round_trip() {
        for (script, written) in [
            ("HD\r\nVA 5\r\n1 2 b\r\n", WriteResult::Stored),
            ("NS\r\nVA 5\r\n1 2 b\r\n", WriteResult::Stored),
            ("NS\r\nVA 5\r\n1 2 c\r\n", WriteResult::Conflict(Value::new(2, b"c"))),
        ] {
            assert_eq!(against(&[script], true).await, (Ok(written), vec![BIND.to_owned()]), "{script:?}");
        }
    }

    #[tokio::test]
    async fn a_move_tries_again_when_another_write_was_faster() {
        let (older, newer) = ("VA 5 c7\r\n1 1 a\r\n", "VA 5 c8\r\n1 1 b\r\n");
        let conflict = WriteResult::Conflict(Value::new(2, b"c"));
        for (script, written, said) in [
            (&[older, "EX\r\n", newer, "HD\r\n"][..], WriteResult::Stored, &[FIND, SET_7, FIND, SET_8][..]),
            (&[older, "NF\r\n", "EN\r\n", "HD\r\n"], WriteResult::Stored, &[FIND, SET_7, FIND, ADD]),
            (&["EN\r\n", "NS\r\n", newer, "HD\r\n"], WriteResult::Stored, &[FIND, ADD, FIND, SET_8]),
            (&["EN\r\n", "NS\r\n", "VA 5 c9\r\n1 2 c\r\n"], conflict, &[FIND, ADD, FIND]),
        ] {
            let said = said.iter().map(ToString::to_string).collect();
            assert_eq!(against(script, false).await, (Ok(written), said), "{script:?}");
        }
        let (written, said) = against(&[older, "EX\r\n"].repeat(MAX_ATTEMPTS), false).await;
        let error = written.unwrap_err().to_string();
        assert_eq!(error, "the store refused: 256 concurrent writes of the same name");
        assert_eq!(said, [FIND, SET_7].repeat(MAX_ATTEMPTS));
    }

    #[tokio::test]
    async fn a_server_without_room_is_quoted() {
        let refused = Err(StoreError::Refused("out of memory storing object".to_owned()));
        let script = "SERVER_ERROR out of memory storing object\r\n";
        assert_eq!(against(&["EN\r\n", script], false).await.0, refused);
        assert_eq!(against(&[&format!("{script}EN\r\n")], true).await.0, refused);
    }

    #[tokio::test]
    async fn a_foreign_value_is_not_overwritten() {
        let foreign = "VA 5 c7\r\nhello\r\n";
        for (script, bind) in [(format!("NS\r\n{foreign}"), true), (foreign.to_owned(), false)] {
            assert_eq!(against(&[&script], bind).await.0.unwrap_err().label(), "unreadable", "{script:?}");
        }
    }
}
