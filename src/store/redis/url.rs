//! URLs of Redis: `redis://` and `rediss://` (TLS), as the registry of URI schemes describes them, and `unix:/path`.
//!
//! They hold passwords, so what is said of one never repeats it.

use std::borrow::Cow;
use std::ops::Range;

use percent_encoding::percent_decode_str;
use url::{ParseError, Url};

use crate::config::address::{self, ServerAddress};

const DEFAULT_PORT: u16 = 6379;
const FORMS: &str = "write redis://HOST:PORT, rediss://HOST:PORT for TLS, or unix:/path";

/// What a URL says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RedisUrl<'u> {
    pub(crate) address: ServerAddress,
    /// The port is written, not the default.
    pub(crate) has_port: bool,
    pub(crate) tls: bool,
    pub(crate) database: u32,
    /// User and password as they are written.
    user: &'u str,
}

impl RedisUrl<'_> {
    /// Whether another URL has the same user and password.
    pub(crate) fn same_user(&self, other: &RedisUrl<'_>) -> bool {
        self.user == other.user
    }
}

/// A message that goes on after "the URL", and a help.
pub(crate) type Refusal = (Cow<'static, str>, Cow<'static, str>);

fn refused<T>(message: impl Into<Cow<'static, str>>, help: impl Into<Cow<'static, str>>) -> Result<T, Refusal> {
    Err((message.into(), help.into()))
}

/// Reads a URL as the client does, but takes nothing that is most likely a slip.
pub(crate) fn read(text: &str) -> Result<RedisUrl<'_>, Refusal> {
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return refused("holds a blank or an unprintable character", "write %20 for a blank");
    }
    let scheme = text.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase());
    match scheme.as_deref() {
        Some("redis") => tcp(text, false),
        Some("rediss") => tcp(text, true),
        Some("unix" | "redis+unix") => unix(text),
        Some("valkey") => refused("has the scheme valkey", "write redis://, which Valkey speaks too"),
        Some("valkeys") => refused("has the scheme valkeys", "write rediss://, which Valkey speaks too"),
        // What has no user has nothing to hide.
        _ if address::server_address(text).is_ok() => {
            refused("has no scheme", format!("write redis://{text}, or rediss://{text} for TLS"))
        }
        _ => refused("is not one of Redis", FORMS),
    }
}

fn tcp(text: &str, tls: bool) -> Result<RedisUrl<'_>, Refusal> {
    let Some((_, rest)) = text.split_once("://") else {
        return refused("has no \"//\"", FORMS);
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, behind) = rest.split_at_checked(end).unwrap_or((rest, ""));
    if behind.contains('@') {
        let help = "in a user or password write %2F for \"/\", %3F for \"?\" and %23 for \"#\"";
        return refused("has a \"/\", \"?\" or \"#\" before its \"@\"", help);
    }
    let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
    encoded(user)?;
    let has_password = user.split_once(':').is_some_and(|(_, password)| !password.is_empty());
    if !user.is_empty() && !has_password {
        let help = "write redis://USER:PASSWORD@HOST, or redis://:PASSWORD@HOST for a password alone";
        return refused("has a user without a password", help);
    }
    let url = Url::parse(text).or_else(|error| match error {
        ParseError::EmptyHost => refused("has no host", FORMS),
        ParseError::InvalidPort => refused("has no valid port", "a port is from 1 to 65535"),
        error => refused(format!("cannot be read: {error}"), FORMS),
    })?;
    let port = url.port();
    let address = match url.host_str().filter(|host| !host.is_empty()) {
        Some(host) => host_and_port(host, port.unwrap_or(DEFAULT_PORT))?,
        None => return refused("has no host", FORMS),
    };
    after_the_host(&url)?;
    Ok(RedisUrl { address, has_port: port.is_some(), tls, database: database(url.path().trim_matches('/'))?, user })
}

fn host_and_port(host: &str, port: u16) -> Result<ServerAddress, Refusal> {
    if port == 0 {
        return refused("has no valid port", "a port is from 1 to 65535");
    }
    match address::server_address(&format!("{host}:{port}")) {
        Ok(ServerAddress::Ip(address)) if address.ip().is_unspecified() => {
            refused(format!("leads to {}, which is no server", address.ip()), "write the server's address")
        }
        Ok(address) => Ok(address),
        Err(_help) => refused("names no host", "write a name, an IPv4 address, or an IPv6 address in [ ]"),
    }
}

fn after_the_host(url: &Url) -> Result<(), Refusal> {
    match url.fragment() {
        None => {}
        Some("insecure") => {
            let help = "remove it, and let this machine trust the authority that vouches for the server";
            return refused("asks for TLS with any certificate, which protects from no attacker", help);
        }
        Some(_) => return refused("ends in a \"#\" that means nothing", "remove it; in a password write %23"),
    }
    match url.query() {
        None => Ok(()),
        Some(_) => refused("ends in a \"?\" that means nothing", "remove it; in a password write %3F"),
    }
}

fn database(text: &str) -> Result<u32, Refusal> {
    if text.is_empty() {
        return Ok(0);
    }
    let digits = text.chars().all(|c| c.is_ascii_digit());
    match text.parse() {
        Ok(number) if digits => Ok(number),
        _ => refused("has no valid number of a database", "write a number, like /0, or nothing"),
    }
}

/// `unix:/path`, with `db`, `user` and `pass` in the query, as the client has them.
fn unix(text: &str) -> Result<RedisUrl<'_>, Refusal> {
    const FORM: &str = "write unix:/run/redis.sock, and behind it, where needed, ?user=USER&pass=PASSWORD&db=0";
    let Ok(url) = Url::parse(text) else { return refused("is not the path of a socket", FORM) };
    if url.host_str().is_some_and(|host| !host.is_empty()) || url.fragment().is_some() {
        return refused("is not the path of a socket", FORM);
    }
    let path = percent_decode_str(url.path()).decode_utf8_lossy();
    let Ok(address) = address::server_address(&format!("unix:{path}")) else {
        return refused("is not the path of a socket", FORM);
    };
    let query = text.split_once('?').map_or("", |(_, query)| query);
    encoded(query)?;
    if query.contains('+') {
        return refused("has a \"+\" behind its \"?\"", "write %2B for \"+\", %20 for a blank");
    }
    let [mut number, mut user, mut password] = [None; 3];
    for (key, value) in query.split('&').filter(|pair| !pair.is_empty()).filter_map(|pair| pair.split_once('=')) {
        let location = match key {
            "db" => &mut number,
            "user" => &mut user,
            "pass" => &mut password,
            _ => return refused("has a key that is not known", FORM),
        };
        if location.replace(value).is_some() {
            return refused("has a key twice", FORM);
        }
    }
    if user.is_some() && password.is_none_or(str::is_empty) {
        return refused("has a user without a password", FORM);
    }
    let database = database(number.unwrap_or_default())?;
    Ok(RedisUrl { address, has_port: true, tls: false, database, user: query })
}

/// Reports percent signs that are none of an encoding, and what is no text when it is decoded.
fn encoded(text: &str) -> Result<(), Refusal> {
    let is_code = |rest: &str| rest.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
    if !text.split('%').skip(1).all(is_code) {
        return refused("has a \"%\" in its user or password that is no encoding", "write %25 for \"%\"");
    }
    match percent_decode_str(text).decode_utf8() {
        Ok(_) => Ok(()),
        Err(_not_utf8) => refused("has a user or password that is not UTF-8", "encode its bytes in UTF-8"),
    }
}

/// Where the password stands in the text of a URL that was read; empty where there is none.
pub(crate) fn password(text: &str) -> Range<usize> {
    let socket = text.split_once(':').is_some_and(|(scheme, _)| scheme.to_ascii_lowercase().ends_with("unix"));
    let found = if socket { password_of_socket(text) } else { password_of_host(text) };
    found.unwrap_or(text.len()..text.len())
}

/// The URL for `homing config show`, with `${HOMING_REDIS_PASSWORD}` in the place of its password. All URLs have the same.
pub(crate) fn without_password(url: &str) -> String {
    let password = password(url);
    let part = |text: Option<&str>| text.unwrap_or_default().replace("${", "$${");
    let (before, behind) = (part(url.get(..password.start)), part(url.get(password.end..)));
    let placeholder = if password.is_empty() { "" } else { "${HOMING_REDIS_PASSWORD}" };
    format!("{before}{placeholder}{behind}")
}

fn password_of_socket(text: &str) -> Option<Range<usize>> {
    const KEY: &str = "pass=";
    let query = text.find('?')?;
    let rest = text.get(query..)?;
    let at = [format!("?{KEY}"), format!("&{KEY}")].iter().find_map(|key| rest.find(key))?;
    let begin = query + at + 1 + KEY.len();
    let value = text.get(begin..)?;
    Some(begin..begin + value.find('&').unwrap_or(value.len()))
}

fn password_of_host(text: &str) -> Option<Range<usize>> {
    let begin = text.find("://")? + 3;
    let rest = text.get(begin..)?;
    let authority = rest.get(..rest.find(['/', '?', '#']).unwrap_or(rest.len()))?;
    let end = authority.rfind('@')?;
    let colon = authority.get(..end)?.find(':')?;
    Some(begin + colon + 1..begin + end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
    use proptest::prelude::*;

    fn message(text: &str) -> String {
        let (message, help) = read(text).map(|_| ()).unwrap_err();
        assert!(!message.contains("hunter2") && !help.contains("hunter2"), "{message} {help}");
        message.into_owned()
    }

    #[test]
    fn urls_are_read_in_all_their_forms() {
        for (text, address, tls, database, has_port) in [
            ("redis://10.0.0.1", "10.0.0.1:6379", false, 0, false),
            ("REDISS://Redis.Example.org:6380/3", "redis.example.org:6380", true, 3, true),
            ("redis://:hunter2@[fd00::1]:7000/", "[fd00::1]:7000", false, 0, true),
            ("redis://u:hunter2%2F@@localhost:1/0", "localhost:1", false, 0, true),
            ("unix:/run/redis.sock", "unix:/run/redis.sock", false, 0, true),
            ("redis+unix:///run/a%20b.sock?user=u&pass=hunter2&db=2", "unix:/run/a b.sock", false, 2, true),
        ] {
            let url = read(text).unwrap_or_else(|refusal| panic!("{text}: {refusal:?}"));
            let found = (url.address.to_string(), url.tls, url.database, url.has_port);
            assert_eq!(found, (address.to_owned(), tls, database, has_port), "{text}");
        }
    }

    #[test]
    fn a_slip_in_a_url_is_told_without_its_password() {
        for (text, words) in [
            ("10.0.0.1:6379", "has no scheme"),
            ("redis", "is not one of Redis"),
            ("http://x", "is not one of Redis"),
            ("valkey://x", "has the scheme valkey"),
            ("redis:x", "has no \"//\""),
            ("redis://", "has no host"),
            ("redis:///1", "has no host"),
            ("redis://:6379", "has no host"),
            ("redis://u:hunter2@:6379", "has no host"),
            ("redis://x:0", "has no valid port"),
            ("redis://x:65536", "has no valid port"),
            ("redis://x:port", "has no valid port"),
            ("redis://0.0.0.0:1", "leads to 0.0.0.0, which is no server"),
            ("redis://[::]:1", "leads to ::, which is no server"),
            ("redis://10.0.0.256", "names no host"),
            ("redis://-x-", "names no host"),
            ("redis://a,b:1", "names no host"),
            ("redis://[fd00", "cannot be read: invalid IPv6 address"),
            ("redis://u:hunter2/x@h", "has a \"/\", \"?\" or \"#\" before its \"@\""),
            ("redis://u:hunter2#x@h", "has a \"/\", \"?\" or \"#\" before its \"@\""),
            ("redis://hunter2@h", "has a user without a password"),
            ("redis://hunter2:@h", "has a user without a password"),
            ("redis://u:hunter2%@h", "has a \"%\" in its user or password that is no encoding"),
            ("redis://u:hunter2%4x@h", "has a \"%\" in its user or password that is no encoding"),
            ("redis://u:hunter2%ff@h", "has a user or password that is not UTF-8"),
            ("redis://u:hunter2 x@h", "holds a blank or an unprintable character"),
            ("redis://h/x", "has no valid number of a database"),
            ("redis://h/+1", "has no valid number of a database"),
            ("redis://h/1/2", "has no valid number of a database"),
            ("redis://h/99999999999", "has no valid number of a database"),
            ("redis://h/?protocol=resp3", "ends in a \"?\" that means nothing"),
            ("rediss://h/#insecure", "asks for TLS with any certificate, which protects from no attacker"),
            ("rediss://h/#x", "ends in a \"#\" that means nothing"),
            ("unix:run", "is not the path of a socket"),
            ("unix://run/x.sock", "is not the path of a socket"),
            ("unix:/run/x.sock?pas=hunter2", "has a key that is not known"),
            ("unix:/run/x.sock?pass=hunter2&pass=x", "has a key twice"),
            ("unix:/run/x.sock?user=u", "has a user without a password"),
            ("unix:/run/x.sock?pass=a+hunter2", "has a \"+\" behind its \"?\""),
        ] {
            assert_eq!(message(text), words, "{text}");
        }
    }

    #[test]
    fn the_password_is_found_where_it_stands() {
        for (text, expected) in [
            ("redis://u:hunter2@h:1/2", "hunter2"),
            ("redis://:a:b@c@h", "a:b@c"),
            ("redis://h:1", ""),
            ("unix:/run/pass=x?user=pass=u&pass=hunter2&db=1", "hunter2"),
            ("redis+unix:///run/x?pass=hunter2", "hunter2"),
            ("unix:/run/x", ""),
        ] {
            assert_eq!(text.get(password(text)), Some(expected), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(redis|rediss|unix|valkey)?(:|://|:///)?[a-z0-9:@/?#%&=+\\[\\].é -]{0,40}") {
            let _ = read(&text).is_ok();
            let range = password(&text);
            prop_assert!(text.get(range).is_some());
        }

        /// What is taken is whole: nothing of a password is left when it is cut out where it stands.
        #[test]
        fn any_password_is_cut_out_whole(bytes in proptest::collection::vec(any::<u8>(), 1..20), host in "[a-z]{1,9}") {
            let secret: String = percent_encode(&bytes, NON_ALPHANUMERIC).to_string();
            let is_text = String::from_utf8(bytes).is_ok();
            for text in [format!("redis://u:{secret}@{host}:1/2"), format!("unix:/run/{host}?db=1&pass={secret}")] {
                prop_assert_eq!(read(&text).is_ok(), is_text);
                prop_assert_eq!(text.get(password(&text)), Some(secret.as_str()));
            }
        }
    }
}
