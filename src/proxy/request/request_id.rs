//! The id of a request: in the header that servers get, on error pages, and in the access log.

use http::{HeaderName, HeaderValue};
use uuid::Uuid;

use crate::message::Fields;
use crate::proxy::context::{NEW_ID_LENGTH, RequestId};
use crate::session::token::UnixMillis;

/// `X-Request-Id`.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest id that is accepted from a trusted proxy, in bytes.
const MAX_LENGTH: usize = 128;

/// The id that a trusted proxy sent.
pub(crate) fn sent(fields: Fields<'_>, peer_trusted: bool) -> Option<HeaderValue> {
    let sent = if peer_trusted { fields.value(&REQUEST_ID) } else { None };
    sent.filter(|sent| (1..=MAX_LENGTH).contains(&sent.len()))
}

/// The id that was sent, else a new one: UUID v7, which sorts by time.
pub(crate) fn request_id(sent: Option<HeaderValue>, now: UnixMillis, random: impl FnOnce() -> u128) -> RequestId {
    if let Some(sent) = sent {
        return RequestId::Sent(sent);
    }
    let mut text = [0; NEW_ID_LENGTH];
    new_request_id(now, random()).as_hyphenated().encode_lower(&mut text);
    RequestId::New(text)
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
        request_id(sent, NOW, || 0x0707_0707_0707_0707_0707).as_str().unwrap().to_owned()
    }

    #[test]
    fn only_a_trusted_proxy_sets_the_id() {
        assert_eq!(id(Some("abc"), true), "abc");
        assert_eq!(id(Some("abc"), false), NEW);
        assert_eq!(id(None, true), NEW);
        assert_eq!(id(Some(""), true), NEW, "an empty id is none");
        assert_eq!(id(Some(&"x".repeat(129)), true), NEW, "an id that is too long is none");
    }

    proptest! {
        #[test]
        fn new_ids_sort_by_time(earlier in 0u64..1 << 47, by in 1u64..1 << 40, one: u128, other: u128) {
            let new = |now: u64, random| request_id(None, UnixMillis(now), || random);
            prop_assert!(new(earlier, one).as_bytes() < new(earlier + by, other).as_bytes());
        }
    }
}
