//! One session in the table: its binding and its last visit, in 16 bytes.

use std::mem::size_of;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use crate::session::key::SessionKey;
use crate::store::expiry::Tick;
use crate::store::targets::TargetIndex;

/// A session without its key.
pub(super) struct Record {
    /// Raised by concurrent visits under the read lock. Relaxed: nothing is published by it.
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

    /// For a record that becomes another session's.
    pub(super) fn reset_last_seen(&mut self, now: Tick) {
        *self.last_seen.get_mut() = now;
    }

    /// Never decreases. Most visits of a busy session are in the same tick and write nothing.
    #[inline]
    pub(super) fn touch(&self, now: Tick) {
        if self.last_seen() < now {
            self.last_seen.fetch_max(now, Relaxed);
        }
    }
}

/// A binding as it is inserted.
#[derive(Clone, Copy)]
pub(super) struct Binding {
    pub(super) target: TargetIndex,
    pub(super) epoch: u32,
    pub(super) created: Tick,
}
