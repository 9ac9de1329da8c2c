//! One member of the cluster, as requests see it: where it is, and how requests come to it.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use uuid::Uuid;

use super::connection::Connection;
use crate::store::engine::StoreError;

/// A member.
pub(super) struct Member {
    pub(super) uuid: Uuid,
    /// `host:port`.
    pub(super) address: Box<str>,
    way: ArcSwap<Way>,
    /// The cluster has it no more. Relaxed: the task that keeps its connection sees it with the next step.
    gone: AtomicBool,
    /// Woken when it is there, as far as others know, and when it is gone.
    pub(super) wake: Notify,
}

/// How requests for a member's partitions come to it.
#[derive(Clone)]
pub(super) enum Way {
    Direct(Connection),
    /// By any other member, which passes them on: it is in the cluster, but is not reached from here.
    Detour,
    /// None: it does not answer the others either, or there are no others.
    Lost(StoreError),
}

impl Member {
    /// One that the cluster has told of, or that was found.
    pub(super) fn new(uuid: Uuid, address: &str) -> Self {
        Self {
            uuid,
            address: address.into(),
            way: ArcSwap::from_pointee(Way::Detour),
            gone: AtomicBool::new(false),
            wake: Notify::new(),
        }
    }

    pub(super) fn way(&self) -> Way {
        Way::clone(&self.way.load())
    }

    pub(super) fn set_way(&self, way: Way) {
        self.way.store(Arc::new(way));
    }

    pub(super) fn connection(&self) -> Option<Connection> {
        match &**self.way.load() {
            Way::Direct(connection) => Some(connection.clone()),
            Way::Detour | Way::Lost(_) => None,
        }
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Relaxed)
    }

    /// The cluster has it no more. Returns whether it was lost before.
    pub(super) fn leave(&self) -> bool {
        self.gone.store(true, Relaxed);
        self.wake.notify_one();
        self.connection().is_none()
    }
}
