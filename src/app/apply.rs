//! What a configuration sets outside of the runtime, at start and with every reload: the access log, the table's
//! timeouts.

use crate::config;
use crate::store::local::table::Table;
use crate::telemetry::access_log::{AccessLog, Target};

use super::error::RunError;
use super::runtime::Runtime;

/// Sets each pool's session timeouts in the table.
pub(super) fn set_limits(table: &Table, runtime: &Runtime) {
    for pool in runtime.pools.iter() {
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
