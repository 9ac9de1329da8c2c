//! The fast path: a short way through the proxy for plain HTTP/1.1 exchanges, beside the full one through Pingora's proxy.
//!
//! Both share every decision, made on plain views of heads and returned as edits; here heads are kept as bytes, and edits are
//! applied to lists of fields that borrow from them. What is unusual is handed over to Pingora's proxy on the same connection
//! before the client has got a byte: with everything that was found out, so that nothing is counted or tried twice. Above all
//! what follows a failed attempt, and every response of the proxy's own, is left to the full path.

mod body;
mod exchange;
mod fields;
#[cfg(any(test, fuzzing))]
pub(crate) mod framing_check;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub(crate) mod plan;
mod request;
mod response;
mod server;
mod settings;

use pingora::protocols::Shutdown;
use pingora::server::ShutdownWatch;

use crate::telemetry::metrics::FullPathReason;

use super::connection::deadlines::DeadlineStream;

pub use self::plan::FastPathPlan;
pub(crate) use self::settings::ServeResult;
pub use self::settings::{BATCHES_FROM, FastPath};

impl FastPath {
    /// Serves the request that has begun on a connection, if it may.
    pub(crate) async fn serve(&self, connection: &mut DeadlineStream, shutdown: &ShutdownWatch) -> ServeResult {
        if !self.enabled {
            return self.leave_to_full_path(FullPathReason::Off);
        }
        if connection.whole_head().is_none() {
            match Box::pin(connection.rest_of_head(shutdown)).await {
                Ok(true) => {}
                Ok(false) => return self.leave_to_full_path(FullPathReason::Head),
                Err(_) => {
                    connection.shutdown().await;
                    return ServeResult::Closed;
                }
            }
        }
        let Some(head) = connection.whole_head().map(<[u8]>::to_vec) else {
            return self.leave_to_full_path(FullPathReason::Head);
        };
        // In a box: an idle connection keeps the room for whatever its future may await.
        Box::pin(exchange::serve(self, connection, head, shutdown)).await
    }
}
