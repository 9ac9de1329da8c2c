//! The admin address of a proxy, as the command line and `HOMING_ADMIN` name it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where the admin API answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AdminAddress {
    /// A host (a name, or an address without brackets) and a port.
    Tcp(String, u16),
    /// A unix socket.
    Unix(PathBuf),
}

impl AdminAddress {
    /// The value of `Host`. A unix socket has none of its own; the admin API always answers for `localhost`.
    pub(super) fn host(&self) -> String {
        match self {
            Self::Tcp(host, port) if host.contains(':') => format!("[{host}]:{port}"),
            Self::Tcp(host, port) => format!("{host}:{port}"),
            Self::Unix(_) => "localhost".to_owned(),
        }
    }
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(..) => f.write_str(&self.host()),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for AdminAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() { Err(expected()) } else { Ok(Self::Unix(path.into())) };
        }
        if text.starts_with("https://") {
            return Err("the admin API is plain HTTP: on another machine reach it through a tunnel (ssh -L)".to_owned());
        }
        match text.strip_prefix("http://") {
            Some(authority) => {
                let authority = authority.strip_suffix('/').unwrap_or(authority);
                host_and_port(authority).or_else(|| host_and_port(&format!("{authority}:80")))
            }
            None => host_and_port(text),
        }
        .map(|(host, port)| Self::Tcp(host, port))
        .ok_or_else(expected)
    }
}

fn expected() -> String {
    "write HOST:PORT, http://HOST:PORT or unix:/PATH".to_owned()
}

fn host_and_port(authority: &str) -> Option<(String, u16)> {
    let (host, port) = authority.rsplit_once(':')?;
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let name = inner.unwrap_or(host);
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') || (inner.is_some() && c == ':');
    let valid = !name.is_empty() && name.chars().all(allowed);
    Some((name.to_owned(), port.parse().ok()?)).filter(|_| valid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_with_a_port_or_a_url_or_a_unix_socket() {
        for (text, host) in [
            ("127.0.0.1:9900", "127.0.0.1:9900"),
            ("localhost:1", "localhost:1"),
            ("[::1]:9900", "[::1]:9900"),
            ("http://127.0.0.1:9900", "127.0.0.1:9900"),
            ("http://127.0.0.1:9900/", "127.0.0.1:9900"),
            ("http://proxy", "proxy:80"),
            ("http://[::1]", "[::1]:80"),
            ("unix:/run/homing.sock", "localhost"),
        ] {
            assert_eq!(text.parse::<AdminAddress>().expect(text).host(), host);
        }
        assert_eq!("unix:///run/a".parse(), Ok(AdminAddress::Unix("/run/a".into())), "as curl's users write it");
    }

    #[test]
    fn other_addresses_are_refused() {
        for text in ["", "9900", ":9900", "localhost", "::1:9900", "a:70000", "unix:", "http://a/b", "a b:1", "a:1/x"] {
            let error = text.parse::<AdminAddress>().expect_err(text);
            assert!(error.starts_with("write HOST:PORT"), "{text}: {error}");
        }
        assert!("https://a:1".parse::<AdminAddress>().expect_err("no TLS").contains("ssh -L"));
    }
}
