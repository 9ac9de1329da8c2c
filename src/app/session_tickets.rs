//! Resumption of TLS sessions by tickets, where the configuration has keys: after a restart, and at other proxies.

use std::fmt;
use std::sync::Arc;

use ring::digest::{Context, SHA256};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::server::ProducesTickets;

use crate::config::{ClientAuth, Tls};
use crate::proxy::context::wall_clock;
use crate::session::token::keyring::Keyring;
use crate::session::token::ticket::{LIFETIME, TicketSealer};

/// The tickets of one listener.
pub(super) struct SessionTickets(TicketSealer);

impl SessionTickets {
    pub(super) fn new(keys: &Keyring, tls: &Tls) -> Arc<Self> {
        Arc::new(Self(TicketSealer::new(keys, &scope(tls))))
    }
}

/// All that a handshake with this listener depends on. A client that resumes a session is not asked for its certificate again, so
/// a ticket is worth nothing where another certificate is shown, or where clients' certificates are verified by others.
fn scope(tls: &Tls) -> [u8; 32] {
    // Without `..`: for a new setting it must be said here whether it matters.
    let Tls {
        // A session keeps its version.
        min_version: _,
        certificates,
        client_ca,
        client_auth,
        acme,
    } = tls;
    let own = certificates.iter().filter_map(|one| one.chain.first());
    let authorities = client_ca.iter().flat_map(|ca| &ca.authorities);
    let client_auth: &[u8] = match client_auth {
        _ if client_ca.is_none() => b"none",
        ClientAuth::Required => b"required",
        ClientAuth::Optional => b"optional",
    };
    let mut context = Context::new(&SHA256);
    for (kind, der) in own.map(|one| (b'c', one)).chain(authorities.map(|one| (b'a', one))) {
        context.update(&[kind]);
        context.update(&u64::try_from(der.len()).unwrap_or(u64::MAX).to_be_bytes());
        context.update(der);
    }
    // Ordered certificates change with each renewal, and stay those of the same hosts.
    for part in acme.iter().flat_map(|acme| acme.hosts.iter().chain([&acme.directory])) {
        context.update(b"o");
        context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        context.update(part.as_bytes());
    }
    context.update(client_auth);
    context.finish().as_ref().try_into().unwrap_or_default()
}

impl ProducesTickets for SessionTickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME
    }

    fn encrypt(&self, session: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; 24];
        SystemRandom::new().fill(&mut nonce).ok()?;
        self.0.seal(session, nonce, wall_clock())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.0.open(ticket, wall_clock())
    }
}

impl fmt::Debug for SessionTickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionTickets(hidden)")
    }
}
