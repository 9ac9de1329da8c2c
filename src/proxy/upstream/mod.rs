//! The way to a server: which one ([`peer`]), what it is sent ([`request_headers`]), what its response head means
//! ([`response_head`], [`normalize`]), which connections belong to one client ([`dedicated`]), and what follows a failed attempt ([`failure`], [`retry`]).

pub(crate) mod dedicated;
pub(crate) mod failure;
pub(crate) mod normalize;
pub(crate) mod peer;
mod queue;
pub(crate) mod request_headers;
pub(crate) mod response_head;
mod retry;
mod upgrade;
