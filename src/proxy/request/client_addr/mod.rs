//! The client's address and scheme, as trusted proxies report them.

mod rfc7239;

use std::io::Write;
use std::net::IpAddr;

use http::{HeaderName, HeaderValue, header};
use ipnet::IpNet;
use smallvec::SmallVec;

use crate::message::{FieldValue, Fields, RequestView};
use crate::proxy::context::{Client, ForwardedChain};

pub(crate) use rfc7239::FORWARDED;

/// `X-Forwarded-For`.
pub(crate) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// `X-Forwarded-Proto`.
pub(crate) const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// `X-Forwarded-Host`.
pub(crate) const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The prefix of a family of names that only trusted peers may send.
pub(crate) const X_FORWARDED: &str = "x-forwarded-";
/// Another name that only trusted peers may send.
pub(crate) const X_REAL_IP: &str = "x-real-ip";

/// Most hops that are read. No deployment has that many proxies; hops before these are taken for invented.
const MAX_HOPS: usize = 64;

/// The client, from the connection's peer and, when that is trusted, from the forwarded headers.
///
/// The client is the rightmost hop that is not trusted: the hops to the left of it were written by a party that no trusted
/// proxy vouches for. Hops are those of X-Forwarded-For, and of Forwarded only when there is none. `encrypted`: the peer
/// came by TLS; a trusted peer may report how the client came.
#[inline]
pub(crate) fn client(peer: Option<IpAddr>, encrypted: bool, fields: Fields<'_>, trusted: &[IpNet]) -> Client {
    let peer = peer.map(canonical);
    let peer_trusted = is_trusted_peer(peer, trusted);
    let mut client = Client { peer, address: peer, peer_trusted, secure: encrypted, ..Client::default() };
    if peer_trusted {
        believe(&mut client, fields, trusted);
    }
    client
}

/// What a trusted peer reports. Not inlined: most clients come without a proxy.
#[inline(never)]
fn believe(client: &mut Client, fields: Fields<'_>, trusted: &[IpNet]) {
    if fields.contains(&FORWARDED_FOR) {
        client.address = rightmost_untrusted(fields, trusted).or(client.peer);
    } else if fields.contains(&FORWARDED) {
        apply_forwarded(client, fields, trusted);
    }
    if let Some(proto) = fields.get(&FORWARDED_PROTO).and_then(first_element) {
        client.secure = is_secure(proto);
    }
}

/// Whether a peer is a trusted proxy. Over a unix socket it has no address, and is trusted when the listener trusts any.
pub(crate) fn is_trusted_peer(peer: Option<IpAddr>, trusted: &[IpNet]) -> bool {
    !trusted.is_empty() && peer.is_none_or(|peer| is_trusted(canonical(peer), trusted))
}

/// The first element of a list: how the client came to the first of the proxies.
fn first_element(list: &[u8]) -> Option<&[u8]> {
    list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).find(|element| !element.is_empty())
}

/// Some proxies report a WebSocket by the scheme of its URL.
fn is_secure(proto: &[u8]) -> bool {
    proto.eq_ignore_ascii_case(b"https") || proto.eq_ignore_ascii_case(b"wss")
}

fn rightmost_untrusted(fields: Fields<'_>, trusted: &[IpNet]) -> Option<IpAddr> {
    let mut leftmost = None;
    let fields: SmallVec<[&[u8]; 4]> = fields.all(&FORWARDED_FOR).collect();
    let hops = fields.iter().rev().flat_map(|field| field.rsplit(|byte| *byte == b','));
    // Empty elements of a list mean nothing (RFC 9110, section 5.6.1).
    for hop in hops.take(MAX_HOPS).filter(|hop| !hop.trim_ascii().is_empty()) {
        // A hop that is no address ends the chain: no trusted proxy vouches for what is to the left of it.
        let Some(hop) = parse_hop(hop) else { return leftmost };
        if !is_trusted(hop, trusted) {
            return Some(hop);
        }
        leftmost = Some(hop);
    }
    leftmost
}

/// The same for Forwarded, which has the client's scheme and host in the same hop as its address.
fn apply_forwarded(client: &mut Client, fields: Fields<'_>, trusted: &[IpNet]) {
    let mut addresses: SmallVec<[IpAddr; 4]> = SmallVec::new();
    let mut last = None;
    for hop in rfc7239::hops(fields).take(MAX_HOPS) {
        let Some(hop) = hop else { break };
        let Some(address) = parse_hop(hop.client) else { break };
        addresses.push(address);
        last = Some(hop);
        if !is_trusted(address, trusted) {
            break;
        }
    }
    let (Some(address), Some(hop)) = (addresses.last(), last) else { return };
    client.address = Some(*address);
    if let Some(proto) = hop.proto {
        client.secure = is_secure(proto);
    }
    let host = hop.host.and_then(|host| HeaderValue::from_bytes(host).ok());
    addresses.reverse();
    client.forwarded = Some(Box::new(ForwardedChain { addresses, host }));
}

/// `1.2.3.4`, `1.2.3.4:5`, `::1`, `[::1]`, `[::1]:5`.
fn parse_hop(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop).ok()?.trim();
    // A zone has a meaning only on the machine that wrote it.
    if text.contains('%') {
        return None;
    }
    if let Ok(address) = text.parse() {
        return Some(canonical(address));
    }
    if let Ok(address) = text.parse::<std::net::SocketAddr>() {
        return Some(canonical(address.ip()));
    }
    let bare = text.strip_prefix('[')?.strip_suffix(']')?;
    bare.parse().ok().map(canonical)
}

/// An IPv4 client of an IPv6 socket is an IPv4 client.
fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|network| network.contains(&address))
}

/// The X-Forwarded-For that a server gets: the hops of trusted proxies, then the peer; of an untrusted peer only the peer.
pub(crate) fn forwarded_for<'a>(client: &'a Client, fields: Fields<'_>) -> Option<FieldValue<'a>> {
    if let Some(peer) = client.peer_text.as_ref().filter(|_| !client.peer_trusted) {
        return Some(FieldValue::Kept(peer.as_bytes()));
    }
    let mut value: SmallVec<[u8; 64]> = SmallVec::new();
    if client.peer_trusted {
        for field in fields.all(&FORWARDED_FOR) {
            separate(&mut value);
            value.extend_from_slice(field);
        }
    }
    let hops = client.forwarded.iter().flat_map(|forwarded| &forwarded.addresses);
    for address in hops.chain(&client.peer) {
        separate(&mut value);
        write!(value, "{address}").ok()?;
    }
    if value.is_empty() { None } else { HeaderValue::from_bytes(&value).ok().map(FieldValue::Own) }
}

/// The host that the client asked for.
pub(crate) fn host<'a>(request: &RequestView<'a>, client: &'a Client) -> Option<&'a [u8]> {
    if let Some(host) = client.forwarded.as_ref().and_then(|forwarded| forwarded.host.as_ref()) {
        return Some(host.as_bytes());
    }
    let authority = || request.authority().map(str::as_bytes).filter(|authority| !authority.is_empty());
    request.fields.get(&header::HOST).or_else(authority)
}

fn separate(value: &mut SmallVec<[u8; 64]>) {
    if !value.is_empty() {
        value.extend_from_slice(b", ");
    }
}

#[cfg(test)]
mod tests;
