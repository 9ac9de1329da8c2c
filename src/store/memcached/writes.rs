//! Bind and rebind: who is first, and who has the higher epoch.

use super::answer::Answer;
use super::batch::{Batch, Prefix, When};
use super::connection::Connection;
use crate::store::engine::{Name, StoreError, Value, WriteResult};

/// What is to be kept where, for how many seconds.
pub(super) struct Write<'a> {
    pub(super) prefix: &'a Prefix,
    pub(super) name: &'a Name,
    pub(super) value: &'a Value,
    pub(super) seconds: u64,
}

/// How often a write is tried against others that write the same name.
const MOST_TRIES: usize = 256;

/// What a server keeps.
enum Kept {
    Nothing,
    Value(Value, u64),
}

impl Write<'_> {
    /// Kept if nothing is kept there. The question who was first goes along with the attempt, so it is one round trip for
    /// the winner and the others alike.
    pub(super) async fn bind(&self, connection: &Connection) -> Result<WriteResult, StoreError> {
        for _ in 0..MOST_TRIES {
            let mut batch = Batch::new(self.prefix);
            batch.write(self.name, self.value, self.seconds, When::Nothing)?;
            batch.find(self.name)?;
            let mut answers = connection.ask(batch).await?.into_iter();
            if is_done(answers.next())? {
                return Ok(WriteResult::Stored);
            }
            match found(answers.next())? {
                Some((kept, _)) if kept == *self.value => return Ok(WriteResult::Stored),
                Some((kept, _)) => return Ok(WriteResult::Conflict(kept)),
                // It has expired, or was forgotten, between the two.
                None => {}
            }
        }
        Err(beaten())
    }

    /// Kept unless what is kept there stands: found with its number, and set if that has not changed. All on one
    /// connection: the numbers of a server that was started anew begin anew.
    pub(super) async fn rebind(&self, connection: &Connection) -> Result<WriteResult, StoreError> {
        for _ in 0..MOST_TRIES {
            let when = match self.kept(connection).await? {
                Kept::Nothing => When::Nothing,
                Kept::Value(kept, number) if self.replaces(&kept) => When::Unchanged(number),
                Kept::Value(kept, _) => return Ok(WriteResult::Conflict(kept)),
            };
            let mut batch = Batch::new(self.prefix);
            batch.write(self.name, self.value, self.seconds, when)?;
            if is_done(connection.ask(batch).await?.into_iter().next())? {
                return Ok(WriteResult::Stored);
            }
        }
        Err(beaten())
    }

    async fn kept(&self, connection: &Connection) -> Result<Kept, StoreError> {
        let mut batch = Batch::new(self.prefix);
        batch.find_numbered(self.name)?;
        let kept = found(connection.ask(batch).await?.into_iter().next())?;
        Ok(kept.map_or(Kept::Nothing, |(value, number)| Kept::Value(value, number.unwrap_or_default())))
    }

    /// The same text is written again too: its life begins anew.
    fn replaces(&self, kept: &Value) -> bool {
        self.value.supersedes(kept, self.name.kind()) || self.value == kept
    }
}

/// What was found under a name, with its number where that was asked for.
pub(super) fn found(answer: Option<Answer>) -> Result<Option<(Value, Option<u64>)>, StoreError> {
    match answer {
        Some(Answer::Nothing) => Ok(None),
        Some(Answer::Value { text, number }) => match Value::parse(&text) {
            Some(value) => Ok(Some((value, number))),
            None => Err(StoreError::Unreadable("a text under one of our names is none of ours".to_owned())),
        },
        other => Err(refusal(other)),
    }
}

/// Whether it was done.
fn is_done(answer: Option<Answer>) -> Result<bool, StoreError> {
    match answer {
        Some(Answer::Done { .. }) => Ok(true),
        Some(Answer::Taken | Answer::Changed | Answer::NotFound) => Ok(false),
        other => Err(refusal(other)),
    }
}

/// What an answer says that is none of the hoped for.
pub(super) fn refusal(answer: Option<Answer>) -> StoreError {
    match answer {
        Some(Answer::Failed(words)) => StoreError::Refused(words.into()),
        // The connection lets nothing else through.
        _ => StoreError::Unreadable("an answer to something else".to_owned()),
    }
}

fn beaten() -> StoreError {
    StoreError::Refused(format!("others wrote the same name {MOST_TRIES} times meanwhile"))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::super::connection::drive;
    use super::*;

    /// What a write comes to, and what it said in each round trip, when a server answers so: a race that no test could
    /// time.
    async fn against(script: &[&str], bind: bool) -> (Result<WriteResult, StoreError>, Vec<String>) {
        let (connection, requests) = Connection::new("memcached at x:1".into());
        let (ours, mut server) = tokio::io::duplex(4096);
        let task = tokio::spawn(drive(ours, requests, "memcached at x:1"));
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
    async fn what_is_gone_when_it_is_looked_at_is_bound_after_all() {
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
        let theirs = WriteResult::Conflict(Value::new(2, b"c"));
        for (script, written, said) in [
            (&[older, "EX\r\n", newer, "HD\r\n"][..], WriteResult::Stored, &[FIND, SET_7, FIND, SET_8][..]),
            (&[older, "NF\r\n", "EN\r\n", "HD\r\n"], WriteResult::Stored, &[FIND, SET_7, FIND, ADD]),
            (&["EN\r\n", "NS\r\n", newer, "HD\r\n"], WriteResult::Stored, &[FIND, ADD, FIND, SET_8]),
            (&["EN\r\n", "NS\r\n", "VA 5 c9\r\n1 2 c\r\n"], theirs, &[FIND, ADD, FIND]),
        ] {
            let said = said.iter().map(ToString::to_string).collect();
            assert_eq!(against(script, false).await, (Ok(written), said), "{script:?}");
        }
        let (written, said) = against(&[older, "EX\r\n"].repeat(MOST_TRIES), false).await;
        let error = written.unwrap_err().to_string();
        assert_eq!(error, "the store refused: others wrote the same name 256 times meanwhile");
        assert_eq!(said, [FIND, SET_7].repeat(MOST_TRIES));
    }

    #[tokio::test]
    async fn a_server_without_room_is_quoted() {
        let refused = Err(StoreError::Refused("out of memory storing object".to_owned()));
        let script = "SERVER_ERROR out of memory storing object\r\n";
        assert_eq!(against(&["EN\r\n", script], false).await.0, refused);
        assert_eq!(against(&[&format!("{script}EN\r\n")], true).await.0, refused);
    }

    #[tokio::test]
    async fn a_text_that_nobody_of_ours_wrote_is_not_overwritten() {
        let foreign = "VA 5 c7\r\nhello\r\n";
        for (script, bind) in [(format!("NS\r\n{foreign}"), true), (foreign.to_owned(), false)] {
            assert_eq!(against(&[&script], bind).await.0.unwrap_err().label(), "unreadable", "{script:?}");
        }
    }
}
