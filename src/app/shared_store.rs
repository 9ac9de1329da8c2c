//! Starts the store that several proxies share: its engine, and the cache and breaker in front of it.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{sleep, timeout};

use crate::config::{Proxy, Remote};
use crate::proxy::context::wall_clock;
use crate::store::engine::{Engine, Event, OnEvent};
use crate::store::shared::{SharedStore, StoreContext};

use super::error::RunError;

/// The store, and its engine's events.
pub(super) struct StartedStore {
    pub(super) store: Arc<SharedStore>,
    pub(super) events: UnboundedReceiver<Event>,
}

/// How long a step of connecting may take, if the store's `timeout` is not longer: where requests take long, so does a log-in.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// How long a start waits for the store: the first request should find it connected, but an unreachable store must not keep
/// the proxy from serving.
const FIRST_CONTACT: Duration = Duration::from_secs(1);
const PING_INTERVAL: Duration = Duration::from_millis(5);

/// Starts the engine that the configuration names, on the background's executor.
pub(super) fn start(
    settings: &Remote,
    proxy: &Proxy,
    context: StoreContext,
    executor: &Handle,
) -> Result<StartedStore, RunError> {
    context.metrics.store.set_up(false);
    let (sender, mut events) = unbounded_channel();
    let resend = sender.clone();
    // The receiver is gone only while the process stops.
    let on_event: OnEvent = Arc::new(move |event| drop(sender.send(event)));
    let engine = settings.engine.start(CONNECT_TIMEOUT.max(settings.timeout), executor, wall_clock, on_event);
    let engine = engine.map_err(|error| RunError::Internal(format!("{}: {error}", settings.engine.section())))?;
    let answers = executor.block_on(first_contact(&*engine));
    if !answers {
        log_unreachable(&mut events, &resend);
    }
    let store = Arc::new(SharedStore::new(engine, settings, &proxy.node, rand::random(), context));
    if !answers {
        store.set_unavailable(true);
    }
    Ok(StartedStore { store, events })
}

/// Whether it answers in time.
async fn first_contact(engine: &dyn Engine) -> bool {
    let answers = async {
        while engine.ping().await.is_err() {
            sleep(PING_INTERVAL).await;
        }
    };
    timeout(FIRST_CONTACT, answers).await.is_ok()
}

/// Logs it once, with the reasons; otherwise each reason would be logged as a store that was lost.
fn log_unreachable(events: &mut UnboundedReceiver<Event>, resend: &UnboundedSender<Event>) {
    let (mut reasons, mut others) = (Vec::new(), Vec::new());
    while let Ok(event) = events.try_recv() {
        match event {
            Event::Lost(why) => reasons.push(why),
            other => others.push(other),
        }
    }
    for event in others {
        drop(resend.send(event));
    }
    let why = if reasons.is_empty() { "it does not answer".to_owned() } else { reasons.join("; ") };
    tracing::warn!(%why, "the shared store is out of reach; starting without it");
}
