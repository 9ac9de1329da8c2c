//! Metrics, access log, traces and log. Imports none of the other folders: callers bring the values of labels.

pub mod access_log;
pub mod events;
pub mod history;
pub mod log;
pub mod log_limit;
pub mod metrics;
pub mod move_history;
pub mod request_record;
pub mod trace;
