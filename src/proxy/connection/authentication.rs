//! Authentication that belongs to a connection: NTLM, and Negotiate as many servers use it.
//!
//! Such a server authenticates a connection, not a request: whatever comes later over that connection is the user's. So from
//! the first sign of such a handshake the server connections of a client connection are its own: Pingora pools them under a
//! group that no other client connection has.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::proxy::context::Dedicated;
use crate::session::key::ServerId;

/// The dedicated server connections of one client connection. Written by the requests of that connection.
#[derive(Debug, Default)]
pub(crate) struct ConnectionAuthentication {
    /// Their group; 0 while server connections are shared.
    group: AtomicU64,
    /// The server of the last request, as a [`ServerId`]; 0 before the first response.
    server: AtomicU64,
}

impl ConnectionAuthentication {
    /// What is known when a request begins; `None` while server connections are shared.
    pub(crate) fn dedicated(&self) -> Option<Dedicated> {
        let group = self.group.load(Ordering::Relaxed);
        if group == 0 {
            return None;
        }
        let server = self.server.load(Ordering::Relaxed);
        Some(Dedicated { group, server: (server != 0).then_some(ServerId(server)) })
    }

    /// From now on server connections are dedicated, under this group unless they are already.
    pub(crate) fn dedicate(&self, group: u64) -> Dedicated {
        // Two requests of an HTTP/2 connection may do this at once.
        let _ = self.group.compare_exchange(0, group.max(1), Ordering::Relaxed, Ordering::Relaxed);
        self.dedicated().unwrap_or(Dedicated { group, server: None })
    }

    /// A server has responded: the handshake goes on there.
    pub(crate) fn note_server(&self, server: ServerId) {
        self.server.store(server.0, Ordering::Relaxed);
    }
}

/// Whether the credentials of a request, or one of the challenges of a response, are of a scheme that authenticates the
/// connection. A comma inside a quoted parameter separates nothing, and is taken for a separator: a connection too many is
/// dedicated then.
pub(crate) fn authenticates_connection(value: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|element| {
        let scheme = element.trim_ascii().split(u8::is_ascii_whitespace).next().unwrap_or_default();
        scheme.eq_ignore_ascii_case(b"ntlm") || scheme.eq_ignore_ascii_case(b"negotiate")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes_that_authenticate_the_connection_are_found_in_credentials_and_challenges() {
        for value in
            ["NTLM", "NTLM TlRMTVNTUAAB", "negotiate YII=", "Basic realm=\"a, b\", Negotiate", "Negotiate,NTLM"]
        {
            assert!(authenticates_connection(value.as_bytes()), "{value}");
        }
        for value in ["", "Basic TlRMTQ==", "Bearer ntlm", "Digest realm=\"NTLM\"", "NTLMv2", "Negotiation x", "x,"] {
            assert!(!authenticates_connection(value.as_bytes()), "{value}");
        }
    }

    #[test]
    fn a_connection_has_one_group_from_the_first_handshake_on() {
        let connection = ConnectionAuthentication::default();
        assert_eq!(connection.dedicated(), None);
        assert_eq!(connection.dedicate(7), Dedicated { group: 7, server: None });
        assert_eq!(connection.dedicate(8).group, 7);
        connection.note_server(ServerId(5));
        assert_eq!(connection.dedicated(), Some(Dedicated { group: 7, server: Some(ServerId(5)) }));
        assert_ne!(ConnectionAuthentication::default().dedicate(0).group, 0);
    }
}
