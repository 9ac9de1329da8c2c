//! The time limits of HTTP/2 request bodies.
//!
//! Pingora waits for the next piece of such a body without limit, and nothing that is called for a request runs meanwhile. So
//! the request is watched from outside. One whose client has stopped sending is dropped, which resets its stream; one whose
//! client sends too slowly is made to fail.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::limits::body_rate::{BodyRate, STEP};
use crate::proxy::context::BodyProgress;

/// How often the progress of a body is read.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Serves a request; `None` when its body has stopped.
pub(super) async fn watch<F, T>(mut request: F, progress: &BodyProgress) -> Option<T>
where
    F: Future<Output = Option<T>> + Unpin,
{
    let mut rate = BodyRate::default();
    loop {
        let pause = if progress.has_rate() { STEP } else { CHECK_INTERVAL };
        let began = Instant::now();
        match timeout(progress.left().min(pause), &mut request).await {
            Ok(result) => return result,
            Err(_) if progress.left().is_zero() => {
                progress.drop_request();
                return None;
            }
            Err(_) => progress.check_rate(&mut rate, began.elapsed()),
        }
    }
}
