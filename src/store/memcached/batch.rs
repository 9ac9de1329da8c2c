//! What is said to a server: commands that are written and answered together, each with exactly one answer.
//!
//! No command is quiet (flag `q`): a quiet one has no answer when all is well, so answers could no longer be counted, and
//! counting is what keeps every answer with its question.

use std::io::Write as _;
use std::time::Duration;

use smallvec::SmallVec;

use super::answer::{Answer, LONGEST_VALUE};
use crate::store::engine::{Name, StoreError, Value};

/// Commands, and what may answer each of them.
#[derive(Debug)]
pub(super) struct Batch<'a> {
    prefix: &'a Prefix,
    bytes: Vec<u8>,
    expected: Expectations,
}

/// Of most requests one or two.
pub(super) type Expectations = SmallVec<[Expected; 4]>;

/// What may answer a command. `SERVER_ERROR` may answer any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    /// A value or nothing.
    Value,
    /// A value with its number for compare-and-set, or nothing.
    NumberedValue,
    /// Done or not, and why not.
    Write,
    /// How long it is still kept, or nothing.
    Left,
    /// Done, or nothing is there.
    Touch,
    /// Done, or not found.
    Forget,
    /// `MN`.
    Noop,
}

/// When a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// Nothing is kept there: mode `E`, add.
    Nothing,
    /// What is kept there still has this number.
    Unchanged(u64),
}

/// What all names begin with: `key_prefix` and a colon.
#[derive(Debug)]
pub(super) struct Prefix(Box<str>);

/// The longest name that memcached takes, in bytes.
const LONGEST_NAME: usize = 250;
/// memcached reads more than 30 days as a date.
const LONGEST_TTL: u64 = 30 * 24 * 60 * 60;

impl Prefix {
    /// # Errors
    /// When names that begin with it would not be names.
    pub(super) fn new(key_prefix: &str) -> Result<Self, StoreError> {
        let prefix = Self(format!("{key_prefix}:").into());
        prefix.check("")?;
        Ok(prefix)
    }

    /// A name with a blank in it would be read as two words, and one with a line's end as two commands.
    fn check(&self, name: &str) -> Result<(), StoreError> {
        let graphic = self.0.bytes().chain(name.bytes()).all(|byte| byte.is_ascii_graphic());
        if graphic && self.0.len() + name.len() <= LONGEST_NAME {
            return Ok(());
        }
        Err(StoreError::Refused(format!(
            "names in memcached have at most {LONGEST_NAME} characters of printable ASCII without blanks"
        )))
    }
}

/// In memcached's whole seconds, at most 30 days. One more than asked for: its clock ticks once a second, and a value that
/// is written right before a tick has lost a second of its life with it.
pub(super) fn seconds(ttl: Duration) -> u64 {
    let whole = ttl.as_secs().saturating_add(u64::from(ttl.subsec_nanos() > 0)).max(1);
    whole.saturating_add(1).min(LONGEST_TTL)
}

impl<'a> Batch<'a> {
    /// Of nothing yet.
    pub(super) fn new(prefix: &'a Prefix) -> Self {
        Self { prefix, bytes: Vec::with_capacity(128), expected: Expectations::new() }
    }

    /// What is kept there?
    pub(super) fn find(&mut self, name: &Name) -> Result<(), StoreError> {
        self.command("mg", name, " v", Expected::Value)
    }

    /// The same with its number.
    pub(super) fn find_numbered(&mut self, name: &Name) -> Result<(), StoreError> {
        self.command("mg", name, " v c", Expected::NumberedValue)
    }

    /// How long is it still kept?
    pub(super) fn left(&mut self, name: &Name) -> Result<(), StoreError> {
        self.command("mg", name, " t", Expected::Left)
    }

    /// Keep it for so long from now.
    pub(super) fn touch(&mut self, name: &Name, seconds: u64) -> Result<(), StoreError> {
        self.command("mg", name, format_args!(" T{seconds}"), Expected::Touch)
    }

    /// Forget it.
    pub(super) fn forget(&mut self, name: &Name) -> Result<(), StoreError> {
        self.command("md", name, "", Expected::Forget)
    }

    /// Keep this.
    pub(super) fn write(&mut self, name: &Name, value: &Value, seconds: u64, when: When) -> Result<(), StoreError> {
        let text = value.text();
        if text.len() > LONGEST_VALUE {
            return Err(StoreError::Refused(format!("a value of {} bytes; at most {LONGEST_VALUE}", text.len())));
        }
        let size = text.len();
        match when {
            When::Nothing => self.command("ms", name, format_args!(" {size} T{seconds} ME"), Expected::Write)?,
            When::Unchanged(number) => {
                self.command("ms", name, format_args!(" {size} T{seconds} C{number}"), Expected::Write)?;
            }
        }
        self.bytes.extend_from_slice(text);
        self.bytes.extend_from_slice(b"\r\n");
        Ok(())
    }

    /// Are you there?
    pub(super) fn noop(mut self) -> Self {
        self.bytes.extend_from_slice(NOOP);
        self.expected.push(Expected::Noop);
        self
    }

    /// Bytes, and what may answer them.
    pub(super) fn finish(self) -> (Vec<u8>, Expectations) {
        (self.bytes, self.expected)
    }

    fn command(
        &mut self,
        verb: &str,
        name: &Name,
        flags: impl std::fmt::Display,
        expected: Expected,
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
/// The first words on a connection: who are you, and do you know meta commands?
pub(super) const GREETING: &[u8] = b"version\r\nmn\r\n";

impl Expected {
    /// Whether this can be the answer.
    pub(super) const fn fits(self, answer: &Answer) -> bool {
        matches!(
            (self, answer),
            (_, Answer::Failed(_))
                | (Self::Value, Answer::Value { .. } | Answer::Nothing)
                | (Self::NumberedValue, Answer::Value { number: Some(_), .. } | Answer::Nothing)
                | (Self::Write, Answer::Done { .. } | Answer::Taken | Answer::Changed | Answer::NotFound)
                | (Self::Left, Answer::Done { left: Some(_) } | Answer::Nothing)
                | (Self::Touch, Answer::Done { .. } | Answer::Nothing)
                | (Self::Forget, Answer::Done { .. } | Answer::NotFound)
                | (Self::Noop, Answer::Noop)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_written_as_the_protocol_has_them() {
        let prefix = Prefix::new("homing").unwrap();
        let (name, value) = (Name::from_stored("shop:k"), Value::new(2, b"b 7 n"));
        let mut batch = Batch::new(&prefix);
        batch.find(&name).unwrap();
        batch.find_numbered(&name).unwrap();
        batch.left(&name).unwrap();
        batch.touch(&name, 60).unwrap();
        batch.write(&name, &value, 60, When::Nothing).unwrap();
        batch.write(&name, &value, 60, When::Unchanged(17)).unwrap();
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
        assert_eq!(expected.len(), 8, "one answer for each command");
    }

    #[test]
    fn a_name_cannot_become_two_words_or_two_commands() {
        let prefix = Prefix::new("homing").unwrap();
        let longest = "n".repeat(LONGEST_NAME - "homing:".len());
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
        let value = Value::new(1, &vec![b'x'; LONGEST_VALUE]);
        let refused = Batch::new(&prefix).write(&Name::from_stored("k"), &value, 60, When::Nothing).unwrap_err();
        assert_eq!(refused.to_string(), "the store refused: a value of 1048580 bytes; at most 1048576");
    }

    #[test]
    fn a_value_lives_at_least_as_long_as_asked_for_and_thirty_days_at_most() {
        for (milliseconds, expected) in [
            (0, 2),
            (1, 2),
            (1000, 2),
            (1001, 3),
            (1_800_000, 1801),
            (u64::MAX, LONGEST_TTL),
            (2_592_000_000, LONGEST_TTL),
        ] {
            assert_eq!(seconds(Duration::from_millis(milliseconds)), expected, "{milliseconds} ms");
        }
        assert_eq!(seconds(Duration::MAX), LONGEST_TTL);
    }

    #[test]
    fn an_answer_to_another_command_does_not_fit() {
        let value = |number| Answer::Value { text: bytes::Bytes::new(), number };
        let failed = Answer::Failed("out of memory".into());
        for (expected, answer, fits) in [
            (Expected::Value, value(None), true),
            (Expected::NumberedValue, value(None), false),
            (Expected::NumberedValue, value(Some(1)), true),
            (Expected::Left, Answer::Done { left: None }, false),
            (Expected::Write, Answer::Nothing, false),
            (Expected::Write, value(None), false),
            (Expected::Value, Answer::Noop, false),
            (Expected::Noop, Answer::Nothing, false),
            (Expected::Value, Answer::NotUnderstood("ERROR".into()), false),
            (Expected::Value, failed.clone(), true),
            (Expected::Noop, failed, true),
        ] {
            assert_eq!(expected.fits(&answer), fits, "{expected:?} {answer:?}");
        }
    }
}
