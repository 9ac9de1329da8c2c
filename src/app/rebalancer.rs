//! Compares the servers of pools that rebalance, once a second, so that a request only tests a flag.

use std::sync::Arc;
use std::time::Duration;

use super::state::AppState;

const INTERVAL: Duration = Duration::from_secs(1);

/// Runs for as long as the process does.
pub(super) async fn run(app: Arc<AppState>) {
    loop {
        let (runtime, history) = (app.current.load_full(), app.table_history());
        for pool in runtime.pools.iter() {
            pool.compare_servers(&history);
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
