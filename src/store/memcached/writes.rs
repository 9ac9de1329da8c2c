//! Bind and rebind: who is first, and who has the higher epoch.

use super::answer::Answer;
use super::batch::{Batch, Prefix, When};
use super::connection::Connection;
use crate::store::engine::{Name, StoreError, Value, Written};

/// What is to be kept where, for how many seconds.
pub(super) struct Write<'a> {
    pub(super) prefix: &'a Prefix,
    pub(super) name: &'a Name,
    pub(super) value: &'a Value,
    pub(super) seconds: u64,
}

/// How often a write is tried against others that write the same name.
const MOST_TRIES: usize = 8;

/// What a server keeps.
enum Kept {
    Nothing,
    Value(Value, u64),
}

impl Write<'_> {
    /// Kept if nothing is kept there. The question who was first goes along with the attempt, so it is one round trip for
    /// the winner and the others alike.
    pub(super) async fn bind(&self, connection: &Connection) -> Result<Written, StoreError> {
        for _ in 0..MOST_TRIES {
            let mut batch = Batch::new(self.prefix);
            batch.write(self.name, self.value, self.seconds, When::Nothing)?;
            batch.find(self.name)?;
            let mut answers = connection.ask(batch).await?.into_iter();
            if is_done(answers.next())? {
                return Ok(Written::Ours);
            }
            match found(answers.next())? {
                Some((kept, _)) if kept == *self.value => return Ok(Written::Ours),
                Some((kept, _)) => return Ok(Written::Theirs(kept)),
                // It has expired, or was forgotten, between the two.
                None => {}
            }
        }
        Err(beaten())
    }

    /// Kept unless what is kept there stands: found with its number, and set if that has not changed. All on one
    /// connection: the numbers of a server that was started anew begin anew.
    pub(super) async fn rebind(&self, connection: &Connection) -> Result<Written, StoreError> {
        for _ in 0..MOST_TRIES {
            let when = match self.kept(connection).await? {
                Kept::Nothing => When::Nothing,
                Kept::Value(kept, number) if self.replaces(&kept) => When::Unchanged(number),
                Kept::Value(kept, _) => return Ok(Written::Theirs(kept)),
            };
            let mut batch = Batch::new(self.prefix);
            batch.write(self.name, self.value, self.seconds, when)?;
            if is_done(connection.ask(batch).await?.into_iter().next())? {
                return Ok(Written::Ours);
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
