//! What a configuration sets outside of the runtime, at start and with every reload: the access log, the table's timeouts,
//! the metrics of certificates.

use crate::config::{self, Config};
use crate::store::local::table::Table;
use crate::telemetry::access_log::{AccessLog, Target};
use crate::telemetry::metrics::Metrics;

use super::error::RunError;
use super::runtime::Runtime;

/// Sets the metrics of when certificates expire.
pub(super) fn report_certificates(metrics: &Metrics, config: &Config) {
    let certificates = config.listeners.iter().filter_map(|listener| listener.tls.as_ref());
    let certificates = certificates.flat_map(|tls| &tls.certificates);
    metrics.certificates(certificates.map(|one| (one.name(), one.not_after)));
}

/// Sets each pool's session timeouts in the table.
pub(super) fn set_limits(table: &Table, runtime: &Runtime) {
    for pool in &runtime.pools {
        if let Some(persistence) = &pool.persistence {
            table.set_limits(&pool.pool.name, persistence.limits.idle, persistence.limits.absolute);
        }
    }
}

pub(super) fn open_access_log(target: &config::AccessLog) -> Result<Option<AccessLog>, RunError> {
    let target = match target {
        config::AccessLog::None => return Ok(None),
        config::AccessLog::Stdout => Target::Stdout,
        config::AccessLog::File(path) => Target::File(path.clone()),
    };
    let what = match &target {
        Target::Stdout => "log.access: standard output".to_owned(),
        Target::File(path) => format!("log.access: {}", path.display()),
    };
    AccessLog::start(target).map(Some).map_err(RunError::system(what))
}
