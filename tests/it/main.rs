//! Black-box tests: the real program as a process, real sockets, application servers and browsers of our own.
//!
//! Each file is a theme; each test proves one sentence of what the proxy promises.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::float_cmp,
    reason = "test code: a broken expectation is a panic, a test may wait, and counters are whole numbers"
)]

mod balancing;
mod cli;
mod conf_files;
mod cookies;
mod demo;
mod failover;
mod forwarding;
mod health;
mod hostile;
mod limits;
mod operations;
mod outage;
mod proxy_protocol;
mod reload;
mod retries;
mod routing;
mod serving;
mod stickiness;
mod tls;
mod world;
mod world_itself;
