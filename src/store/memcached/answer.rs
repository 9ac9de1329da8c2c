//! What a server says: bytes in, one answer out, the rest left for the next. Plain code without I/O.
//!
//! The forms are memcached's `doc/protocol.txt`, "Meta Commands". A line in a form that is not there is an error, after which
//! nobody can say where the next answer begins. The classic commands answer in the same way, a line and for a value a
//! block, so they would be further first words in [`head`].

use bytes::{Buf, Bytes, BytesMut};

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// `VA`: what is kept, with its number for compare-and-set where that was asked for.
    Value {
        /// As it was written.
        text: Bytes,
        /// The flag `c`.
        number: Option<u64>,
    },
    /// `HD`: done, or there, with the seconds that it has left where they were asked for.
    Done {
        /// The flag `t`.
        left: Option<Left>,
    },
    /// `EN`: nothing is kept there.
    Nothing,
    /// `NS`: not stored, because something is kept there.
    Taken,
    /// `EX`: not stored, because another value has been written there since.
    Changed,
    /// `NF`: not done, because nothing is kept there.
    NotFound,
    /// `MN`: all before it has been answered.
    Noop,
    /// `VERSION`.
    Version(Box<str>),
    /// `SERVER_ERROR`: it could not, and says why. The next answer is in order.
    Failed(Box<str>),
    /// `CLIENT_ERROR` or `ERROR`: it did not understand what was written.
    NotUnderstood(Box<str>),
}

/// How long a value is still kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// So many seconds, or up to one less.
    Seconds(u64),
    /// `t-1`.
    Forever,
}

/// What came is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Malformed(&'static str);

/// The longest line without its end. Lines of the forms above are far shorter.
const LONGEST_LINE: usize = 64 * 1024;
/// The longest value that is read or written; memcached's own limit where nobody raised it.
pub(super) const LONGEST_VALUE: usize = 1024 * 1024;
/// How much of a server's own words is told.
const LONGEST_WORDS: usize = 200;
const LINE_END: &[u8] = b"\r\n";

/// Takes the first answer; `None` when it is not all here.
///
/// # Errors
/// When what is here cannot become an answer, whatever follows.
pub(super) fn take(buffer: &mut BytesMut) -> Result<Option<Answer>, Malformed> {
    let Some(end) = buffer.iter().take(LONGEST_LINE + LINE_END.len()).position(|byte| *byte == b'\n') else {
        let hopeless = buffer.len() >= LONGEST_LINE + LINE_END.len();
        return if hopeless { Err(Malformed("a line without an end")) } else { Ok(None) };
    };
    let line = buffer.get(..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(Malformed("a line without CR"))?;
    match head(line)? {
        Head::Whole(answer) => {
            buffer.advance(end + 1);
            Ok(Some(answer))
        }
        Head::Value { size, number } => block(buffer, end + 1, size, number),
    }
}

/// What a line says.
enum Head {
    Whole(Answer),
    /// So many bytes follow, and then the end of a line.
    Value {
        size: usize,
        number: Option<u64>,
    },
}

fn head(line: &[u8]) -> Result<Head, Malformed> {
    let line = std::str::from_utf8(line).map_err(|_not_text| Malformed("a line that is no text"))?;
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    Ok(Head::Whole(match word {
        "VA" => {
            let (size, flags) = rest.split_once(' ').unwrap_or((rest, ""));
            let size = number(size)?;
            if size > LONGEST_VALUE as u64 {
                return Err(Malformed("a value of over a mebibyte"));
            }
            let size = usize::try_from(size).map_err(|_too_long| Malformed("a value of over a mebibyte"))?;
            return Ok(Head::Value { size, number: flag(flags, 'c').map(number).transpose()? });
        }
        "HD" => Answer::Done { left: flag(rest, 't').map(left).transpose()? },
        "EN" => Answer::Nothing,
        "NS" => Answer::Taken,
        "EX" => Answer::Changed,
        "NF" => Answer::NotFound,
        "MN" => Answer::Noop,
        "VERSION" => Answer::Version(words(rest)),
        "SERVER_ERROR" => Answer::Failed(words(rest)),
        "CLIENT_ERROR" => Answer::NotUnderstood(words(rest)),
        "ERROR" => Answer::NotUnderstood(words(line)),
        _ => return Err(Malformed("a line that begins with no word of an answer")),
    }))
}

fn block(buffer: &mut BytesMut, start: usize, size: usize, number: Option<u64>) -> Result<Option<Answer>, Malformed> {
    let whole = start + size + LINE_END.len();
    // Judged by each byte as it comes, so that it means the same however the bytes are cut.
    let end = buffer.get(start + size..).unwrap_or_default();
    let end = end.get(..LINE_END.len()).unwrap_or(end);
    if !LINE_END.starts_with(end) {
        return Err(Malformed("a value without an end"));
    }
    if buffer.len() < whole {
        buffer.reserve(whole - buffer.len());
        return Ok(None);
    }
    buffer.advance(start);
    let text = buffer.split_to(size).freeze();
    buffer.advance(LINE_END.len());
    Ok(Some(Answer::Value { text, number }))
}

/// What follows the letter of a flag. Flags that nobody asked for may stand there too.
fn flag(flags: &str, letter: char) -> Option<&str> {
    flags.split(' ').find_map(|flag| flag.strip_prefix(letter))
}

fn left(seconds: &str) -> Result<Left, Malformed> {
    if seconds == "-1" { Ok(Left::Forever) } else { number(seconds).map(Left::Seconds) }
}

fn number(digits: &str) -> Result<u64, Malformed> {
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| plain).ok_or(Malformed("a word that should be a number"))
}

/// A server's own words, for people.
fn words(text: &str) -> Box<str> {
    let text: String = text.chars().filter(|c| !c.is_control()).take(LONGEST_WORDS).collect();
    text.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All answers that are whole, and the error after them if there is one.
    fn all(buffer: &mut BytesMut) -> (Vec<Answer>, Option<Malformed>) {
        let mut answers = Vec::new();
        loop {
            match take(buffer) {
                Ok(Some(answer)) => answers.push(answer),
                Ok(None) => return (answers, None),
                Err(error) => return (answers, Some(error)),
            }
        }
    }

    fn one(bytes: &[u8]) -> Result<Option<Answer>, Malformed> {
        take(&mut BytesMut::from(bytes))
    }

    fn value(text: &[u8], number: Option<u64>) -> Answer {
        Answer::Value { text: Bytes::copy_from_slice(text), number }
    }

    #[test]
    fn every_form_is_read() {
        for (bytes, answer) in [
            (&b"VA 3\r\nabc\r\n"[..], value(b"abc", None)),
            (b"VA 3 c17\r\nabc\r\n", value(b"abc", Some(17))),
            (b"VA 2 t60 W c18446744073709551615\r\n\r\n\r\n", value(b"\r\n", Some(u64::MAX))),
            (b"VA 0 c3\r\n\r\n", value(b"", Some(3))),
            (b"HD\r\n", Answer::Done { left: None }),
            (b"HD t59\r\n", Answer::Done { left: Some(Left::Seconds(59)) }),
            (b"HD t-1\r\n", Answer::Done { left: Some(Left::Forever) }),
            (b"EN\r\n", Answer::Nothing),
            (b"NS\r\n", Answer::Taken),
            (b"EX \r\n", Answer::Changed),
            (b"NF\r\n", Answer::NotFound),
            (b"MN\r\n", Answer::Noop),
            (b"VERSION 1.6.18\r\n", Answer::Version("1.6.18".into())),
            (b"SERVER_ERROR out of memory\r\n", Answer::Failed("out of memory".into())),
            (b"CLIENT_ERROR bad data chunk\r\n", Answer::NotUnderstood("bad data chunk".into())),
            (b"ERROR\r\n", Answer::NotUnderstood("ERROR".into())),
        ] {
            assert_eq!(one(bytes), Ok(Some(answer)), "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn what_cannot_become_an_answer_is_said_to_be_none() {
        let endless = vec![b'x'; LONGEST_LINE + 2];
        for (bytes, reason) in [
            (&b"hello\r\n"[..], "a line that begins with no word of an answer"),
            (b"\r\n", "a line that begins with no word of an answer"),
            (b"EN\n", "a line without CR"),
            (b"VA\r\n", "a word that should be a number"),
            (b"VA +3\r\nabc\r\n", "a word that should be a number"),
            (b"VA -3\r\n", "a word that should be a number"),
            (b"VA 3 cx\r\nabc\r\n", "a word that should be a number"),
            (b"HD t-2\r\n", "a word that should be a number"),
            (b"VA 1048577\r\n", "a value of over a mebibyte"),
            (b"VA 99999999999999999999\r\n", "a word that should be a number"),
            (b"VA 3\r\nabcd", "a value without an end"),
            (b"VA 3\r\nabc\rx", "a value without an end"),
            (b"VERSION \xff\r\n", "a line that is no text"),
            (&endless, "a line without an end"),
        ] {
            assert_eq!(one(bytes), Err(Malformed(reason)), "{:?}", String::from_utf8_lossy(bytes));
        }
        assert_eq!(one(&endless[1..]), Ok(None), "a line of the longest length may still end");
    }

    #[test]
    fn a_value_of_the_longest_length_is_read() {
        let text = vec![b'x'; LONGEST_VALUE];
        let bytes = [b"VA 1048576\r\n", &text[..], b"\r\n"].concat();
        assert_eq!(one(&bytes), Ok(Some(value(&text, None))));
    }

    /// Bytes as servers, and broken servers, write them.
    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            8 => prop::sample::select(vec![
                &b"HD\r\n"[..], b"HD t5\r\n", b"EN\r\n", b"NS\r\n", b"EX\r\n", b"NF\r\n", b"MN\r\n", b"VERSION 1.6.18\r\n",
                b"SERVER_ERROR no\r\n", b"CLIENT_ERROR no\r\n", b"ERROR\r\n",
            ])
            .prop_map(<[u8]>::to_vec),
            8 => (prop::collection::vec(any::<u8>(), 0..40), any::<Option<u64>>()).prop_map(|(text, number)| {
                let flags = number.map_or_else(String::new, |number| format!(" c{number}"));
                [format!("VA {}{flags}\r\n", text.len()).as_bytes(), &text, b"\r\n"].concat()
            }),
            1 => prop::collection::vec(any::<u8>(), 0..12),
            1 => "(VA|HD|EN|VERSION)?[ 0-9tc-]{0,8}\r?\n?".prop_map(String::into_bytes),
        ];
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn it_means_the_same_wherever_the_bytes_are_cut(bytes in stream()) {
            let whole = all(&mut BytesMut::from(&bytes[..]));
            for cut in 0..=bytes.len() {
                let mut buffer = BytesMut::from(&bytes[..cut]);
                let (mut answers, mut error) = all(&mut buffer);
                if error.is_none() {
                    buffer.extend_from_slice(&bytes[cut..]);
                    let (more, late) = all(&mut buffer);
                    answers.extend(more);
                    error = late;
                }
                prop_assert_eq!((&answers, error), (&whole.0, whole.1), "cut at {}", cut);
            }
        }

        #[test]
        fn bytes_of_any_kind_never_panic(bytes: Vec<u8>) {
            all(&mut BytesMut::from(&bytes[..]));
        }
    }
}
