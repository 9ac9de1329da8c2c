//! The life of a session, in five verbs that the hooks of the proxy call:
//!
//! | verb | when | what it decides |
//! |---|---|---|
//! | [`resolve`](Sessions::resolve) | the request head is read | which session the request names, and where it is bound |
//! | [`select`](Sessions::select) | before each attempt | which server gets the request |
//! | [`commit`](Sessions::commit) | the response head arrives | a move is made good; ids that the server issues are learned |
//! | [`issue`](Sessions::issue) | before the client gets the response | the token that the client is given, and what carries it |
//! | [`end`](Sessions::end) | log-out, refusal | the session is over, here and on other proxies |
//!
//! While a request is in flight, its session is in use and does not expire: [`open`](Sessions::open), [`reopen`](Sessions::reopen),
//! [`close`](Sessions::close).
//!
//! Session data that servers hand over goes with them ([`handoff`]). Everything here reads plain views of messages and
//! returns edits: no Pingora, no clock; time and randomness come in with the [`Scope`].
//!
//! A verb that may have to wait for the shared store comes in two forms: `try_…` does all that can be done at once and
//! says when something is left, the `async` form does the rest. Without a shared store nothing ever is left.

mod client_identity;
mod commit;
pub mod explain;
pub mod failover;
mod first_request;
pub mod handoff;
mod hash_key;
pub mod issue;
pub mod open_requests;
mod learn;
mod moves;
mod new_session;
mod operate;
mod outcome;
mod pool;
mod pools;
pub mod resolve;
mod scope;
pub mod select;
mod sessions;
mod split;

pub use self::client_identity::{named_identity, parse_fingerprint};
pub use self::new_session::NewSession;
pub use self::outcome::{Outcome, Reason};
pub use self::pool::{HandoffSettings, OverflowCookie, PoolPersistence, PoolRuntime, TableHistory};
pub use self::pools::Pools;
pub use self::resolve::{IdentifiedBy, ResolvedSession};
pub use self::scope::{RequestSession, Scope};
pub use self::sessions::Sessions;
