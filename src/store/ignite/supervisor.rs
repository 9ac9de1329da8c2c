//! Keeps a connection to one of the nodes: connects, makes the caches, subscribes to announcements, and uses the next node when
//! the connection ends.
//!
//! One connection is enough: a node passes a request on to the one that owns the key. Connections to all nodes would save
//! that hop (some 0.1 ms) on the few requests that wait for the store, and cost as many sockets on each proxy.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::{sleep, timeout};

use super::announcements;
use super::connect::Connector;
use super::connection::{Connection, OnEvents};
use super::protocol::request::{Cache, Request};
use super::protocol::response;
use crate::store::connection::{Backoff, ConnectionEnd, Stream};
use crate::store::engine::{Event, Kind, OnEvent, StoreError};

/// Creating a cache takes time, since all nodes must agree. A node that hangs is noticed by its heartbeat.
const SETUP: Duration = Duration::from_secs(30);

/// The two caches. Bindings have a separate one, so that announcements carry nothing else.
pub(super) struct Caches {
    bindings: String,
    data: String,
}

/// What the operations and the supervisor share.
pub(super) struct Shared {
    /// `host:port` each; never empty.
    addresses: Vec<String>,
    connector: Connector,
    caches: Caches,
    /// Written by the supervisor.
    state: ArcSwap<Result<Connection, StoreError>>,
    on_event: OnEvent,
    /// Set once, when the engine ends: the supervisor may be in the middle of a step.
    stopped: AtomicBool,
}

impl Caches {
    pub(super) fn new(name: &str) -> Self {
        Self { bindings: name.to_owned(), data: format!("{name}-data") }
    }

    /// The cache of names of that kind.
    pub(super) fn of(&self, kind: Kind) -> Cache {
        Cache::named(self.name(kind))
    }

    fn name(&self, kind: Kind) -> &str {
        match kind {
            Kind::Binding => &self.bindings,
            Kind::Data => &self.data,
        }
    }
}

impl Shared {
    pub(super) fn new(addresses: Vec<String>, connector: Connector, caches: Caches, on_event: OnEvent) -> Self {
        let unknown = StoreError::Unreachable("there is no connection yet".to_owned());
        let state = ArcSwap::from_pointee(Err(unknown));
        Self { addresses, connector, caches, state, on_event, stopped: AtomicBool::new(false) }
    }

    /// The connection, or the reason why there is none.
    pub(super) fn connection(&self) -> Result<Connection, StoreError> {
        if self.stopped.load(Ordering::Acquire) {
            return Err(stopping());
        }
        Result::clone(&self.state.load())
    }

    pub(super) fn cache(&self, kind: Kind) -> Cache {
        self.caches.of(kind)
    }

    /// Stops all operations and events.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.state.store(Arc::new(Err(stopping())));
    }

    fn emit(&self, event: Event) {
        if !self.stopped.load(Ordering::Acquire) {
            (self.on_event)(event);
        }
    }
}

fn stopping() -> StoreError {
    StoreError::Unreachable("the proxy is stopping".to_owned())
}

/// Keeps a connection until the task is aborted. Begins at a random node, so that proxies spread over the nodes.
pub(super) async fn supervise(shared: Arc<Shared>) {
    let mut at: usize = rand::random();
    let mut reported = false;
    let mut backoff = Backoff::new();
    // How many nodes in a row were of no use.
    let mut failed = 0;
    loop {
        let Some(address) = shared.addresses.get(at % shared.addresses.len().max(1)) else { return };
        let label: Arc<str> = format!("ignite at {address}").into();
        let end = match shared.connector.connect(address, &label).await {
            Ok(stream) => serve(&shared, &label, stream).await,
            Err(error) => End { error, served: false, proven: false },
        };
        shared.state.store(Arc::new(Err(end.error.clone())));
        if end.served {
            reported = false;
        }
        failed = if end.proven { 1 } else { failed + 1 };
        if end.proven {
            backoff.reset();
        }
        at = at.wrapping_add(1);
        // The next node may be well: the store is lost when none is.
        if failed < shared.addresses.len() {
            continue;
        }
        failed = 0;
        if !std::mem::replace(&mut reported, true) {
            shared.emit(Event::Lost(end.error.reason()));
        }
        sleep(backoff.pause()).await;
    }
}

/// How a connection ended.
struct End {
    error: StoreError,
    /// Operations could use it.
    served: bool,
    /// It lasted for at least a second.
    proven: bool,
}

async fn serve(shared: &Arc<Shared>, label: &Arc<str>, stream: Stream) -> End {
    let on_events: OnEvents = {
        let shared = Arc::clone(shared);
        Box::new(move |payload| {
            for (name, value) in announcements::of(payload) {
                shared.emit(Event::Announced(name, value));
            }
        })
    };
    let (connection, driven) = Connection::over(stream, on_events, label);
    tokio::pin!(driven);
    let set_up = tokio::select! {
        biased;
        ConnectionEnd { reason, .. } = &mut driven => Err(StoreError::Unreachable(reason)),
        set_up = timeout(SETUP, set_up(&connection, &shared.caches)) => set_up.unwrap_or_else(|_elapsed| {
            Err(StoreError::Unreachable(format!("{label}: making the caches took longer than {SETUP:?}")))
        }),
    };
    if let Err(error) = set_up {
        return End { error, served: false, proven: false };
    }
    tracing::debug!(server = %label, "connected to the store");
    shared.state.store(Arc::new(Ok(connection)));
    shared.emit(Event::Reconnected);
    let ConnectionEnd { reason, proven } = driven.await;
    End { error: StoreError::Unreachable(reason), served: true, proven }
}

/// Caches and announcements. A user without permission to create caches uses existing ones.
async fn set_up(connection: &Connection, caches: &Caches) -> Result<(), StoreError> {
    connection.joined().await?;
    for name in [&caches.bindings, &caches.data] {
        if let Err(refusal) = connection.ask(Request::get_or_create(name)).await {
            let exists = connection.ask(Request::get_all(Cache::named(name), [].into_iter())).await;
            exists.map_err(|_absent| named(name, refusal))?;
        }
    }
    connection.ask_for(Request::continuous_query(caches.of(Kind::Binding)), response::cursor).await?;
    Ok(())
}

fn named(cache: &str, refusal: StoreError) -> StoreError {
    match refusal {
        StoreError::Refused(why) => StoreError::Refused(format!("cache {cache}: {why}")),
        other => other,
    }
}
