//! What an engine's settings can do: each engine implements this for its own section of the file.

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;

use super::{Engine, OnEvent, StoreError};
use crate::config::check_context::{CheckContext, NodeRef};
use crate::config::diagnostics::Diagnostics;
use crate::config::suggest;
use crate::session::token::UnixMillis;

/// The section of an engine below `store`. Its fields are the keys, its doc comments the manual.
pub(crate) trait EngineSettings:
    Clone + std::fmt::Debug + Default + PartialEq + Serialize + DeserializeOwned + JsonSchema
{
    /// What the manual says of the engine at `store.type`.
    const ABOUT: &'static str;

    /// Checks what the schema cannot say, and reads the files that are named. Returns the settings as they are used.
    fn check(&self, at: NodeRef<'_>, context: &CheckContext<'_>, diagnostics: &mut Diagnostics) -> Self;

    /// Keys whose values are secret, with what stands in their place when the configuration is shown.
    fn secrets(&self) -> Vec<(&'static str, serde_json::Value)> {
        Vec::new()
    }

    /// Starts the engine on `runtime`. Returns at once. `connect_timeout` bounds each attempt to connect; `clock` is the wall
    /// clock.
    ///
    /// # Errors
    /// For settings that the check should have refused.
    fn start(
        &self,
        connect_timeout: Duration,
        runtime: &Handle,
        clock: fn() -> UnixMillis,
        on_event: OnEvent,
    ) -> Result<Arc<dyn Engine>, StoreError>;
}

/// Reports invalid and duplicate addresses of the list at `key`. Returns normalized ones. `normalize` returns the help where it
/// cannot; `what` the address is of: "a memcached".
pub(crate) fn distinct_addresses(
    written: &[String],
    (at, key): (NodeRef<'_>, &str),
    what: &str,
    normalize: impl Fn(&str) -> Result<String, String>,
    diagnostics: &mut Diagnostics,
) -> Vec<String> {
    let mut addresses: Vec<String> = Vec::new();
    for (index, text) in written.iter().enumerate() {
        let location = at.item(index).location;
        match normalize(text) {
            Ok(address) if addresses.contains(&address) => {
                let message = format!("\"{key}\" holds {} twice", suggest::quoted(&address));
                diagnostics.problem(location, message, "remove one of them");
            }
            Ok(address) => addresses.push(address),
            Err(help) => {
                let message = format!("{} is not the address of {what}", suggest::quoted(text));
                diagnostics.problem(location, message, help);
            }
        }
    }
    addresses
}
