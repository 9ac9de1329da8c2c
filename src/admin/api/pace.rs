//! Long work of the API in short pieces.
//!
//! The listener's threads have a lower priority than those that serve clients, but a scheduler may let a thread finish its time
//! slice of some milliseconds before one of a higher priority runs. So a piece is short against what a request takes, and the
//! processor is given back for a while after each.

use std::time::{Duration, Instant};

use tokio::time::sleep;

/// A request that arrives meanwhile waits at most about so long.
const PIECE: Duration = Duration::from_micros(100);
/// The shortest that Tokio's timer knows. With it a list takes at most about a tenth of a core.
const PAUSE: Duration = Duration::from_millis(1);

pub(super) struct Pace {
    since: Instant,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { since: Instant::now() }
    }

    /// Pauses if the piece has been long enough. To be called every few microseconds.
    pub(super) async fn pause_when_due(&mut self) {
        if self.since.elapsed() >= PIECE {
            sleep(PAUSE).await;
            self.since = Instant::now();
        }
    }
}
