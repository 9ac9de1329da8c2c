//! Whether the process is ready for requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::app::state::AppState;

/// Whether the process is ready for requests.
pub struct Readiness {
    /// The listeners accept connections and every server has been checked once.
    pub started: AtomicBool,
    /// Knows when the process stops.
    pub app: Arc<AppState>,
}

impl Readiness {
    /// `starting`, `ready` or `draining`.
    pub(crate) fn state(&self) -> &'static str {
        if self.app.is_draining() {
            "draining"
        } else if self.started.load(Ordering::Acquire) {
            "ready"
        } else {
            "starting"
        }
    }
}
