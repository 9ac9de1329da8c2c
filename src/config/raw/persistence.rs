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
    /// Where sessions are named, tried in this order: the first that names a live session decides.
    #[schemars(length(min = 1))]
    pub sources: Vec<SourceSettings>,
    /// What a client with no session is given, by the source of the same name. Absent and without the source `cookie`:
    /// nothing. A client that is known by its address only is given it too.
    pub issue: Issue,
    /// A session ends when its client stays away this long. A request in flight is use: an open WebSocket or stream keeps
    /// its session alive. At most `absolute_timeout`.
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "3650d"))]
    #[serde(with = "DurationText")]
    pub idle_timeout: Duration,
    /// A session ends this long after its start, whatever its client does. With `lifetime: permanent` at most 400d,
    /// the longest that browsers keep a cookie.
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "3650d"))]
    #[serde(with = "DurationText")]
    pub absolute_timeout: Duration,
    /// What to do when the server of a session cannot serve.
    pub on_server_down: OnServerDown,
    /// Wait this long for the server to come back before doing so.
    #[schemars(extend("x-maximum" = "5m"))]
    #[serde(with = "DurationText")]
    pub hold: Duration,
    /// Status of a refusal. 404 for clients that start anew on it.
    #[schemars(range(min = 400, max = 599))]
    pub refuse_status: u16,
    /// What to do with the sessions of a server in drain.
    pub on_server_drain: OnServerDrain,
    /// What becomes of a `Set-Cookie` in the response of a server that serves a session only for now (`on_server_down:
    /// borrow`), when its name is one that the client already sends.
    pub guest_cookies: GuestCookies,
    /// What to do with a token that does not open.
    pub on_forged: OnForged,
    /// How parallel first requests of one client, which carry nothing yet, land on one server.
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
    /// Whether servers may hand over data. It is kept in the memory of this process, and a restart forgets it.
    pub enabled: bool,
    /// A server sets it on an answer below 500; it is taken off, kept, and given to the session's next server in a request
    /// header of the same name. Empty = there is nothing to keep any more.
    pub header: String,
    /// Most data of one session. More is refused with a warning, and what was there stays.
    #[schemars(extend("x-minimum" = "1B", "x-maximum" = "64KiB"))]
    pub max_size: Size,
}

impl Default for Handoff {
    fn default() -> Self {
        Self { enabled: false, header: "Homing-Session-Data".to_owned(), max_size: Size(4 * 1024) }
    }
}

/// What a client with no session is given.
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
    /// Answer with `refuse_status`.
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
    /// Answer with 400.
    Refuse,
}

/// What becomes of cookies that a guest server sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum GuestCookies {
    /// They are held back, so that the client returns to its own server with its cookies as they were.
    Protect,
    /// They reach the client, and replace those of its own server.
    Pass,
}

/// How parallel first requests of one client land on one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum NewSessionHint {
    /// They do not: each is a new client.
    None,
    /// New clients of one address go to one server for ten seconds.
    ClientIp,
}
