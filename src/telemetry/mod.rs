//! What operators see of a running proxy: metrics, access log, log. Imports nothing of ours: callers bring the labels.

pub mod access_log;
pub mod log;
pub mod metrics;
pub mod request_record;
