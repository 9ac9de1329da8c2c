//! The cookie that carries the token: as it is written and, checked, as it is used.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use strum::IntoStaticStr;

/// The cookie that carries the token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-shorthand" = "name"))]
pub struct Cookie {
    /// Name: letters, digits and ``!#$%&'*+-.^_`|~``. `__Host-` needs `path: /`, no domain and not `secure: false`;
    /// `__Secure-` needs not `secure: false`.
    #[schemars(extend("examples" = ["__Host-session"]))]
    pub name: String,
    /// Whether the proxy or the application sets the cookie. In the modes prefix and rewrite, `path` and the like must be those that the application sets.
    pub mode: CookieMode,
    /// `Path`, beginning with `/`.
    pub path: String,
    /// `Domain`. null = the host of the request only.
    #[schemars(extend("examples" = ["example.org"]))]
    pub domain: Option<String>,
    /// `Secure`. auto = as the client came, here or at a trusted proxy before us. `same_site: none`, `partitioned: true`
    /// and the names `__Host-…` and `__Secure-…` turn auto into true, because browsers would drop the cookie.
    pub secure: Secure,
    /// `HttpOnly`: scripts cannot read the cookie.
    pub http_only: bool,
    /// `SameSite`.
    pub same_site: SameSite,
    /// `Partitioned`: one cookie for each site that embeds this one.
    pub partitioned: bool,
    /// How long browsers keep it.
    pub lifetime: Lifetime,
    /// The application never sees the cookie.
    pub hide_from_server: bool,
    /// `Cache-Control` added to answers that set the cookie, so that no shared cache keeps it. null = leave alone.
    pub cache_control: Option<String>,
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

/// Which cookie carries the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
#[schemars(inline)]
pub enum CookieMode {
    /// The proxy's own, next to the application's cookies.
    Insert,
    /// The application's own: the token stands before its value, and is taken off before the application sees it.
    Prefix,
    /// The application's own: the token stands in place of its value.
    Rewrite,
}

/// When the cookie is `Secure`: `true`, `false` or `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secure {
    /// Always.
    Always,
    /// Never.
    Never,
    /// When the client came by TLS, here or at a trusted proxy before this one.
    Auto,
}

impl Serialize for Secure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Always => serializer.serialize_bool(true),
            Self::Never => serializer.serialize_bool(false),
            Self::Auto => serializer.serialize_str("auto"),
        }
    }
}

impl<'de> Deserialize<'de> for Secure {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Bool(true) => Ok(Self::Always),
            Value::Bool(false) => Ok(Self::Never),
            Value::String(word) if word == "auto" => Ok(Self::Auto),
            _ => Err(D::Error::custom("not true, false or auto")),
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

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "enum": [true, false, "auto"] })
    }
}

/// `SameSite`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum SameSite {
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
pub enum Lifetime {
    /// Until the browser closes.
    Session,
    /// `Max-Age` and `Expires` of `absolute_timeout`.
    Permanent,
}
