//! The challenges of orders that are under way, as the authority will ask for them.

use parking_lot::Mutex;

use crate::config::AcmeChallenge;

/// Challenges of this process. Locked for a few instructions, by orders and by those who ask.
#[derive(Debug, Default)]
pub(super) struct Challenges(Mutex<Vec<Challenge>>);

/// What the authority asks for, and what it expects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Challenge {
    pub(super) kind: AcmeChallenge,
    /// For http-01 the token, for tls-alpn-01 the host.
    pub(super) subject: String,
    /// The key authorization (RFC 8555, section 8.1).
    pub(super) authorization: String,
}

impl Challenges {
    pub(super) fn add(&self, challenge: Challenge) {
        let mut all = self.0.lock();
        all.retain(|one| (one.kind, &one.subject) != (challenge.kind, &challenge.subject));
        all.push(challenge);
    }

    pub(super) fn remove(&self, challenge: &Challenge) {
        self.0.lock().retain(|one| one != challenge);
    }

    pub(super) fn authorization(&self, kind: AcmeChallenge, subject: &str) -> Option<String> {
        let all = self.0.lock();
        let found = all.iter().find(|one| one.kind == kind && one.subject == subject);
        found.map(|one| one.authorization.clone())
    }
}
