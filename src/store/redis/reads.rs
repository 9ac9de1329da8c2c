//! Asking what is kept: by name, and name by name through everything.

use redis::{Cmd, Value as Answer};

use super::failure::Failure;
use super::keys::Keys;
use super::link::{Connection, Link};
use crate::store::engine::{Name, Value};

/// What is kept under these names, in their order.
pub(super) async fn lookup(link: &Link, keys: &Keys, names: &[Name]) -> Result<Vec<Option<Value>>, Failure> {
    values(link, keys, names).await?.into_iter().map(|answer| value(answer, "GET")).collect()
}

/// The same for names that [`super::list`] found: what is no value of ours is `None`.
pub(super) async fn lookup_found(link: &Link, keys: &Keys, names: &[Name]) -> Result<Vec<Option<Value>>, Failure> {
    let answers = values(link, keys, names).await?;
    Ok(answers.into_iter().map(|answer| value(answer, "GET").ok().flatten()).collect())
}

async fn values(link: &Link, keys: &Keys, names: &[Name]) -> Result<Vec<Answer>, Failure> {
    match names {
        [] => Ok(Vec::new()),
        [name] => Ok(vec![link.ask(&get(keys, name)).await?]),
        _ if matches!(link.connection(), Connection::Cluster(_)) => {
            let answers = link.ask_each(names.iter().map(|name| get(keys, name)).collect()).await?;
            answers.into_iter().collect()
        }
        _ => {
            let mut command = Cmd::new();
            command.arg("MGET");
            for name in names {
                command.arg(keys.key(name));
            }
            match link.ask(&command).await? {
                Answer::Array(answers) if answers.len() == names.len() => Ok(answers),
                _ => Err(Failure::odd_answer("MGET")),
            }
        }
    }
}

/// `GET` of a name.
pub(super) fn get(keys: &Keys, name: &Name) -> Cmd {
    let mut command = Cmd::new();
    command.arg("GET").arg(keys.key(name));
    command
}

/// What stands, or nothing.
pub(super) fn text(answer: Answer, command: &str) -> Result<Option<Vec<u8>>, Failure> {
    match answer {
        Answer::Nil => Ok(None),
        Answer::BulkString(text) => Ok(Some(text)),
        _ => Err(Failure::odd_answer(command)),
    }
}

/// The value that stands, or nothing.
pub(super) fn value(answer: Answer, command: &str) -> Result<Option<Value>, Failure> {
    text(answer, command)?.map(|text| Value::parse(&text).ok_or_else(Failure::foreign_value)).transpose()
}
