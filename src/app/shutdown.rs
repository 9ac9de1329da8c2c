//! Waits for a signal, then for the requests in flight.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::config::Config;

use super::signals::{Stop, StopSwitch};
use super::state::AppState;
use super::systemd;

/// A stop is complete when no request has been in flight for this long: one that was just accepted is counted within it.
const QUIET: Duration = Duration::from_millis(100);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// A process that has handed over lives at least this long, so that whoever asked for it gets a response.
const AFTER_HANDOVER: Duration = Duration::from_millis(500);

/// Waits for a signal; after TERM, until the last request is done or `proxy.shutdown_grace` is over. After a handover also
/// until the last connection is closed: each is told with its next response, and one that waits for a request is not closed
/// before, since a request may be on its way. And until `is_predecessor_gone`.
pub(super) fn wait_and_drain(
    app: &AppState,
    config: &Config,
    stop: &StopSwitch,
    is_predecessor_gone: impl Fn() -> bool,
) {
    stop.wait();
    let cause = stop.current();
    if cause != Stop::HandedOver {
        systemd::stopping();
    }
    if cause == Stop::Now {
        return;
    }
    app.draining.store(true, Ordering::Relaxed);
    if cause == Stop::Graceful {
        stop.close_listeners();
        stop.close_idle();
    }
    let in_flight = || app.in_flight.load(Ordering::Relaxed);
    let grace = config.proxy.shutdown_grace;
    tracing::info!(in_flight = in_flight(), ?grace, "stopping: finishing requests");
    let connections: Vec<_> =
        config.listeners.iter().map(|one| app.metrics.client_connections(&one.address.to_string())).collect();
    let are_closed = || connections.iter().all(|open| open.count() == 0);
    let is_alone = || are_closed() && is_predecessor_gone();
    let is_quiet = || in_flight() == 0 && (stop.current() != Stop::HandedOver || is_alone());
    let start = Instant::now();
    let quiet = if cause == Stop::HandedOver { AFTER_HANDOVER } else { QUIET };
    let mut quiet_since = start;
    while start.elapsed() < grace && stop.current() != Stop::Now {
        if !is_quiet() {
            quiet_since = Instant::now();
        } else if quiet_since.elapsed() >= quiet {
            return;
        }
        stop.wait_for_change(POLL_INTERVAL);
    }
    stop.close_idle();
    let requests = in_flight();
    if requests > 0 {
        tracing::warn!(requests, "shutdown_grace is over, or a second signal arrived: requests are aborted");
    }
}
