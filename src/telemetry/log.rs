//! The log on stderr: for people or as JSON, its level changeable by a reload.

use std::io::IsTerminal;
use std::sync::OnceLock;

use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt, reload};

static LEVEL: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Ours only. What Pingora and the HTTP libraries say of single connections is ours to report (in metrics, the access log
/// and our own words), and below `info` they print requests with their cookies, which no log may ever hold. What is let
/// through is Pingora's word on connections that cannot be accepted, for lack of open files above all.
fn filter(level: &str) -> EnvFilter {
    EnvFilter::new(format!("off,homing={level},pingora_core::services::listening=error"))
}

/// Starts logging; called once, before anything is said. `level` is one of error, warn, info, debug, trace.
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
    // Somebody else's subscriber stands already (a test harness): then theirs is used and the level is theirs too.
    if started.is_ok() {
        let _ = LEVEL.set(handle);
    }
}

/// Changes the level of a running process.
pub fn set_level(level: &str) {
    if let Some(handle) = LEVEL.get()
        && let Err(error) = handle.reload(filter(level))
    {
        tracing::warn!(%error, "the log level could not be changed");
    }
}
