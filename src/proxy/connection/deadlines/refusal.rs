//! Refusing a request head that Pingora cannot parse.

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::Context;

use tokio::io::AsyncWrite;

use crate::telemetry::metrics::{Limit, Rejection};

use super::{DeadlineStream, HEAD, IDLE};

/// The response to a request head that Pingora cannot parse.
const BAD_REQUEST: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 47\r\n\
      Cache-Control: no-store\r\nConnection: close\r\n\r\n400 Bad Request\nThe request is not valid HTTP.\n";
/// The same when its target is too long.
const URI_TOO_LONG: &[u8] =
    b"HTTP/1.1 414 URI Too Long\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 58\r\n\
      Cache-Control: no-store\r\nConnection: close\r\n\r\n414 URI Too Long\nThe address of this request is too long.\n";
/// The same when it has too many fields.
const TOO_MANY_HEADERS: &[u8] =
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 70\r\n\
      Cache-Control: no-store\r\nConnection: close\r\n\r\n431 Request Header Fields Too Large\nThe request has too many headers.\n";
/// More than what stands around the target in the first line. The longest target of the configuration is shorter than
/// Pingora's by more than this.
const AROUND_TARGET: usize = 64;

impl DeadlineStream {
    /// No request head was read, and HTTP/2 does not begin: what Pingora writes now is its own refusal of the head.
    pub(super) fn is_before_request(&self) -> bool {
        matches!(self.phase.load(Ordering::Relaxed), IDLE | HEAD) && self.preface_left == 0
    }

    /// Refuses a head in place of Pingora, whose refusal names the software.
    pub(super) fn refuse(&mut self, context: &mut Context<'_>) {
        if std::mem::replace(&mut self.refused, true) {
            return;
        }
        let (rejection, response) = self.fault();
        self.metrics.rejected.inc(rejection as usize);
        // Best effort: the response is small and the socket's buffer is empty.
        let _ = Pin::new(&mut self.inner).poll_write(context, response);
    }

    /// Pingora has limits of its own, above those of the configuration, and does not say which was exceeded.
    fn fault(&self) -> (Rejection, &'static [u8]) {
        let limits = &self.settings.limits;
        if self.line.length > limits.config.max_uri_length.bytes() + AROUND_TARGET {
            limits.limited.inc(Limit::MaxUriLength);
            return (Rejection::MaxUriLength, URI_TOO_LONG);
        }
        // Besides the first line and the last, which is empty.
        let fields = self.lines.saturating_sub(2);
        if u32::try_from(fields).unwrap_or(u32::MAX) > limits.config.max_headers {
            limits.limited.inc(Limit::MaxHeaders);
            return (Rejection::MaxHeaders, TOO_MANY_HEADERS);
        }
        (Rejection::Malformed, BAD_REQUEST)
    }
}
