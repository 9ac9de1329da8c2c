//! Signals, and the switch that stops the process.
//!
//! TERM stops gracefully, a second TERM or INT stops at once, HUP reloads, USR1 reopens the access log, QUIT passes the sockets
//! to a new process.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::{Condvar, Mutex};
use pingora::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::reload_trigger::ReloadTrigger;
use super::state::AppState;
use super::upgrade_trigger::UpgradeTrigger;

/// Whether and how the process stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// It runs.
    No,
    /// It finishes the requests in flight.
    Graceful,
    /// Another process serves: it finishes what is in flight and what comes on connections that are open.
    HandedOver,
    /// It stops at once.
    Now,
}

/// Read by the main thread, which waits, and by Pingora's server, which closes listeners.
#[derive(Clone)]
pub(super) struct StopSwitch {
    /// A condition variable, since the main thread runs no async code.
    state: Arc<(Mutex<Stop>, Condvar)>,
    closing: watch::Sender<Closing>,
    /// True = connections that wait for a request are closed.
    closing_idle: watch::Sender<bool>,
}

/// Which listeners close.
#[derive(Debug, Clone, Copy, Default)]
struct Closing {
    clients: bool,
    admin: bool,
}

impl Default for StopSwitch {
    fn default() -> Self {
        Self {
            state: Arc::new((Mutex::new(Stop::No), Condvar::new())),
            closing: watch::Sender::default(),
            closing_idle: watch::Sender::new(false),
        }
    }
}

impl StopSwitch {
    /// Stops the process; a second graceful stop stops it now.
    pub(super) fn stop(&self, stop: Stop) {
        let (state, changed) = &*self.state;
        let mut state = state.lock();
        *state = if *state == Stop::Graceful { Stop::Now } else { stop };
        changed.notify_all();
    }

    /// Another process has the listeners: they are closed here, those of the admin API too.
    pub(super) fn hand_over(&self) {
        self.closing.send_replace(Closing { clients: true, admin: true });
        let (state, changed) = &*self.state;
        let mut state = state.lock();
        if *state == Stop::No {
            *state = Stop::HandedOver;
        }
        changed.notify_all();
    }

    /// Whether another process has the listeners, whatever came after that.
    pub(super) fn is_handed_over(&self) -> bool {
        self.closing.borrow().admin
    }

    pub(super) fn current(&self) -> Stop {
        *self.state.0.lock()
    }

    /// Waits until the process stops.
    pub(super) fn wait(&self) {
        let (state, changed) = &*self.state;
        let mut state = state.lock();
        while *state == Stop::No {
            changed.wait(&mut state);
        }
    }

    /// Waits until something changes, for at most this long.
    pub(super) fn wait_for_change(&self, timeout: Duration) {
        let (state, changed) = &*self.state;
        changed.wait_for(&mut state.lock(), timeout);
    }

    pub(super) fn close_listeners(&self) {
        self.closing.send_modify(|closing| closing.clients = true);
    }

    /// Closes the connections of clients that wait for a request.
    pub(super) fn close_idle(&self) {
        self.closing_idle.send_replace(true);
    }

    /// For Pingora's server: signals when the clients' listeners close.
    pub(super) fn for_listeners(&self) -> CloseSignal {
        CloseSignal { closing: self.closing.subscribe(), is_due: |closing| closing.clients }
    }

    /// For the admin listeners, which stay open until the process ends, or another one has them.
    pub(super) fn for_admin(&self) -> CloseSignal {
        CloseSignal { closing: self.closing.subscribe(), is_due: |closing| closing.admin }
    }

    /// True when connections that wait for a request are closed.
    pub(super) fn for_idle_connections(&self) -> watch::Receiver<bool> {
        self.closing_idle.subscribe()
    }
}

/// Signals to Pingora's server that its listeners close.
pub(super) struct CloseSignal {
    closing: watch::Receiver<Closing>,
    is_due: fn(&Closing) -> bool,
}

#[async_trait]
impl ShutdownSignalWatch for CloseSignal {
    async fn recv(&self) -> ShutdownSignal {
        let mut closing = self.closing.clone();
        // An error means that the switch is gone, and with it the process.
        let _ = closing.wait_for(self.is_due).await;
        ShutdownSignal::GracefulTerminate
    }
}

/// Listens to signals for as long as the process runs.
pub(super) async fn listen(
    stop: StopSwitch,
    app: Arc<AppState>,
    reloads: tokio::sync::mpsc::Sender<ReloadTrigger>,
) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut reopen = signal(SignalKind::user_defined1())?;
    let mut quit = signal(SignalKind::quit())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => {
                tracing::info!("TERM: stopping gracefully");
                stop.stop(Stop::Graceful);
            }
            _ = interrupt.recv() => {
                tracing::info!("INT: stopping at once");
                stop.stop(Stop::Now);
            }
            _ = hangup.recv() => {
                // A full queue means that a reload is pending already; it will read the same file.
                let _ = reloads.try_send(ReloadTrigger::Hangup);
            }
            _ = reopen.recv() => {
                if let Some(log) = &*app.access_log.load() {
                    log.reopen();
                    tracing::info!("USR1: the access log was reopened");
                }
            }
            _ = quit.recv() => {
                // A full queue means that an upgrade is in progress.
                let _ = app.upgrades.get().map(|upgrades| upgrades.try_send(UpgradeTrigger::Quit));
            }
        }
    }
}
