//! What the operations and the supervisor share: the current connection, or the reason why there is none.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;

use super::commands;
use super::connect::{Connector, Endpoints, Node};
use super::connection::Connection;
use super::keys::Keys;
use crate::store::engine::{Capabilities, Event, OnEvent, StoreError};

pub(super) struct EngineState {
    pub(super) endpoints: Endpoints,
    pub(super) keys: Keys,
    pub(super) connector: Connector,
    /// Written by the supervisor.
    connection: ArcSwap<Result<Arc<Connection>, StoreError>>,
    /// Of the last server that answered; written by the supervisor.
    capabilities: ArcSwap<Capabilities>,
    /// The discovered nodes of a cluster; written by the supervisor.
    pub(super) nodes: ArcSwap<Vec<Node>>,
    on_event: OnEvent,
    /// Set once, when the engine is stopped: the supervisor may be in the middle of a step.
    stopped: AtomicBool,
}

impl EngineState {
    pub(super) fn new(endpoints: Endpoints, keys: Keys, connector: Connector, on_event: OnEvent) -> Self {
        let unknown =
            Capabilities { server: "unknown".to_owned(), compare_and_set: "script", announces: true, list: true };
        let not_connected = StoreError::Unreachable("not connected yet".to_owned());
        Self {
            endpoints,
            keys,
            connector,
            connection: ArcSwap::from_pointee(Err(not_connected)),
            capabilities: ArcSwap::from_pointee(unknown),
            nodes: ArcSwap::default(),
            on_event,
            stopped: AtomicBool::new(false),
        }
    }

    /// Operations fail and no event is emitted from now on.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.disconnect(stopping());
    }

    /// The current connection. Never waits for one.
    pub(super) fn connection(&self) -> Result<Arc<Connection>, StoreError> {
        if self.stopped.load(Ordering::Acquire) {
            return Err(stopping());
        }
        Result::clone(&self.connection.load())
    }

    pub(super) fn capabilities(&self) -> Capabilities {
        let last = Capabilities::clone(&self.capabilities.load());
        match self.connection() {
            Ok(connection) => Capabilities { compare_and_set: commands::compare_and_set(&connection), ..last },
            Err(_) => last,
        }
    }

    pub(super) fn emit(&self, event: Event) {
        if !self.stopped.load(Ordering::Acquire) {
            (self.on_event)(event);
        }
    }

    /// Operations use this connection from now on.
    pub(super) fn connect(&self, connection: Arc<Connection>) {
        self.capabilities.store(Arc::new(Capabilities {
            server: connection.server.label.clone(),
            compare_and_set: commands::compare_and_set(&connection),
            announces: connection.announces,
            list: true,
        }));
        self.connection.store(Arc::new(Ok(connection)));
    }

    /// Operations fail at once from now on.
    pub(super) fn disconnect(&self, reason: StoreError) {
        self.connection.store(Arc::new(Err(reason)));
    }
}

fn stopping() -> StoreError {
    StoreError::Unreachable("the proxy is stopping".to_owned())
}
