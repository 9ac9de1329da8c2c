//! Stay, wait, move, borrow or refuse: a pure table over how the bound server stands and what the pool says.

use crate::config::{OnServerDown, OnServerDrain, Persistence};
use crate::pool::condition::Condition;

use super::outcome::Reason;

/// How the server of a session stands, as this request sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BoundServer {
    /// It is there, in this condition.
    Is(Condition),
    /// It accepted no connection for this very request.
    ConnectFailed,
    /// It closed the connection of this very request before it responded, also when tried again.
    BrokeOff,
    /// It accepts bound sessions only, and this one's time there is over, for this reason.
    Drained(Reason),
    /// The configuration no longer has it.
    Gone,
}

/// What to do with the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Send it to the bound server.
    Stay,
    /// Wait for the bound server, then decide again.
    Hold,
    /// Bind the session to another server.
    Move(Reason),
    /// Send it to another server and leave the binding alone.
    Borrow(Reason),
    /// Respond with the pool's `refuse_status`.
    Refuse(Reason),
    /// Let it fail: the server is not known to be gone.
    Fail,
}

/// The table. `held` = this request has waited already.
pub fn decide(bound: BoundServer, policy: &Persistence, held: bool) -> Decision {
    match bound {
        // A full one has room in a moment.
        BoundServer::Is(Condition::Accepting | Condition::Full) => Decision::Stay,
        BoundServer::Is(Condition::BoundOnly) => match policy.on_server_drain {
            OnServerDrain::Keep => Decision::Stay,
            OnServerDrain::Reassign => Decision::Move(Reason::Drain),
        },
        // The operator took it away on purpose; waiting would only delay.
        BoundServer::Is(Condition::Maint) => leave(policy, Reason::Maint),
        BoundServer::Is(Condition::Down) => hold_or_leave(policy, held, Reason::Down),
        BoundServer::Is(Condition::Ejected) => hold_or_leave(policy, held, Reason::Ejected),
        BoundServer::ConnectFailed => hold_or_leave(policy, held, Reason::ConnectFailure),
        // One broken request is not a dead server, and the log-in page of another would overwrite the client's cookies: the
        // session stays until its server refuses connections or is found down.
        BoundServer::BrokeOff => Decision::Fail,
        BoundServer::Drained(Reason::Removed) => removed(policy),
        BoundServer::Drained(reason) => Decision::Move(reason),
        BoundServer::Gone => removed(policy),
    }
}

/// A server that is no longer configured.
fn removed(policy: &Persistence) -> Decision {
    match policy.on_server_down {
        // It will not come back, so there is nothing to borrow until.
        OnServerDown::Reassign | OnServerDown::Borrow => Decision::Move(Reason::Removed),
        OnServerDown::Refuse => Decision::Refuse(Reason::Removed),
    }
}

fn hold_or_leave(policy: &Persistence, held: bool, reason: Reason) -> Decision {
    if held || policy.hold.is_zero() { leave(policy, reason) } else { Decision::Hold }
}

fn leave(policy: &Persistence, reason: Reason) -> Decision {
    match policy.on_server_down {
        OnServerDown::Reassign => Decision::Move(reason),
        OnServerDown::Borrow => Decision::Borrow(reason),
        OnServerDown::Refuse => Decision::Refuse(reason),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config;

    fn policy(down: OnServerDown, drain: OnServerDrain, hold: Duration) -> Persistence {
        Persistence {
            sources: vec![config::SourceSettings::Cookie(crate::session::source::cookie::CookieSettings {})],
            issue: config::Issue::Cookie,
            idle_timeout: Duration::from_secs(1800),
            absolute_timeout: Duration::from_secs(86_400),
            on_server_down: down,
            hold,
            refuse_status: 503,
            on_server_drain: drain,
            on_forged: config::OnForged::Ignore,
            bind_to: None,
            guest_cookies: config::GuestCookies::Protect,
            new_session_hint: config::NewSessionHint::None,
            cookie: config::Cookie {
                name: "SESSIONID".into(),
                mode: config::CookieMode::Insert,
                path: "/".into(),
                domain: None,
                secure: config::Secure::Auto,
                http_only: true,
                same_site: config::SameSite::Lax,
                partitioned: false,
                lifetime: config::Lifetime::Session,
                hide_from_server: true,
                cache_control: None,
            },
            handoff: config::Handoff {
                enabled: false,
                header: "Homing-Session-Data".into(),
                max_size: config::Size(4096),
            },
        }
    }

    const EVERY_BOUND: [BoundServer; 9] = [
        BoundServer::Is(Condition::Accepting),
        BoundServer::Is(Condition::Full),
        BoundServer::Is(Condition::BoundOnly),
        BoundServer::Is(Condition::Maint),
        BoundServer::Is(Condition::Down),
        BoundServer::Is(Condition::Ejected),
        BoundServer::ConnectFailed,
        BoundServer::BrokeOff,
        BoundServer::Gone,
    ];

    #[test]
    fn the_whole_table() {
        use Decision::{Borrow, Fail, Move, Refuse, Stay};
        use Reason::{ConnectFailure, Down, Ejected, Maint, Removed};
        let table = [
            (
                OnServerDown::Reassign,
                [Stay, Stay, Stay, Move(Maint), Move(Down), Move(Ejected), Move(ConnectFailure), Fail, Move(Removed)],
            ),
            (
                OnServerDown::Borrow,
                [
                    Stay,
                    Stay,
                    Stay,
                    Borrow(Maint),
                    Borrow(Down),
                    Borrow(Ejected),
                    Borrow(ConnectFailure),
                    Fail,
                    Move(Removed),
                ],
            ),
            (
                OnServerDown::Refuse,
                [
                    Stay,
                    Stay,
                    Stay,
                    Refuse(Maint),
                    Refuse(Down),
                    Refuse(Ejected),
                    Refuse(ConnectFailure),
                    Fail,
                    Refuse(Removed),
                ],
            ),
        ];
        for (down, expected) in table {
            let policy = policy(down, OnServerDrain::Keep, Duration::ZERO);
            for (bound, expected) in EVERY_BOUND.into_iter().zip(expected) {
                assert_eq!(decide(bound, &policy, false), expected, "{down:?} {bound:?}");
            }
        }
    }

    #[test]
    fn only_a_server_that_may_come_back_is_waited_for_and_only_once() {
        for down in [OnServerDown::Reassign, OnServerDown::Borrow, OnServerDown::Refuse] {
            let policy = policy(down, OnServerDrain::Keep, Duration::from_secs(5));
            for bound in EVERY_BOUND {
                let waits =
                    matches!(bound, BoundServer::Is(Condition::Down | Condition::Ejected) | BoundServer::ConnectFailed);
                assert_eq!(decide(bound, &policy, false) == Decision::Hold, waits, "{down:?} {bound:?}");
                assert_ne!(decide(bound, &policy, true), Decision::Hold, "{down:?} {bound:?}");
            }
        }
    }

    #[test]
    fn sessions_leave_a_draining_server_only_when_told_to() {
        let policy = policy(OnServerDown::Refuse, OnServerDrain::Reassign, Duration::ZERO);
        assert_eq!(decide(BoundServer::Is(Condition::BoundOnly), &policy, false), Decision::Move(Reason::Drain));
    }

    #[test]
    fn a_session_whose_time_on_a_draining_server_is_over_leaves_it_for_good() {
        for down in [OnServerDown::Reassign, OnServerDown::Borrow, OnServerDown::Refuse] {
            let policy = policy(down, OnServerDrain::Keep, Duration::from_secs(5));
            assert_eq!(decide(BoundServer::Drained(Reason::Drain), &policy, false), Decision::Move(Reason::Drain));
            assert_eq!(
                decide(BoundServer::Drained(Reason::Removed), &policy, false),
                decide(BoundServer::Gone, &policy, false),
                "as from a server that was removed at once"
            );
        }
    }
}
