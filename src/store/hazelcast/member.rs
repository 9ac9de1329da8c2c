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
    route: ArcSwap<Route>,
    /// It has left the cluster. Relaxed: the connection's task sees it at its next step.
    gone: AtomicBool,
    /// Notified when the cluster reports it, and when it has left.
    pub(super) wake: Notify,
}

/// The route of requests for a member's partitions.
#[derive(Clone)]
pub(super) enum Route {
    Direct(Connection),
    /// Through any other member, which forwards them: it is in the cluster, but unreachable from here.
    Forwarded,
    /// None: the others do not reach it either, or there are no others.
    Lost(StoreError),
}

impl Member {
    /// A member that the cluster has reported, or that was found by its address.
    pub(super) fn new(uuid: Uuid, address: &str) -> Self {
        Self {
            uuid,
            address: address.into(),
            route: ArcSwap::from_pointee(Route::Forwarded),
            gone: AtomicBool::new(false),
            wake: Notify::new(),
        }
    }

    pub(super) fn route(&self) -> Route {
        Route::clone(&self.route.load())
    }

    pub(super) fn set_route(&self, route: Route) {
        self.route.store(Arc::new(route));
    }

    pub(super) fn connection(&self) -> Option<Connection> {
        match &**self.route.load() {
            Route::Direct(connection) => Some(connection.clone()),
            Route::Forwarded | Route::Lost(_) => None,
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
