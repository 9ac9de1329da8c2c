//! Hosts as requests send them: `name`, `name:port`, `[v6]:port`, in any case.

use std::net::Ipv6Addr;

use smallvec::SmallVec;

/// Longest name in DNS, in characters (RFC 1035, section 2.3.4). A longer host matches no route.
const MAX_LENGTH: usize = 253;

/// The name in a Host header: without port and trailing dot; IPv6 addresses keep their brackets.
pub fn host_name(host: &str) -> &str {
    let name = split(host).0;
    name.strip_suffix('.').unwrap_or(name)
}

/// The name and the port as they were sent.
pub(super) fn split(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.is_empty() => {
            // `[::1]:80` has its port after the bracket; `::1` is not a host and is left as it is.
            if name.contains(':') && !name.ends_with(']') { (host, None) } else { (name, Some(port)) }
        }
        _ => (host, None),
    }
}

/// Whether a host may be part of a URL that clients follow: letters, digits, `.`, `-`, `_`, or an IPv6 address in brackets;
/// and a port from 1 to 65535, if any. So no host that a client sends can end early or begin a path.
pub(super) fn is_url_host(host: &str) -> bool {
    let (name, port) = split(host);
    let is_port_valid = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let is_name_valid = if let Some(address) = bare {
        address.parse::<Ipv6Addr>().is_ok()
    } else {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        name.len() <= MAX_LENGTH + 1 && name.bytes().any(|byte| byte.is_ascii_alphanumeric()) && name.bytes().all(plain)
    };
    is_port_valid && is_name_valid
}

/// A name in lower case, without an allocation.
pub(super) struct LowerCase<'h> {
    original: &'h str,
    /// Empty when the original is in lower case.
    lowered: SmallVec<[u8; MAX_LENGTH + 3]>,
}

impl<'h> LowerCase<'h> {
    /// `None` when the name is longer than that of any route.
    pub(super) fn new(name: &'h str) -> Option<Self> {
        if name.len() > MAX_LENGTH {
            return None;
        }
        let mut lowered = SmallVec::new();
        if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            lowered.extend_from_slice(name.as_bytes());
            lowered.make_ascii_lowercase();
        }
        Some(Self { original: name, lowered })
    }

    pub(super) fn as_str(&self) -> &str {
        if self.lowered.is_empty() {
            self.original
        } else {
            std::str::from_utf8(&self.lowered).unwrap_or(self.original)
        }
    }
}

/// The parent domains of a name, the longest first: of `a.b.example`, `b.example` and `example`.
pub(super) fn domains(name: &str) -> impl Iterator<Item = &str> {
    let dots = name.bytes().enumerate().filter(|(_, byte)| *byte == b'.').map(|(at, _)| at);
    dots.filter_map(|at| {
        let (labels, domain) = (name.get(..at)?, name.get(at + 1..)?);
        (!labels.is_empty() && !labels.ends_with('.')).then_some(domain)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_lose_their_port_and_nothing_else() {
        for (host, name) in [
            ("a.b", "a.b"),
            ("a.b:80", "a.b"),
            ("a.b.:80", "a.b"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
            ("127.0.0.1:1", "127.0.0.1"),
            (":80", ":80"),
            ("", ""),
        ] {
            assert_eq!(host_name(host), name);
        }
    }

    #[test]
    fn only_a_plain_host_may_be_part_of_a_url() {
        for host in ["a", "A.b-c_d.example.", "a:1", "127.0.0.1:65535", "[::1]", "[2001:db8::1]:8080"] {
            assert!(is_url_host(host), "{host}");
        }
        for host in [
            "",
            ":80",
            ".",
            "a:0",
            "a:65536",
            "a:x",
            "a:",
            "::1",
            "[::1",
            "[x]",
            "[::1]x",
            "a/b",
            "a\\b",
            "a@b",
            "a?b",
            "a#b",
            "a%0d",
            "a b",
            "a\r\nb",
            "ä",
            "a,b",
            "a;b",
            &"a".repeat(300),
        ] {
            assert!(!is_url_host(host), "{host:?}");
        }
    }

    #[test]
    fn a_name_is_below_its_domains_but_not_itself() {
        assert_eq!(domains("a.b.example").collect::<Vec<_>>(), ["b.example", "example"]);
        assert_eq!(domains("example").count(), 0);
        assert_eq!(domains(".example").count(), 0, "an empty label is no label");
        assert_eq!(domains("a..example").collect::<Vec<_>>(), [".example"]);
        assert_eq!(domains("ä.example").collect::<Vec<_>>(), ["example"]);
    }

    #[test]
    fn a_name_is_lowered_without_an_allocation() {
        let longest = "A".repeat(MAX_LENGTH);
        for name in ["Shop.Example", "shop.example", "ÄX", "", &longest] {
            let lower = LowerCase::new(name).unwrap();
            assert_eq!(lower.as_str(), name.to_ascii_lowercase());
            assert!(!lower.lowered.spilled());
        }
        assert!(LowerCase::new(&"a".repeat(MAX_LENGTH + 1)).is_none());
    }
}
