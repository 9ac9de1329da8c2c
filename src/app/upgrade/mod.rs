//! Binary upgrade: another process takes over the listeners and the sessions of this one, and no request is lost.
//!
//! The new process is started with `--upgrade`. It reads and checks its configuration, listens on `proxy.upgrade_socket`, and
//! waits. The old process connects to it when it gets QUIT, or when `homing upgrade` has made it start the new one:
//!
//! ```text
//! old → new   Hello, one descriptor per listener, one of a file with the sessions
//!             (the new process builds its state, loads the sessions, and checks every server once)
//! new → old   Ready, or Failure: then the old process goes on as if nothing had happened
//! old → new   what has changed meanwhile, Go
//! new → old   Serving
//! old → new   Done: it accepts no more connections, and finishes what is in flight
//! both        what changes, until the old process has ended
//! ```
//!
//! Both processes accept connections from the same sockets between Go and Done, so that there is no moment without a listener,
//! and a new process that dies in between leaves the old one listening. Pingora's own transfer is not used: it takes at most 32
//! sockets, keeps no session, and stops the old process even when there is no new one.
//!
//! [`mod@message`] and [`mod@channel`] are the protocol, [`mod@handover`] is the old process, [`mod@takeover`] the new one,
//! [`mod@replication`] what both do while they run side by side, [`mod@program`] what is started.

mod channel;
pub(super) mod handover;
mod message;
pub(super) mod program;
mod replication;
pub(super) mod takeover;
