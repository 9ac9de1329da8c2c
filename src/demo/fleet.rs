//! The three sample servers and their state: running or stopped, and what a running one holds in memory.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::carts::Carts;

/// All sample servers.
pub(super) struct Fleet {
    pub(super) servers: Vec<SampleServer>,
}

/// One sample server, running or stopped.
pub(super) struct SampleServer {
    pub(super) name: &'static str,
    /// For the page.
    pub(super) colour: &'static str,
    pub(super) address: SocketAddr,
    /// Requests of clients since the demo started, without health checks and the page's own polls.
    requests: AtomicU64,
    /// Locked for a moment by starting, stopping and the page's poll; never across an await.
    running: Mutex<Option<RunningServer>>,
}

/// What exists only while a server runs.
pub(super) struct RunningServer {
    pub(super) carts: Arc<Carts>,
    /// True = close the listener and reset all connections.
    pub(super) stop: watch::Sender<bool>,
    /// Ends when the listener is closed and all connections are reset.
    pub(super) task: JoinHandle<()>,
}

impl SampleServer {
    pub(super) fn new(name: &'static str, colour: &'static str, address: SocketAddr) -> Self {
        Self { name, colour, address, requests: AtomicU64::new(0), running: Mutex::new(None) }
    }

    pub(super) fn is_up(&self) -> bool {
        self.running.lock().is_some()
    }

    /// Carts in its memory; 0 when stopped.
    pub(super) fn cart_count(&self) -> usize {
        let carts = self.running.lock().as_ref().map(|running| Arc::clone(&running.carts));
        carts.map_or(0, |carts| carts.len())
    }

    pub(super) fn request_count(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    pub(super) fn count_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn set_running(&self, running: RunningServer) {
        *self.running.lock() = Some(running);
    }

    /// Stops it as hard as a crash would: the port is closed, every connection reset, the memory gone. Returns when that is
    /// done.
    pub(super) async fn stop(&self) {
        let running = self.running.lock().take();
        let Some(RunningServer { stop, task, .. }) = running else {
            return;
        };
        // An error means that the task has ended already.
        let _ = stop.send(true);
        let _ = task.await;
    }
}

impl Fleet {
    /// The server of this name and its index.
    pub(super) fn find(&self, name: &str) -> Option<(usize, &SampleServer)> {
        self.servers.iter().enumerate().find(|(_, server)| server.name == name)
    }

    pub(super) fn is_any_up(&self) -> bool {
        self.servers.iter().any(SampleServer::is_up)
    }
}
