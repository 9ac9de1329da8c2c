//! The trace of a request: read from `traceparent`, or begun.

use http::HeaderName;

use crate::message::WrittenName;
use crate::proxy::request::header_scan::SingleField;
use crate::telemetry::trace::context::{TRACEPARENT, TRACESTATE};
use crate::telemetry::trace::{Sampling, TraceContext};

/// `traceparent`; the standard asks for lower case.
pub(crate) static SENT_TRACEPARENT: WrittenName = WrittenName::new(TRACEPARENT, TRACEPARENT);
/// `tracestate`.
pub(crate) const TRACESTATE_NAME: HeaderName = HeaderName::from_static(TRACESTATE);

/// The trace that the client named, else a new one. Two fields name none.
pub(crate) fn trace_context(
    traceparent: SingleField<'_>,
    sampling: Sampling,
    random: impl FnOnce() -> (u128, u64),
) -> TraceContext {
    let (trace, span) = random();
    let sent = traceparent.value.filter(|_| !traceparent.repeated);
    sent.and_then(|sent| TraceContext::continued(sent, span))
        .unwrap_or_else(|| TraceContext::begun(trace, span, sampling))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

    fn context(value: Option<&[u8]>, repeated: bool) -> TraceContext {
        trace_context(SingleField { value, repeated }, Sampling::of(1.0), || (5, 7))
    }

    #[test]
    fn the_decision_of_the_sender_stands_and_a_new_trace_is_sampled() {
        let continued = context(Some(SENT), false);
        assert!(continued.parent.is_some() && !continued.sampled, "{continued:?}");
        for begun in [context(None, false), context(Some(b"junk"), false), context(Some(SENT), true)] {
            assert_eq!((begun.trace_id, begun.parent, begun.sampled), (5_u128.to_be_bytes(), None, true));
        }
    }
}
