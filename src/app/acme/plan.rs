//! What the worker knows of one host: when its certificate is due, and until when it waits. Times are seconds since 1970.

use std::sync::Arc;
use std::time::Duration;

use crate::config::Acme;

use super::authority::RenewalWindow;
use super::certificate::IssuedCertificate;
use super::schedule::{pause_after_refusal, pause_when_unreachable, renewal, renewal_in};

/// How often the shared store is read for what another proxy has ordered: rarely, and often while a certificate is due.
const LOOK_RARELY: f64 = 300.0;
const LOOK_OFTEN: f64 = 2.0;
/// While this proxy waits for long before it orders again.
const LOOK_WAITING: f64 = 30.0;
/// When the authority did not say when to ask it again, or does not know the question.
const ASK_AGAIN: Duration = Duration::from_secs(24 * 60 * 60);
/// A certificate that was just ordered is not asked for: an authority whose window is always over would be asked for ever.
const ASK_LATER: f64 = 6.0 * 60.0 * 60.0;
/// RFC 9773, section 4.3.3: the least and the most of what it may say.
const ASK_SOON: Duration = Duration::from_secs(60);

/// What is planned for a host.
pub(super) struct HostPlan {
    /// Its settings: others make the plan begin again.
    acme: Acme,
    certificate: Option<Arc<IssuedCertificate>>,
    /// When the certificate is renewed; now if there is none.
    due_at: f64,
    /// When the authority is asked for its window.
    ask_at: f64,
    window: Option<(f64, f64)>,
    /// When the shared store is read.
    look_at: f64,
    /// After a failure.
    wait_until: f64,
    refusals: u32,
    unreachable: u32,
    /// The host was visited: a certificate that comes now is new.
    is_begun: bool,
}

impl HostPlan {
    pub(super) fn new(acme: &Acme) -> Self {
        Self {
            acme: acme.clone(),
            certificate: None,
            due_at: 0.0,
            ask_at: 0.0,
            window: None,
            look_at: 0.0,
            wait_until: 0.0,
            refusals: 0,
            unreachable: 0,
            is_begun: false,
        }
    }

    /// With the settings and the certificate as they are now.
    pub(super) fn update(&mut self, acme: &Acme, certificate: Option<Arc<IssuedCertificate>>, now: f64, jitter: f64) {
        if self.acme != *acme {
            *self = Self::new(acme);
        }
        let same = match (&self.certificate, &certificate) {
            (Some(before), Some(now)) => Arc::ptr_eq(before, now),
            (before, now) => before.is_none() && now.is_none(),
        };
        if same {
            return;
        }
        let due_at = certificate.as_deref().map_or(0.0, |certificate| renewal(certificate, jitter));
        let ask_at = if self.is_begun { now + ASK_LATER } else { 0.0 };
        *self = Self { certificate, due_at, ask_at, look_at: self.look_at, ..Self::new(acme) };
    }

    pub(super) fn certificate(&self) -> Option<&Arc<IssuedCertificate>> {
        self.certificate.as_ref()
    }

    pub(super) fn is_due(&self, now: f64) -> bool {
        self.due_at <= now
    }

    pub(super) fn may_order(&self, now: f64) -> bool {
        self.is_due(now) && self.wait_until <= now
    }

    /// Whether the shared store is read now; then the next time is set.
    pub(super) fn looks(&mut self, now: f64) -> bool {
        let looks = self.look_at <= now;
        if looks {
            self.look_at = now
                + match (self.is_due(now), self.wait_until > now + LOOK_WAITING) {
                    (false, _) => LOOK_RARELY,
                    (true, true) => LOOK_WAITING,
                    (true, false) => LOOK_OFTEN,
                };
        }
        looks
    }

    /// Whether the authority is asked when to renew.
    pub(super) fn asks(&self, now: f64) -> bool {
        self.ask_at <= now && self.may_ask(now)
    }

    fn may_ask(&self, now: f64) -> bool {
        !self.is_due(now) && self.certificate.as_ref().is_some_and(|one| one.identifier.is_some())
    }

    /// What the authority said. The time in a window that it has named before stays.
    pub(super) fn set_window(&mut self, answer: Option<RenewalWindow>, now: f64, jitter: f64) {
        let ask_after = answer.map_or(ASK_AGAIN, |answer| answer.ask_after.clamp(ASK_SOON, ASK_AGAIN));
        self.ask_at = now + ask_after.as_secs_f64();
        let Some((answer, certificate)) = answer.zip(self.certificate.as_deref()) else { return };
        if self.window != Some(answer.window) {
            self.window = Some(answer.window);
            self.due_at = renewal_in(answer.window, certificate, jitter);
        }
    }

    /// The visit is over. Returns when something is to be done next. `shared`: there is a store to read.
    pub(super) fn next(&mut self, shared: bool, now: f64) -> f64 {
        self.is_begun = true;
        let order = self.due_at.max(self.wait_until);
        let ask = if self.may_ask(now) { self.ask_at } else { f64::INFINITY };
        let look = if shared { self.look_at } else { f64::INFINITY };
        order.min(ask).min(look)
    }

    pub(super) fn wait(&mut self, until: f64) {
        self.wait_until = until;
    }

    /// The authority has refused; returns the pause.
    pub(super) fn refused(&mut self, now: f64, jitter: f64) -> Duration {
        self.refusals = self.refusals.saturating_add(1);
        let pause = pause_after_refusal(self.refusals, jitter);
        self.wait_until = now + pause.as_secs_f64();
        pause
    }

    /// Nothing could be asked; returns the pause.
    pub(super) fn unreachable(&mut self, now: f64, jitter: f64) -> Duration {
        self.unreachable = self.unreachable.saturating_add(1);
        let pause = pause_when_unreachable(self.unreachable, jitter);
        self.wait_until = now + pause.as_secs_f64();
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::super::certificate::tests::pem;
    use super::*;
    use crate::config::AcmeChallenge;

    fn acme() -> Acme {
        Acme {
            directory: "https://ca.example/directory".to_owned(),
            authorities: None,
            contact: Vec::new(),
            external_account: None,
            hosts: vec!["a.example".to_owned()],
            storage: "/var/lib/homing/acme".into(),
            challenge: AcmeChallenge::Http01,
        }
    }

    /// Valid from 0 to 90,000.
    fn certificate() -> Arc<IssuedCertificate> {
        let parsed = IssuedCertificate::parse("a.example", &pem("a.example")).unwrap();
        let identifier = instant_acme::CertificateIdentifier::new(b"a".as_slice().into(), b"b".as_slice().into());
        Arc::new(IssuedCertificate { not_before: 0, not_after: 90_000, identifier: Some(identifier), ..parsed })
    }

    fn window(from: f64, to: f64) -> RenewalWindow {
        RenewalWindow { window: (from, to), ask_after: Duration::from_secs(1) }
    }

    #[test]
    fn a_host_without_a_certificate_is_due_at_once_and_one_with_a_certificate_when_a_third_is_left() {
        let mut plan = HostPlan::new(&acme());
        plan.update(&acme(), None, 10.0, 0.0);
        assert!(plan.may_order(10.0));
        plan.update(&acme(), Some(certificate()), 10.0, 0.0);
        assert!(!plan.may_order(59_999.0) && plan.may_order(60_000.0));
        assert!(plan.asks(10.0), "its authority may know better");
    }

    #[test]
    fn an_authority_may_bring_a_renewal_forward_and_its_window_is_asked_for_again() {
        let mut plan = HostPlan::new(&acme());
        plan.update(&acme(), Some(certificate()), 10.0, 0.0);
        plan.set_window(Some(window(1_000.0, 2_000.0)), 10.0, 0.5);
        assert!((plan.next(false, 10.0) - 70.0).abs() < 0.01, "not before a minute is over");
        assert!(!plan.may_order(1_499.0) && plan.may_order(1_500.0));
        plan.set_window(Some(window(1_000.0, 2_000.0)), 70.0, 0.9);
        assert!(plan.may_order(1_500.0), "the same window, the same time");
        plan.set_window(None, 130.0, 0.9);
        assert!(plan.may_order(1_500.0) && !plan.asks(80_000.0));
    }

    #[test]
    fn a_certificate_that_was_just_ordered_is_not_asked_for() {
        let mut plan = HostPlan::new(&acme());
        plan.update(&acme(), None, 10.0, 0.0);
        plan.next(false, 10.0);
        plan.update(&acme(), Some(certificate()), 20.0, 0.0);
        assert!(!plan.asks(20.0) && plan.asks(20.0 + ASK_LATER));
    }

    #[test]
    fn failures_wait_and_other_settings_begin_again() {
        let mut plan = HostPlan::new(&acme());
        plan.update(&acme(), None, 10.0, 0.0);
        assert_eq!(plan.refused(10.0, 0.0), Duration::from_secs(120));
        assert!(!plan.may_order(129.0) && plan.may_order(130.0));
        assert_eq!(plan.refused(130.0, 0.0), Duration::from_secs(360));
        assert!((plan.next(false, 130.0) - 490.0).abs() < 0.01);
        let other = Acme { challenge: AcmeChallenge::TlsAlpn01, ..acme() };
        plan.update(&other, None, 131.0, 0.0);
        assert!(plan.may_order(131.0));
    }

    #[test]
    fn the_store_is_read_often_only_while_an_order_of_another_proxy_may_end() {
        let mut plan = HostPlan::new(&acme());
        plan.update(&acme(), None, 0.0, 0.0);
        assert!(plan.looks(0.0) && !plan.looks(1.0) && plan.looks(2.0));
        plan.refused(2.0, 0.0);
        assert!(plan.looks(4.0) && !plan.looks(33.0) && plan.looks(34.0));
        plan.update(&acme(), Some(certificate()), 64.0, 0.0);
        assert!(plan.looks(64.0) && !plan.looks(363.0) && plan.looks(364.0));
    }
}
