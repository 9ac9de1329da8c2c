//! The list of engines: a new one is a folder here, with its settings in it, and a line below.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;
use tokio::runtime::Handle;

use super::engine::settings::EngineSettings;
use super::engine::{Engine, OnEvent, StoreError};
use super::hazelcast::settings::HazelcastSettings;
use super::ignite::settings::IgniteSettings;
use super::memcached::settings::MemcachedSettings;
use super::redis::settings::RedisSettings;
use crate::config::check_context::{CheckContext, NodeRef};
use crate::config::diagnostics::Diagnostics;
use crate::session::token::UnixMillis;

macro_rules! engines {
    ($($(#[$meta:meta])* $key:ident => $variant:ident($settings:ty),)*) => {
        /// Kind of store.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, IntoStaticStr)]
        #[serde(rename_all = "snake_case")]
        #[strum(serialize_all = "snake_case")]
        pub(crate) enum StoreType {
            Memory,
            $($(#[$meta])* $variant,)*
        }

        impl StoreType {
            /// Those that several proxies share.
            pub(crate) const SHARED: &'static [Self] = &[$($(#[$meta])* Self::$variant,)*];
        }

        impl JsonSchema for StoreType {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                "StoreType".into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                let word = |word: &str, about: &str| json_schema!({ "type": "string", "const": word, "description": about });
                let mut words = vec![word("memory", "A table in this process.")];
                $($(#[$meta])* words.push(word(stringify!($key), <$settings>::ABOUT));)*
                json_schema!({ "oneOf": words })
            }
        }

        /// The sections of all engines below `store`.
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(default)]
        pub(crate) struct EngineSections {$(
            $(#[$meta])*
            #[schemars(extend("x-restart" = true))]
            pub(crate) $key: $settings,
        )*}

        impl EngineSections {
            /// Checks every section, also those that are not in use: their turn may come. Returns the one in use.
            pub(crate) fn check(
                &self,
                used: StoreType,
                store: NodeRef<'_>,
                context: &CheckContext<'_>,
                diagnostics: &mut Diagnostics,
            ) -> Option<RemoteEngine> {
                let mut engine = None;
                $($(#[$meta])* {
                    let settings = EngineSettings::check(&self.$key, store.key(stringify!($key)), context, diagnostics);
                    if used == StoreType::$variant {
                        engine = Some(RemoteEngine::$variant(settings));
                    }
                })*
                engine
            }

            /// Sections that differ from their defaults.
            pub(crate) fn changed(&self) -> Vec<StoreType> {
                let mut changed = Vec::new();
                $($(#[$meta])* if self.$key != <$settings>::default() {
                    changed.push(StoreType::$variant);
                })*
                changed
            }

            /// Section, key and replacement of every secret.
            pub(crate) fn secrets(&self) -> Vec<(&'static str, &'static str, serde_json::Value)> {
                let mut secrets = Vec::new();
                $($(#[$meta])* for (key, value) in self.$key.secrets() {
                    secrets.push((stringify!($key), key, value));
                })*
                secrets
            }
        }

        /// The engine in use, with its settings.
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[expect(clippy::large_enum_variant, reason = "one value in a process")]
        pub enum RemoteEngine {$(
            $(#[$meta])*
            #[doc = concat!("`type: ", stringify!($key), "`.")]
            $variant($settings),
        )*}

        impl RemoteEngine {
            /// The word of the configuration.
            pub const fn word(&self) -> &'static str {
                match self {$($(#[$meta])* Self::$variant(_) => stringify!($key),)*}
            }

            /// Its section in the configuration.
            pub const fn section(&self) -> &'static str {
                match self {$($(#[$meta])* Self::$variant(_) => concat!("store.", stringify!($key)),)*}
            }

            /// Starts it on `runtime`. Returns at once. `connect_timeout` bounds each attempt to connect; `clock` is the
            /// wall clock.
            ///
            /// # Errors
            /// For settings that the check should have refused.
            pub fn start(
                &self,
                connect_timeout: Duration,
                runtime: &Handle,
                clock: fn() -> UnixMillis,
                on_event: OnEvent,
            ) -> Result<Arc<dyn Engine>, StoreError> {
                match self {$($(#[$meta])*
                    Self::$variant(settings) => EngineSettings::start(settings, connect_timeout, runtime, clock, on_event),
                )*}
            }
        }
    };
}

engines! {
    redis => Redis(RedisSettings),
    memcached => Memcached(MemcachedSettings),
    hazelcast => Hazelcast(HazelcastSettings),
    ignite => Ignite(IgniteSettings),
}
