//! The log on stderr: for people or as JSON, its level changeable by a reload.

use std::io::IsTerminal;
use std::sync::OnceLock;

use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt, reload};

static LEVEL: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// What Pingora says of single connections is our business to report (in metrics, the access log and our own words);
/// at `info` and above it would let scanners and closed browsers fill the log.
fn filter(level: &str) -> EnvFilter {
    let text = match level {
        "debug" | "trace" => level.to_owned(),
        _ => format!("{level},pingora_proxy=off,pingora_core=off,pingora_pool=off,pingora_load_balancing=off"),
    };
    EnvFilter::new(text)
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
