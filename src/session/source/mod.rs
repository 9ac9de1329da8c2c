//! Sources: the parts of a request that can name a session, one file for each kind, with its settings in the
//! configuration. A new source is a file here and a line in the list below.
//!
//! A source reads a [`SessionClaim`] from the request: a sealed token, an external id, or nothing. Whether the claim names a
//! live session is decided by the store and [`binding`](super::binding).

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use super::token::codec::PoolCodec;
use crate::config::check_context::NodeRef;
use crate::config::cookie::Cookie;
use crate::config::diagnostics::Diagnostics;
use crate::message::{RequestEdits, RequestView};

mod claim;
pub mod client_ip;
pub mod cookie;
mod definition;
pub mod header;
pub mod jvm_route;
pub mod learn;
mod naming;
pub mod query;
#[cfg(test)]
mod user_header;

pub use self::claim::{ExternalId, MAX_TRIED, SessionClaim, SourceInput};
pub(crate) use self::definition::RESERVED_HEADERS;
use self::definition::SourceDefinition;
pub use self::definition::{Carriers, PoolContext, SessionSource};
pub use self::naming::{SessionName, Unwritable, request_naming};

macro_rules! sources {
    ($($(#[$meta:meta])* $key:ident => $variant:ident($settings:ty, $source:ty),)*) => {
        /// A part of a request that can name its session.
        pub enum Source {$(
            $(#[$meta])*
            #[doc = concat!("`", stringify!($key), "`.")]
            $variant($source),
        )*}

        impl Source {
            /// The `source` of metrics and logs.
            pub const fn label(&self) -> &'static str {
                match self {$($(#[$meta])* Self::$variant(_) => stringify!($key),)*}
            }

            /// What the request names here.
            pub fn claim(&self, input: &SourceInput<'_>, codec: &PoolCodec) -> SessionClaim {
                match self {$($(#[$meta])* Self::$variant(source) => SessionSource::claim(source, input, codec),)*}
            }

            /// Removes from a request what a server need not see. `hidden`: the token is not for servers.
            pub fn strip(&self, request: &RequestView<'_>, hidden: bool, edits: &mut RequestEdits<'_>) {
                match self {$($(#[$meta])* Self::$variant(source) => source.strip(request, hidden, edits),)*}
            }
        }

        /// Where a session is named, as the file has it: exactly one key.
        #[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum SourceSettings {$(
            $(#[$meta])*
            #[doc = concat!("`", stringify!($key), "`.")]
            $variant($settings),
        )*}

        impl SourceSettings {
            /// Its key in the file.
            pub const fn key(&self) -> &'static str {
                match self {$($(#[$meta])* Self::$variant(_) => stringify!($key),)*}
            }

            /// Whether a pool may have several.
            pub(crate) const fn is_repeatable(&self) -> bool {
                match self {$($(#[$meta])* Self::$variant(_) => <$settings>::REPEATABLE,)*}
            }

            /// Whether what it reads is the token.
            pub(crate) const fn reads_token(&self) -> bool {
                match self {$($(#[$meta])* Self::$variant(_) => <$settings>::READS_TOKEN,)*}
            }

            /// Whether what it reads is of one client only.
            pub(crate) const fn identifies_client(&self) -> bool {
                match self {$($(#[$meta])* Self::$variant(_) => <$settings>::IDENTIFIES_CLIENT,)*}
            }

            /// Checks what the schema cannot say. Returns the settings as they are used.
            pub(crate) fn check(&self, at: NodeRef<'_>, diagnostics: &mut Diagnostics) -> Self {
                let at = at.key(self.key());
                match self {$($(#[$meta])* Self::$variant(one) => Self::$variant(one.check(at, diagnostics)),)*}
            }

            /// Where it reads, in a pool with this cookie.
            pub fn carriers<'a>(&'a self, cookie: &'a Cookie) -> Carriers<'a> {
                match self {$($(#[$meta])* Self::$variant(one) => one.carriers(cookie),)*}
            }

            /// What reads requests to a pool.
            pub fn build(&self, pool: &PoolContext<'_>) -> Source {
                match self {$($(#[$meta])* Self::$variant(one) => Source::$variant(one.build(pool)),)*}
            }
        }

        /// A mapping of one key: YAML would have a tag for a variant.
        impl Serialize for SourceSettings {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut map = serializer.serialize_map(Some(1))?;
                match self {$($(#[$meta])* Self::$variant(one) => map.serialize_entry(stringify!($key), one)?,)*}
                map.end()
            }
        }

        impl JsonSchema for SourceSettings {
            fn schema_name() -> Cow<'static, str> {
                "Source".into()
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                let mut properties = serde_json::Map::new();
                $($(#[$meta])* {
                    properties.insert(stringify!($key).to_owned(), <$settings>::json_schema(generator).to_value());
                })*
                json_schema!({
                    "description": "Where a session is named: exactly one key.",
                    "type": "object",
                    "properties": properties,
                    "additionalProperties": false,
                    "minProperties": 1,
                    "maxProperties": 1,
                    "examples": [{ "cookie": {} }],
                })
            }
        }
    };
}

sources! {
    cookie => Cookie(cookie::CookieSettings, cookie::CookieSource),
    query => Query(query::QuerySettings, query::QuerySource),
    header => Header(header::HeaderSettings, header::HeaderSource),
    learn => Learn(learn::LearnSettings, Box<learn::LearnSource>),
    route => Route(jvm_route::JvmRouteSettings, jvm_route::JvmRouteSource),
    client_ip => ClientIp(client_ip::ClientIpSettings, client_ip::ClientIpSource),
    #[cfg(test)]
    user_header => UserHeader(user_header::UserHeaderSettings, user_header::UserHeaderSource),
}
