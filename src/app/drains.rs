//! Follows which servers drain: the clock of `drain_deadline` starts with the state, whatever set it, and removed servers go
//! when they have drained.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::Sender;

use crate::proxy::context::wall_clock;
use crate::session::token::UnixMillis;

use super::reload_trigger::ReloadTrigger;
use super::removed_servers::has_drained;
use super::runtime::Runtime;
use super::state::AppState;

/// The pause between two looks at the servers.
const PAUSE: Duration = Duration::from_millis(100);

/// Runs for as long as the process does.
pub(super) async fn run(app: Arc<AppState>, reloads: Sender<ReloadTrigger>) {
    loop {
        let (runtime, now) = (app.current.load_full(), wall_clock());
        observe(&runtime, now);
        if has_drained(&runtime, &app.table_history(), now) {
            // A full queue means that a reload is pending, which drops the server too.
            let _ = reloads.try_send(ReloadTrigger::ServerDrained);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Starts and stops the clocks of all servers.
pub(super) fn observe(runtime: &Runtime, now: UnixMillis) {
    for server in runtime.pools.iter().flat_map(|pool| &pool.pool.servers) {
        server.observe_drain(now);
    }
}
