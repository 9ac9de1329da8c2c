//! What changes at servers with time alone: ejections end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::state::AppState;

/// The pause between two looks at the servers.
const PAUSE: Duration = Duration::from_millis(20);

/// Runs for as long as the process does.
pub(super) async fn run(app: Arc<AppState>) {
    loop {
        let now = Instant::now();
        for pool in app.current.load_full().pools.iter() {
            pool.pool.tick(now);
        }
        tokio::time::sleep(PAUSE).await;
    }
}
