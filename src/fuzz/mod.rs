//! Fuzz subjects: each takes any bytes and asserts what must hold of the code that reads such bytes from a network or a file.
//! The targets in `fuzz/` call them, and the test here replays the corpora in `fuzz/corpus`.
//!
//! Compiled for tests and by cargo-fuzz (`--cfg fuzzing`) only. A subject of private code stands beside that code, in a module
//! `fuzz` of its folder.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a panic is how a subject reports what it has found"
)]

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

/// Input in two pieces, cut where `at` says.
pub(crate) fn cut(data: &[u8], at: u8) -> (&[u8], &[u8]) {
    data.split_at(usize::from(at) % (data.len() + 1))
}
