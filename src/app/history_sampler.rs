//! Samples the counters for the last hour's history.

use std::sync::Arc;

use crate::telemetry::history::{SAMPLE_INTERVAL, imbalance};

use super::state::AppState;

/// For as long as the process runs.
pub(super) async fn run(app: Arc<AppState>) {
    let mut clock = tokio::time::interval(SAMPLE_INTERVAL);
    loop {
        clock.tick().await;
        let crowded = most_crowded(&app);
        app.history.lock().record((app.clock)().0, app.metrics.totals(), crowded);
    }
}

/// The greatest imbalance of any pool.
fn most_crowded(app: &AppState) -> Option<f64> {
    let runtime = app.current.load();
    let of_pool = |pool: &crate::persistence::PoolRuntime| {
        let persistence = pool.persistence.as_ref()?;
        let servers = pool.pool.servers.iter().zip(persistence.targets.iter());
        imbalance(servers.map(|(server, target)| (target.sessions(), pool.pool.weight_now(server))))
    };
    runtime.pools.iter().filter_map(of_pool).reduce(f64::max)
}
