//! Keeping, renewing and forgetting: the writes that compare nothing but whether a name is taken.

use std::time::Duration;

use redis::Cmd;

use super::failure::{Failure, Remedy};
use super::keys::Keys;
use super::link::{Link, give_up, usable};
use super::reads;
use super::scripts::{BIND, By, TOUCH};
use crate::store::engine::{Name, Value, WriteResult};

/// The longest life, ten years, in milliseconds: a server refuses what overflows its clock.
const LONGEST: u64 = 10 * 365 * 24 * 60 * 60 * 1000;

/// A life in milliseconds, as commands have it.
pub(super) fn millis(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis()).unwrap_or(LONGEST).clamp(1, LONGEST)
}

/// The first writer wins.
pub(super) async fn bind(
    link: &Link,
    keys: &Keys,
    name: &Name,
    value: &Value,
    ttl: Duration,
) -> Result<WriteResult, Failure> {
    if usable(&link.set_nx_get) {
        let mut command = Cmd::new();
        command.arg("SET").arg(keys.key(name)).arg(value.text()).arg("NX").arg("GET").arg("PX").arg(millis(ttl));
        match link.ask(&command).await {
            Err(failure) if failure.remedy == Remedy::OlderForm => give_up(&link.set_nx_get),
            answer => return written(answer?, value, "SET"),
        }
    }
    let answer = link
        .ask_script(|by| {
            let mut command = BIND.command(by, keys.key(name));
            command.arg(value.text()).arg(millis(ttl));
            command
        })
        .await?;
    written(answer, value, "EVALSHA")
}

/// Nothing or our own text stands: it is ours. Another one is theirs.
pub(super) fn written(answer: redis::Value, ours: &Value, command: &str) -> Result<WriteResult, Failure> {
    Ok(match reads::value(answer, command)? {
        Some(theirs) if theirs != *ours => WriteResult::Conflict(theirs),
        _ => WriteResult::Stored,
    })
}

/// Each name is kept for at least so long from now.
pub(super) async fn touch(link: &Link, keys: &Keys, touches: &[(Name, Duration)]) -> Result<(), Failure> {
    if usable(&link.expire_gt) {
        let commands = touches.iter().map(|(name, ttl)| {
            let mut command = Cmd::new();
            command.arg("PEXPIRE").arg(keys.key(name)).arg(millis(*ttl)).arg("GT");
            command
        });
        match all_done(link.ask_each(commands.collect()).await?) {
            Err(failure) if failure.remedy == Remedy::OlderForm => give_up(&link.expire_gt),
            done => return done,
        }
    }
    let script = |by| {
        let commands = touches.iter().map(|(name, ttl)| {
            let mut command = TOUCH.command(by, keys.key(name));
            command.arg(millis(*ttl));
            command
        });
        commands.collect::<Vec<_>>()
    };
    match all_done(link.ask_each(script(By::Hash)).await?) {
        // One touched twice is no harm, so the batch is sent again as a whole.
        Err(failure) if failure.remedy == Remedy::WholeScript => all_done(link.ask_each(script(By::Code)).await?),
        done => done,
    }
}

/// Forgets these names.
pub(super) async fn forget(link: &Link, keys: &Keys, names: &[Name]) -> Result<(), Failure> {
    let commands = names.iter().map(|name| {
        let mut command = Cmd::new();
        command.arg("UNLINK").arg(keys.key(name));
        command
    });
    all_done(link.ask_each(commands.collect()).await?)
}

/// The first error among the answers.
fn all_done(answers: Vec<Result<redis::Value, Failure>>) -> Result<(), Failure> {
    answers.into_iter().try_for_each(|answer| answer.map(|_| ()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_one_that_a_server_takes() {
        for (ttl, expected) in
            [(Duration::ZERO, 1), (Duration::from_millis(1500), 1500), (Duration::from_secs(u64::MAX), LONGEST)]
        {
            assert_eq!(millis(ttl), expected, "{ttl:?}");
        }
    }

    #[test]
    fn what_stands_decides_whose_it_is() {
        let ours = Value::new(1, b"a 7 edge-1");
        let bulk = |text: &[u8]| redis::Value::BulkString(text.to_vec());
        assert_eq!(written(redis::Value::Nil, &ours, "SET"), Ok(WriteResult::Stored));
        assert_eq!(written(bulk(ours.text()), &ours, "SET"), Ok(WriteResult::Stored), "a retry of our own write");
        let theirs = Value::new(1, b"b 7 edge-2");
        assert_eq!(written(bulk(theirs.text()), &ours, "SET"), Ok(WriteResult::Conflict(theirs)));
        for foreign in [bulk(b"hello"), redis::Value::Int(3), redis::Value::Okay] {
            let failure = written(foreign.clone(), &ours, "SET").unwrap_err();
            assert_eq!(failure.error.label(), "unreadable", "{foreign:?}");
        }
    }
}
