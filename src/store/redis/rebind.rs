//! The compare-and-set by epoch, in one of two ways.
//!
//! By script: one round trip, the announcement in the same step. By `SET … IFEQ` where the server has it: it is read,
//! compared here and exchanged only if what was read still stands, so two or three round trips, and the announcement
//! after it is kept, since one that is sent along with the exchange would be told of a value that lost. A proxy that dies
//! between the two leaves the others to find out when their copies are old.

use std::time::Duration;

use redis::Cmd;
use tracing::debug;

use super::failure::{Failure, Remedy};
use super::keys::{Keys, announcement};
use super::link::{Link, give_up, usable};
use super::reads;
use super::scripts::REBIND;
use super::writes::{millis, touch, written};
use crate::store::engine::{Kind, Name, StoreError, Value, WriteResult};

/// How often an exchange is tried that others came in between of, before a script decides in one step, or, where scripts
/// may not be used, before it is given up. Each race that is lost was another's higher epoch.
const RACES: usize = 4;
const RACES_WITHOUT_SCRIPT: usize = 256;

/// What is to be written, and where.
pub(super) struct Move<'a> {
    pub(super) keys: &'a Keys,
    pub(super) name: &'a Name,
    pub(super) value: &'a Value,
    pub(super) ttl: Duration,
}

/// The word of [`crate::store::engine::Capabilities::compare_and_set`].
pub(super) fn way(link: &Link) -> &'static str {
    // Where the version is not known, scripts are tried first.
    let first = link.server.has_set_ifeq() && usable(&link.set_ifeq);
    if first || !usable(&link.script) { IFEQ } else { "script" }
}

const IFEQ: &str = "ifeq";

/// Writes it by the server's way, and by the other one when the server does not know it or the user may not use it.
pub(super) async fn rebind(link: &Link, write: &Move<'_>) -> Result<WriteResult, Failure> {
    if !usable(&link.script) {
        return by_ifeq(link, write, RACES_WITHOUT_SCRIPT).await?.ok_or_else(crowded);
    }
    if way(link) == IFEQ {
        match by_ifeq(link, write, RACES).await {
            Ok(Some(done)) => return Ok(done),
            Ok(None) => {}
            Err(failure) if failure.remedy == Remedy::OlderForm => give_up(&link.set_ifeq),
            Err(failure) => return Err(failure),
        }
    }
    match by_script(link, write).await {
        Err(failure) if may_not(&failure) && usable(&link.set_ifeq) => without_script(link, write, failure).await,
        done => done,
    }
}

/// Scripts are forbidden, so it is to be done without; if that is not possible either, `failure` is why.
async fn without_script(link: &Link, write: &Move<'_>, failure: Failure) -> Result<WriteResult, Failure> {
    match by_ifeq(link, write, RACES_WITHOUT_SCRIPT).await {
        Ok(done) => {
            // Where nothing stood, nothing was compared: that alone does not show that the server can.
            if link.server.has_set_ifeq() {
                give_up(&link.script);
            }
            done.ok_or_else(crowded)
        }
        Err(other) if other.remedy == Remedy::OlderForm => {
            give_up(&link.set_ifeq);
            Err(failure)
        }
        Err(other) => Err(other),
    }
}

fn crowded() -> Failure {
    Failure::new(StoreError::Refused("others write the same name all the time".to_owned()), Remedy::None)
}

/// Scripts are forbidden to this user, or there are none in this server.
const fn may_not(failure: &Failure) -> bool {
    matches!(failure.remedy, Remedy::OtherCommand | Remedy::OlderForm)
}

async fn by_script(link: &Link, write: &Move<'_>) -> Result<WriteResult, Failure> {
    let (channel, name) = match write.name.kind() {
        Kind::Binding => (write.keys.channel(), write.name.as_str()),
        Kind::Data => ("", ""),
    };
    let answer = link.ask_script(|by| {
        let mut command = REBIND.command(by, write.keys.key(write.name));
        command.arg(write.value.text()).arg(write.value.epoch()).arg(millis(write.ttl)).arg(channel).arg(name);
        command
    });
    written(answer.await?, write.value, "EVALSHA")
}

/// `None` = others came in between every time.
async fn by_ifeq(link: &Link, write: &Move<'_>, races: usize) -> Result<Option<WriteResult>, Failure> {
    let kind = write.name.kind();
    let mut kept = reads::text(link.ask(&reads::get(write.keys, write.name)).await?, "GET")?;
    for _ in 0..races {
        if let Some(text) = &kept {
            if text == write.value.text() {
                touch(link, write.keys, &[(write.name.clone(), write.ttl)]).await?;
                announce(link, write).await;
                return Ok(Some(WriteResult::Stored));
            }
            let standing = Value::parse(text).ok_or_else(Failure::foreign_value)?;
            if !write.value.supersedes(&standing, kind) {
                return Ok(Some(WriteResult::Conflict(standing)));
            }
        }
        let stood = reads::text(link.ask(&exchange(write, kept.as_deref())).await?, "SET")?;
        if stood == kept {
            announce(link, write).await;
            return Ok(Some(WriteResult::Stored));
        }
        kept = stood;
    }
    Ok(None)
}

/// Sets it if `before` stands; the answer is what stood, so it is `before` exactly when it was set.
fn exchange(write: &Move<'_>, before: Option<&[u8]>) -> Cmd {
    let mut command = Cmd::new();
    command.arg("SET").arg(write.keys.key(write.name)).arg(write.value.text());
    match before {
        Some(before) => command.arg("IFEQ").arg(before),
        None => command.arg("NX"),
    };
    command.arg("GET").arg("PX").arg(millis(write.ttl));
    command
}

/// What is kept is kept, announced or not.
async fn announce(link: &Link, write: &Move<'_>) {
    if write.name.kind() != Kind::Binding {
        return;
    }
    let mut command = Cmd::new();
    command.arg("PUBLISH").arg(write.keys.channel()).arg(announcement(write.name, write.value));
    if let Err(failure) = link.ask(&command).await {
        debug!("a move was not announced: {}", failure.error);
    }
}
