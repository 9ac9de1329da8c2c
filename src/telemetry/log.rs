//! The log on stderr: as text or JSON; a reload changes its level.

use std::io::IsTerminal;
use std::sync::OnceLock;

use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt, reload};

static LEVEL: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Homing's own lines only. Pingora and the HTTP libraries log single connections, which metrics and the access log cover, and
/// below `info` they print requests with their cookies, which must never be logged. The exception: Pingora's errors when
/// connections cannot be accepted, above all for lack of file descriptors.
fn filter(level: &str) -> EnvFilter {
    EnvFilter::new(format!("off,homing={level},pingora_core::services::listening=error"))
}

/// Starts logging; called once, before the first line. `level` is one of error, warn, info, debug, trace.
pub fn start(level: &str, json: bool) {
    let (level, handle) = reload::Layer::new(filter(level));
    let registry = tracing_subscriber::registry().with(level);
    let started = if json {
        registry
            .with(fmt::layer().json().flatten_event(true).with_target(false).with_writer(std::io::stderr))
            .try_init()
    } else {
        let colour =
            std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        registry.with(fmt::layer().with_target(false).with_ansi(colour).with_writer(std::io::stderr)).try_init()
    };
    // An error means that a subscriber is set already (by a test harness), with a level of its own.
    if started.is_ok() {
        let _ = LEVEL.set(handle);
    }
}

/// Changes the level of a running process.
pub fn set_level(level: &str) {
    if let Some(handle) = LEVEL.get()
        && let Err(error) = handle.reload(filter(level))
    {
        tracing::warn!(%error, "the log level cannot be changed");
    }
}
