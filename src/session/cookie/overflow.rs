//! The cookie of the proxy's own that carries the token where the application's cookie has no room for it: browsers drop a
//! cookie whose name and value together exceed 4,096 octets, and a log-in would never succeed.

/// Most octets of name and value that every browser keeps.
pub const MAX_LEN: usize = 4096;

/// Follows the name of the application's cookie. [`prefix::SEPARATOR`](super::prefix::SEPARATOR) is seldom part of a name.
const SUFFIX: &str = "~homing";

/// The name of the overflow cookie, for the application's cookie of this name. Prefixes such as `__Host-` stay.
#[must_use]
pub fn name_for(cookie: &str) -> String {
    format!("{cookie}{SUFFIX}")
}

/// Whether browsers keep a cookie with this name and a value of this length.
#[must_use]
pub const fn fits(name: &[u8], value_len: usize) -> bool {
    name.len() + value_len <= MAX_LEN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_and_value_together_may_have_4096_octets() {
        assert!(fits(b"SID", 4093));
        assert!(!fits(b"SID", 4094));
        assert_eq!(name_for("__Host-SID"), "__Host-SID~homing");
    }
}
