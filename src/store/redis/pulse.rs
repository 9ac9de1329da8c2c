//! Whether a connection still lives: it is asked every second, and what it brings unasked is passed on.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use futures_util::stream::StreamExt;
use redis::aio::{PubSubSink, PubSubStream};
use redis::{Cmd, Value as Answer};
use tokio::time::{sleep, timeout};

use super::dial::alive;
use super::failure::Failure;
use super::keys::read_announcement;
use super::link::Link;
use super::supervisor::{Shared, is_steady};
use crate::store::engine::Event;

/// Between two questions.
pub(super) const EVERY: Duration = Duration::from_secs(1);
/// For an answer.
pub(super) const LIMIT: Duration = Duration::from_secs(1);

/// Waits until one of the two connections of a server does not answer; then says why.
pub(super) async fn beats(link: &Link, mut sink: Option<PubSubSink>, steady: &AtomicBool) -> String {
    loop {
        sleep(EVERY).await;
        let both = async { tokio::try_join!(ping(link), ping_subscription(sink.as_mut())) };
        match timeout(LIMIT, both).await {
            Ok(Ok(_)) => is_steady(steady),
            Ok(Err(failure)) => return failure.why(),
            Err(_) => return "it has not answered for a second".to_owned(),
        }
    }
}

/// Waits until a connection of announcements does not answer; then says why.
pub(super) async fn subscription_beats(mut sink: PubSubSink) -> String {
    loop {
        sleep(EVERY).await;
        match timeout(LIMIT, ping_subscription(Some(&mut sink))).await {
            Ok(Ok(())) => {}
            Ok(Err(failure)) => return failure.why(),
            Err(_) => return "it has not answered for a second".to_owned(),
        }
    }
}

/// Whether the server of one connection answers.
pub(super) async fn ping(link: &Link) -> Result<(), Failure> {
    let mut command = Cmd::new();
    command.arg("PING");
    alive(command.query_async::<Answer>(&mut link.connection()).await)
}

/// Whether announcements could come in.
async fn ping_subscription(sink: Option<&mut PubSubSink>) -> Result<(), Failure> {
    match sink {
        Some(sink) => alive(sink.ping::<Answer>().await),
        None => Ok(()),
    }
}

/// Passes announcements on until the connection ends; then says so. Without one, never.
pub(super) async fn announcements(shared: &Shared, stream: Option<PubSubStream>) -> String {
    let Some(mut stream) = stream else { return std::future::pending().await };
    while let Some(message) = stream.next().await {
        if let Some((name, value)) = read_announcement(message.get_payload_bytes()) {
            shared.tell(Event::Announced(name, value));
        }
    }
    "the connection of the announcements has ended".to_owned()
}
