//! Log lines about the configuration.

use crate::config::{self, Config};

/// Logs a warning of the configuration.
pub(super) fn warn(warning: &config::Warning) {
    tracing::warn!(at = %location(warning), help = warning.help.as_deref(), "{}", warning.message);
}

/// Logs a problem of the configuration.
pub(super) fn error(problem: &config::Problem) {
    tracing::error!(at = %location(problem), help = problem.help.as_deref(), "{}", problem.message);
}

/// `file:line:column`, as far as known.
fn location(problem: &config::Problem) -> String {
    match (problem.line, problem.column) {
        (Some(line), Some(column)) => format!("{}:{line}:{column}", problem.file),
        _ => problem.file.clone(),
    }
}

pub(super) fn ready(config: &Config) {
    let listeners: Vec<String> = config.listeners.iter().map(|listener| listener.address.to_string()).collect();
    let servers: usize = config.pools.iter().map(|pool| pool.servers.len()).sum();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        listeners = %listeners.join(", "),
        admin = config.admin.as_ref().map(|admin| admin.address.to_string()),
        pools = config.pools.len(),
        servers,
        config = %config.hash,
        "homing is ready"
    );
}
