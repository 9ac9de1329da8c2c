//! Connections to servers of a store, for the engines that bring their own protocol: one connection is shared by all requests
//! to a server.
//!
//! - [`codec`]: what an engine adds: its protocol, as a [`Codec`].
//! - [`handle`]: the handle that requests use. [`driver`]: the task that owns the socket.
//! - [`dial`]: name resolution, TCP and the handshake, each step in bounded time.
//! - [`backoff`]: the pauses between attempts to connect.

mod backoff;
mod codec;
mod dial;
mod driver;
mod handle;
#[cfg(test)]
mod tests;

pub(super) use self::backoff::Backoff;
pub(super) use self::codec::{Codec, Invalid, Message};
pub(super) use self::dial::{Dialer, Stream};
pub(super) use self::driver::{ConnectionEnd, drive};
pub(super) use self::handle::Connection;
