//! Where bindings are stored: what the proxy remembers of a session besides its token.
//!
//! The store is looked up once for every request that names a session. It is a cache rather than the truth: a token restores
//! an evicted session, and the higher epoch of two records wins. So it has a hard cap and evicts the longest idle when full,
//! and nothing is lost that a token holds.
//!
//! - [`local::table`]: the table in this process. The only module that uses the map underneath; no guard of it leaves.
//! - [`local::data`]: the data that servers hand over for their sessions, for the next server after a move.
//! - [`local::first_requests`]: pins concurrent first requests of one client to one server.
//! - [`targets`]: the (pool, server) pairs that sessions are bound to, with their number of sessions.
//! - [`expiry`]: the table's clock of 100 ms ticks, the idle and absolute limits, and the pace of sweeping.
//! - [`shared`]: a store shared by several proxies: timeout, breaker, read-through, write-behind.
//! - [`engine`]: what such a store must be able to do; [`redis`], [`memcached`], [`hazelcast`] and [`ignite`] implement it,
//!   [`engines`] lists them, [`connection`] is what those share that bring their own protocol.
//! - [`disk`]: snapshots of the table, so that it outlives the process.
//!
//! Nothing in this folder reads a clock: every time is an argument.

mod connection;
pub mod disk;
pub mod engine;
pub mod engines;
mod entry;
pub mod expiry;
pub mod hazelcast;
pub mod ignite;
pub mod local;
pub mod memcached;
pub mod redis;
pub mod shared;
pub mod targets;

pub use self::entry::{RebindResult, TableEntry, TableLookup};
pub use self::expiry::EndReason;
