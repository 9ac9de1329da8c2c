//! Requests: commands that are sent and answered together, each with exactly one response.
//!
//! No command is quiet (flag `q`): a quiet command has no response on success, and responses are matched to commands by
//! counting.

use std::io::Write as _;
use std::time::Duration;

use smallvec::SmallVec;

use super::response::{MAX_VALUE, Response};
use crate::store::engine::{Name, StoreError, Value};

/// Commands, and the expected response to each.
#[derive(Debug)]
pub(super) struct Batch<'a> {
    prefix: &'a Prefix,
    bytes: Vec<u8>,
    expected: Expectations,
}

/// One or two in most requests.
pub(super) type Expectations = SmallVec<[ExpectedResponse; 4]>;

/// The possible responses to a command. `SERVER_ERROR` is one to any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExpectedResponse {
    /// A value or a miss.
    Value,
    /// A value with its CAS number, or a miss.
    ValueWithCas,
    /// Stored, or the reason why not.
    Write,
    /// The time to live, or a miss.
    Ttl,
    /// Success or a miss.
    Touch,
    /// Success or not found.
    Forget,
    /// `MN`.
    Noop,
}

/// When a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    /// There is no value: mode `E`, add.
    Absent,
    /// The value still has this CAS number.
    Unchanged(u64),
}

/// The prefix of all names: `key_prefix` and a colon.
#[derive(Debug)]
pub(super) struct Prefix(Box<str>);

/// The longest name that memcached accepts, in bytes.
const MAX_NAME: usize = 250;
/// memcached takes anything above 30 days for a date.
const MAX_TTL: u64 = 30 * 24 * 60 * 60;

impl Prefix {
    /// # Errors
    /// When names with it would be invalid.
    pub(super) fn new(key_prefix: &str) -> Result<Self, StoreError> {
        let prefix = Self(format!("{key_prefix}:").into());
        prefix.check("")?;
        Ok(prefix)
    }

    /// A name with a space would be read as two arguments, and one with a line end as two commands.
    fn check(&self, name: &str) -> Result<(), StoreError> {
        let graphic = self.0.bytes().chain(name.bytes()).all(|byte| byte.is_ascii_graphic());
        if graphic && self.0.len() + name.len() <= MAX_NAME {
            return Ok(());
        }
        Err(StoreError::Refused(format!(
            "names in memcached have at most {MAX_NAME} characters of printable ASCII without blanks"
        )))
    }
}

/// In whole seconds, at most 30 days. One more than requested: memcached's clock ticks once a second, so a value written
/// right before a tick loses one.
pub(super) fn seconds(ttl: Duration) -> u64 {
    let whole = ttl.as_secs().saturating_add(u64::from(ttl.subsec_nanos() > 0)).max(1);
    whole.saturating_add(1).min(MAX_TTL)
}

impl<'a> Batch<'a> {
    /// An empty batch.
    pub(super) fn new(prefix: &'a Prefix) -> Self {
        Self { prefix, bytes: Vec::with_capacity(128), expected: Expectations::new() }
    }

    /// Reads the value.
    pub(super) fn find(&mut self, name: &Name) -> Result<(), StoreError> {
        self.command("mg", name, " v", ExpectedResponse::Value)
    }

    /// Reads the value with its CAS number.
    pub(super) fn find_with_cas(&mut self, name: &Name) -> Result<(), StoreError> {
        self.command("mg", name, " v c", ExpectedResponse::ValueWithCas)
    }

    /// Reads the time to live.
    pub(super) fn ttl(&mut self, name: &Name) -> Result<(), StoreError> {
        self.command("mg", name, " t", ExpectedResponse::Ttl)
    }

    /// Sets the time to live.
    pub(super) fn touch(&mut self, name: &Name, seconds: u64) -> Result<(), StoreError> {
        self.command("mg", name, format_args!(" T{seconds}"), ExpectedResponse::Touch)
    }

    /// Removes the value.
    pub(super) fn forget(&mut self, name: &Name) -> Result<(), StoreError> {
        self.command("md", name, "", ExpectedResponse::Forget)
    }

    /// Writes a value.
    pub(super) fn write(
        &mut self,
        name: &Name,
        value: &Value,
        seconds: u64,
        when: Condition,
    ) -> Result<(), StoreError> {
        let text = value.text();
        if text.len() > MAX_VALUE {
            return Err(StoreError::Refused(format!("a value of {} bytes; at most {MAX_VALUE}", text.len())));
        }
        let size = text.len();
        match when {
            Condition::Absent => {
                self.command("ms", name, format_args!(" {size} T{seconds} ME"), ExpectedResponse::Write)?;
            }
            Condition::Unchanged(number) => {
                self.command("ms", name, format_args!(" {size} T{seconds} C{number}"), ExpectedResponse::Write)?;
            }
        }
        self.bytes.extend_from_slice(text);
        self.bytes.extend_from_slice(b"\r\n");
        Ok(())
    }

    /// Adds a no-op, to check that the server answers.
    pub(super) fn noop(mut self) -> Self {
        self.bytes.extend_from_slice(NOOP);
        self.expected.push(ExpectedResponse::Noop);
        self
    }

    /// The bytes, and the expected responses.
    pub(super) fn finish(self) -> (Vec<u8>, Expectations) {
        (self.bytes, self.expected)
    }

    fn command(
        &mut self,
        verb: &str,
        name: &Name,
        flags: impl std::fmt::Display,
        expected: ExpectedResponse,
    ) -> Result<(), StoreError> {
        self.prefix.check(name.as_str())?;
        // Writing to a vector never fails.
        let _ = write!(self.bytes, "{verb} {}{}{flags}\r\n", self.prefix.0, name.as_str());
        self.expected.push(expected);
        Ok(())
    }
}

/// The probe of a connection.
pub(super) const NOOP: &[u8] = b"mn\r\n";
/// The first request on a connection: the version, and whether the server knows meta commands.
pub(super) const GREETING: &[u8] = b"version\r\nmn\r\n";

impl ExpectedResponse {
    /// Whether this can be the response.
    pub(super) const fn fits(self, answer: &Response) -> bool {
        matches!(
            (self, answer),
            (_, Response::ServerError(_))
                | (Self::Value, Response::Value { .. } | Response::Miss)
                | (Self::ValueWithCas, Response::Value { cas: Some(_), .. } | Response::Miss)
                | (Self::Write, Response::Done { .. } | Response::NotStored | Response::Exists | Response::NotFound)
                | (Self::Ttl, Response::Done { ttl: Some(_) } | Response::Miss)
                | (Self::Touch, Response::Done { .. } | Response::Miss)
                | (Self::Forget, Response::Done { .. } | Response::NotFound)
                | (Self::Noop, Response::Noop)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_written_as_the_protocol_defines_them() {
        let prefix = Prefix::new("homing").unwrap();
        let (name, value) = (Name::from_stored("shop:k"), Value::new(2, b"b 7 n"));
        let mut batch = Batch::new(&prefix);
        batch.find(&name).unwrap();
        batch.find_with_cas(&name).unwrap();
        batch.ttl(&name).unwrap();
        batch.touch(&name, 60).unwrap();
        batch.write(&name, &value, 60, Condition::Absent).unwrap();
        batch.write(&name, &value, 60, Condition::Unchanged(17)).unwrap();
        batch.forget(&name).unwrap();
        let (bytes, expected) = batch.noop().finish();
        let lines = [
            "mg homing:shop:k v",
            "mg homing:shop:k v c",
            "mg homing:shop:k t",
            "mg homing:shop:k T60",
            "ms homing:shop:k 9 T60 ME\r\n1 2 b 7 n",
            "ms homing:shop:k 9 T60 C17\r\n1 2 b 7 n",
            "md homing:shop:k",
            "mn",
            "",
        ];
        assert_eq!(String::from_utf8(bytes).unwrap(), lines.join("\r\n"));
        assert_eq!(expected.len(), 8, "one response for each command");
    }

    #[test]
    fn a_name_cannot_become_two_arguments_or_two_commands() {
        let prefix = Prefix::new("homing").unwrap();
        let longest = "n".repeat(MAX_NAME - "homing:".len());
        let mut batch = Batch::new(&prefix);
        assert_eq!(batch.find(&Name::from_stored(&longest)), Ok(()));
        let written = batch.bytes.len();
        for name in [&format!("{longest}n"), "a b", "a\r\nflush_all", "a\tb", "Köln", "\0"] {
            let refused = batch.find(&Name::from_stored(name)).unwrap_err();
            assert!(refused.to_string().contains("at most 250 characters"), "{name:?}: {refused}");
        }
        assert_eq!(batch.bytes.len(), written, "a refused name is not written");
        assert!(matches!(Prefix::new("two words"), Err(StoreError::Refused(_))));
    }

    #[test]
    fn a_value_that_could_not_be_read_back_is_not_written() {
        let prefix = Prefix::new("homing").unwrap();
        let value = Value::new(1, &vec![b'x'; MAX_VALUE]);
        let refused = Batch::new(&prefix).write(&Name::from_stored("k"), &value, 60, Condition::Absent).unwrap_err();
        assert_eq!(refused.to_string(), "the store refused: a value of 1048580 bytes; at most 1048576");
    }

    #[test]
    fn a_value_lives_at_least_as_long_as_requested_and_thirty_days_at_most() {
        for (milliseconds, expected) in
            [(0, 2), (1, 2), (1000, 2), (1001, 3), (1_800_000, 1801), (u64::MAX, MAX_TTL), (2_592_000_000, MAX_TTL)]
        {
            assert_eq!(seconds(Duration::from_millis(milliseconds)), expected, "{milliseconds} ms");
        }
        assert_eq!(seconds(Duration::MAX), MAX_TTL);
    }

    #[test]
    fn a_response_to_another_command_does_not_fit() {
        let value = |cas| Response::Value { text: bytes::Bytes::new(), cas };
        let failed = Response::ServerError("out of memory".into());
        for (expected, answer, fits) in [
            (ExpectedResponse::Value, value(None), true),
            (ExpectedResponse::ValueWithCas, value(None), false),
            (ExpectedResponse::ValueWithCas, value(Some(1)), true),
            (ExpectedResponse::Ttl, Response::Done { ttl: None }, false),
            (ExpectedResponse::Write, Response::Miss, false),
            (ExpectedResponse::Write, value(None), false),
            (ExpectedResponse::Value, Response::Noop, false),
            (ExpectedResponse::Noop, Response::Miss, false),
            (ExpectedResponse::Value, Response::ClientError("ERROR".into()), false),
            (ExpectedResponse::Value, failed.clone(), true),
            (ExpectedResponse::Noop, failed, true),
        ] {
            assert_eq!(expected.fits(&answer), fits, "{expected:?} {answer:?}");
        }
    }
}
