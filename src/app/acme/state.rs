//! What outlives reloads: the certificates that are shown, and the challenges of orders that are under way.

use std::sync::Arc;

use tokio::sync::{Notify, Semaphore};

use super::challenges::Challenges;
use super::live::LiveCertificates;

/// Challenges that are looked up in the shared store at a time; a request for one more counts as one for an unknown challenge.
const LOOKUPS: usize = 32;

/// The certificates that the proxy orders itself.
#[derive(Debug)]
pub struct AcmeState {
    /// What listeners show.
    pub(crate) live: Arc<LiveCertificates>,
    /// What this process answers.
    pub(super) challenges: Challenges,
    /// Clients may ask for challenges as often as they like.
    pub(super) lookups: Semaphore,
    /// The configuration may have other hosts.
    pub(in crate::app) wake: Notify,
}

impl AcmeState {
    pub(in crate::app) fn new(live: Arc<LiveCertificates>) -> Self {
        Self { live, challenges: Challenges::default(), lookups: Semaphore::new(LOOKUPS), wake: Notify::new() }
    }
}
