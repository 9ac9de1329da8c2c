//! Homing: an HTTP edge proxy that brings every session home.
//!
//! A request comes in. The [`proxy`] takes it from Pingora and decides, in this order: which pool serves it ([`routing`]), which
//! session it names ([`session`]), what is stored of that ([`store`]), whether the session's server may take it now ([`pool`]),
//! and if not, which server does ([`persistence`]). What a client may ask for is bounded by [`limits`]. It reads all
//! of this from one [`runtime`](app::runtime) of the [`config`]. What happened goes to [`telemetry`]; the operator looks in
//! through [`admin`]. [`app`] starts and stops it all, [`cli`] is the command line, and [`demo`] shows it with three small
//! servers.

// Clippy's exceptions for tests do not reach fuzz subjects. Everything else is linted without them: the plain library is, too.
#![cfg_attr(
    any(test, fuzzing),
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::string_slice,
        reason = "a panic is how a fuzz subject reports what it has found"
    )
)]

pub mod cli;

pub mod app;

pub mod proxy;

pub mod admin;

pub mod demo;

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;

pub mod persistence;

pub mod pool;

pub mod limits;

pub mod store;

pub mod message;

pub mod routing;

pub mod session;

pub mod config;

pub mod telemetry;
