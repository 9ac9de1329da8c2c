//! The pool's part in limiting requests: what a reload changes, and which requests wait for what.

use std::sync::Arc;
use std::time::Duration;

use crate::config::ServerState;

use super::Pool;
use super::balancer::{is_candidate, only_backups_left};
use super::live_state::InFlight;
use super::queue::{Lane, QueueFull, QueuedRequest, Suits};
use super::server::ServerIndex;

impl Pool {
    /// The configuration is in effect: its limits hold for what is in flight, and its states for requests that wait.
    pub fn take_effect(&self) {
        for server in &self.servers {
            server.live.set_limit(self.limits.max_requests_per_server);
            server.live.set_withdrawn(server.state() == ServerState::Maint);
            server.live.dispatch();
        }
    }

    /// Conditions have changed, or may have: requests that wait for a server that takes none are sent on, and free slots are
    /// given away.
    pub(super) fn review_queue(&self) {
        if self.queue.is_empty() {
            return;
        }
        for server in &self.servers {
            server.live.set_withdrawn(server.state() == ServerState::Maint);
            if server.condition().accepts_bound() {
                server.live.dispatch();
            } else {
                self.queue.dismiss(&server.live.lane);
            }
        }
    }

    /// The servers that would take a new session all have as many requests as they may have.
    pub fn is_full(&self, tried: &[ServerIndex]) -> bool {
        let backups = only_backups_left(&self.servers, tried);
        (0..self.servers.len()).any(|index| is_candidate(&self.servers, index, backups, tried))
    }

    /// A request waits for a server.
    pub fn wait_for(&self, server: ServerIndex) -> Option<Result<QueuedRequest<InFlight>, QueueFull>> {
        let live = &self.servers.get(server)?.live;
        let waiting = self.queue.wait_for(&live.lane, self.max_queued());
        live.dispatch();
        Some(waiting)
    }

    /// A request waits for any server that suits it.
    pub fn wait_for_any(&self, suits: Suits) -> Result<QueuedRequest<InFlight>, QueueFull> {
        let waiting = self.queue.wait_for_any(suits, self.max_queued());
        for server in &self.servers {
            server.live.dispatch();
        }
        waiting
    }

    /// The server of this lane, unless a request that waits for any server would not be sent to it.
    pub fn suitable(&self, lane: &Arc<Lane>, tried: &[ServerIndex]) -> Option<ServerIndex> {
        let index = self.servers.iter().position(|server| Arc::ptr_eq(&server.live.lane, lane))?;
        let backups = only_backups_left(&self.servers, tried);
        is_candidate(&self.servers, index, backups, tried).then_some(index)
    }

    fn max_queued(&self) -> usize {
        usize::try_from(self.limits.max_queued).unwrap_or(usize::MAX)
    }
}

/// After how many seconds a request that gave up waiting may get a slot: as fast as others got theirs meanwhile, those that
/// wait now come first. Where none got one, those that wait now will have left after `timeout`.
pub fn retry_after(waiting: usize, turns: u64, waited: Duration, timeout: Duration) -> u16 {
    let estimate = match u32::try_from(turns).unwrap_or(u32::MAX) {
        0 => timeout,
        turns => waited.saturating_mul(u32::try_from(waiting + 1).unwrap_or(u32::MAX)) / turns,
    };
    let seconds = estimate.as_millis().div_ceil(1000).clamp(1, 60);
    u16::try_from(seconds).unwrap_or(60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_to_stay_away_follows_from_how_fast_others_got_a_slot() {
        let after = |waiting, turns, waited, timeout| {
            retry_after(waiting, turns, Duration::from_secs(waited), Duration::from_secs(timeout))
        };
        assert_eq!(after(9, 10, 4, 4), 4, "ten in four seconds, and nine of them still wait");
        assert_eq!(after(99, 10, 4, 4), 40);
        assert_eq!(after(0, 10, 4, 4), 1, "never at once");
        assert_eq!(after(1000, 1, 4, 4), 60, "nor longer than a minute");
        assert_eq!(after(3, 0, 4, 4), 4, "those that wait have left by then");
        assert_eq!(after(0, 0, 0, 0), 1);
    }
}
