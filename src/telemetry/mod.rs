//! What the outside sees of a running proxy. Imports nothing of ours: whoever has something to report brings its labels.

pub mod access_log;
pub mod log;
pub mod metrics;
