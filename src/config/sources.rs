//! Sources: where a session is named.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use super::address;
use super::check_context::NodeRef;
use super::cookie::Cookie;
use super::diagnostics::Diagnostics;
use super::suggest;

/// What a source says of itself in the file: the type of its settings, with their defaults.
pub(crate) trait SourceSettings: Sized {
    /// A pool may have several that differ.
    const REPEATABLE: bool = false;
    /// What it reads is the token.
    const READS_TOKEN: bool = false;
    /// What it reads is of one client only.
    const IDENTIFIES_CLIENT: bool = true;

    /// Checks what the schema cannot say. Returns the settings as they are used.
    fn check(&self, at: NodeRef<'_>, diagnostics: &mut Diagnostics) -> Self;

    /// Where it reads, in a pool with this cookie.
    fn carriers<'a>(&'a self, _cookie: &'a Cookie) -> Carriers<'a> {
        Carriers::default()
    }
}

/// Where in a request a source reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Carriers<'a> {
    pub(crate) cookie: Option<&'a str>,
    pub(crate) header: Option<&'a str>,
    /// Query parameter, and the path parameter of the same name.
    pub(crate) query: Option<&'a str>,
}

/// The list of sources: the key of each in the file, and its settings.
macro_rules! sources {
    ($($key:literal => $variant:ident($settings:ty),)*) => {
        /// Where a session is named: exactly one key.
        #[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
        pub enum Source {$(
            #[doc = concat!("`", $key, "`.")]
            #[serde(rename = $key)]
            $variant($settings),
        )*}

        impl Source {
            /// Its key in the file.
            pub const fn key(&self) -> &'static str {
                match self {$(Self::$variant(_) => $key,)*}
            }

            /// Whether a pool may have several.
            pub(crate) const fn is_repeatable(&self) -> bool {
                match self {$(Self::$variant(_) => <$settings>::REPEATABLE,)*}
            }

            /// Checks its settings. Returns them as they are used.
            pub(crate) fn check(&self, at: NodeRef<'_>, diagnostics: &mut Diagnostics) -> Self {
                match self {$(Self::$variant(one) => Self::$variant(one.check(at.key($key), diagnostics)),)*}
            }

            /// Whether what it reads is the token.
            pub(crate) const fn reads_token(&self) -> bool {
                match self {$(Self::$variant(_) => <$settings>::READS_TOKEN,)*}
            }

            /// Where it reads, in a pool with this cookie.
            pub(crate) fn carriers<'a>(&'a self, cookie: &'a Cookie) -> Carriers<'a> {
                match self {$(Self::$variant(one) => one.carriers(cookie),)*}
            }

            /// Whether what it reads is of one client only.
            pub(crate) const fn identifies_client(&self) -> bool {
                match self {$(Self::$variant(_) => <$settings>::IDENTIFIES_CLIENT,)*}
            }
        }

        /// A mapping of one key: YAML would have a tag for a variant.
        impl Serialize for Source {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut map = serializer.serialize_map(Some(1))?;
                match self {$(Self::$variant(one) => map.serialize_entry($key, one)?,)*}
                map.end()
            }
        }

        impl JsonSchema for Source {
            fn schema_name() -> Cow<'static, str> {
                "Source".into()
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                let mut properties = serde_json::Map::new();
                $(properties.insert($key.to_owned(), <$settings>::json_schema(generator).to_value());)*
                json_schema!({
                    "description": "Where a session is named: exactly one key.",
                    "type": "object",
                    "properties": properties,
                    "additionalProperties": false,
                    "minProperties": 1,
                    "maxProperties": 1,
                })
            }
        }
    };
}

sources! {
    "cookie" => Cookie(TokenCookie),
    "query" => Query(Query),
    "header" => Header(Header),
    "learn" => Learn(Learn),
    "route" => Route(JvmRoute),
    "client_ip" => ClientIp(ClientIp),
}

/// The sealed token in the pool's cookie.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{}]))]
pub struct TokenCookie {}

impl SourceSettings for TokenCookie {
    const READS_TOKEN: bool = true;

    fn check(&self, _at: NodeRef<'_>, _diagnostics: &mut Diagnostics) -> Self {
        *self
    }

    fn carriers<'a>(&'a self, cookie: &'a Cookie) -> Carriers<'a> {
        Carriers { cookie: Some(&cookie.name), ..Carriers::default() }
    }
}

/// The sealed token in the URL, for clients that keep no cookies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Query {
    /// Name of the query parameter. The path parameter of the same name (`/cart;sessionId=…`) counts too.
    pub name: String,
    /// Puts the token into `Location` and into links, frames and forms of HTML answers that lead to this site.
    pub rewrite_links: bool,
}

impl Default for Query {
    fn default() -> Self {
        Self { name: "sessionId".to_owned(), rewrite_links: false }
    }
}

impl SourceSettings for Query {
    const READS_TOKEN: bool = true;

    fn check(&self, at: NodeRef<'_>, diagnostics: &mut Diagnostics) -> Self {
        check_parameter(&self.name, at.key("name"), diagnostics);
        self.clone()
    }

    fn carriers<'a>(&'a self, _cookie: &'a Cookie) -> Carriers<'a> {
        Carriers { query: Some(&self.name), ..Carriers::default() }
    }
}

/// The sealed token in a request header. With `issue: header` it is given in a response header of the same name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Name of the header.
    #[schemars(extend("examples" = ["X-Session"]))]
    pub name: String,
}

impl SourceSettings for Header {
    const READS_TOKEN: bool = true;

    fn check(&self, at: NodeRef<'_>, diagnostics: &mut Diagnostics) -> Self {
        Self { name: check_header(&self.name, at.key("name"), diagnostics) }
    }

    fn carriers<'a>(&'a self, _cookie: &'a Cookie) -> Carriers<'a> {
        Carriers { header: Some(&self.name), ..Carriers::default() }
    }
}

/// The application's own session id: learned when a server hands it out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Learn {
    /// Learned from the application's `Set-Cookie` of this name, looked up in the cookie.
    #[schemars(extend("examples" = ["JSESSIONID"]))]
    pub cookie: Option<String>,
    /// Learned from this response header, looked up in the request header of the same name.
    #[schemars(extend("examples" = ["Mcp-Session-Id"]))]
    pub header: Option<String>,
    /// Looked up in this query parameter too, and in the path parameter of the same name.
    #[schemars(extend("examples" = ["sid"]))]
    pub query: Option<String>,
    /// Request methods that end the session, when the server answers them with 2xx, 404 or 410.
    #[schemars(extend("examples" = [["DELETE"]], "uniqueItems" = true))]
    pub ends_on: Vec<String>,
}

impl SourceSettings for Learn {
    const REPEATABLE: bool = true;

    fn check(&self, at: NodeRef<'_>, diagnostics: &mut Diagnostics) -> Self {
        if self.cookie.is_none() && self.header.is_none() {
            diagnostics.problem(
                at.location,
                "nothing can be learned here: the application's id comes in a cookie or in a header",
                "add cookie: NAME or header: NAME, as the application sends it; query only says where else to look",
            );
        }
        if let Some(cookie) = &self.cookie {
            check_cookie(cookie, at.key("cookie"), diagnostics);
        }
        if let Some(query) = &self.query {
            check_parameter(query, at.key("query"), diagnostics);
        }
        for (index, method) in self.ends_on.iter().enumerate() {
            if !address::is_token(method) || method.bytes().any(|byte| byte.is_ascii_lowercase()) {
                let message = format!("{} is not a request method", suggest::quoted(method));
                let at = at.key("ends_on").item(index);
                diagnostics.problem(at.location, message, "write it in capitals, like DELETE");
            }
        }
        let header = self.header.as_ref().map(|header| check_header(header, at.key("header"), diagnostics));
        Self { header, ..self.clone() }
    }

    fn carriers<'a>(&'a self, _cookie: &'a Cookie) -> Carriers<'a> {
        Carriers { cookie: self.cookie.as_deref(), header: self.header.as_deref(), query: self.query.as_deref() }
    }
}

/// The server's route id inside the application's own session id, like `app1` in `JSESSIONID=0AB3.app1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct JvmRoute {
    /// The cookie that carries the id.
    #[schemars(extend("examples" = ["JSESSIONID"]))]
    pub cookie: Option<String>,
    /// The query parameter that carries it, and the path parameter of the same name.
    #[schemars(extend("examples" = ["jsessionid"]))]
    pub query: Option<String>,
    /// The text between the id and the route id.
    #[schemars(length(min = 1))]
    pub separator: String,
}

impl Default for JvmRoute {
    fn default() -> Self {
        Self { cookie: None, query: None, separator: ".".to_owned() }
    }
}

impl SourceSettings for JvmRoute {
    fn check(&self, at: NodeRef<'_>, diagnostics: &mut Diagnostics) -> Self {
        if self.cookie.is_none() && self.query.is_none() {
            diagnostics.problem(
                at.location,
                "this source does not say where the application's id stands",
                "add cookie: NAME or query: NAME",
            );
        }
        if let Some(cookie) = &self.cookie {
            check_cookie(cookie, at.key("cookie"), diagnostics);
        }
        if let Some(query) = &self.query {
            check_parameter(query, at.key("query"), diagnostics);
        }
        if !address::is_header_text(&self.separator) {
            let message = format!("{} is no separator", suggest::quoted(&self.separator));
            let help = "write visible characters, like \".\" or \"!\"";
            diagnostics.problem(at.key("separator").location, message, help);
        }
        self.clone()
    }

    fn carriers<'a>(&'a self, _cookie: &'a Cookie) -> Carriers<'a> {
        Carriers { cookie: self.cookie.as_deref(), header: None, query: self.query.as_deref() }
    }
}

/// The client's address, as far as `trusted_proxies` tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClientIp {
    /// Bits of an IPv4 address that count.
    #[schemars(range(min = 1, max = 32))]
    pub ipv4_prefix: u8,
    /// Bits of an IPv6 address that count. Providers give a /64 or more to each customer.
    #[schemars(range(min = 1, max = 128))]
    pub ipv6_prefix: u8,
}

impl Default for ClientIp {
    fn default() -> Self {
        Self { ipv4_prefix: 32, ipv6_prefix: 64 }
    }
}

impl SourceSettings for ClientIp {
    const IDENTIFIES_CLIENT: bool = false;

    fn check(&self, _at: NodeRef<'_>, _diagnostics: &mut Diagnostics) -> Self {
        *self
    }
}

/// Headers that say something else, whatever they are sent for.
pub(crate) const RESERVED_HEADERS: &[&str] = &[
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "forwarded",
    "host",
    "homing-session-data",
    "homing-session-moved",
    "keep-alive",
    "proxy-connection",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
];

/// Reports what is no name of a cookie.
pub(crate) fn check_cookie(name: &str, at: NodeRef<'_>, diagnostics: &mut Diagnostics) {
    if !address::is_token(name) || name.len() > 128 {
        let message = format!("{} is no name for a cookie", suggest::quoted(name));
        diagnostics.problem(at.location, message, "use letters, digits and !#$%&'*+-.^_`|~, at most 128");
    }
}

/// Reports what is no name of a query parameter.
pub(crate) fn check_parameter(name: &str, at: NodeRef<'_>, diagnostics: &mut Diagnostics) {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    if name.is_empty() || name.len() > 128 || !name.bytes().all(fits) {
        let message = format!("{} is no name for a query parameter", suggest::quoted(name));
        diagnostics.problem(at.location, message, "use letters, digits, \"-\", \".\", \"_\" and \"~\", at most 128");
    }
}

/// Reports what is no name of a header of its own. Returns it in lower case.
pub(crate) fn check_header(name: &str, at: NodeRef<'_>, diagnostics: &mut Diagnostics) -> String {
    let lower = name.to_lowercase();
    if !address::is_token(name) || name.len() > 128 {
        let message = format!("{} is no name for a header", suggest::quoted(name));
        diagnostics.problem(at.location, message, "use letters, digits and \"-\", like X-Session");
    } else if RESERVED_HEADERS.contains(&lower.as_str()) {
        let message = format!("header {} cannot name a session: it has a meaning of its own", suggest::quoted(name));
        diagnostics.problem(at.location, message, "use a header of its own, like X-Session");
    }
    lower
}
