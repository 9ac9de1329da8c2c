//! One session in the table: where it belongs and when it was here, in 16 bytes.

use std::mem::size_of;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use crate::session::key::SessionKey;
use crate::store::expiry::Tick;
use crate::store::targets::TargetIndex;

/// What a session costs, besides its key: 16 bytes.
pub(super) struct Record {
    /// Raised by visits, many at a time, under the read lock; so an atomic, and relaxed because nothing hangs on it.
    last_seen: AtomicU32,
    pub(super) created: Tick,
    pub(super) target: TargetIndex,
    pub(super) epoch: u32,
}

const _: () = assert!(size_of::<Record>() == 16 && size_of::<(SessionKey, Record)>() == 32);

impl Record {
    pub(super) fn new(binding: Binding, now: Tick) -> Self {
        Self { last_seen: AtomicU32::new(now), created: binding.created, target: binding.target, epoch: binding.epoch }
    }

    #[inline]
    pub(super) fn last_seen(&self) -> Tick {
        self.last_seen.load(Relaxed)
    }

    /// The record is another session's from now on.
    pub(super) fn seen_first(&mut self, now: Tick) {
        *self.last_seen.get_mut() = now;
    }

    /// Only ever forward. Most visits of a busy session fall into a tick that is already there and write nothing.
    #[inline]
    pub(super) fn touch(&self, now: Tick) {
        if self.last_seen() < now {
            self.last_seen.fetch_max(now, Relaxed);
        }
    }
}

/// What a record is made of.
#[derive(Clone, Copy)]
pub(super) struct Binding {
    pub(super) target: TargetIndex,
    pub(super) epoch: u32,
    pub(super) created: Tick,
}
