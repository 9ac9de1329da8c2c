//! Session data follows its session: [extracted](mod@extract) from the responses of servers, [injected](mod@inject) into requests
//! to the next server together with the [moved header](mod@moved_header), until that server has responded with a status below 500.
//!
//! A request that goes to its session's own server, and whose response hands nothing over, costs nothing here: whether a
//! move still waits for a response is one number for the whole process, and the response is read before the store.

mod extract;
mod inject;
mod moved_header;
mod owner;
pub(super) mod state;

pub(super) use self::extract::{extract, settle};
pub(super) use self::owner::undelivered;
