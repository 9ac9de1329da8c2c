//! Signals, and the switch that stops the process.
//!
//! TERM stops gracefully, a second TERM or INT stops now, HUP reloads, USR1 opens the access log anew. QUIT is kept for
//! handing the sockets to a new process, which this version does not do.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::{Condvar, Mutex};
use pingora::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::app::state::AppState;

use super::reload::Trigger;

/// What the process was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// To run.
    No,
    /// To finish what is under way.
    Graceful,
    /// To stop now.
    Now,
}

/// Read by the main thread, which waits, and by Pingora's server, which closes listeners.
#[derive(Clone)]
pub(super) struct StopSwitch {
    /// A condition variable, since the main thread runs no async code.
    told: Arc<(Mutex<Stop>, Condvar)>,
    /// True = close the listeners.
    closing: watch::Sender<bool>,
}

impl Default for StopSwitch {
    fn default() -> Self {
        Self { told: Arc::new((Mutex::new(Stop::No), Condvar::new())), closing: watch::Sender::new(false) }
    }
}

impl StopSwitch {
    /// Tells the process to stop; a second graceful stop is a stop now.
    pub(super) fn tell(&self, stop: Stop) {
        let (told, changed) = &*self.told;
        let mut told = told.lock();
        *told = if *told == Stop::Graceful { Stop::Now } else { stop };
        changed.notify_all();
    }

    pub(super) fn now(&self) -> Stop {
        *self.told.0.lock()
    }

    pub(super) fn wait_for(&self, enough: impl Fn(Stop) -> bool) {
        let (told, changed) = &*self.told;
        let mut told = told.lock();
        while !enough(*told) {
            changed.wait(&mut told);
        }
    }

    /// Waits a little, or until something changes.
    pub(super) fn pause(&self, time: Duration) {
        let (told, changed) = &*self.told;
        let mut told = told.lock();
        changed.wait_for(&mut told, time);
    }

    pub(super) fn close_listeners(&self) {
        self.closing.send_replace(true);
    }

    /// For Pingora's server: tells it when its listeners are to close.
    pub(super) fn for_listeners(&self) -> ListenersClose {
        ListenersClose(self.closing.subscribe())
    }
}

/// Tells Pingora's server that its listeners are to close.
pub(super) struct ListenersClose(watch::Receiver<bool>);

#[async_trait]
impl ShutdownSignalWatch for ListenersClose {
    async fn recv(&self) -> ShutdownSignal {
        let mut closing = self.0.clone();
        // An error means that the switch is gone, and with it the process.
        let _ = closing.wait_for(|closing| *closing).await;
        ShutdownSignal::GracefulTerminate
    }
}

/// For the doors, which stay open until the process ends.
pub(super) struct Never;

#[async_trait]
impl ShutdownSignalWatch for Never {
    async fn recv(&self) -> ShutdownSignal {
        std::future::pending().await
    }
}

/// Listens to signals for as long as the process runs.
pub(super) async fn listen(
    stop: StopSwitch,
    app: Arc<AppState>,
    reloads: tokio::sync::mpsc::Sender<Trigger>,
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
                stop.tell(Stop::Graceful);
            }
            _ = interrupt.recv() => {
                tracing::info!("INT: stopping now");
                stop.tell(Stop::Now);
            }
            _ = hangup.recv() => {
                // A full queue means that a reload is waiting already; it will read the same file.
                let _ = reloads.try_send(Trigger::Hangup);
            }
            _ = reopen.recv() => {
                if let Some(log) = &*app.access_log.load() {
                    log.reopen();
                    tracing::info!("USR1: the access log was opened anew");
                }
            }
            _ = quit.recv() => {
                tracing::warn!("QUIT: handing sockets to a new process is not in this version; use TERM to stop");
            }
        }
    }
}
