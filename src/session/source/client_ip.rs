//! The client's address: all clients in one network are one session.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::claim::{ExternalId, SessionClaim, SourceInput};
use super::definition::{PoolContext, SessionSource, SourceDefinition};
use crate::config::check_context::NodeRef;
use crate::config::diagnostics::Diagnostics;
use crate::session::external_id::{ExternalIdHasher, ExternalIdKind};
use crate::session::key::SessionKey;
use crate::session::token::codec::PoolCodec;
use crate::session::token::keyring::Keyring;

/// The client's address, as far as `trusted_proxies` tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClientIpSettings {
    /// Bits of an IPv4 address that count.
    #[schemars(range(min = 1, max = 32))]
    pub ipv4_prefix: u8,
    /// Bits of an IPv6 address that count. Providers give a /64 or more to each customer.
    #[schemars(range(min = 1, max = 128))]
    pub ipv6_prefix: u8,
}

impl Default for ClientIpSettings {
    fn default() -> Self {
        Self { ipv4_prefix: 32, ipv6_prefix: 64 }
    }
}

impl SourceDefinition for ClientIpSettings {
    type Source = ClientIpSource;
    const IDENTIFIES_CLIENT: bool = false;

    fn check(&self, _at: NodeRef<'_>, _diagnostics: &mut Diagnostics) -> Self {
        *self
    }

    fn build(&self, pool: &PoolContext<'_>) -> ClientIpSource {
        ClientIpSource::new((self.ipv4_prefix, self.ipv6_prefix), pool.name, pool.keys)
    }
}

/// Names sessions by the first bits of the client's address.
#[derive(Debug, Clone)]
pub struct ClientIpSource {
    ipv4_mask: u32,
    ipv6_mask: u128,
    hasher: ExternalIdHasher,
}

impl ClientIpSource {
    /// `prefixes`: how many bits of an IPv4 and of an IPv6 address count.
    #[must_use]
    pub fn new(prefixes: (u8, u8), pool: &str, keys: &Keyring) -> Self {
        Self {
            ipv4_mask: u32::MAX.checked_shl(32_u32.saturating_sub(u32::from(prefixes.0))).unwrap_or(0),
            ipv6_mask: u128::MAX.checked_shl(128_u32.saturating_sub(u32::from(prefixes.1))).unwrap_or(0),
            hasher: ExternalIdHasher::new(keys, pool, ExternalIdKind::Address),
        }
    }

    /// The current key of this address's network.
    #[must_use]
    pub fn key_of(&self, address: IpAddr) -> SessionKey {
        self.network(address, |network| self.hasher.key(network))
    }

    /// An IPv4 network and an IPv6 network differ in length, so no two share a name.
    fn network<T>(&self, address: IpAddr, name: impl FnOnce(&[u8]) -> T) -> T {
        match address.to_canonical() {
            IpAddr::V4(address) => name(&(u32::from(address) & self.ipv4_mask).to_be_bytes()),
            IpAddr::V6(address) => name(&(u128::from(address) & self.ipv6_mask).to_be_bytes()),
        }
    }
}

impl SessionSource for ClientIpSource {
    /// The session of the client's network; nothing over a unix socket without forwarded headers. Allocates only with a
    /// keyring of several keys.
    fn claim(&self, input: &SourceInput<'_>, _codec: &PoolCodec) -> SessionClaim {
        let Some(address) = input.client else { return SessionClaim::Nothing };
        SessionClaim::Address(self.network(address, |network| ExternalId {
            key: self.hasher.key(network),
            former: self.hasher.former(network).collect(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::session::source::claim::tests::{codec, input};

    fn named(prefixes: (u8, u8), address: &str) -> SessionClaim {
        let keys = Keyring::random([1; 32]).unwrap();
        let headers = HeaderMap::new();
        let input = SourceInput { client: Some(address.parse().unwrap()), ..input(&headers, "/", None) };
        ClientIpSource::new(prefixes, "shop", &keys).claim(&input, &codec())
    }

    #[test]
    fn clients_of_one_network_are_one_session() {
        assert_eq!(named((32, 64), "192.0.2.1"), named((32, 64), "::ffff:192.0.2.1"));
        assert_ne!(named((32, 64), "192.0.2.1"), named((32, 64), "192.0.2.2"));
        assert_eq!(named((24, 64), "192.0.2.1"), named((24, 64), "192.0.2.254"));
        assert_ne!(named((24, 64), "192.0.2.1"), named((24, 64), "192.0.3.1"));
        assert_eq!(named((32, 64), "2001:db8::1"), named((32, 64), "2001:db8::2:3"));
        assert_ne!(named((32, 64), "2001:db8::1"), named((32, 64), "2001:db8:0:1::1"));
        assert_ne!(named((32, 128), "2001:db8::1"), named((32, 128), "2001:db8::2"));
        assert_eq!(named((1, 1), "128.0.0.1"), named((1, 1), "255.0.0.1"));
    }

    #[test]
    fn a_client_without_an_address_names_no_session() {
        let keys = Keyring::random([1; 32]).unwrap();
        let headers = HeaderMap::new();
        let input = input(&headers, "/", None);
        assert_eq!(ClientIpSource::new((32, 64), "shop", &keys).claim(&input, &codec()), SessionClaim::Nothing);
    }
}
