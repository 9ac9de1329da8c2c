//! The engine's operations as commands: reads, the writes that only check whether a name is taken, and the compare-and-set
//! by epoch.
//!
//! The compare-and-set is done in one of two ways. By script: one round trip, with the announcement in the same step. By
//! `SET … IFEQ` where the server has it: the value is read, compared here and exchanged only if it has not changed, so two
//! or three round trips, and the announcement follows, because one sent along with the exchange could announce a value
//! that lost. When a proxy dies between the two, the others notice the move once their copies are stale.

use std::sync::LazyLock;
use std::time::Duration;

use redis::{Cmd, Value as Response, cmd};
use tracing::debug;

use super::connection::{Connection, Handle, Script, ScriptRef};
use super::errors::{Failure, Remedy};
use super::keys::{Keys, announcement};
use crate::store::engine::{Kind, Name, StoreError, Value, WriteResult};

/// `SET … NX GET PX` for servers before Redis 7.0: nil when the value is stored, otherwise the existing one.
/// Arguments: value, milliseconds.
static BIND: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local kept = redis.call('GET', KEYS[1])
if kept then return kept end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return false",
    )
});

/// `PEXPIRE … GT` for servers before Redis 7.0. Arguments: milliseconds.
static TOUCH: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local left = redis.call('PTTL', KEYS[1])
if left >= 0 and left < tonumber(ARGV[1]) then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return left",
    )
});

/// The compare-and-set by epoch, with the rule of [`Value::supersedes`]: nil when the value is stored, otherwise the
/// existing one, which a value in another format always is. Arguments: value, epoch, milliseconds, and for a binding the
/// channel and the name to announce, otherwise two empty strings.
///
/// A failed announcement (a user without permission to publish) does not undo the write: hence `pcall`.
static REBIND: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local kept = redis.call('GET', KEYS[1])
local binding = ARGV[4] ~= ''
if kept == ARGV[1] then
  local left = redis.call('PTTL', KEYS[1])
  if left >= 0 and left < tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
else
  if kept then
    local epoch, ours = tonumber(string.match(kept, '^1 (%d+) ')), tonumber(ARGV[2])
    if not epoch or epoch > ours or (epoch == ours and binding) then return kept end
  end
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
end
if binding then redis.pcall('PUBLISH', ARGV[4], ARGV[5] .. ' ' .. ARGV[1]) end
return false",
    )
});

/// Ten years in milliseconds: a server rejects a time to live that overflows its clock.
const MAX_TTL: u64 = 10 * 365 * 24 * 60 * 60 * 1000;
/// How often an exchange that lost a race is retried before the script decides in one step. Each lost race is a write of
/// a higher epoch.
const RACES: usize = 4;
/// The same where scripts are forbidden, before the write is given up.
const RACES_WITHOUT_SCRIPTS: usize = 256;
const IFEQ: &str = "ifeq";

/// A value to write.
pub(super) struct Write<'a> {
    pub(super) keys: &'a Keys,
    pub(super) name: &'a Name,
    pub(super) value: &'a Value,
    pub(super) ttl: Duration,
}

/// The values of these names, in order.
pub(super) async fn lookup(
    connection: &Connection,
    keys: &Keys,
    names: &[Name],
) -> Result<Vec<Option<Value>>, Failure> {
    get_all(connection, keys, names).await?.into_iter().map(|response| value(response, "GET")).collect()
}

/// The same for names returned by [`super::list`]: a value in another format is `None`.
pub(super) async fn lookup_listed(
    connection: &Connection,
    keys: &Keys,
    names: &[Name],
) -> Result<Vec<Option<Value>>, Failure> {
    let responses = get_all(connection, keys, names).await?;
    Ok(responses.into_iter().map(|response| value(response, "GET").ok().flatten()).collect())
}

async fn get_all(connection: &Connection, keys: &Keys, names: &[Name]) -> Result<Vec<Response>, Failure> {
    match names {
        [] => Ok(Vec::new()),
        [name] => Ok(vec![connection.send(&get(keys, name)).await?]),
        _ if matches!(connection.handle(), Handle::Cluster(_)) => {
            let responses = connection.send_all(names.iter().map(|name| get(keys, name)).collect()).await?;
            responses.into_iter().collect()
        }
        _ => {
            let mut command = cmd("MGET");
            for name in names {
                command.arg(keys.key(name));
            }
            match connection.send(&command).await? {
                Response::Array(responses) if responses.len() == names.len() => Ok(responses),
                _ => Err(Failure::unexpected_response("MGET")),
            }
        }
    }
}

fn get(keys: &Keys, name: &Name) -> Cmd {
    let mut command = cmd("GET");
    command.arg(keys.key(name));
    command
}

/// The bytes of a response.
fn text(response: Response, command: &str) -> Result<Option<Vec<u8>>, Failure> {
    match response {
        Response::Nil => Ok(None),
        Response::BulkString(text) => Ok(Some(text)),
        _ => Err(Failure::unexpected_response(command)),
    }
}

/// The value of a response.
pub(super) fn value(response: Response, command: &str) -> Result<Option<Value>, Failure> {
    text(response, command)?.map(|text| Value::parse(&text).ok_or_else(Failure::foreign_value)).transpose()
}

/// The response to a write is the existing value, or nil. The same value is a retry of our own write.
pub(super) fn write_result(response: Response, written: &Value, command: &str) -> Result<WriteResult, Failure> {
    Ok(match value(response, command)? {
        Some(existing) if existing != *written => WriteResult::Conflict(existing),
        _ => WriteResult::Stored,
    })
}

/// A time to live in milliseconds, as commands take it.
fn millis(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis()).unwrap_or(MAX_TTL).clamp(1, MAX_TTL)
}

/// The first writer wins.
pub(super) async fn bind(connection: &Connection, write: &Write<'_>) -> Result<WriteResult, Failure> {
    let Write { keys, name, value, ttl } = write;
    if connection.set_nx_get.is_usable() {
        let mut command = cmd("SET");
        command.arg(keys.key(name)).arg(value.text()).arg("NX").arg("GET").arg("PX").arg(millis(*ttl));
        match connection.send(&command).await {
            Err(failure) if failure.remedy == Remedy::OlderForm => connection.set_nx_get.disable(),
            response => return write_result(response?, value, "SET"),
        }
    }
    let response = connection.send_script(|by| {
        let mut command = BIND.command(by, keys.key(name));
        command.arg(value.text()).arg(millis(*ttl));
        command
    });
    write_result(response.await?, value, "EVALSHA")
}

/// Extends the time to live of each name, where it is shorter.
pub(super) async fn touch(connection: &Connection, keys: &Keys, touches: &[(Name, Duration)]) -> Result<(), Failure> {
    if connection.expire_gt.is_usable() {
        let commands = touches.iter().map(|(name, ttl)| {
            let mut command = cmd("PEXPIRE");
            command.arg(keys.key(name)).arg(millis(*ttl)).arg("GT");
            command
        });
        match first_error(connection.send_all(commands.collect()).await?) {
            Err(failure) if failure.remedy == Remedy::OlderForm => connection.expire_gt.disable(),
            done => return done,
        }
    }
    let scripts = |by| {
        let commands = touches.iter().map(|(name, ttl)| {
            let mut command = TOUCH.command(by, keys.key(name));
            command.arg(millis(*ttl));
            command
        });
        commands.collect::<Vec<_>>()
    };
    match first_error(connection.send_all(scripts(ScriptRef::Hash)).await?) {
        // Touching a name twice does no harm, so the whole batch is sent again.
        Err(failure) if failure.remedy == Remedy::SendScript => {
            first_error(connection.send_all(scripts(ScriptRef::Code)).await?)
        }
        done => done,
    }
}

/// Removes these names.
pub(super) async fn forget(connection: &Connection, keys: &Keys, names: &[Name]) -> Result<(), Failure> {
    let commands = names.iter().map(|name| {
        let mut command = cmd("UNLINK");
        command.arg(keys.key(name));
        command
    });
    first_error(connection.send_all(commands.collect()).await?)
}

fn first_error(responses: Vec<Result<Response, Failure>>) -> Result<(), Failure> {
    responses.into_iter().try_for_each(|response| response.map(drop))
}

/// The word for [`crate::store::engine::Capabilities::compare_and_set`].
pub(super) fn compare_and_set(connection: &Connection) -> &'static str {
    // Where the version is unknown, scripts are tried first.
    let first = connection.server.has_set_ifeq() && connection.set_ifeq.is_usable();
    if first || !connection.scripts.is_usable() { IFEQ } else { "script" }
}

/// The compare-and-set by epoch: by the server's preferred way, and by the other one when the server does not know it or
/// the user has no permission for it.
pub(super) async fn rebind(connection: &Connection, write: &Write<'_>) -> Result<WriteResult, Failure> {
    if !connection.scripts.is_usable() {
        return rebind_by_ifeq(connection, write, RACES_WITHOUT_SCRIPTS).await?.ok_or_else(too_many_races);
    }
    if compare_and_set(connection) == IFEQ {
        match rebind_by_ifeq(connection, write, RACES).await {
            Ok(Some(done)) => return Ok(done),
            Ok(None) => {}
            Err(failure) if failure.remedy == Remedy::OlderForm => connection.set_ifeq.disable(),
            Err(failure) => return Err(failure),
        }
    }
    match rebind_by_script(connection, write).await {
        // Scripts are forbidden to this user, or this server has none.
        Err(failure)
            if matches!(failure.remedy, Remedy::OtherCommand | Remedy::OlderForm)
                && connection.set_ifeq.is_usable() =>
        {
            rebind_without_scripts(connection, write, failure).await
        }
        done => done,
    }
}

/// `failure` is returned when the other way is not possible either.
async fn rebind_without_scripts(
    connection: &Connection,
    write: &Write<'_>,
    failure: Failure,
) -> Result<WriteResult, Failure> {
    match rebind_by_ifeq(connection, write, RACES_WITHOUT_SCRIPTS).await {
        Ok(done) => {
            // A write to an unused name compares nothing, so its success alone does not prove that the server has `IFEQ`.
            if connection.server.has_set_ifeq() {
                connection.scripts.disable();
            }
            done.ok_or_else(too_many_races)
        }
        Err(other) if other.remedy == Remedy::OlderForm => {
            connection.set_ifeq.disable();
            Err(failure)
        }
        Err(other) => Err(other),
    }
}

fn too_many_races() -> Failure {
    Failure::new(StoreError::Refused("too many concurrent writes to the same name".to_owned()), Remedy::None)
}

async fn rebind_by_script(connection: &Connection, write: &Write<'_>) -> Result<WriteResult, Failure> {
    let Write { keys, name, value, ttl } = write;
    let (channel, announced) = match name.kind() {
        Kind::Binding => (keys.channel(), name.as_str()),
        Kind::Data => ("", ""),
    };
    let response = connection.send_script(|by| {
        let mut command = REBIND.command(by, keys.key(name));
        command.arg(value.text()).arg(value.epoch()).arg(millis(*ttl)).arg(channel).arg(announced);
        command
    });
    write_result(response.await?, value, "EVALSHA")
}

/// `None` = every exchange lost a race.
async fn rebind_by_ifeq(
    connection: &Connection,
    write: &Write<'_>,
    races: usize,
) -> Result<Option<WriteResult>, Failure> {
    let Write { keys, name, value, ttl } = write;
    let mut existing = text(connection.send(&get(keys, name)).await?, "GET")?;
    for _ in 0..races {
        if let Some(text) = &existing {
            if text == value.text() {
                touch(connection, keys, &[((*name).clone(), *ttl)]).await?;
                announce(connection, write).await;
                return Ok(Some(WriteResult::Stored));
            }
            let existing = Value::parse(text).ok_or_else(Failure::foreign_value)?;
            if !value.supersedes(&existing, name.kind()) {
                return Ok(Some(WriteResult::Conflict(existing)));
            }
        }
        let before = text(connection.send(&exchange(write, existing.as_deref())).await?, "SET")?;
        if before == existing {
            announce(connection, write).await;
            return Ok(Some(WriteResult::Stored));
        }
        existing = before;
    }
    Ok(None)
}

/// Sets the value if `expected` is stored. The response is the value before, so it is `expected` exactly on success.
fn exchange(write: &Write<'_>, expected: Option<&[u8]>) -> Cmd {
    let mut command = cmd("SET");
    command.arg(write.keys.key(write.name)).arg(write.value.text());
    match expected {
        Some(expected) => command.arg("IFEQ").arg(expected),
        None => command.arg("NX"),
    };
    command.arg("GET").arg("PX").arg(millis(write.ttl));
    command
}

/// A failure is only logged: the write is done.
async fn announce(connection: &Connection, write: &Write<'_>) {
    if write.name.kind() != Kind::Binding {
        return;
    }
    let mut command = cmd("PUBLISH");
    command.arg(write.keys.channel()).arg(announcement(write.name, write.value));
    if let Err(failure) = connection.send(&command).await {
        debug!("a move was not announced: {}", failure.error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_live_is_one_that_a_server_accepts() {
        for (ttl, expected) in
            [(Duration::ZERO, 1), (Duration::from_millis(1500), 1500), (Duration::from_secs(u64::MAX), MAX_TTL)]
        {
            assert_eq!(millis(ttl), expected, "{ttl:?}");
        }
    }

    #[test]
    fn the_existing_value_decides_the_result_of_a_write() {
        let written = Value::new(1, b"a 7 edge-1");
        let bulk = |text: &[u8]| Response::BulkString(text.to_vec());
        let result = |response| write_result(response, &written, "SET");
        assert_eq!(result(Response::Nil), Ok(WriteResult::Stored));
        assert_eq!(result(bulk(written.text())), Ok(WriteResult::Stored), "a retry of our own write");
        let other = Value::new(1, b"b 7 edge-2");
        assert_eq!(result(bulk(other.text())), Ok(WriteResult::Conflict(other)));
        for foreign in [bulk(b"hello"), Response::Int(3), Response::Okay] {
            assert_eq!(result(foreign.clone()).unwrap_err().error.label(), "unreadable", "{foreign:?}");
        }
    }
}
