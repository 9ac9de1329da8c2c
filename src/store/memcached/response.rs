//! Parsing responses: takes one response from the front of a buffer. Plain code without I/O.
//!
//! The format is memcached's `doc/protocol.txt`, "Meta Commands". After any other line the beginning of the next response is
//! unknown, so it is an error. The classic commands respond in the same way (a line, and for a value a block) and would be
//! further codes in [`parse_line`].

use bytes::{Buf, Bytes, BytesMut};

/// One response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Response {
    /// `VA`: a value, with its CAS number where that was requested.
    Value {
        /// The bytes of the value.
        text: Bytes,
        /// The flag `c`.
        cas: Option<u64>,
    },
    /// `HD`: success, with the remaining time to live where that was requested.
    Done {
        /// The flag `t`.
        ttl: Option<Ttl>,
    },
    /// `EN`: there is no value.
    Miss,
    /// `NS`: not stored, because there is a value.
    NotStored,
    /// `EX`: not stored, because the CAS number has changed.
    Exists,
    /// `NF`: not done, because there is no value.
    NotFound,
    /// `MN`: everything before it has been answered.
    Noop,
    /// `VERSION`.
    Version(Box<str>),
    /// `SERVER_ERROR`: the command failed. The next response is in order.
    ServerError(Box<str>),
    /// `CLIENT_ERROR` or `ERROR`: the server did not understand the command.
    ClientError(Box<str>),
}

/// The remaining time to live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ttl {
    /// Rounded up, or exact.
    Seconds(u64),
    /// `t-1`.
    Forever,
}

/// The bytes are not a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Malformed(&'static str);

/// The longest line without its end. Real ones are far shorter.
const MAX_LINE: usize = 64 * 1024;
/// The longest value that is read or written: memcached's default limit.
pub(super) const MAX_VALUE: usize = 1024 * 1024;
/// How much of a server's error message is reported.
const MAX_MESSAGE: usize = 200;
const LINE_END: &[u8] = b"\r\n";

/// Takes the first response; `None` when it is incomplete.
///
/// # Errors
/// When what is here cannot become a response, whatever follows.
pub(super) fn parse(buffer: &mut BytesMut) -> Result<Option<Response>, Malformed> {
    let Some(end) = buffer.iter().take(MAX_LINE + LINE_END.len()).position(|byte| *byte == b'\n') else {
        let too_long = buffer.len() >= MAX_LINE + LINE_END.len();
        return if too_long { Err(Malformed("a line without an end")) } else { Ok(None) };
    };
    let line = buffer.get(..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(Malformed("a line without CR"))?;
    match parse_line(line)? {
        Line::Complete(answer) => {
            buffer.advance(end + 1);
            Ok(Some(answer))
        }
        Line::Value { size, cas } => block(buffer, end + 1, size, cas),
    }
}

/// A parsed line.
enum Line {
    Complete(Response),
    /// A block of this size follows.
    Value {
        size: usize,
        cas: Option<u64>,
    },
}

fn parse_line(line: &[u8]) -> Result<Line, Malformed> {
    let line = std::str::from_utf8(line).map_err(|_not_text| Malformed("a line that is not text"))?;
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    Ok(Line::Complete(match word {
        "VA" => {
            let (size, flags) = rest.split_once(' ').unwrap_or((rest, ""));
            let size = number(size)?;
            if size > MAX_VALUE as u64 {
                return Err(Malformed("a value of over a mebibyte"));
            }
            let size = usize::try_from(size).map_err(|_too_long| Malformed("a value of over a mebibyte"))?;
            return Ok(Line::Value { size, cas: flag(flags, 'c').map(number).transpose()? });
        }
        "HD" => Response::Done { ttl: flag(rest, 't').map(parse_ttl).transpose()? },
        "EN" => Response::Miss,
        "NS" => Response::NotStored,
        "EX" => Response::Exists,
        "NF" => Response::NotFound,
        "MN" => Response::Noop,
        "VERSION" => Response::Version(message(rest)),
        "SERVER_ERROR" => Response::ServerError(message(rest)),
        "CLIENT_ERROR" => Response::ClientError(message(rest)),
        "ERROR" => Response::ClientError(message(line)),
        _ => return Err(Malformed("a line with an unknown response code")),
    }))
}

fn block(buffer: &mut BytesMut, start: usize, size: usize, cas: Option<u64>) -> Result<Option<Response>, Malformed> {
    let whole = start + size + LINE_END.len();
    // Checked byte by byte, so that the result does not depend on how the bytes are split.
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
    Ok(Some(Response::Value { text, cas }))
}

/// The value of a flag. Flags that were not requested may be there too.
fn flag(flags: &str, letter: char) -> Option<&str> {
    flags.split(' ').find_map(|flag| flag.strip_prefix(letter))
}

fn parse_ttl(seconds: &str) -> Result<Ttl, Malformed> {
    if seconds == "-1" { Ok(Ttl::Forever) } else { number(seconds).map(Ttl::Seconds) }
}

fn number(digits: &str) -> Result<u64, Malformed> {
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| plain).ok_or(Malformed("an invalid number"))
}

/// A server's message, for logs.
fn message(text: &str) -> Box<str> {
    let text: String = text.chars().filter(|c| !c.is_control()).take(MAX_MESSAGE).collect();
    text.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All complete responses, and the error after them if there is one.
    fn all(buffer: &mut BytesMut) -> (Vec<Response>, Option<Malformed>) {
        let mut answers = Vec::new();
        loop {
            match parse(buffer) {
                Ok(Some(answer)) => answers.push(answer),
                Ok(None) => return (answers, None),
                Err(error) => return (answers, Some(error)),
            }
        }
    }

    fn one(bytes: &[u8]) -> Result<Option<Response>, Malformed> {
        parse(&mut BytesMut::from(bytes))
    }

    fn value(text: &[u8], cas: Option<u64>) -> Response {
        Response::Value { text: Bytes::copy_from_slice(text), cas }
    }

    #[test]
    fn every_form_is_read() {
        for (bytes, answer) in [
            (&b"VA 3\r\nabc\r\n"[..], value(b"abc", None)),
            (b"VA 3 c17\r\nabc\r\n", value(b"abc", Some(17))),
            (b"VA 2 t60 W c18446744073709551615\r\n\r\n\r\n", value(b"\r\n", Some(u64::MAX))),
            (b"VA 0 c3\r\n\r\n", value(b"", Some(3))),
            (b"HD\r\n", Response::Done { ttl: None }),
            (b"HD t59\r\n", Response::Done { ttl: Some(Ttl::Seconds(59)) }),
            (b"HD t-1\r\n", Response::Done { ttl: Some(Ttl::Forever) }),
            (b"EN\r\n", Response::Miss),
            (b"NS\r\n", Response::NotStored),
            (b"EX \r\n", Response::Exists),
            (b"NF\r\n", Response::NotFound),
            (b"MN\r\n", Response::Noop),
            (b"VERSION 1.6.18\r\n", Response::Version("1.6.18".into())),
            (b"SERVER_ERROR out of memory\r\n", Response::ServerError("out of memory".into())),
            (b"CLIENT_ERROR bad data chunk\r\n", Response::ClientError("bad data chunk".into())),
            (b"ERROR\r\n", Response::ClientError("ERROR".into())),
        ] {
            assert_eq!(one(bytes), Ok(Some(answer)), "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn what_cannot_become_a_response_is_an_error() {
        let endless = vec![b'x'; MAX_LINE + 2];
        for (bytes, reason) in [
            (&b"hello\r\n"[..], "a line with an unknown response code"),
            (b"\r\n", "a line with an unknown response code"),
            (b"EN\n", "a line without CR"),
            (b"VA\r\n", "an invalid number"),
            (b"VA +3\r\nabc\r\n", "an invalid number"),
            (b"VA -3\r\n", "an invalid number"),
            (b"VA 3 cx\r\nabc\r\n", "an invalid number"),
            (b"HD t-2\r\n", "an invalid number"),
            (b"VA 1048577\r\n", "a value of over a mebibyte"),
            (b"VA 99999999999999999999\r\n", "an invalid number"),
            (b"VA 3\r\nabcd", "a value without an end"),
            (b"VA 3\r\nabc\rx", "a value without an end"),
            (b"VERSION \xff\r\n", "a line that is not text"),
            (&endless, "a line without an end"),
        ] {
            assert_eq!(one(bytes), Err(Malformed(reason)), "{:?}", String::from_utf8_lossy(bytes));
        }
        assert_eq!(one(&endless[1..]), Ok(None), "a line of the longest length may still end");
    }

    #[test]
    fn a_value_of_the_longest_length_is_read() {
        let text = vec![b'x'; MAX_VALUE];
        let bytes = [b"VA 1048576\r\n", &text[..], b"\r\n"].concat();
        assert_eq!(one(&bytes), Ok(Some(value(&text, None))));
    }

    /// Bytes as servers, and end servers, write them.
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
        fn responses_do_not_depend_on_how_the_bytes_are_split(bytes in stream()) {
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
