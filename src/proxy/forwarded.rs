//! Who the client is, when it came through proxies that we trust, and what servers are told of it.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

use super::context::Client;

/// `X-Forwarded-For`.
pub(super) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// `X-Forwarded-Proto`.
pub(super) const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// `X-Forwarded-Host`.
pub(super) const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Reads the client from the connection's peer and, when that is trusted, from the forwarded headers.
///
/// The client is the rightmost hop of X-Forwarded-For that is not itself trusted: everything to the left of it was
/// written by somebody that nobody vouches for. A peer over a unix socket has no address; it is trusted when the
/// listener trusts anybody at all.
pub(super) fn client(peer: Option<IpAddr>, headers: &HeaderMap, trusted: &[IpNet]) -> Client {
    let peer = peer.map(canonical);
    let peer_trusted = !trusted.is_empty() && peer.is_none_or(|peer| is_trusted(peer, trusted));
    if !peer_trusted {
        return Client { peer, address: peer, peer_trusted, secure: false };
    }
    Client {
        peer,
        address: rightmost_untrusted(headers, trusted).or(peer),
        peer_trusted,
        secure: headers.get(FORWARDED_PROTO).is_some_and(|proto| proto.as_bytes().eq_ignore_ascii_case(b"https")),
    }
}

fn rightmost_untrusted(headers: &HeaderMap, trusted: &[IpNet]) -> Option<IpAddr> {
    let mut leftmost = None;
    let fields: smallvec::SmallVec<[&HeaderValue; 4]> = headers.get_all(FORWARDED_FOR).iter().collect();
    for field in fields.iter().rev() {
        for hop in field.as_bytes().rsplit(|byte| *byte == b',') {
            // What is no address ends the chain: nothing to the left of it can be vouched for.
            let Some(hop) = parse_hop(hop) else { return leftmost };
            if !is_trusted(hop, trusted) {
                return Some(hop);
            }
            leftmost = Some(hop);
        }
    }
    leftmost
}

/// `1.2.3.4`, `1.2.3.4:5`, `::1`, `[::1]`, `[::1]:5`.
fn parse_hop(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop).ok()?.trim();
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
pub(super) fn forwarded_for(client: &Client, headers: &HeaderMap) -> Option<HeaderValue> {
    use std::io::Write;
    let mut value: smallvec::SmallVec<[u8; 64]> = smallvec::SmallVec::new();
    if client.peer_trusted {
        for field in headers.get_all(FORWARDED_FOR) {
            if !value.is_empty() {
                value.extend_from_slice(b", ");
            }
            value.extend_from_slice(field.as_bytes());
        }
    }
    if let Some(peer) = client.peer {
        if !value.is_empty() {
            value.extend_from_slice(b", ");
        }
        write!(value, "{peer}").ok()?;
    }
    if value.is_empty() { None } else { HeaderValue::from_bytes(&value).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(FORWARDED_FOR, HeaderValue::from_str(field).unwrap());
        }
        headers
    }

    fn seen(peer: &str, fields: &[&str], trusted: &[&str]) -> String {
        let trusted: Vec<IpNet> = trusted.iter().map(|network| network.parse().unwrap()).collect();
        let client = client(Some(peer.parse().unwrap()), &headers(fields), &trusted);
        client.address.unwrap().to_string()
    }

    #[test]
    fn a_stranger_cannot_say_who_it_is() {
        assert_eq!(seen("6.6.6.6", &["1.1.1.1"], &[]), "6.6.6.6");
        assert_eq!(seen("6.6.6.6", &["1.1.1.1"], &["10.0.0.0/8"]), "6.6.6.6");
    }

    #[test]
    fn the_client_is_the_rightmost_hop_that_is_not_trusted() {
        let trusted = &["10.0.0.0/8", "fd00::/8"];
        for (fields, client) in [
            (&["1.1.1.1"] as &[&str], "1.1.1.1"),
            (&["9.9.9.9, 1.1.1.1"], "1.1.1.1"),
            (&["9.9.9.9, 1.1.1.1, 10.2.2.2"], "1.1.1.1"),
            (&["9.9.9.9", "1.1.1.1", "10.2.2.2"], "1.1.1.1"),
            (&["1.1.1.1:4711"], "1.1.1.1"),
            (&["[2001:db8::1]:4711"], "2001:db8::1"),
            (&["[2001:db8::1]"], "2001:db8::1"),
            (&["2001:db8::1, fd00::3"], "2001:db8::1"),
            (&["::ffff:1.1.1.1"], "1.1.1.1"),
            (&["10.7.7.7, 10.2.2.2"], "10.7.7.7"),
            (&["1.1.1.1, unknown, 10.2.2.2"], "10.2.2.2"),
            (&["unknown"], "10.1.1.1"),
            (&[""], "10.1.1.1"),
            (&[], "10.1.1.1"),
        ] {
            assert_eq!(seen("10.1.1.1", fields, trusted), client, "{fields:?}");
        }
        assert_eq!(seen("::ffff:10.1.1.1", &["1.1.1.1"], trusted), "1.1.1.1");
    }

    #[test]
    fn servers_are_told_the_chain_of_trusted_proxies_and_nothing_else() {
        let told = |peer_trusted| {
            let peer = Some("10.1.1.1".parse().unwrap());
            let client = Client { peer, address: peer, peer_trusted, secure: false };
            forwarded_for(&client, &headers(&["9.9.9.9, 1.1.1.1", "10.2.2.2"])).unwrap()
        };
        assert_eq!(told(true), "9.9.9.9, 1.1.1.1, 10.2.2.2, 10.1.1.1");
        assert_eq!(told(false), "10.1.1.1");
    }

    #[test]
    fn a_peer_over_a_unix_socket_is_trusted_when_somebody_is() {
        let trusted = ["127.0.0.1/32".parse().unwrap()];
        let with = client(None, &headers(&["1.1.1.1"]), &trusted);
        assert_eq!(with.address, Some("1.1.1.1".parse().unwrap()));
        let without = client(None, &headers(&["1.1.1.1"]), &[]);
        assert_eq!(without.address, None);
    }
}
