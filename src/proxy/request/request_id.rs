//! The id of a request: in the header that servers get, on error pages, and in the access log.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use uuid::Uuid;

use crate::message::Fields;
use crate::session::token::UnixMillis;
use crate::telemetry::trace::TraceContext;
use crate::telemetry::trace::context as traceparent;

/// `X-Request-Id`.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The length of a new id.
const ID_LENGTH: usize = uuid::fmt::Hyphenated::LENGTH;
/// Longest id that is accepted from a trusted proxy, in bytes.
const MAX_LENGTH: usize = 128;

/// The id that a trusted proxy sent.
pub(crate) fn sent(fields: Fields<'_>, peer_trusted: bool) -> Option<HeaderValue> {
    let sent = if peer_trusted { fields.value(&REQUEST_ID) } else { None };
    sent.filter(|sent| (1..=MAX_LENGTH).contains(&sent.len()))
}

/// The id that was sent, else a new one: UUID v7, which sorts by time; and the request's `traceparent`. The two new ones share
/// an allocation.
pub(crate) fn request_ids(
    sent: Option<HeaderValue>,
    trace: Option<&TraceContext>,
    now: UnixMillis,
    random: impl FnOnce() -> u128,
) -> (Option<HeaderValue>, Option<HeaderValue>) {
    let traceparent = trace.map(TraceContext::traceparent);
    if sent.is_some() {
        return (sent, traceparent.and_then(|text| HeaderValue::from_bytes(&text).ok()));
    }
    let mut text = [0; ID_LENGTH + traceparent::LENGTH];
    let (id, rest) = text.split_at_mut(ID_LENGTH);
    new_request_id(now, random()).as_hyphenated().encode_lower(id);
    let Some(traceparent) = traceparent else { return (HeaderValue::from_bytes(id).ok(), None) };
    rest.copy_from_slice(&traceparent);
    // Hexadecimal digits and hyphens are a header value.
    let value = |part| HeaderValue::from_maybe_shared(part).ok();
    let mut id = Bytes::copy_from_slice(&text);
    let traceparent = id.split_off(ID_LENGTH);
    (value(id), value(traceparent))
}

/// `Uuid::now_v7` would read the clock and the kernel's random numbers for every request.
fn new_request_id(now: UnixMillis, random: u128) -> Uuid {
    let bytes = random.to_le_bytes();
    // More random bits than an id has.
    let (bits, _) = bytes.split_first_chunk().unwrap_or((&[0; 10], &[]));
    uuid::Builder::from_unix_timestamp_millis(now.0, bits).into_uuid()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_700_000_000_000);
    const NEW: &str = "018bcfe5-6800-7707-8707-070707070707";

    fn id(sent: Option<&str>, peer_trusted: bool) -> String {
        let field = sent.map(|sent| httparse::Header { name: "X-Request-ID", value: sent.as_bytes() });
        let fields: Vec<_> = field.into_iter().collect();
        let sent = super::sent(Fields::Parsed(&fields), peer_trusted);
        let (id, none) = request_ids(sent, None, NOW, || 0x0707_0707_0707_0707_0707);
        assert_eq!(none, None);
        id.unwrap().to_str().unwrap().to_owned()
    }

    #[test]
    fn only_a_trusted_proxy_sets_the_id() {
        assert_eq!(id(Some("abc"), true), "abc");
        assert_eq!(id(Some("abc"), false), NEW);
        assert_eq!(id(None, true), NEW);
        assert_eq!(id(Some(""), true), NEW, "an empty id is none");
        assert_eq!(id(Some(&"x".repeat(129)), true), NEW, "an id that is too long is none");
    }

    #[test]
    fn a_request_with_a_trace_has_both_ids() {
        const TRACEPARENT: &str = "00-0000000000000000000000000000000b-000000000000000c-00";
        let trace = TraceContext::begun(11, 12, crate::telemetry::trace::Sampling::NONE);
        for (sent, id) in [(None, NEW), (Some(HeaderValue::from_static("abc")), "abc")] {
            let (is, traceparent) = request_ids(sent, Some(&trace), NOW, || 0x0707_0707_0707_0707_0707);
            assert_eq!((is.unwrap().to_str().unwrap(), traceparent.unwrap().to_str().unwrap()), (id, TRACEPARENT));
        }
    }

    proptest! {
        #[test]
        fn new_ids_sort_by_time(earlier in 0u64..1 << 47, by in 1u64..1 << 40, one: u128, other: u128) {
            let new = |now: u64, random| request_ids(None, None, UnixMillis(now), || random).0.unwrap();
            prop_assert!(new(earlier, one).as_bytes() < new(earlier + by, other).as_bytes());
        }
    }
}
