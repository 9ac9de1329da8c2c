//! The raw configuration of sources: where a session is named.

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

/// Where a session is named: exactly one key.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub(crate) struct Source {
    /// The sealed token in the pool's cookie.
    #[schemars(with = "TokenCookie", extend("examples" = [{}]))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cookie: Option<TokenCookie>,
    /// The sealed token in the URL, for clients that keep no cookies.
    #[schemars(with = "Query")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) query: Option<Query>,
    /// The sealed token in a request header. With `issue: header` it is given in a response header of the same name.
    #[schemars(with = "Header")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) header: Option<Header>,
    /// The application's own session id: learned when a server hands it out.
    #[schemars(with = "Learn")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) learn: Option<Learn>,
    /// The server's mark inside the application's own session id, like `app1` in `JSESSIONID=0AB3.app1`.
    #[schemars(with = "RouteMark")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) route: Option<RouteMark>,
    /// The client's address, as far as `trusted_proxies` tell it.
    #[schemars(with = "ClientIp")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client_ip: Option<ClientIp>,
}

/// The sealed token in the pool's cookie: nothing to set here, see `cookie` below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub(crate) struct TokenCookie {}

/// The sealed token in the URL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(inline)]
pub(crate) struct Query {
    /// Name of the query parameter. The path parameter of the same name (`/cart;sessionId=…`) counts too.
    pub(crate) name: String,
    /// Puts the token into `Location` and into links, frames and forms of HTML answers that lead to this site.
    pub(crate) rewrite_links: bool,
}

impl Default for Query {
    fn default() -> Self {
        Self { name: "sessionId".to_owned(), rewrite_links: false }
    }
}

/// The sealed token in a header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub(crate) struct Header {
    /// Name of the header.
    #[schemars(extend("examples" = ["X-Session"]))]
    pub(crate) name: String,
}

/// The application's own session id. It needs `cookie` or `header`, since it is learned from one of them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(inline)]
pub(crate) struct Learn {
    /// Learned from the application's `Set-Cookie` of this name, looked up in the cookie.
    #[schemars(extend("examples" = ["JSESSIONID"]))]
    pub(crate) cookie: Option<String>,
    /// Learned from this response header, looked up in the request header of the same name.
    #[schemars(extend("examples" = ["Mcp-Session-Id"]))]
    pub(crate) header: Option<String>,
    /// Looked up in this query parameter too, and in the path parameter of the same name.
    #[schemars(extend("examples" = ["sid"]))]
    pub(crate) query: Option<String>,
    /// Request methods that end the session, when the server answers them with 2xx, 404 or 410.
    #[schemars(extend("examples" = [["DELETE"]], "uniqueItems" = true))]
    pub(crate) ends_on: Vec<String>,
}

/// The server's mark inside the application's own session id. It needs `cookie` or `query`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(inline)]
pub(crate) struct RouteMark {
    /// The cookie that carries the id.
    #[schemars(extend("examples" = ["JSESSIONID"]))]
    pub(crate) cookie: Option<String>,
    /// The query parameter that carries it, and the path parameter of the same name.
    #[schemars(extend("examples" = ["jsessionid"]))]
    pub(crate) query: Option<String>,
    /// What stands between the id and the mark.
    #[schemars(length(min = 1))]
    pub(crate) separator: String,
}

impl Default for RouteMark {
    fn default() -> Self {
        Self { cookie: None, query: None, separator: ".".to_owned() }
    }
}

/// The client's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(inline)]
pub(crate) struct ClientIp {
    /// Bits of an IPv4 address that count.
    #[schemars(range(min = 1, max = 32))]
    pub(crate) ipv4_prefix: u8,
    /// Bits of an IPv6 address that count. Providers give a /64 or more to each customer.
    #[schemars(range(min = 1, max = 128))]
    pub(crate) ipv6_prefix: u8,
}

impl Default for ClientIp {
    fn default() -> Self {
        Self { ipv4_prefix: 32, ipv6_prefix: 64 }
    }
}
