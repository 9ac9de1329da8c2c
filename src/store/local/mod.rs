//! What this process remembers: the table of bindings ([`table`]), session data that servers handed over ([`data`]), where
//! the last new client of an address went ([`first_requests`]), the sessions of requests in flight ([`open_requests`]), and what
//! changes ([`journal`]).

pub mod data;
pub mod first_requests;
pub mod journal;
pub mod open_requests;
pub mod table;
