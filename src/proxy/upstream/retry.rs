//! Whether a request that failed at a server is sent again, and where.
//!
//! - No connection was established: nothing was sent, so any method may go to another server.
//! - The connection broke before the response began: only idempotent methods whose body can be sent again, within the budget.
//!   A request of a session goes to the session's own server once more, on a fresh connection, and nowhere else: a server
//!   that drops one request is not dead, and the log-in page of another would overwrite the client's cookies. A request
//!   without a session goes to another server.
//! - On a *reused* connection that is no failure of the server, which may close an idle connection at any time: the request
//!   first goes to the same server again, on a fresh connection, whatever the budget.
//! - What was ended with its server, since that went down, into `maint` or out of the configuration, or has drained, goes to
//!   another server under the same conditions, also of a session.
//! - A server of HTTP/2 says that it did not process the request: any method whose body can be sent again goes there again.
//! - The proxy itself lacks a resource to connect with (descriptors, ports, memory): that says nothing about the server. A
//!   session stays where it is, and its request fails; a request without one may find a connection to another server.
//! - Anything later fails the request. A request that may have been acted on is never sent twice.

use crate::config::Retries;
use crate::telemetry::metrics::UpstreamError;

/// An attempt that failed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FailedAttempt {
    /// What broke.
    pub(crate) error: UpstreamError,
    /// The response head had arrived.
    pub(crate) responded: bool,
    /// The connection had carried other requests.
    pub(crate) reused: bool,
    /// The method is idempotent.
    pub(crate) idempotent: bool,
    /// The server says that it did not process the request, or it never got it: what the method is does not matter.
    pub(crate) unprocessed: bool,
    /// All that was read of the body is still buffered.
    pub(crate) replayable: bool,
    /// The server may have waited for the client, which has not sent the whole body.
    pub(crate) client_slow: bool,
}

impl FailedAttempt {
    /// It counts for the server's circuit breaker: no connection, or no response on it.
    pub(crate) fn is_failure_of_server(self) -> bool {
        let before_response = match self.error {
            UpstreamError::ResetBeforeResponse => true,
            UpstreamError::Timeout => !self.client_slow,
            error => error.is_connect_failure(),
        };
        before_response && !self.responded && !self.unprocessed
    }
}

/// What the pool and earlier attempts allow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RetryRules<'a> {
    /// The pool's settings.
    pub(crate) retries: &'a Retries,
    /// Servers that failed this request so far.
    pub(crate) failed: usize,
    /// The request was already sent to the same server again.
    pub(crate) same_server_again: bool,
    /// How often a server has not processed the request.
    pub(crate) unprocessed: u32,
    /// The request is at the server of its session.
    pub(crate) bound: bool,
    /// The request is at the server of its session, and the pool refuses to send it to another.
    pub(crate) refuses_others: bool,
    /// The request is at the server of its session, and may still wait for it.
    pub(crate) may_hold: bool,
    /// The server takes no requests any more.
    pub(crate) server_gone: bool,
}

/// What happens to a request after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RetryVerdict {
    /// It goes to the same server again, which has not processed it, on a fresh connection: when a connection ends while a
    /// body is sent again, the server's reason is lost.
    SameServerUnprocessed,
    /// It goes to the same server again, on a fresh connection. The server has not failed.
    SameServerFresh,
    /// A server is selected for it again.
    AnotherServer,
    /// It fails.
    GiveUp(GiveUpReason),
}

/// Why a request is not sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GiveUpReason {
    /// The server may have acted on it, or its body is gone.
    NotRepeatable,
    /// The pool does not want it.
    Disabled,
    /// The session's server was asked twice, and the session stays there.
    SessionStays,
    /// `retries.attempts` are used up.
    AttemptsExhausted,
    /// `retries.budget_percent` is used up.
    BudgetExhausted,
    /// The proxy lacks a resource, and the session stays.
    LocalResources,
}

/// How often one request goes to a server again that does not process it.
const MAX_UNPROCESSED: u32 = 3;

/// Decides. `take_budget` takes a retry out of the pool's budget, when there is one; it is only called when the budget is
/// all that is left to ask for.
pub(crate) fn judge(
    attempt: FailedAttempt,
    rules: &RetryRules<'_>,
    take_budget: impl FnOnce() -> bool,
) -> RetryVerdict {
    let retries = rules.retries;
    if attempt.unprocessed && !attempt.responded && attempt.replayable && retries.attempts > 0 {
        // Without budget, since a server that restarts does this to all requests at once.
        if rules.unprocessed < MAX_UNPROCESSED && !rules.server_gone {
            return RetryVerdict::SameServerUnprocessed;
        }
        if (!rules.bound || rules.server_gone) && rules.failed < retries.attempts as usize {
            return RetryVerdict::AnotherServer;
        }
    }
    // A server can end a handshake of TLS when the body has been read.
    let body_lost = attempt.error.is_of_tls() && !attempt.replayable;
    if attempt.error.is_connect_failure() && !body_lost {
        // A pool that holds or refuses its sessions decides that in the selection, also when nothing is retried.
        let selects = retries.on_connect_failure || rules.refuses_others || rules.may_hold;
        return if selects { RetryVerdict::AnotherServer } else { RetryVerdict::GiveUp(GiveUpReason::Disabled) };
    }
    let before_response = attempt.error == UpstreamError::ResetBeforeResponse && !attempt.responded;
    if !before_response || !attempt.idempotent || !attempt.replayable {
        return RetryVerdict::GiveUp(GiveUpReason::NotRepeatable);
    }
    // Without budget, since a restarting server breaks all its idle connections at once; but not when retries are off.
    let enabled = retries.on_reset_before_response && retries.attempts > 0 && retries.budget_percent > 0;
    if enabled && attempt.reused && !rules.same_server_again && !rules.server_gone {
        return RetryVerdict::SameServerFresh;
    }
    if !retries.on_reset_before_response {
        return RetryVerdict::GiveUp(GiveUpReason::Disabled);
    }
    let stays = rules.bound && !rules.server_gone;
    if stays && rules.same_server_again {
        return RetryVerdict::GiveUp(GiveUpReason::SessionStays);
    }
    if rules.failed >= retries.attempts as usize {
        return RetryVerdict::GiveUp(GiveUpReason::AttemptsExhausted);
    }
    if !take_budget() {
        return RetryVerdict::GiveUp(GiveUpReason::BudgetExhausted);
    }
    if stays { RetryVerdict::SameServerFresh } else { RetryVerdict::AnotherServer }
}

/// Decides for an attempt that found no connection for lack of a local resource. `keyed`: the request belongs to a session,
/// or its key decides its server.
pub(crate) fn judge_exhausted(keyed: bool, rules: &RetryRules<'_>) -> RetryVerdict {
    if keyed {
        return RetryVerdict::GiveUp(GiveUpReason::LocalResources);
    }
    if !rules.retries.on_connect_failure {
        return RetryVerdict::GiveUp(GiveUpReason::Disabled);
    }
    if rules.failed >= rules.retries.attempts as usize {
        return RetryVerdict::GiveUp(GiveUpReason::AttemptsExhausted);
    }
    RetryVerdict::AnotherServer
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RETRIES: Retries =
        Retries { attempts: 2, on_connect_failure: true, on_reset_before_response: true, budget_percent: 20 };
    const RULES: RetryRules<'static> = RetryRules {
        retries: &RETRIES,
        failed: 0,
        same_server_again: false,
        unprocessed: 0,
        bound: false,
        refuses_others: false,
        may_hold: false,
        server_gone: false,
    };
    const RESET: FailedAttempt = FailedAttempt {
        error: UpstreamError::ResetBeforeResponse,
        responded: false,
        reused: false,
        idempotent: true,
        unprocessed: false,
        replayable: true,
        client_slow: false,
    };
    const ERRORS: [UpstreamError; 9] = [
        UpstreamError::ConnectRefused,
        UpstreamError::ConnectTimeout,
        UpstreamError::ConnectError,
        UpstreamError::ResetBeforeResponse,
        UpstreamError::Timeout,
        UpstreamError::ResetMidResponse,
        UpstreamError::InvalidResponse,
        UpstreamError::CertificateUntrusted,
        UpstreamError::TlsHandshake,
    ];

    fn give_up(reason: GiveUpReason) -> RetryVerdict {
        RetryVerdict::GiveUp(reason)
    }

    #[test]
    fn any_method_goes_elsewhere_when_no_connection_was_established() {
        for error in [UpstreamError::ConnectRefused, UpstreamError::ConnectTimeout, UpstreamError::ConnectError] {
            let post = FailedAttempt { error, idempotent: false, replayable: false, ..RESET };
            assert_eq!(judge(post, &RULES, || false), RetryVerdict::AnotherServer, "{error:?}");
            let off = Retries { on_connect_failure: false, ..RETRIES };
            let rules = RetryRules { retries: &off, ..RULES };
            assert_eq!(judge(post, &rules, || true), give_up(GiveUpReason::Disabled), "{error:?}");
            for rules in [RetryRules { refuses_others: true, ..rules }, RetryRules { may_hold: true, ..rules }] {
                assert_eq!(judge(post, &rules, || true), RetryVerdict::AnotherServer, "the selection decides");
            }
        }
    }

    #[test]
    fn a_handshake_that_the_server_ends_late_is_no_connection_while_the_body_can_be_sent_again() {
        let post = FailedAttempt { error: UpstreamError::TlsHandshake, idempotent: false, ..RESET };
        assert_eq!(judge(post, &RULES, || false), RetryVerdict::AnotherServer);
        let lost = FailedAttempt { replayable: false, ..post };
        assert_eq!(judge(lost, &RULES, || true), give_up(GiveUpReason::NotRepeatable));
    }

    #[test]
    fn a_reset_on_a_reused_connection_is_tried_at_the_same_server_once() {
        let reused = FailedAttempt { reused: true, ..RESET };
        assert_eq!(judge(reused, &RULES, || false), RetryVerdict::SameServerFresh, "whatever the budget");
        let again = RetryRules { same_server_again: true, ..RULES };
        assert_eq!(judge(reused, &again, || true), RetryVerdict::AnotherServer);
        for off in [Retries { attempts: 0, ..RETRIES }, Retries { budget_percent: 0, ..RETRIES }] {
            let rules = RetryRules { retries: &off, ..RULES };
            assert_ne!(judge(reused, &rules, || true), RetryVerdict::SameServerFresh, "{off:?}");
        }
    }

    #[test]
    fn a_reset_goes_elsewhere_until_attempts_or_budget_are_used_up() {
        assert_eq!(judge(RESET, &RULES, || true), RetryVerdict::AnotherServer);
        assert_eq!(judge(RESET, &RULES, || false), give_up(GiveUpReason::BudgetExhausted));
        let spent = RetryRules { failed: 2, ..RULES };
        assert_eq!(judge(RESET, &spent, || true), give_up(GiveUpReason::AttemptsExhausted));
    }

    #[test]
    fn a_reset_of_a_bound_request_is_tried_once_more_at_the_sessions_server_and_nowhere_else() {
        let bound = RetryRules { bound: true, ..RULES };
        assert_eq!(judge(RESET, &bound, || true), RetryVerdict::SameServerFresh);
        assert_eq!(judge(RESET, &bound, || false), give_up(GiveUpReason::BudgetExhausted));
        let again = RetryRules { same_server_again: true, ..bound };
        for reused in [true, false] {
            let attempt = FailedAttempt { reused, ..RESET };
            assert_eq!(judge(attempt, &again, || true), give_up(GiveUpReason::SessionStays));
        }
    }

    #[test]
    fn what_was_ended_with_its_server_goes_to_another_also_of_a_session() {
        let gone = RetryRules { bound: true, server_gone: true, ..RULES };
        for (reused, same_server_again) in [(true, false), (true, true), (false, false)] {
            let (attempt, rules) = (FailedAttempt { reused, ..RESET }, RetryRules { same_server_again, ..gone });
            assert_eq!(judge(attempt, &rules, || true), RetryVerdict::AnotherServer);
            assert_eq!(judge(attempt, &rules, || false), give_up(GiveUpReason::BudgetExhausted));
        }
        let post = FailedAttempt { idempotent: false, ..RESET };
        assert_eq!(judge(post, &gone, || true), give_up(GiveUpReason::NotRepeatable));
        let unprocessed = FailedAttempt { unprocessed: true, ..post };
        assert_eq!(judge(unprocessed, &gone, || true), RetryVerdict::AnotherServer);
    }

    #[test]
    fn what_a_server_has_not_processed_goes_there_again_whatever_the_method() {
        let refused =
            FailedAttempt { error: UpstreamError::InvalidResponse, idempotent: false, unprocessed: true, ..RESET };
        for bound in [true, false] {
            let rules = RetryRules { bound, ..RULES };
            for unprocessed in 0..MAX_UNPROCESSED {
                let rules = RetryRules { unprocessed, ..rules };
                assert_eq!(
                    judge(refused, &rules, || panic!("no budget is asked for")),
                    RetryVerdict::SameServerUnprocessed
                );
            }
            let exhausted = RetryRules { unprocessed: MAX_UNPROCESSED, ..rules };
            let expected = if bound { give_up(GiveUpReason::NotRepeatable) } else { RetryVerdict::AnotherServer };
            assert_eq!(judge(refused, &exhausted, || true), expected, "a session stays");
            let gone = FailedAttempt { replayable: false, ..refused };
            assert_eq!(judge(gone, &rules, || true), give_up(GiveUpReason::NotRepeatable), "its body is gone");
            let off = Retries { attempts: 0, ..RETRIES };
            let rules = RetryRules { retries: &off, ..rules };
            assert_eq!(judge(refused, &rules, || true), give_up(GiveUpReason::NotRepeatable), "nothing is retried");
        }
    }

    #[test]
    fn a_session_stays_when_the_proxy_lacks_a_resource() {
        assert_eq!(judge_exhausted(true, &RULES), give_up(GiveUpReason::LocalResources));
        assert_eq!(judge_exhausted(false, &RULES), RetryVerdict::AnotherServer);
        let spent = RetryRules { failed: 2, ..RULES };
        assert_eq!(judge_exhausted(false, &spent), give_up(GiveUpReason::AttemptsExhausted));
        let off = Retries { on_connect_failure: false, ..RETRIES };
        let rules = RetryRules { retries: &off, ..RULES };
        assert_eq!(judge_exhausted(false, &rules), give_up(GiveUpReason::Disabled));
    }

    #[test]
    fn what_counts_for_the_circuit_breaker_is_what_the_server_failed_before_its_response() {
        let counts = |attempt: FailedAttempt| attempt.is_failure_of_server();
        for error in ERRORS {
            let late = matches!(error, UpstreamError::ResetMidResponse | UpstreamError::InvalidResponse);
            assert_eq!(counts(FailedAttempt { error, ..RESET }), !late, "{error:?}");
            assert!(!counts(FailedAttempt { error, responded: true, ..RESET }), "{error:?}: its response had begun");
            assert!(!counts(FailedAttempt { error, unprocessed: true, ..RESET }), "{error:?}: not processed");
        }
        let timeout = FailedAttempt { error: UpstreamError::Timeout, ..RESET };
        assert!(!counts(FailedAttempt { client_slow: true, ..timeout }), "the client may be what is slow");
    }

    prop_compose! {
        fn retries()(attempts in 0u32..4, on_connect_failure: bool, on_reset_before_response: bool, percent in 0u32..3)
            -> Retries {
            Retries { attempts, on_connect_failure, on_reset_before_response, budget_percent: percent }
        }
    }

    prop_compose! {
        fn attempt()(
            error in prop::sample::select(ERRORS.to_vec()),
            (responded, reused, idempotent, replayable) in any::<(bool, bool, bool, bool)>(),
        ) -> FailedAttempt {
            FailedAttempt { error, responded, reused, idempotent, unprocessed: false, replayable, client_slow: false }
        }
    }

    proptest! {
        #[test]
        fn nothing_that_may_have_been_acted_on_is_sent_again(
            attempt in attempt(),
            retries in retries(),
            failed in 0usize..4,
            (same_server_again, bound, refuses_others, may_hold) in any::<(bool, bool, bool, bool)>(),
            (server_gone, has_budget) in any::<(bool, bool)>(),
        ) {
            let rules = RetryRules { retries: &retries, failed, same_server_again, unprocessed: 0, bound, refuses_others, may_hold, server_gone };
            // A budget of 0 percent grants nothing.
            let has_budget = has_budget && retries.budget_percent > 0;
            let mut asked = 0;
            let verdict = judge(attempt, &rules, || { asked += 1; has_budget });
            if !attempt.error.is_connect_failure() {
                let broke_early = attempt.error == UpstreamError::ResetBeforeResponse && !attempt.responded;
                let repeatable = broke_early && attempt.idempotent && attempt.replayable;
                prop_assert!(repeatable || verdict == give_up(GiveUpReason::NotRepeatable), "{verdict:?}");
                prop_assert!(verdict != RetryVerdict::AnotherServer || failed < retries.attempts as usize);
                prop_assert!(verdict != RetryVerdict::AnotherServer || asked == 1);
            }
            let stale = attempt.reused && verdict == RetryVerdict::SameServerFresh;
            prop_assert!(asked == 0 || !stale, "a stale connection costs no budget");
            let is_reset = attempt.error == UpstreamError::ResetBeforeResponse;
            let moves = bound && is_reset && verdict == RetryVerdict::AnotherServer;
            prop_assert!(!moves || server_gone, "a session stays while its server is there");
            prop_assert!(!(server_gone && verdict == RetryVerdict::SameServerFresh), "nothing returns to a server that is gone");
            prop_assert_eq!(verdict == give_up(GiveUpReason::BudgetExhausted), asked == 1 && !has_budget);
            prop_assert!(verdict != RetryVerdict::SameServerFresh || ((attempt.reused || bound) && !same_server_again));
        }
    }
}
