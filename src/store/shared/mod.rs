//! A store shared by several proxies. Requests wait for it only for what the table cannot know, never longer than
//! `store.timeout`, and not at all during an outage.
//!
//! Requests are still decided by the table. Before, [`SharedStore::query_for`] says whether the table is fresh enough
//! ([`freshness`]), and [`SharedStore::query`] reads the store into it ([`read_through`]). After a change, the store is
//! written ([`mod@write`]): before the table where another proxy may be deciding the same now, otherwise in the background
//! ([`write_behind`]). Every write is a merge by epoch, so a write that failed is simply repeated later ([`pending`],
//! [`resync`]). The [`breaker`] is before it all; [`store`] has the state and the call to the engine.
//!
//! What a token says is not written: a session with a token is in the store once it has moved or ended.

mod breaker;
mod freshness;
mod notes;
mod pending;
mod queue;
mod read_through;
mod resync;
pub mod settings;
mod store;
#[cfg(test)]
mod tests;
mod write;
mod write_behind;

pub use self::queue::StoreQuery;
pub use self::store::{SharedStore, StoreContext, StoreUnavailable};
pub use self::write::Move;
pub use self::write_behind::Clock;
