//! From a checked configuration to a running process, and back: state → background → listeners → requests → drain.

mod apply;
mod atomic_file;
mod background;
pub mod build;
mod certificates;
pub mod changes;
mod connection_closer;
mod drains;
mod error;
pub mod inspect;
mod listeners;
mod log_lines;
pub mod overrides;
mod process;
mod rebalancer;
mod reload;
pub mod reload_trigger;
mod run;
mod removed_servers;
pub mod runtime;
mod server_clock;
mod server_tasks;
mod shared_store;
mod shutdown;
mod signals;
mod snapshot_task;
mod span_exporter;
mod startup;
pub mod state;
mod state_file;
mod table_file;
mod tls;
mod watched_files;

pub use self::error::RunError;
pub use self::run::{Origin, run};
