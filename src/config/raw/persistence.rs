//! The raw configuration of persistence: how sessions stay on their servers.

use schemars::JsonSchema;
use schemars::json_schema;
use serde::Deserialize;
use serde::Serialize;

use super::super::units::{Size, Span};
use super::source::{Source, TokenCookie};

/// How the sessions of a pool stay on their servers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Persistence {
    /// Where sessions are named, tried in this order: the first that names a live session decides.
    #[schemars(length(min = 1))]
    pub(crate) sources: Vec<Source>,
    /// What a client with no session is given, by the source of the same name. Absent and without the source `cookie`:
    /// nothing. A client that is known by its address only is given it too.
    pub(crate) issue: Issue,
    /// A session ends when its client stays away this long. At most `absolute_timeout`.
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "3650d"))]
    pub(crate) idle_timeout: Span,
    /// A session ends this long after its start, whatever its client does. With `lifetime: permanent` at most 400d,
    /// the longest that browsers keep a cookie.
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "3650d"))]
    pub(crate) absolute_timeout: Span,
    /// What to do when the server of a session cannot serve.
    pub(crate) on_server_down: OnServerDown,
    /// Wait this long for the server to come back before doing so.
    #[schemars(extend("x-maximum" = "5m"))]
    pub(crate) hold: Span,
    /// Status of a refusal. 404 for clients that start anew on it.
    #[schemars(range(min = 400, max = 599))]
    pub(crate) refuse_status: u16,
    /// What to do with the sessions of a server in drain.
    pub(crate) on_server_drain: OnServerDrain,
    /// What to do with a token that does not open.
    pub(crate) on_forged: OnForged,
    /// How parallel first requests of one client, which carry nothing yet, land on one server.
    pub(crate) new_session_hint: NewSessionHint,
    /// The cookie that carries the token.
    pub(crate) cookie: Cookie,
    /// Session data that follows a session to its next server.
    pub(crate) handoff: Handoff,
}

impl Default for Persistence {
    fn default() -> Self {
        Self {
            sources: vec![Source { cookie: Some(TokenCookie {}), ..Source::default() }],
            issue: Issue::Cookie,
            idle_timeout: Span::seconds(30 * 60),
            absolute_timeout: Span::seconds(24 * 3600),
            on_server_down: OnServerDown::Reassign,
            hold: Span::seconds(0),
            refuse_status: 503,
            on_server_drain: OnServerDrain::Keep,
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
pub(crate) struct Handoff {
    /// Whether servers may hand over data. It is kept in the memory of this process, and a restart forgets it.
    pub(crate) enabled: bool,
    /// A server sets it on an answer below 500; it is taken off, kept, and given to the session's next server in a request
    /// header of the same name. Empty = there is nothing to keep any more.
    pub(crate) header: String,
    /// Most data of one session. More is refused with a warning, and what was there stays.
    #[schemars(extend("x-minimum" = "1B", "x-maximum" = "64KiB"))]
    pub(crate) max_size: Size,
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
pub(crate) enum Issue {
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
pub(crate) enum OnServerDown {
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
pub(crate) enum OnServerDrain {
    /// They stay until they end.
    Keep,
    /// They move with their next request.
    Reassign,
}

/// What to do with a token that does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(crate) enum OnForged {
    /// The client is new.
    Ignore,
    /// Answer with 400.
    Refuse,
}

/// How parallel first requests of one client land on one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(crate) enum NewSessionHint {
    /// They do not: each is a new client.
    None,
    /// New clients of one address go to one server for ten seconds.
    ClientIp,
}

/// The cookie that carries the token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Cookie {
    /// Name: letters, digits and ``!#$%&'*+-.^_`|~``. `__Host-` needs `path: /`, no domain and not `secure: false`;
    /// `__Secure-` needs not `secure: false`.
    #[schemars(extend("examples" = ["__Host-session"]))]
    pub(crate) name: String,
    /// Whose cookie it is. In the modes prefix and rewrite, `path` and the like must be those that the application sets.
    pub(crate) mode: CookieMode,
    /// `Path`, beginning with `/`.
    pub(crate) path: String,
    /// `Domain`. null = the host of the request only.
    #[schemars(extend("examples" = ["example.org"]))]
    pub(crate) domain: Option<String>,
    /// `Secure`. auto = as the client came, here or at a trusted proxy before us. `same_site: none`, `partitioned: true`
    /// and the names `__Host-…` and `__Secure-…` turn auto into true, because browsers would drop the cookie.
    pub(crate) secure: Secure,
    /// `HttpOnly`: scripts cannot read the cookie.
    pub(crate) http_only: bool,
    /// `SameSite`.
    pub(crate) same_site: SameSite,
    /// `Partitioned`: one cookie for each site that embeds this one.
    pub(crate) partitioned: bool,
    /// How long browsers keep it.
    pub(crate) lifetime: Lifetime,
    /// The application never sees the cookie.
    pub(crate) hide_from_server: bool,
    /// `Cache-Control` added to answers that set the cookie, so that no shared cache keeps it. null = leave alone.
    pub(crate) cache_control: Option<String>,
}

impl Default for Cookie {
    fn default() -> Self {
        Self {
            name: "SESSIONID".to_owned(),
            mode: CookieMode::Insert,
            path: "/".to_owned(),
            domain: None,
            secure: Secure::Auto,
            http_only: true,
            same_site: SameSite::Lax,
            partitioned: false,
            lifetime: Lifetime::Session,
            hide_from_server: true,
            cache_control: Some("private".to_owned()),
        }
    }
}

/// Whose cookie carries the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(crate) enum CookieMode {
    /// One of its own, beside the application's cookies.
    Insert,
    /// The application's own: the token stands before its value, and is taken off before the application sees it.
    Prefix,
    /// The application's own: the token stands in place of its value.
    Rewrite,
}

/// When the cookie is `Secure`: `true`, `false` or `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Secure {
    /// Always or never.
    Fixed(bool),
    /// As the client came.
    #[serde(with = "auto")]
    Auto,
}

/// The word `auto` for a unit variant among booleans.
mod auto {
    use serde::Deserialize;
    use serde::Deserializer;
    use serde::Serializer;
    use serde::de::Error;

    pub(super) fn serialize<S: Serializer>(serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("auto")
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "auto" => Ok(()),
            _ => Err(D::Error::custom("not auto")),
        }
    }
}

impl JsonSchema for Secure {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Secure".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        json_schema!({ "enum": [true, false, "auto"] })
    }
}

/// `SameSite`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(crate) enum SameSite {
    /// Sent with requests from this site only.
    Strict,
    /// Sent with top-level navigation from other sites too.
    Lax,
    /// Sent always; needs `Secure`.
    None,
}

/// How long browsers keep the cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(crate) enum Lifetime {
    /// Until the browser closes.
    Session,
    /// `Max-Age` and `Expires` of `absolute_timeout`.
    Permanent,
}
