//! The end of a connection.

use std::future::poll_fn;
use std::io;
use std::time::Duration;

use async_trait::async_trait;
use pingora::protocols::Shutdown;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::{BODY, DeadlineStream};

/// How long a connection that was closed with unread bytes is read.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

impl DeadlineStream {
    /// Reads until the client closes its side. A socket that is closed with unread bytes is reset, and the client may lose the
    /// response.
    async fn discard(&mut self) -> io::Result<()> {
        loop {
            let count = self.input.bytes().len();
            self.input.consume(count);
            if poll_fn(|context| self.input.poll_fill(&mut self.inner, context)).await? == 0 {
                return Ok(());
            }
        }
    }
}

#[async_trait]
impl Shutdown for DeadlineStream {
    async fn shutdown(&mut self) {
        // Bytes that were not flushed go first.
        let _ = self.flush().await;
        let _ = self.inner.shutdown().await;
        let in_body = *self.phase.get_mut() == BODY && !self.body().is_complete();
        if in_body || !self.input.is_empty() {
            let _ = timeout(LINGER_TIMEOUT, self.discard()).await;
        }
    }
}
