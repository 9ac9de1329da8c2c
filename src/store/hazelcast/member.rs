//! A member of the cluster: its address, and the route of requests to it.

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
    /// It has left the cluster. Relaxed: the connection's task sees it at its next step.
    gone: AtomicBool,
    /// Notified when the cluster reports it, and when it has left.
    pub(super) wake: Notify,
}

/// The route of requests for a member's partitions.
#[derive(Clone)]
pub(super) enum Way {
    Direct(Connection),
    /// Through any other member, which forwards them: it is in the cluster, but unreachable from here.
    Detour,
    /// None: the others do not reach it either, or there are no others.
    Lost(StoreError),
}

impl Member {
    /// A member that the cluster has reported, or that was found by its address.
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

    /// It has left the cluster. Returns whether it was lost before.
    pub(super) fn leave(&self) -> bool {
        self.gone.store(true, Relaxed);
        self.wake.notify_one();
        self.connection().is_none()
    }
}
