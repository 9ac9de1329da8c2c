//! The raw configuration of persistence: how sessions stay on their servers.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use crate::config::cookie::Cookie;
use crate::config::units::{DurationText, Size};
use crate::session::source::SourceSettings;
use crate::session::source::cookie::CookieSettings;

/// How the sessions of a pool stay on their servers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Persistence {
    /// What identifies a session, in this order: the first source with a live session decides.
    #[schemars(length(min = 1))]
    pub sources: Vec<SourceSettings>,
    /// What a client without a session gets, by the source of the same name. Default without the source `cookie`: nothing.
    /// A client that is identified only by its address gets it too.
    pub issue: Issue,
    /// A session ends when it is unused for this long. A request in flight is use: an open WebSocket or stream keeps its
    /// session alive. At most `absolute_timeout`, which shortens the default.
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "3650d"))]
    #[serde(with = "DurationText")]
    pub idle_timeout: Duration,
    /// A session ends this long after its start, even if it is in use. With `lifetime: permanent` at most 400d,
    /// the longest that browsers keep a cookie.
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "3650d"))]
    #[serde(with = "DurationText")]
    pub absolute_timeout: Duration,
    /// What to do when the server of a session cannot serve.
    pub on_server_down: OnServerDown,
    /// Time to wait for the server to come back before that.
    #[schemars(extend("x-maximum" = "5m"))]
    #[serde(with = "DurationText")]
    pub hold: Duration,
    /// Status of a refusal. 404 for clients that begin a new session on it.
    #[schemars(range(min = 400, max = 599))]
    pub refuse_status: u16,
    /// What to do with the sessions of a server in drain.
    pub on_server_drain: OnServerDrain,
    /// What to do with a `Set-Cookie` from a server that serves a session temporarily (`on_server_down: borrow`), if the
    /// client already sends a cookie with its name.
    pub guest_cookies: GuestCookies,
    /// What to do with a token that does not open.
    pub on_forged: OnForged,
    /// What a session belongs to besides its token or id: `client_certificate` (of a listener with `client_ca`), `user` (of
    /// `Authorization: Basic`) or `header:NAME`, which a proxy in front sets. Under another certificate or user, and without
    /// any, it is not honoured, and its client is new. null = to nothing.
    #[schemars(extend("examples" = ["client_certificate", "user", "header:X-Remote-User"]))]
    pub bind_to: Option<String>,
    /// How parallel first requests of one client, which have no session yet, get one server.
    pub new_session_hint: NewSessionHint,
    /// The cookie that carries the token.
    pub cookie: Cookie,
    /// Session data that follows a session to its next server.
    pub handoff: Handoff,
}

impl Default for Persistence {
    fn default() -> Self {
        Self {
            sources: vec![SourceSettings::Cookie(CookieSettings {})],
            issue: Issue::Cookie,
            idle_timeout: Duration::from_secs(30 * 60),
            absolute_timeout: Duration::from_secs(24 * 3600),
            on_server_down: OnServerDown::Reassign,
            hold: Duration::from_secs(0),
            refuse_status: 503,
            on_server_drain: OnServerDrain::Keep,
            guest_cookies: GuestCookies::Protect,
            on_forged: OnForged::Ignore,
            bind_to: None,
            new_session_hint: NewSessionHint::None,
            cookie: Cookie::default(),
            handoff: Handoff::default(),
        }
    }
}

/// Session data that follows a session to its next server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Handoff {
    /// Whether servers may hand over data. It is kept in the memory of this process and lost at a restart.
    pub enabled: bool,
    /// A server sets it in a response below 500; the proxy removes it, stores the value, and sends it to the session's next
    /// server in a request header of the same name. Empty = the data is deleted.
    pub header: String,
    /// Limit of one session's data. Larger data is refused with a warning, and the former data stays.
    #[schemars(extend("x-minimum" = "1B", "x-maximum" = "64KiB"))]
    pub max_size: Size,
}

impl Default for Handoff {
    fn default() -> Self {
        Self { enabled: false, header: "Homing-Session-Data".to_owned(), max_size: Size(4 * 1024) }
    }
}

/// What a client without a session gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Issue {
    /// A sealed token in a cookie.
    Cookie,
    /// A sealed token in redirects and links, by the source `query` with `rewrite_links: true`.
    Query,
    /// A sealed token in a response header, named by the source `header`.
    Header,
    /// Nothing.
    None,
}

/// What to do when the server of a session cannot serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum OnServerDown {
    /// Move the session to another server, for good.
    Reassign,
    /// Serve it elsewhere until its server is back.
    Borrow,
    /// Respond with `refuse_status`.
    Refuse,
}

/// What to do with the sessions of a server in drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum OnServerDrain {
    /// They stay until they end.
    Keep,
    /// They move with their next request.
    Reassign,
}

/// What to do with a token that does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum OnForged {
    /// The client is new.
    Ignore,
    /// Respond with 400.
    Refuse,
}

/// What to do with cookies that a guest server sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum GuestCookies {
    /// They are held back, so that the client returns to its own server with its cookies as they were.
    Protect,
    /// They reach the client and replace those of its own server.
    Pass,
}

/// How parallel first requests of one client get one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum NewSessionHint {
    /// They do not: each is a new client.
    None,
    /// New clients of one address go to one server for ten seconds.
    ClientIp,
}
