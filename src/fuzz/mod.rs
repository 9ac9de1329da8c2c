//! Fuzz subjects: each takes any bytes and asserts what must hold of the code that reads such bytes from a network or a file.
//! The targets in `fuzz/` call them, and the test here replays the corpora in `fuzz/corpus`.
//!
//! Compiled for tests and by cargo-fuzz (`--cfg fuzzing`) only. A subject of private code stands beside that code, in a module
//! `fuzz` of its folder.

use bytes::BytesMut;

mod config;
mod session;
mod store;

#[cfg(test)]
mod tests;

pub use self::config::{configuration, file_sd};
pub use self::session::{cookie, link_rewriting, query, set_cookie, token};
pub use self::store::{snapshot, store_record};
pub use crate::admin::fuzz::admin;
pub use crate::proxy::fuzz::{body, forwarded, framing, proxy_header, request_head, response};
pub use crate::store::hazelcast::fuzz::hazelcast;
pub use crate::store::ignite::fuzz::ignite;
pub use crate::store::memcached::fuzz::memcached;
pub use crate::store::redis::fuzz::redis;

/// A subject: what it does with any bytes.
type Subject = fn(&[u8]);

/// All subjects by the names of their corpora.
pub const SUBJECTS: [(&str, Subject); 20] = [
    ("admin", admin),
    ("body", body),
    ("configuration", configuration),
    ("cookie", cookie),
    ("file_sd", file_sd),
    ("forwarded", forwarded),
    ("framing", framing),
    ("hazelcast", hazelcast),
    ("ignite", ignite),
    ("link_rewriting", link_rewriting),
    ("memcached", memcached),
    ("proxy_header", proxy_header),
    ("query", query),
    ("redis", redis),
    ("request_head", request_head),
    ("response", response),
    ("set_cookie", set_cookie),
    ("snapshot", snapshot),
    ("store_record", store_record),
    ("token", token),
];

/// Splits off the first byte, which chooses among the variants of a subject.
pub(crate) fn choice(data: &[u8]) -> (u8, &[u8]) {
    data.split_first().map_or((0, data), |(first, rest)| (*first, rest))
}

/// All that `take` takes from the front of a buffer, and the error after it; the same when the bytes come in two pieces, cut where `at`
/// says. Returns the buffer's rest too. `new` is the state of a reader.
pub(crate) fn taken<R, T: std::fmt::Debug + PartialEq, E: std::fmt::Debug + PartialEq>(
    bytes: &[u8],
    at: u8,
    new: impl Fn() -> R,
    take: impl Fn(&mut R, &mut BytesMut) -> Result<Option<T>, E>,
) -> (Vec<T>, Option<E>, BytesMut) {
    let all = |reader: &mut R, buffer: &mut BytesMut, messages: &mut Vec<T>| loop {
        match take(reader, buffer) {
            Ok(Some(message)) => messages.push(message),
            Ok(None) => return None,
            Err(error) => return Some(error),
        }
    };
    let (mut whole, mut pieces) = (Vec::new(), Vec::new());
    let end = all(&mut new(), &mut BytesMut::from(bytes), &mut whole);
    let (first, second) = cut(bytes, at);
    let (mut reader, mut buffer) = (new(), BytesMut::from(first));
    let mut error = all(&mut reader, &mut buffer, &mut pieces);
    if error.is_none() {
        buffer.extend_from_slice(second);
        error = all(&mut reader, &mut buffer, &mut pieces);
    }
    assert_eq!((&pieces, &error), (&whole, &end), "cut at {}", first.len());
    (pieces, error, buffer)
}

/// Input in two pieces, cut where `at` says.
pub(crate) fn cut(data: &[u8], at: u8) -> (&[u8], &[u8]) {
    data.split_at(usize::from(at) % (data.len() + 1))
}
