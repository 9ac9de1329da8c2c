//! What this process remembers: the table of bindings ([`table`]), session data that servers handed over ([`data`]), and
//! where the last new client of an address went ([`first_requests`]).

pub mod data;
pub mod first_requests;
pub mod table;
