//! A connection of HTTP/2: its settings, and how many of its requests are not finished.
//!
//! Pingora and the `h2` crate bound the streams that are open. A stream that its client has reset is not open any more, but its
//! request may still wait, for a connection to its server for instance, and the client opens the next one meanwhile
//! (CVE-2023-44487; CVE-2025-8671 where the client makes the proxy reset its streams). So requests are counted here until they
//! have ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pingora::protocols::Digest;
use pingora::protocols::http::v2::server::{H2Options, default_h2_options};
use tokio::sync::Notify;

use super::authentication::ConnectionAuthentication;

/// Requests of a connection that are not finished: as many as it may have streams, and as many again that were cancelled.
const MOST_UNFINISHED: usize = 200;
/// Bytes of a response that may wait for the client's socket. By default it would be 400 KiB for each of a hundred streams.
const SEND_BUFFER: usize = 128 * 1024;
/// Decompressed size of a head, at least: Pingora's default.
const HEADER_LIST: usize = 64 * 1024;

/// The settings of a connection. `max_header_size`: the largest of the listeners. Which of them it came by is not known here;
/// heads that are too large for their listener are refused later.
pub(super) fn options(max_header_size: usize) -> H2Options {
    let mut options = default_h2_options();
    let header_list = u32::try_from(max_header_size.max(HEADER_LIST)).unwrap_or(u32::MAX);
    options.max_header_list_size(header_list);
    options.max_send_buffer_size(SEND_BUFFER);
    options
}

/// What the requests of a connection share. They have no access to its stream, but to its digest.
#[derive(Debug, Default)]
pub(super) struct Http2Connection {
    pub(super) authentication: ConnectionAuthentication,
    unfinished: AtomicUsize,
    /// The last of them has ended.
    idle: Notify,
}

impl Http2Connection {
    /// Of a request with this digest; `None` over HTTP/1.
    pub(super) fn of(digest: Option<&Digest>) -> Option<&Arc<Self>> {
        digest?.proxy_digest.as_ref()?.user_data.as_ref()?.downcast_ref()
    }

    /// A request begins. `None`: it is one too many.
    pub(super) fn begin_request(self: &Arc<Self>) -> Option<UnfinishedRequest> {
        let request = UnfinishedRequest(Arc::clone(self));
        let others = self.unfinished.fetch_add(1, Ordering::Relaxed);
        (others < MOST_UNFINISHED).then_some(request)
    }

    /// Waits for the requests of a connection that has ended: some do not notice at once. Until then it counts as open, so that
    /// the limit of connections is one of their requests too.
    pub(super) async fn finish(&self) {
        while self.unfinished.load(Ordering::Relaxed) > 0 {
            self.idle.notified().await;
        }
    }
}

/// Counts a request until it has ended.
#[derive(Debug)]
pub(super) struct UnfinishedRequest(Arc<Http2Connection>);

impl Drop for UnfinishedRequest {
    fn drop(&mut self) {
        if self.0.unfinished.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.idle.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_has_no_more_unfinished_requests_than_it_may() {
        let connection = Arc::new(Http2Connection::default());
        let mut requests: Vec<_> = (0..MOST_UNFINISHED).map_while(|_| connection.begin_request()).collect();
        assert_eq!(requests.len(), MOST_UNFINISHED);
        assert!(connection.begin_request().is_none());
        assert!(connection.begin_request().is_none(), "a refused request is not counted");
        requests.pop();
        requests.extend(connection.begin_request());
        assert_eq!(requests.len(), MOST_UNFINISHED, "there is room again");
        let ended = tokio::spawn({
            let connection = Arc::clone(&connection);
            async move { connection.finish().await }
        });
        requests.truncate(1);
        tokio::task::yield_now().await;
        assert!(!ended.is_finished(), "one request is left");
        drop(requests);
        ended.await.expect("the last one has ended");
    }
}
