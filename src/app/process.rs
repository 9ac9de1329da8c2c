//! What is set for the whole process: limits, memory pages, the panic hook, the PID file.

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::pool::descriptors;
use crate::telemetry::metrics::Metrics;

use super::atomic_file::beside;
use super::error::RunError;

/// The table's shards are a little over a power of two, and the allocator rounds them up. The excess is never touched, so it
/// costs nothing, unless the kernel backs it by huge pages: 20 % more memory for ten million sessions.
pub(super) fn disable_huge_pages() {
    #[cfg(target_os = "linux")]
    if let Err(error) = nix::sys::prctl::set_thp_disable(true) {
        tracing::debug!(%error, "huge pages cannot be disabled; sessions take 20 % more memory");
    }
}

/// The memory has keys and tokens: no core dump, and no other process of the same user may read it.
pub(super) fn hide_memory() {
    #[cfg(target_os = "linux")]
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        tracing::warn!(%error, "core dumps cannot be switched off; one would contain keys");
    }
}

/// Large scrapes, reloads and the like take less time from traffic on a processor that both want. Of this thread and those that it
/// starts; on Linux a priority is a thread's.
pub(super) fn lower_priority(niceness: i32) {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{getpriority_process, setpriority_process};
        // A process that was started with a lower one keeps it.
        let lowers = getpriority_process(None).is_ok_and(|current| current < niceness);
        if lowers && let Err(error) = setpriority_process(None, niceness) {
            tracing::debug!(%error, "the priority of a thread cannot be lowered");
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = niceness;
}

/// A tenth of the weight of the threads that serve clients, on a processor that both want; probes are answered all the same.
pub(super) const ADMIN_NICENESS: i32 = 10;
/// Two thirds of it: a reload may be what relieves a machine that is overloaded.
pub(super) const RELOAD_NICENESS: i32 = 2;

/// A request takes two sockets, so that the usual soft limit of 1,024 is soon reached. Raises it to the hard limit.
pub(super) fn raise_file_limit() {
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
}

/// Keeps some descriptors back from clients and servers. All listeners are open.
pub(super) fn keep_descriptors_back() {
    // A new descriptor has the lowest number that is free.
    let (limit, next) = (rlimit::getrlimit(rlimit::Resource::NOFILE), std::fs::File::open("/dev/null"));
    if let (Ok((limit, _)), Ok(Ok(in_use))) = (limit, next.map(|file| u64::try_from(file.as_raw_fd()))) {
        descriptors::keep_back(limit, in_use);
    } else {
        tracing::warn!("no descriptors are kept back for probes and metrics: their limit is not known");
    }
}

/// A panic ends one request. It is a bug, so it is counted and logged with its location.
pub(super) fn count_panics(metrics: Arc<Metrics>) {
    std::panic::set_hook(Box::new(move |panic| {
        metrics.panics.inc();
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let payload = panic.payload();
        let message = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        tracing::error!(%place, message, "panic: please report this as a bug");
    }));
}

/// The file with the process id. Removed when this is dropped, unless it is another process's by then.
pub(super) struct PidFile(Option<PathBuf>);

impl PidFile {
    pub(super) fn write(path: Option<&Path>) -> Result<Self, RunError> {
        if let Some(path) = path {
            // Replaced as a whole: a reader finds the id of the old process or of the new one.
            let aside = beside(path, ".new");
            let id = format!("{}\n", std::process::id());
            std::fs::write(&aside, &id)
                .and_then(|()| std::fs::rename(&aside, path))
                // The directory may be one in which only this file may be written.
                .or_else(|_| std::fs::write(path, &id))
                .map_err(RunError::system(format!("proxy.pid_file: {}", path.display())))?;
        }
        Ok(Self(path.map(Path::to_owned)))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let is_own = std::fs::read_to_string(path).is_ok_and(|id| id.trim() == std::process::id().to_string());
            if is_own {
                // An error means that it is gone already.
                let _ = std::fs::remove_file(path);
            }
        }
    }
}
