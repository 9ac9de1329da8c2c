//! Who the client is, when it came through proxies that we trust, and what servers are told of it.

mod rfc7239;

use std::io::Write;
use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;
use smallvec::SmallVec;

use crate::proxy::context::{Client, Told};
pub(crate) use rfc7239::FORWARDED;

/// `X-Forwarded-For`.
pub(crate) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// `X-Forwarded-Proto`.
pub(crate) const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// `X-Forwarded-Host`.
pub(crate) const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// What the names of a family begin with, of which strangers must send none.
pub(crate) const X_FORWARDED: &str = "x-forwarded-";
/// One name more that strangers must not send.
pub(crate) const X_REAL_IP: &str = "x-real-ip";

/// Most hops that are looked at. Nobody has so many proxies of their own; the rest is somebody's invention.
const MOST_HOPS: usize = 64;

/// Reads the client from the connection's peer and, when that is trusted, from the forwarded headers.
///
/// The client is the rightmost hop that is not itself trusted: everything to the left of it was written by somebody that
/// nobody vouches for. Hops are those of X-Forwarded-For, and of Forwarded only when there is none. `encrypted` is how the
/// peer came; a trusted one may say how the client came to it.
pub(crate) fn client(peer: Option<IpAddr>, encrypted: bool, headers: &HeaderMap, trusted: &[IpNet]) -> Client {
    let peer = peer.map(canonical);
    let peer_trusted = is_trusted_peer(peer, trusted);
    let mut client = Client { peer, peer_text: None, address: peer, peer_trusted, secure: encrypted, told: None };
    if !peer_trusted {
        return client;
    }
    if headers.contains_key(FORWARDED_FOR) {
        client.address = rightmost_untrusted(headers, trusted).or(peer);
    } else if headers.contains_key(FORWARDED) {
        believe_forwarded(&mut client, headers, trusted);
    }
    if let Some(proto) = headers.get(FORWARDED_PROTO) {
        client.secure = is_https(proto.as_bytes());
    }
    client
}

/// Whether a peer is one of ours. Over a unix socket it has no address; it is trusted when the listener trusts anybody.
pub(crate) fn is_trusted_peer(peer: Option<IpAddr>, trusted: &[IpNet]) -> bool {
    !trusted.is_empty() && peer.is_none_or(|peer| is_trusted(canonical(peer), trusted))
}

fn is_https(proto: &[u8]) -> bool {
    proto.eq_ignore_ascii_case(b"https")
}

fn rightmost_untrusted(headers: &HeaderMap, trusted: &[IpNet]) -> Option<IpAddr> {
    let mut leftmost = None;
    let fields: SmallVec<[&HeaderValue; 4]> = headers.get_all(FORWARDED_FOR).iter().collect();
    let hops = fields.iter().rev().flat_map(|field| field.as_bytes().rsplit(|byte| *byte == b','));
    // Empty elements of a list mean nothing (RFC 9110, section 5.6.1).
    for hop in hops.take(MOST_HOPS).filter(|hop| !hop.trim_ascii().is_empty()) {
        // What is no address ends the chain: nothing to the left of it can be vouched for.
        let Some(hop) = parse_hop(hop) else { return leftmost };
        if !is_trusted(hop, trusted) {
            return Some(hop);
        }
        leftmost = Some(hop);
    }
    leftmost
}

/// The same for Forwarded, which also has how the client came and what it asked for, side by side with who it is.
fn believe_forwarded(client: &mut Client, headers: &HeaderMap, trusted: &[IpNet]) {
    let mut chain: SmallVec<[IpAddr; 4]> = SmallVec::new();
    let mut last = None;
    for hop in rfc7239::hops(headers).take(MOST_HOPS) {
        let Some(hop) = hop else { break };
        let Some(address) = parse_hop(hop.client) else { break };
        chain.push(address);
        last = Some(hop);
        if !is_trusted(address, trusted) {
            break;
        }
    }
    let (Some(address), Some(hop)) = (chain.last(), last) else { return };
    client.address = Some(*address);
    if let Some(proto) = hop.proto {
        client.secure = is_https(proto);
    }
    let host = hop.host.and_then(|host| HeaderValue::from_bytes(host).ok());
    chain.reverse();
    client.told = Some(Box::new(Told { chain, host }));
}

/// `1.2.3.4`, `1.2.3.4:5`, `::1`, `[::1]`, `[::1]:5`.
fn parse_hop(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop).ok()?.trim();
    // A zone means something on the machine that wrote it only.
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

/// The X-Forwarded-For that a server gets: what trusted proxies said, then our peer; of a stranger only the peer.
pub(crate) fn forwarded_for(client: &Client, headers: &HeaderMap) -> Option<HeaderValue> {
    if !client.peer_trusted && client.peer_text.is_some() {
        return client.peer_text.clone();
    }
    let mut value: SmallVec<[u8; 64]> = SmallVec::new();
    if client.peer_trusted {
        for field in headers.get_all(FORWARDED_FOR) {
            part(&mut value);
            value.extend_from_slice(field.as_bytes());
        }
    }
    let told = client.told.iter().flat_map(|told| &told.chain);
    for address in told.chain(&client.peer) {
        part(&mut value);
        write!(value, "{address}").ok()?;
    }
    if value.is_empty() { None } else { HeaderValue::from_bytes(&value).ok() }
}

fn part(value: &mut SmallVec<[u8; 64]>) {
    if !value.is_empty() {
        value.extend_from_slice(b", ");
    }
}

#[cfg(test)]
mod tests;
