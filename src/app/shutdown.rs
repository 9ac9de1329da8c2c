//! Waits for a signal, then for the requests in flight.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::config::Config;

use super::signals::{Stop, StopSwitch};
use super::state::AppState;

/// A stop is complete when no request has been in flight for this long: one that was just accepted is counted within it.
const QUIET: Duration = Duration::from_millis(100);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Waits for a signal; after TERM, until the last request is done or `proxy.shutdown_grace` is over.
pub(super) fn wait_and_drain(app: &AppState, config: &Config, stop: &StopSwitch) {
    stop.wait();
    if stop.current() != Stop::Graceful {
        return;
    }
    app.draining.store(true, Ordering::Relaxed);
    stop.close_listeners();
    let grace = config.proxy.shutdown_grace;
    tracing::info!(in_flight = app.in_flight.load(Ordering::Relaxed), ?grace, "stopping: finishing requests");
    let deadline = Instant::now() + grace;
    let mut quiet_since = Instant::now();
    while Instant::now() < deadline && stop.current() == Stop::Graceful {
        if app.in_flight.load(Ordering::Relaxed) > 0 {
            quiet_since = Instant::now();
        } else if quiet_since.elapsed() >= QUIET {
            return;
        }
        stop.wait_for_change(POLL_INTERVAL);
    }
    let requests = app.in_flight.load(Ordering::Relaxed);
    if requests > 0 {
        tracing::warn!(requests, "shutdown_grace is over, or a second signal arrived: requests are aborted");
    }
}
