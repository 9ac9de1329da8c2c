//! Where bindings live: what the proxy remembers of a session beside the token that the session carries itself.
//!
//! The store is asked once for every request that names a session, and it is only ever a memory, never the truth: a
//! token restores what was forgotten, and the higher epoch of two records wins. So it may be small (a hard cap), may
//! forget whom it likes (the longest idle first), and loses nothing by it that a token holds.
//!
//! - [`local::table`]: the table in this process. The only module that knows the map underneath; no guard of it leaves.
//! - [`engine`]: what a store that several proxies share must be able to do.
//! - [`shared`]: such a store as requests use it: timeout, circuit breaker, near copy, writes that wait.
//! - [`targets`]: the (pool, server) pairs that sessions are bound to, and how many sessions each has.
//! - [`local::first_requests`]: where the last new client of an address went, for a few seconds.
//! - [`local::data`]: what servers hand over for their sessions, to be given to the next server after a move.
//! - [`expiry`]: the table's clock of 100 ms ticks, the idle and absolute limits, and how fast to sweep.
//! - [`redis`]: the engine of Redis and Valkey; [`memcached`] and [`hazelcast`] are the others'.
//! - [`disk`]: the table as bytes, so that it outlives the process.
//!
//! Nothing in this folder reads a clock: every time is an argument.

pub mod disk;
pub mod engine;
pub mod engines;
pub mod expiry;
pub mod hazelcast;
pub mod ignite;
pub mod local;
pub mod memcached;
pub mod redis;
pub mod shared;
pub mod targets;

use crate::session::token::UnixMillis;
use crate::store::targets::TargetIndex;

/// What the store knows of one session: a copy, so nothing is locked while it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableEntry {
    /// The server that the session is bound to.
    pub target: TargetIndex,
    /// How often the session has moved. Of two records the one with the higher epoch is right.
    pub epoch: u32,
    /// When the session began.
    pub created: UnixMillis,
    /// The last visit *before* the one that asked, to the tenth of a second.
    pub last_seen: UnixMillis,
}

/// The answer to "who is this?".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableLookup {
    /// A session within its limits.
    Live(TableEntry),
    /// It stayed away longer than its pool allows.
    ExpiredIdle,
    /// It has existed for longer than its pool allows.
    ExpiredAbsolute,
    /// Not in the store: never came back, was evicted, or ended.
    Absent,
}

/// The answer to "this session moves".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RebindResult {
    /// It moved, and this is its epoch from now on.
    Moved {
        /// The new epoch.
        epoch: u32,
    },
    /// Somebody moved it first. Their record stands; follow it.
    AlreadyMoved(TableEntry),
}

/// Why a session left the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// It stayed away for longer than its pool's idle limit.
    Idle,
    /// It existed for longer than its pool's absolute limit.
    Absolute,
    /// The table was full and this session had been idle the longest among its neighbours.
    Evicted,
    /// Somebody asked for it to end.
    Ended,
}

impl EndReason {
    /// Every reason there is, so that metrics can be declared before anything ends.
    pub const ALL: [Self; 4] = [Self::Idle, Self::Absolute, Self::Evicted, Self::Ended];

    /// The word for metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Absolute => "absolute",
            Self::Evicted => "evicted",
            Self::Ended => "ended",
        }
    }
}
