//! The scripts: what older servers have no command for, and the compare-and-set by epoch. One key each, so that they run
//! in a cluster.

use std::sync::LazyLock;

use redis::Cmd;

use super::keys::Key;

/// A script and its hash, by which a server calls it once it has it.
pub(super) struct Script {
    code: &'static str,
    hash: String,
}

/// `SET … NX GET PX` for servers before Redis 7.0: nothing when the value is kept, else what stands.
/// Arguments: value, milliseconds.
pub(super) static BIND: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local kept = redis.call('GET', KEYS[1])
if kept then return kept end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return false",
    )
});

/// `PEXPIRE … GT` for servers before Redis 7.0. Arguments: milliseconds.
pub(super) static TOUCH: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local left = redis.call('PTTL', KEYS[1])
if left >= 0 and left < tonumber(ARGV[1]) then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return left",
    )
});

/// The compare-and-set by epoch, as [`crate::store::engine::Value::supersedes`] has it: nothing when the value is kept,
/// else what stands. What is no value of ours stands too. Arguments: value, epoch, milliseconds, and for a binding the
/// channel and its name there, else two empty texts.
///
/// The announcement may fail (a user without the right to publish) without undoing what was kept: hence `pcall`.
pub(super) static REBIND: LazyLock<Script> = LazyLock::new(|| {
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

/// How a script is named in a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// `EVALSHA`: 40 bytes, when the server has it.
    Hash,
    /// `EVAL`: all of it; the server has it then.
    Code,
}

impl Script {
    fn new(code: &'static str) -> Self {
        Self { code, hash: redis::Script::new(code).get_hash().to_owned() }
    }

    /// The command up to the key; arguments follow.
    pub(super) fn command(&self, by: By, key: Key<'_>) -> Cmd {
        let mut command = Cmd::new();
        match by {
            By::Hash => command.arg("EVALSHA").arg(&self.hash),
            By::Code => command.arg("EVAL").arg(self.code),
        };
        command.arg(1).arg(key);
        command
    }
}
