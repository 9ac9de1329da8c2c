//! Which server answers, and which forms of the commands it has.

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    /// "valkey 9.1.2", or "unknown" where the user may not ask.
    pub(super) label: String,
    /// Whether it takes writes; `None` = it did not say.
    pub(super) primary: Option<bool>,
    kind: Option<(Brand, (u32, u32))>,
}

/// Who made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Brand {
    Redis,
    Valkey,
}

impl Server {
    /// From the answer to `INFO`, sections `server` and `replication`.
    pub(super) fn read(info: &str) -> Self {
        let field = |name: &str| {
            info.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .map(str::trim)
                .filter(|v| !v.is_empty())
        };
        // Valkey gives a `redis_version` too, of the Redis whose commands it has: it is asked for its own first.
        let version = field("valkey_version")
            .map(|version| (Brand::Valkey, "valkey", version))
            .or_else(|| field("redis_version").map(|version| (Brand::Redis, "redis", version)));
        let label = version.map_or_else(|| "unknown".to_owned(), |(_, name, version)| format!("{name} {version}"));
        let kind = version.and_then(|(brand, _, version)| Some((brand, two_numbers(version)?)));
        Self { label, primary: field("role").map(|role| role == "master"), kind }
    }

    /// `SET … NX GET`. One that did not say which it is may have it: it is tried.
    pub(super) fn has_set_nx_get(&self) -> bool {
        self.is_at_least((7, 0), (7, 2)).unwrap_or(true)
    }

    /// `PEXPIRE … GT`. One that did not say which it is may have it: it is tried.
    pub(super) fn has_expire_gt(&self) -> bool {
        self.is_at_least((7, 0), (7, 2)).unwrap_or(true)
    }

    /// `SET … IFEQ`, for certain.
    pub(super) fn has_set_ifeq(&self) -> bool {
        self.is_at_least((8, 4), (8, 1)).unwrap_or(false)
    }

    fn is_at_least(&self, redis: (u32, u32), valkey: (u32, u32)) -> Option<bool> {
        self.kind.map(|(brand, version)| match brand {
            Brand::Redis => version >= redis,
            Brand::Valkey => version >= valkey,
        })
    }
}

/// Major and minor.
fn two_numbers(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forms(info: &str) -> (String, bool, bool, bool) {
        let server = Server::read(info);
        (server.label.clone(), server.has_set_nx_get(), server.has_expire_gt(), server.has_set_ifeq())
    }

    #[test]
    fn a_server_has_the_forms_of_its_version() {
        for (info, expected) in [
            ("# Server\r\nredis_version:6.2.14\r\n", ("redis 6.2.14", false, false, false)),
            ("redis_version:7.0.15\r\nrole:master", ("redis 7.0.15", true, true, false)),
            ("redis_version:8.2.9", ("redis 8.2.9", true, true, false)),
            ("redis_version:8.4.0", ("redis 8.4.0", true, true, true)),
            ("redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:7.2.9", ("valkey 7.2.9", true, true, false)),
            ("redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.0", ("valkey 8.1.0", true, true, true)),
            ("redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:9.1.2", ("valkey 9.1.2", true, true, true)),
            ("", ("unknown", true, true, false)),
            ("redis_version:next", ("redis next", true, true, false)),
        ] {
            let (label, nx_get, gt, ifeq) = forms(info);
            assert_eq!((label.as_str(), nx_get, gt, ifeq), expected, "{info:?}");
        }
    }

    #[test]
    fn a_replica_is_told_from_a_primary() {
        for (info, primary) in [("role:master\r\n", Some(true)), ("role:slave\r\n", Some(false)), ("", None)] {
            assert_eq!(Server::read(info).primary, primary, "{info:?}");
        }
    }
}
