//! Both forms of a head read the same.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header};
use proptest::prelude::*;

use super::{Fields, RequestEdits, RequestView, WrittenName};

const NAMES: [HeaderName; 4] = [header::HOST, header::COOKIE, header::ACCEPT, HeaderName::from_static("x-one")];

fn map_of(fields: &[(String, Vec<u8>)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_bytes(value).unwrap());
    }
    map
}

/// A name in some mixture of upper and lower case, and a value.
fn field() -> impl Strategy<Value = (String, Vec<u8>)> {
    let name = (prop::sample::select(NAMES.map(|name| name.as_str().to_owned()).to_vec()), any::<u32>());
    let name = name.prop_map(|(name, upper)| {
        let cased = name.chars().enumerate();
        cased.map(|(n, c)| if upper >> (n % 32) & 1 == 1 { c.to_ascii_uppercase() } else { c }).collect()
    });
    (name, prop::collection::vec(prop_oneof![b' '..=b'~', Just(0xe4)], 0..12))
}

proptest! {
    #[test]
    fn a_header_map_and_a_parsed_head_read_the_same(fields in prop::collection::vec(field(), 0..10)) {
        let map = map_of(&fields);
        let parsed: Vec<httparse::Header<'_>> =
            fields.iter().map(|(name, value)| httparse::Header { name, value }).collect();
        let (map, parsed) = (Fields::Map(&map), Fields::Parsed(&parsed));
        for name in &NAMES {
            prop_assert_eq!(map.get(name), parsed.get(name));
            prop_assert_eq!(map.get_str(name), parsed.get_str(name));
            prop_assert_eq!(map.value(name), parsed.value(name));
            prop_assert_eq!(map.contains(name), parsed.contains(name));
            prop_assert_eq!(map.all(name).collect::<Vec<_>>(), parsed.all(name).collect::<Vec<_>>());
        }
        let sorted = |fields: Fields<'_>| {
            let mut all: Vec<_> = fields.iter().map(|(name, value)| (name.to_lowercase(), value.to_vec())).collect();
            all.sort();
            all
        };
        prop_assert_eq!(sorted(map), sorted(parsed));
    }

    #[test]
    fn the_target_is_taken_apart_as_by_the_uri_crate(
        origin in "/[a-z/;=%.]{0,12}(\\?[a-z&=/?]{0,10})?",
        authority in prop::option::of("[a-z]{1,6}(:[1-9][0-9]{0,3})?"),
    ) {
        let target = authority.as_ref().map_or(origin.clone(), |authority| format!("http://{authority}{origin}"));
        let uri: http::Uri = target.parse().unwrap();
        let view = RequestView::http1(&Method::GET, target.as_bytes(), Version::HTTP_11, Fields::Parsed(&[]));
        prop_assert_eq!((view.path(), view.query()), (uri.path(), uri.query()));
        prop_assert_eq!(view.authority(), uri.authority().map(http::uri::Authority::as_str));
    }
}

#[test]
fn the_host_is_that_of_the_target_else_of_the_field() {
    let fields = [httparse::Header { name: "HOST", value: b"a.example:80" }];
    let host = |target: &'static [u8]| {
        RequestView::http1(&Method::GET, target, Version::HTTP_11, Fields::Parsed(&fields)).host().to_owned()
    };
    assert_eq!(host(b"/"), "a.example:80");
    assert_eq!(host(b"http://b.example/x"), "b.example");
    assert_eq!(host(b"HTTPS://b.example?x"), "b.example");
}

#[test]
fn the_last_edit_of_a_field_stands() {
    static NAME: WrittenName = WrittenName::new("X-One", "x-one");
    let mut edits = RequestEdits::default();
    edits.set(&NAME, HeaderValue::from_static("1"));
    edits.set(&NAME, HeaderValue::from_static("2"));
    assert_eq!(edits.set.as_slice(), [(&NAME, HeaderValue::from_static("2"))]);
    edits.remove(NAME.name.clone());
    assert!(edits.set.is_empty(), "removed by a later decision");
    assert_eq!(edits.remove.as_slice(), std::slice::from_ref(&NAME.name));
}
