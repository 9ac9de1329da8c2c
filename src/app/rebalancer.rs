//! Compares the servers of pools that rebalance, once a second, so that a request only tests a flag.

use std::sync::Arc;
use std::time::Duration;

use crate::persistence::{PoolRuntime, TableHistory};
use crate::pool::rebalance::Load;
use crate::pool::server::Server;
use crate::store::targets::Target;

use super::state::AppState;

const INTERVAL: Duration = Duration::from_secs(1);

/// Runs for as long as the process does.
pub(super) async fn run(app: Arc<AppState>) {
    loop {
        let (runtime, history) = (app.current.load_full(), app.table_history());
        for pool in &runtime.pools {
            if let Some(rebalance) = &pool.pool.rebalance {
                rebalance.update(loads(pool, &history).as_deref());
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// The sessions of each server; `None` while the table does not have them all.
fn loads(pool: &PoolRuntime, history: &TableHistory) -> Option<Vec<Load>> {
    let persistence = pool.persistence.as_ref().filter(|_| pool.has_all_sessions(history))?;
    let load = |(server, target): (&Server, &Arc<Target>)| {
        let takes = pool.pool.weight_now(server) > 0.0;
        Load { sessions: target.sessions(), weight: if takes { server.weight() } else { 0 } }
    };
    Some(pool.pool.servers.iter().zip(&persistence.targets).map(load).collect())
}
