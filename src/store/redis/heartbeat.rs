//! Liveness: a connection is pinged every second, since a server that is frozen or cut off gives no error by itself. And
//! the announcements that come in.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::stream::StreamExt;
use redis::aio::{PubSubSink, PubSubStream};
use redis::{Value as Response, cmd};
use tokio::time::{sleep, timeout};

use super::connect::check_ping;
use super::connection::{Connection, Handle};
use super::errors::Failure;
use super::keys::parse_announcement;
use super::state::EngineState;
use crate::store::engine::Event;

/// Between two pings.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);
/// For a response.
pub(super) const LIMIT: Duration = Duration::from_secs(1);

/// Whether a connection has passed a heartbeat. One that fails before delays the next attempt.
#[derive(Default)]
pub(super) struct Proven(AtomicBool);

impl Proven {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(super) fn into_inner(self) -> bool {
        self.0.into_inner()
    }
}

/// Pings both connections to a server until one does not answer. Returns the reason.
pub(super) async fn watch(connection: &Connection, mut sink: Option<PubSubSink>, proven: &Proven) -> String {
    loop {
        sleep(INTERVAL).await;
        let both = async { tokio::try_join!(ping(connection), ping_subscription(sink.as_mut())) };
        if let Err(reason) = within_limit(both).await {
            return reason;
        }
        proven.set();
    }
}

/// Pings a subscription until it does not answer. Returns the reason.
pub(super) async fn watch_subscription(mut sink: PubSubSink) -> String {
    loop {
        sleep(INTERVAL).await;
        if let Err(reason) = within_limit(ping_subscription(Some(&mut sink))).await {
            return reason;
        }
    }
}

async fn within_limit<T>(ping: impl Future<Output = Result<T, Failure>>) -> Result<T, String> {
    match timeout(LIMIT, ping).await {
        Ok(response) => response.map_err(Failure::reason),
        Err(_) => Err("no response to a ping for a second".to_owned()),
    }
}

/// Whether the server of a single connection answers.
pub(super) async fn ping(connection: &Connection) -> Result<(), Failure> {
    let mut handle: Handle = connection.handle().clone();
    check_ping(cmd("PING").query_async::<Response>(&mut handle).await)
}

async fn ping_subscription(sink: Option<&mut PubSubSink>) -> Result<(), Failure> {
    match sink {
        Some(sink) => check_ping(sink.ping::<Response>().await),
        None => Ok(()),
    }
}

/// Passes announcements on until the subscription ends. Returns the reason; without a subscription, never.
pub(super) async fn forward_announcements(state: &EngineState, stream: Option<PubSubStream>) -> String {
    let Some(mut stream) = stream else { return std::future::pending().await };
    while let Some(message) = stream.next().await {
        if let Some((name, value)) = parse_announcement(message.get_payload_bytes()) {
            state.emit(Event::Announced(name, value));
        }
    }
    "the subscription has ended".to_owned()
}
