//! The raw configuration of routes.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;
use strum::IntoStaticStr;

/// Where requests go: exactly one of `pool`, `split` and `redirect`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-shorthand" = "pool"))]
pub(crate) struct Route {
    /// Its name in logs and metrics: letters, digits, `_`, `.`, `-`, at most 64. Unique.
    #[schemars(extend("examples" = ["shop"], "x-stand-in" = "-"))]
    pub(crate) name: String,
    /// Which requests. Absent: all.
    #[serde(default)]
    pub(crate) r#match: Match,
    /// The pool that serves them.
    #[serde(default)]
    #[schemars(extend("examples" = ["shop"]))]
    pub(crate) pool: Option<String>,
    /// Several pools with weights: versions of one application. New sessions are spread by weight, and a session keeps
    /// its version.
    #[serde(default)]
    #[schemars(extend("minItems" = 1, "examples" = [[{"pool": "shop-v1", "weight": 95}, {"pool": "shop-v2", "weight": 5}]]))]
    pub(crate) split: Option<Vec<Share>>,
    /// The proxy responds with a redirect. A request that would be redirected to its own URL does not match the route: the
    /// next best route takes it. So a route with `redirect: { scheme: https }` may stand next to one with
    /// a pool for the same requests.
    #[serde(default)]
    #[schemars(extend("examples" = [{"scheme": "https"}]))]
    pub(crate) redirect: Option<Redirect>,
    /// Changes to the headers for servers, after the proxy's own.
    #[serde(default)]
    pub(crate) request_headers: RequestHeaders,
}

/// Which requests a route takes: all conditions must hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-shorthand" = "path_prefix"))]
pub(crate) struct Match {
    /// Host names, without port. `*.shop.example.org` takes every name below `shop.example.org`, but not that name
    /// itself. Empty: any host.
    #[schemars(extend("uniqueItems" = true, "examples" = [["shop.example.org", "*.shop.example.org"]]))]
    pub(crate) hosts: Vec<String>,
    /// Path prefix by whole segments: `/shop` takes `/shop` and `/shop/cart`, not `/shopping`. A trailing slash makes
    /// no difference.
    #[schemars(extend("examples" = ["/shop"]))]
    pub(crate) path_prefix: String,
    /// Request headers and their exact values. If a header is repeated, one matching line is enough.
    #[schemars(extend("x-key" = "NAME", "examples" = [{"x-team": "blue"}]))]
    pub(crate) headers: BTreeMap<String, String>,
}

impl Default for Match {
    fn default() -> Self {
        Self { hosts: Vec::new(), path_prefix: "/".to_owned(), headers: BTreeMap::new() }
    }
}

/// A pool's share of a split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-shorthand" = "pool"))]
pub struct Share {
    /// The pool.
    #[schemars(extend("examples" = ["shop-v2"]))]
    pub pool: String,
    /// Its share of new sessions. 0 = takes no new session; its own stay.
    #[serde(default = "Share::weight")]
    pub weight: u16,
}

impl Share {
    pub(crate) const fn weight() -> u16 {
        1
    }
}

/// A redirect to the requested URL, with the parts given here replaced. The query is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-shorthand" = "scheme"))]
pub struct Redirect {
    /// `http` or `https`. null = that of the request, which a trusted proxy may report in
    /// `X-Forwarded-Proto`.
    pub scheme: Option<Scheme>,
    /// Host name. null = that of the request.
    #[schemars(extend("examples" = ["www.example.org"]))]
    pub host: Option<String>,
    /// Port. null = that of the request, or the scheme's default port if the scheme changes.
    #[schemars(range(min = 1), extend("examples" = [8443]))]
    pub port: Option<u16>,
    /// The whole path. null = that of the request.
    #[schemars(extend("examples" = ["/moved"]))]
    pub path: Option<String>,
    /// Status. 307 and 308 keep the method and body of a request; 301 and 302 make a GET of most, 303 of all. 301 and
    /// 308 are permanent and cached by browsers, so test with 307.
    #[schemars(extend("enum" = [301, 302, 303, 307, 308]))]
    pub status: u16,
}

impl Default for Redirect {
    fn default() -> Self {
        Self { scheme: None, host: None, port: None, path: None, status: 308 }
    }
}

/// Scheme of a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Scheme {
    /// Without TLS.
    Http,
    /// With TLS.
    Https,
}

impl Scheme {
    /// As in a URL.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The default port.
    pub fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// Changes to the headers of a request before a server gets it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RequestHeaders {
    /// Headers and their values, in place of the client's.
    #[schemars(extend("x-key" = "NAME", "examples" = [{"x-env": "beta"}]))]
    pub(crate) set: BTreeMap<String, String>,
    /// Headers that are removed.
    #[schemars(extend("examples" = [["x-debug"]]))]
    pub(crate) remove: Vec<String>,
}
