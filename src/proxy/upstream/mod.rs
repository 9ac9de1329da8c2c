//! The way to a server: which one ([`peer`]), what it is sent ([`request_headers`]), what its response head means
//! ([`response_head`]), and what follows a failure ([`retry`]).

pub(crate) mod peer;
pub(crate) mod request_headers;
pub(crate) mod response_head;
pub(crate) mod retry;
pub(crate) mod upgrade;
