//! What `balance: hash` hashes of a request.

use std::net::IpAddr;

use http::header;
use smallvec::SmallVec;

use crate::config::HashOn;
use crate::message::RequestView;
use crate::session::cookie::read::values;

/// Empty when the request does not have it; then all such requests hash alike.
pub(super) fn hash_key(request: &RequestView<'_>, client: Option<IpAddr>, hash_on: &HashOn) -> SmallVec<[u8; 32]> {
    let bytes = match hash_on {
        HashOn::ClientIp => match client {
            Some(IpAddr::V4(address)) => return SmallVec::from_slice(&address.octets()),
            Some(IpAddr::V6(address)) => return SmallVec::from_slice(&address.octets()),
            None => None,
        },
        HashOn::Uri => Some(request.target()),
        HashOn::Header(name) => request.fields.named(name),
        HashOn::Cookie(name) => values(request.fields.all(&header::COOKIE), name.as_bytes()).next(),
        HashOn::Query(name) => query_value(request.query().unwrap_or_default(), name).map(str::as_bytes),
    };
    bytes.map_or_else(SmallVec::new, SmallVec::from_slice)
}

/// The first value of a query parameter, as written: percent-encoding is kept, since only equality matters.
fn query_value<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, Method, Version};

    use super::*;
    use crate::message::Fields;

    fn key(hash_on: &HashOn, client: Option<&str>) -> Vec<u8> {
        let mut headers = HeaderMap::new();
        headers.append("x-tenant", HeaderValue::from_static("blue"));
        headers.append(header::COOKIE, HeaderValue::from_static("a=1; cart=7"));
        let fields = Fields::Map(&headers);
        let request = RequestView::http1(&Method::GET, b"/shop?q=x&tenant=9", Version::HTTP_11, fields);
        hash_key(&request, client.map(|client| client.parse().unwrap()), hash_on).to_vec()
    }

    #[test]
    fn each_kind_of_key_is_read_from_its_place() {
        assert_eq!(key(&HashOn::ClientIp, Some("192.0.2.1")), [192, 0, 2, 1]);
        assert_eq!(key(&HashOn::Uri, None), b"/shop?q=x&tenant=9");
        assert_eq!(key(&HashOn::Header("x-tenant".into()), None), b"blue");
        assert_eq!(key(&HashOn::Cookie("cart".into()), None), b"7");
        assert_eq!(key(&HashOn::Query("tenant".into()), None), b"9");
    }

    #[test]
    fn what_a_request_does_not_have_is_an_empty_key() {
        for hash_on in [
            HashOn::ClientIp,
            HashOn::Header("x-none".into()),
            HashOn::Cookie("none".into()),
            HashOn::Query("none".into()),
        ] {
            assert!(key(&hash_on, None).is_empty(), "{hash_on:?}");
        }
    }
}
