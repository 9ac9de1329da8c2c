//! The status that the client gets for an error: the only place that decides it.

use std::io;

use pingora::ErrorType::{
    ConnectError, ConnectNoRoute, ConnectProxyFailure, ConnectRefused, ConnectTimedout, ConnectionClosed, HTTPStatus,
    ReadError, ReadTimedout, SocketError, WriteError, WriteTimedout,
};
use pingora::{Error, ErrorSource};

use crate::telemetry::metrics::Rejection;

/// The status of a request that the proxy refuses.
pub(crate) const fn of_rejection(rejection: Rejection) -> u16 {
    match rejection {
        // PROXY headers and handshakes fail before there is a request.
        Rejection::Malformed | Rejection::ForgedToken | Rejection::ProxyHeader | Rejection::TlsHandshake => 400,
        Rejection::NoRoute => 404,
        Rejection::Method => 405,
        Rejection::HeaderTimeout | Rejection::BodyTimeout | Rejection::MinBodyRate => 408,
        Rejection::BodyTooLarge => 413,
        Rejection::MaxUriLength => 414,
        Rejection::RequestsPerSecond | Rejection::NewSessionsPerSecond => 429,
        Rejection::HeaderTooLarge | Rejection::MaxHeaders => 431,
        // A stream that is refused has no response.
        Rejection::StoreUnavailable | Rejection::Descriptors | Rejection::Streams => 503,
        Rejection::Protocol => 505,
    }
}

/// The status of a request that failed; 0 = the client is gone, and nothing can be sent.
pub(crate) fn of_error(error: &Error) -> u16 {
    match (error.etype(), error.esource()) {
        (HTTPStatus(status), _) => *status,
        (
            ConnectTimedout | ConnectRefused | ConnectNoRoute | ConnectError | ConnectProxyFailure | SocketError,
            ErrorSource::Upstream,
        ) => 503,
        (ReadTimedout | WriteTimedout, ErrorSource::Upstream) => 504,
        (_, ErrorSource::Upstream) => 502,
        (ReadTimedout, ErrorSource::Downstream) => 408,
        (ReadError, ErrorSource::Downstream) if is_body_slow(error) => of_rejection(Rejection::MinBodyRate),
        (ReadError, ErrorSource::Downstream) if is_body_malformed(error) => of_rejection(Rejection::Malformed),
        (ReadError | WriteError | WriteTimedout | ConnectionClosed, ErrorSource::Downstream) => 0,
        (_, ErrorSource::Downstream) => 400,
        (_, ErrorSource::Internal | ErrorSource::Unset) => 500,
    }
}

/// The connection is fine, but its client sends chunks that are none.
pub(crate) fn is_body_malformed(error: &Error) -> bool {
    let cause = error.root_cause().downcast_ref::<io::Error>();
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::InvalidData)
}

/// The connection is fine, but the body arrives more slowly than it must. The system has an error of that kind too, with a
/// number.
pub(crate) fn is_body_slow(error: &Error) -> bool {
    let cause = error.root_cause().downcast_ref::<io::Error>();
    let slow = |cause: &io::Error| cause.kind() == io::ErrorKind::TimedOut && cause.raw_os_error().is_none();
    *error.esource() == ErrorSource::Downstream && cause.is_some_and(slow)
}

#[cfg(test)]
mod tests {
    use pingora::ErrorType;

    use super::*;

    #[test]
    fn the_status_says_where_a_request_failed() {
        for (kind, source, status) in [
            (ConnectRefused, ErrorSource::Upstream, 503),
            (ConnectTimedout, ErrorSource::Upstream, 503),
            (ReadTimedout, ErrorSource::Upstream, 504),
            (ConnectionClosed, ErrorSource::Upstream, 502),
            (ErrorType::InvalidHTTPHeader, ErrorSource::Upstream, 502),
            (ReadTimedout, ErrorSource::Downstream, 408),
            (ConnectionClosed, ErrorSource::Downstream, 0),
            (ErrorType::InvalidHTTPHeader, ErrorSource::Downstream, 400),
            (HTTPStatus(413), ErrorSource::Downstream, 413),
            (ErrorType::InternalError, ErrorSource::Internal, 500),
        ] {
            let mut error = Error::new(kind);
            error.esource = source;
            assert_eq!(of_error(&error), status, "{error}");
        }
    }
}
