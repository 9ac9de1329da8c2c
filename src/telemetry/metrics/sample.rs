//! Metrics with a series of each kind, for tests.

use std::time::Duration;

use super::{Metrics, Rejection, UpstreamError};

/// A pool `web` with two servers, a pool `old` with one, two routes and two listeners, each with all its metrics.
pub(super) fn busy() -> Metrics {
    let metrics = Metrics::new().unwrap();
    for (pool, servers) in [("web", &["a", "b"] as &[&str]), ("old", &["z"])] {
        let handles = metrics.pool(pool, &["cookie"]);
        handles.request(200, Duration::from_millis(1));
        for server in servers {
            let of_server = metrics.server(pool, server);
            of_server.response(200, Some(Duration::from_millis(1)));
            of_server.connected(Duration::from_millis(1));
            of_server.errors.inc(UpstreamError::Timeout);
        }
        servers.windows(2).for_each(|pair| handles.server_moves.inc(pair[1], pair[0]));
    }
    metrics.route("shop").request(200);
    metrics.route("gone").request(200);
    metrics.client_connections("127.0.0.1:1");
    metrics.client_connections("127.0.0.1:2");
    metrics.rejected.inc(Rejection::Method);
    metrics
}
