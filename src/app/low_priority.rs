//! Work of some length beside requests: on a thread of its own and of low priority. On the executor of the background it would
//! delay health checks, and at the priority of the threads that serve clients it would delay requests.

use std::thread;

use tokio::task::spawn_blocking;

use super::process::{RELOAD_NICENESS, lower_priority};

/// Runs it and waits for its result; `None` when it has panicked, or there is no thread for it.
pub(super) async fn run<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    // A new thread rather than one of Tokio's blocking threads, which are reused: an unprivileged process cannot raise a priority again.
    let started = thread::Builder::new().name(name.to_owned()).spawn(move || {
        lower_priority(RELOAD_NICENESS);
        work()
    });
    match started {
        Ok(worker) => spawn_blocking(move || worker.join().ok()).await.ok().flatten(),
        Err(error) => {
            tracing::error!(%error, "no thread can be started");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_panics_has_no_result_and_ends_nothing_else() {
        assert_eq!(run("test", || 7).await, Some(7));
        assert_eq!(run("test", || -> u8 { panic!("on purpose") }).await, None);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn only_its_own_thread_has_a_low_priority() {
        let priority = || rustix::process::getpriority_process(None).unwrap();
        let before = priority();
        assert_eq!(run("test", priority).await, Some(before.max(RELOAD_NICENESS)));
        assert_eq!(priority(), before);
    }
}
