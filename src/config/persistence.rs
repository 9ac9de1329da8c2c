//! The checked configuration of persistence: how sessions are named, how long they live, what happens to them.

use std::time::Duration;

/// How the sessions of a pool stay on their servers.
#[derive(Debug, Clone, PartialEq)]
pub struct Persistence {
    /// Where sessions are named, in order of trial.
    pub sources: Vec<Source>,
    /// What a client with no session is given.
    pub issue: Issue,
    /// A session ends when its client stays away this long.
    pub idle_timeout: Duration,
    /// A session ends this long after its start.
    pub absolute_timeout: Duration,
    /// What to do when the bound server cannot serve.
    pub on_server_down: OnServerDown,
    /// Wait this long for the bound server to come back before doing so.
    pub hold: Duration,
    /// Status of a refusal, 400 to 599.
    pub refuse_status: u16,
    /// What to do with sessions of a draining server.
    pub on_server_drain: OnServerDrain,
    /// What to do with a token that does not open.
    pub on_forged: OnForged,
    /// How parallel first requests of one client land on one server.
    pub new_session_hint: NewSessionHint,
    /// The cookie that carries the token.
    pub cookie: Cookie,
    /// Session data that follows a session to its next server.
    pub handoff: Handoff,
}

/// Where a session is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The sealed token in the pool's cookie.
    Cookie,
    /// The sealed token in the URL.
    Query {
        /// The parameter's name.
        name: String,
        /// The token is put into `Location` and into links of HTML answers.
        rewrite_links: bool,
    },
    /// The sealed token in a request header.
    Header {
        /// Lower case.
        name: String,
    },
    /// The application's own id.
    Learn(Learn),
    /// The server's mark inside the application's own id.
    Route(RouteMark),
    /// The client's address.
    ClientIp {
        /// Bits of an IPv4 address that count, 1 to 32.
        ipv4_prefix: u8,
        /// Bits of an IPv6 address that count, 1 to 128.
        ipv6_prefix: u8,
    },
}

/// The application's own id: where it stands. At least one of `cookie` and `header` is there, since it is learned from
/// them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Learn {
    /// Learned from the application's `Set-Cookie` of this name, looked up in the cookie.
    pub cookie: Option<String>,
    /// Learned from this response header, looked up in the request header of the same name. Lower case.
    pub header: Option<String>,
    /// Looked up in this query parameter, and path parameter.
    pub query: Option<String>,
    /// Request methods that end the session when the server grants them. Upper case.
    pub ends_on: Vec<String>,
}

/// A server's mark inside the application's own id. At least one of `cookie` and `query` is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteMark {
    /// The cookie that carries the id.
    pub cookie: Option<String>,
    /// The query parameter, and path parameter, that carries it.
    pub query: Option<String>,
    /// What stands between the id and the mark. Not empty.
    pub separator: String,
}

/// Session data that follows a session to its next server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handoff {
    /// Servers may hand over data.
    pub enabled: bool,
    /// In the case in which it was written; the name of a header.
    pub header: String,
    /// Most data of one session, in bytes; at least one.
    pub max_size: usize,
}

/// What a client with no session is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Issue {
    /// A sealed token in a cookie.
    Cookie,
    /// A sealed token in links and redirects.
    Query,
    /// A sealed token in a response header.
    Header,
    /// Nothing.
    None,
}

/// How parallel first requests of one client land on one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewSessionHint {
    /// They do not.
    None,
    /// By their address, for a few seconds.
    ClientIp,
}

/// What to do when the bound server cannot serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnServerDown {
    /// Move the session for good.
    Reassign,
    /// Serve it elsewhere until its server is back.
    Borrow,
    /// Answer with `refuse_status`.
    Refuse,
}

/// What to do with sessions of a draining server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnServerDrain {
    /// They stay.
    Keep,
    /// They move.
    Reassign,
}

/// What to do with a token that does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnForged {
    /// A new client.
    Ignore,
    /// 400.
    Refuse,
}

/// The cookie that carries the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cookie {
    /// Name, an RFC 6265 token.
    pub name: String,
    /// Whose cookie it is.
    pub mode: CookieMode,
    /// `Path`.
    pub path: String,
    /// `Domain`.
    pub domain: Option<String>,
    /// `Secure`.
    pub secure: Secure,
    /// `HttpOnly`.
    pub http_only: bool,
    /// `SameSite`.
    pub same_site: SameSite,
    /// `Partitioned`.
    pub partitioned: bool,
    /// Kept when the browser closes: `Max-Age` and `Expires` of the absolute timeout.
    pub permanent: bool,
    /// The application never sees it.
    pub hide_from_server: bool,
    /// `Cache-Control` added to answers that set the cookie; `None` = leave alone.
    pub cache_control: Option<String>,
}

/// Whose cookie carries the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CookieMode {
    /// One of our own, beside the application's.
    Insert,
    /// The application's: the token stands before its value, and is taken off before the application sees it.
    Prefix,
    /// The application's: the token stands in place of its value.
    Rewrite,
}

/// When the cookie is `Secure`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secure {
    /// Always.
    Always,
    /// Never.
    Never,
    /// When the client came by TLS (here, or at a trusted proxy before us).
    Auto,
}

/// `SameSite`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words of RFC 6265bis")]
pub enum SameSite {
    Strict,
    Lax,
    None,
}
