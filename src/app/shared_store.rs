//! The store that several proxies share: its engine, and the guard before it.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{sleep, timeout};

use crate::config::{Proxy, Remote};
use crate::store::engine::{Engine, Event, OnEvent};
use crate::store::shared::{SharedStore, StoreContext};

use super::RunError;

/// The store, and what its engine tells.
pub(super) struct Shared {
    pub(super) store: Arc<SharedStore>,
    pub(super) events: UnboundedReceiver<Event>,
}

/// How long one attempt to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// The first client should find the store connected; but a store that is away must not keep the proxy from serving.
const FIRST_CONTACT: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Starts the engine that the configuration names, on the background's runtime.
pub(super) fn start(
    settings: &Remote,
    proxy: &Proxy,
    context: StoreContext,
    runtime: &Handle,
) -> Result<Shared, RunError> {
    context.metrics.store.set_up(false);
    let (tell, mut events) = unbounded_channel();
    let again = tell.clone();
    // Nobody listens any more only while the process stops.
    let on_event: OnEvent = Arc::new(move |event| drop(tell.send(event)));
    let engine = settings.engine.start(CONNECT_TIMEOUT, runtime, on_event);
    let engine = engine.map_err(|error| RunError::Internal(format!("{}: {error}", settings.engine.section())))?;
    if !runtime.block_on(first_contact(&*engine)) {
        start_without(&mut events, &again);
    }
    Ok(Shared { store: Arc::new(SharedStore::new(engine, settings, &proxy.node, rand::random(), context)), events })
}

/// Whether it answers.
async fn first_contact(engine: &dyn Engine) -> bool {
    let answers = async {
        while engine.ping().await.is_err() {
            sleep(LOOK_EVERY).await;
        }
    };
    timeout(FIRST_CONTACT, answers).await.is_ok()
}

/// Says so once, with the reasons; else each would be told by itself as a store that was lost.
fn start_without(events: &mut UnboundedReceiver<Event>, again: &UnboundedSender<Event>) {
    let (mut reasons, mut others) = (Vec::new(), Vec::new());
    while let Ok(event) = events.try_recv() {
        match event {
            Event::Lost(why) => reasons.push(why),
            other => others.push(other),
        }
    }
    for event in others {
        drop(again.send(event));
    }
    let why = if reasons.is_empty() { "it does not answer".to_owned() } else { reasons.join("; ") };
    tracing::warn!(%why, "the shared store is out of reach; starting without it");
}
