//! The PROXY protocol, version 1 (a line of text) and 2 (binary): a load balancer sends the client's address before the
//! first byte of the connection. See HAProxy's "The PROXY protocol", sections 2.1 and 2.2.
//!
//! Written by hand although crates for it exist: none of them limits how much it waits for, or recognizes a header by its
//! signature alone, so that one from an untrusted peer is refused at once. The tests compare it with the crate `ppp`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The start of version 1.
const SIGNATURE_1: &[u8] = b"PROXY ";
/// The start of version 2; neither HTTP nor TLS starts so.
const SIGNATURE_2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Longest line of version 1, with CRLF.
const MAX_1: usize = 107;
/// Bytes of version 2 before its addresses: signature, version and command, family, length.
const FIXED_2: usize = 16;
/// Most bytes of addresses and TLVs in version 2. Load balancers send some tens; the limit of the protocol is 64 KiB.
const MAX_2: usize = 4096;

/// What the first bytes of a connection say of a PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProxyHeader {
    /// There is none.
    Absent,
    /// More bytes are needed to tell.
    Undecided,
    /// There is one, and more bytes of it are needed.
    Partial,
    /// There is one, and it is complete.
    Complete {
        /// Its length in bytes.
        length: usize,
        /// The client's address; `None` = the peer itself, as for health checks of the load balancer (LOCAL, UNKNOWN), or
        /// a client without an IP address.
        source: Option<SocketAddr>,
    },
    /// There is one, and it breaks the protocol.
    Invalid,
}

/// Parses what has arrived so far.
pub(super) fn parse(bytes: &[u8]) -> ProxyHeader {
    if bytes.starts_with(SIGNATURE_1) {
        return version_1(bytes);
    }
    if bytes.starts_with(SIGNATURE_2) {
        return version_2(bytes);
    }
    let may_begin = SIGNATURE_1.starts_with(bytes) || SIGNATURE_2.starts_with(bytes);
    if may_begin { ProxyHeader::Undecided } else { ProxyHeader::Absent }
}

fn version_1(bytes: &[u8]) -> ProxyHeader {
    let head = bytes.get(..MAX_1).unwrap_or(bytes);
    let Some(end) = head.windows(2).position(|pair| pair == b"\r\n") else {
        return if head.len() == MAX_1 { ProxyHeader::Invalid } else { ProxyHeader::Partial };
    };
    let line = head.get(SIGNATURE_1.len()..end).unwrap_or_default();
    let source = match std::str::from_utf8(line) {
        // Anything after UNKNOWN is ignored.
        Ok(line) if line == "UNKNOWN" || line.starts_with("UNKNOWN ") => Ok(None),
        Ok(line) => source_1(line).map(Some).ok_or(()),
        Err(_) => Err(()),
    };
    source.map_or(ProxyHeader::Invalid, |source| ProxyHeader::Complete { length: end + 2, source })
}

/// `TCP4 192.0.2.1 198.51.100.1 4711 443`; one blank between the fields.
fn source_1(line: &str) -> Option<SocketAddr> {
    let mut fields = line.split(' ');
    let family = fields.next()?;
    let mut address = || -> Option<IpAddr> {
        let text = fields.next()?;
        match family {
            "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let (source, _destination) = (address()?, address()?);
    let (port, _destination) = (port(fields.next()?)?, port(fields.next()?)?);
    fields.next().is_none().then_some(SocketAddr::new(source, port))
}

/// A decimal number without sign or leading zeros.
fn port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

fn version_2(bytes: &[u8]) -> ProxyHeader {
    let Some([command, family, high, low]) = bytes.get(SIGNATURE_2.len()..FIXED_2) else { return ProxyHeader::Partial };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    if length > MAX_2 {
        return ProxyHeader::Invalid;
    }
    let known = |source| ProxyHeader::Complete { length: FIXED_2 + length, source };
    let Some(rest) = bytes.get(FIXED_2..FIXED_2 + length) else { return ProxyHeader::Partial };
    match (command, family) {
        // LOCAL: the connection is the load balancer's own, and its family is ignored.
        (0x20, _) => known(None),
        // Unspecified family or transport, or unix sockets: there is no IP address.
        (0x21, 0x00..=0x02 | 0x10 | 0x20 | 0x30..=0x32) => known(None),
        (0x21, 0x11 | 0x12) => source_2::<4>(rest).map_or(ProxyHeader::Invalid, |source| known(Some(source))),
        (0x21, 0x21 | 0x22) => source_2::<16>(rest).map_or(ProxyHeader::Invalid, |source| known(Some(source))),
        _ => ProxyHeader::Invalid,
    }
}

/// Source and destination address of `SIZE` bytes each, source and destination port; TLVs may follow.
fn source_2<const SIZE: usize>(rest: &[u8]) -> Option<SocketAddr>
where
    IpAddr: From<[u8; SIZE]>,
{
    let (source, rest) = rest.split_first_chunk::<SIZE>()?;
    let (_destination, rest) = rest.split_first_chunk::<SIZE>()?;
    let ([high, low, _, _], _tlvs) = rest.split_first_chunk::<4>()?;
    Some(SocketAddr::new(IpAddr::from(*source), u16::from_be_bytes([*high, *low])))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(text: &str) -> ProxyHeader {
        parse(text.as_bytes())
    }

    /// A header of version 2.
    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE_2.to_vec();
        bytes.extend_from_slice(&[command, family]);
        bytes.extend_from_slice(&u16::try_from(rest.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(rest);
        bytes
    }

    /// As `ppp` writes it.
    fn written(version: u8, source: SocketAddr, destination: SocketAddr, tlv: &[u8]) -> Vec<u8> {
        if version == 1 {
            return ppp::v1::Addresses::from((source, destination)).to_string().into_bytes();
        }
        let command = ppp::v2::Version::Two | ppp::v2::Command::Proxy;
        ppp::v2::Builder::with_addresses(command, ppp::v2::Protocol::Stream, (source, destination))
            .write_tlv(ppp::v2::Type::NoOp, tlv)
            .unwrap()
            .build()
            .unwrap()
    }

    fn addresses() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
        let v4 = any::<(Ipv4Addr, u16, Ipv4Addr, u16)>().prop_map(|(a, p, b, q)| ((a, p).into(), (b, q).into()));
        let v6 = any::<(Ipv6Addr, u16, Ipv6Addr, u16)>().prop_map(|(a, p, b, q)| ((a, p).into(), (b, q).into()));
        prop_oneof![v4, v6]
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(
            signature in prop_oneof![Just(&b""[..]), Just(SIGNATURE_1), Just(SIGNATURE_2)],
            rest in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let bytes = [signature, &rest].concat();
            if let ProxyHeader::Complete { length, .. } = parse(&bytes) {
                prop_assert!(length <= bytes.len());
            }
        }

        #[test]
        fn headers_of_another_implementation_are_read_and_partial_ones_need_more_bytes(
            version in 1_u8..=2,
            (source, destination) in addresses(),
            tlv in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let header = written(version, source, destination, &tlv);
            let whole = ProxyHeader::Complete { length: header.len(), source: Some(source) };
            prop_assert_eq!(parse(&header), whole);
            prop_assert_eq!(parse(&[&header[..], b"GET / HTTP/1.1\r\n"].concat()), whole, "what follows is not part of it");
            for cut in 0..header.len() {
                let more = parse(&header[..cut]);
                prop_assert!(matches!(more, ProxyHeader::Undecided | ProxyHeader::Partial), "cut at {cut}: {more:?}");
            }
        }

        #[test]
        fn another_implementation_reads_the_same_source(
            rest in "(TCP4|TCP6|UNKNOWN|tcp4)[ 0-9a-f:.]{0,60}\r\n",
        ) {
            let bytes = [SIGNATURE_1, rest.as_bytes()].concat();
            if let ProxyHeader::Complete { source: Some(source), .. } = parse(&bytes) {
                let theirs = ppp::v1::Header::try_from(&bytes[..]).map(|header| header.addresses);
                let same = match theirs {
                    Ok(ppp::v1::Addresses::Tcp4(found)) => source == (found.source_address, found.source_port).into(),
                    Ok(ppp::v1::Addresses::Tcp6(found)) => source == (found.source_address, found.source_port).into(),
                    _ => false,
                };
                prop_assert!(same, "{:?}", String::from_utf8_lossy(&bytes));
            }
        }
    }

    #[test]
    fn requests_and_handshakes_are_recognized_at_once() {
        for other in [&b"GET / HTTP/1.1"[..], b"POST", b"PRI * HTTP/2.0", b"PROPFIND", b"\x16\x03\x01", b"\r\nGET"] {
            assert_eq!(parse(other), ProxyHeader::Absent, "{}", other.escape_ascii());
        }
        for unclear in [&b""[..], b"P", b"PRO", b"PROXY", b"\r", b"\r\n\r\n\0\r\nQUIT"] {
            assert_eq!(parse(unclear), ProxyHeader::Undecided, "{}", unclear.escape_ascii());
        }
    }

    #[test]
    fn a_header_without_an_address_means_the_peer() {
        let is_peer =
            |bytes: &[u8]| assert!(matches!(parse(bytes), ProxyHeader::Complete { source: None, .. }), "{bytes:?}");
        is_peer(b"PROXY UNKNOWN\r\n");
        is_peer(b"PROXY UNKNOWN ff:ff 1 2 3 whatever\r\n");
        is_peer(&binary(0x20, 0x00, b""));
        is_peer(&binary(0x20, 0x11, b"twelve bytes"));
        is_peer(&binary(0x21, 0x31, &[7; 216]));
        is_peer(&binary(0x21, 0x00, b"anything"));
    }

    #[test]
    fn a_header_that_breaks_the_protocol_is_invalid() {
        for text in [
            "PROXY \r\n",
            "PROXY TCP4\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n",
            "PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 65536 2\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n",
            "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
            "PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n",
            "PROXY UNKNOWNS\r\n",
        ] {
            assert_eq!(line(text), ProxyHeader::Invalid, "{text:?}");
        }
        assert_eq!(line(&format!("PROXY UNKNOWN {}\r\n", "x".repeat(92))), ProxyHeader::Invalid, "108 bytes");
        assert!(matches!(
            line(&format!("PROXY UNKNOWN {}\r\n", "x".repeat(91))),
            ProxyHeader::Complete { length: 107, .. }
        ));
        assert_eq!(parse(&binary(0x11, 0x11, &[0; 12])), ProxyHeader::Invalid, "version 1 in binary");
        assert_eq!(parse(&binary(0x22, 0x11, &[0; 12])), ProxyHeader::Invalid, "no such command");
        assert_eq!(parse(&binary(0x21, 0x41, &[0; 12])), ProxyHeader::Invalid, "no such family");
        assert_eq!(parse(&binary(0x21, 0x11, &[0; 11])), ProxyHeader::Invalid, "too short for its addresses");
        assert_eq!(parse(&binary(0x21, 0x21, &[0; 35])), ProxyHeader::Invalid, "too short for its addresses");
        assert_eq!(parse(&binary(0x21, 0x11, &[0; MAX_2 + 1])), ProxyHeader::Invalid, "longer than the limit");
        assert_eq!(
            parse(&binary(0x21, 0x11, &[0; MAX_2 + 1])[..FIXED_2]),
            ProxyHeader::Invalid,
            "by its length field alone"
        );
    }
}
