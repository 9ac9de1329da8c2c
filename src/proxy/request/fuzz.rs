//! Fuzz subject: what proxies before this one report of a client.

use std::net::IpAddr;

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;

use super::client_addr::{self, FORWARDED, FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO};
use crate::fuzz::choice;
use crate::message::{EditValue, Fields};
use crate::proxy::context::Client;

/// Below the number of hops that are read.
const FEW: usize = 60;

/// The fields: one a line, the first byte says which.
fn fields(data: &[u8]) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n') {
        let (name, value) = choice(line);
        let name: HeaderName = match name {
            b'x' => FORWARDED_FOR,
            b'f' => FORWARDED,
            b'p' => FORWARDED_PROTO,
            b'h' => FORWARDED_HOST,
            _ => continue,
        };
        if let Ok(value) = HeaderValue::from_bytes(value) {
            fields.append(name, value);
        }
    }
    fields
}

/// Only trusted peers are believed, an address that a client made up never counts, and the next proxy reads from what this one
/// sends the same client.
pub fn forwarded(data: &[u8]) {
    let (peer, data) = choice(data);
    let peers: [IpAddr; 4] = ["10.0.0.1", "192.0.2.7", "fd00::1", "2001:db8::7"].map(|peer| peer.parse().unwrap());
    let trusted: [IpNet; 2] = ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().unwrap());
    let peer = peers[usize::from(peer) % peers.len()];
    let read = |peer: IpAddr, fields: &HeaderMap| client_addr::client(Some(peer), false, Fields::Map(fields), &trusted);
    let sent = fields(data);
    let client = read(peer, &sent);
    if !client.peer_trusted {
        let seen = (client.address, client.secure, client.forwarded.is_none());
        assert_eq!(seen, (Some(peer), false, true), "a peer that is not trusted was believed");
    }
    let hops = sent.values().map(|value| value.as_bytes().split(|byte| *byte == b',').count()).sum();
    if FEW < hops {
        return;
    }
    made_up(&client, &sent, &|fields| read(peer, fields));
    let next = client_addr::forwarded_for(&client, Fields::Map(&sent)).and_then(EditValue::into_header_value);
    let next = next.expect("the peer at least");
    let next = HeaderMap::from_iter([(FORWARDED_FOR, next)]);
    let next = read("10.9.9.9".parse().unwrap(), &next);
    assert_eq!(next.address, client.address, "the next proxy sees another client: {sent:?}");
}

/// What stands before the client in the list is the client's own claim.
fn made_up(client: &Client, sent: &HeaderMap, read: &dyn Fn(&HeaderMap) -> Client) {
    let mut more = sent.clone();
    let name = if sent.contains_key(FORWARDED_FOR) { FORWARDED_FOR } else { FORWARDED };
    let Some(first) = more.get_mut(&name) else { return };
    let claim = if name == FORWARDED { &b"for=6.6.6.6,"[..] } else { b"6.6.6.6," };
    *first = HeaderValue::from_bytes(&[claim, first.as_bytes()].concat()).expect("a value");
    let now = read(&more);
    let is_trusted = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets()[0] == 10,
        IpAddr::V6(address) => address.octets()[0] == 0xfd,
    };
    // With a chain of trusted hops alone the claim is the first that no trusted proxy wrote.
    if !client.address.is_some_and(is_trusted) {
        assert_eq!(now.address, client.address, "a claim of the client changes its address: {sent:?}");
    }
}
