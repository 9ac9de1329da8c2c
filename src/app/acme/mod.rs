//! Certificates that the proxy orders itself, by ACME (`tls.acme`).
//!
//! [`worker`] runs in the background: for each host it knows when a certificate is due ([`schedule`]), and places one [`order`]
//! at a time, through a [`client`] that notes what the authority says about its rate limits. What must outlive the process is
//! in [`storage`], what other proxies must know in [`shared`]. Handshakes are shown what is in [`live`]; challenges are found
//! by [`answer`].

mod answer;
mod authority;
mod certificate;
mod challenges;
mod client;
pub(crate) mod live;
mod order;
mod plan;
mod schedule;
mod shared;
pub(super) mod state;
mod storage;
pub(super) mod worker;
