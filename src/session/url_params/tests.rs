use proptest::prelude::*;
use url::Url;

use super::*;

fn of(target: &str) -> Vec<&str> {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    values(path, query, "sid").collect()
}

#[test]
fn a_parameter_is_found_in_query_and_path() {
    for (target, found) in [
        ("/", &[] as &[&str]),
        ("/?sid=x", &["x"]),
        ("/?a=1&sid=x&b=2", &["x"]),
        ("/?sid=x&sid=y", &["x", "y"]),
        ("/?sid", &[""]),
        ("/?sid=", &[""]),
        ("/?sid=a=b", &["a=b"]),
        ("/cart;sid=x", &["x"]),
        ("/cart;a=1;sid=x/item", &["x"]),
        ("/;sid=x", &["x"]),
        ("/cart;sid=x?sid=y", &["y", "x"]),
        ("/sid=x", &[]),
        ("/?xsid=x&sidx=y&SID=z", &[]),
        ("/?a=;sid=x", &[]),
        ("/;sidx=1", &[]),
    ] {
        assert_eq!(of(target), found, "{target}");
    }
}

#[test]
fn a_parameter_is_removed_and_nothing_else() {
    for (target, left) in [
        ("/?sid=x", "/"),
        ("/?sid=x&a=1", "/?a=1"),
        ("/?a=1&sid=x&b=%20", "/?a=1&b=%20"),
        ("/?&sid=x&", "/?&"),
        ("/?sid", "/"),
        ("/cart;sid=x", "/cart"),
        ("/cart;a=1;sid=x;b=2/item?sid=y#sid=z", "/cart;a=1;b=2/item#sid=z"),
        ("https://example.org/;sid=x?a", "https://example.org/?a"),
    ] {
        assert_eq!(without(target, "sid").as_deref(), Some(left), "{target}");
    }
    for target in ["/", "/?", "/?a=1", "/;", "/?sidx=1", "/sid=x", "/#?sid=x", "*", ""] {
        assert_eq!(without(target, "sid"), None, "{target}");
    }
}

#[test]
fn a_parameter_is_set_before_the_fragment() {
    for (target, put) in [
        ("/", "/?sid=T"),
        ("", "?sid=T"),
        ("/?a=1", "/?a=1&sid=T"),
        ("/?", "/?&sid=T"),
        ("/?sid=old", "/?sid=T"),
        ("/?sid=old&a=1", "/?a=1&sid=T"),
        ("/cart;sid=old?a", "/cart?a&sid=T"),
        ("page#top", "page?sid=T#top"),
        ("/#/app?x", "/?sid=T#/app?x"),
    ] {
        assert_eq!(with(target, "sid", "T"), put, "{target}");
    }
}

/// Targets made of the bytes that matter to the parser.
fn target() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "/", "?", "&", ";", "=", "#", "sid", "sid=", "sid=x", "a", "b=1", "%3B", "%26", "+", ".", "..", "é",
    ]);
    prop::collection::vec(piece, 0..14).prop_map(|pieces| format!("/{}", pieces.concat()))
}

/// The query pairs other than ours, as `url` decodes them.
fn others(target: &str) -> Vec<(String, String)> {
    let url = Url::parse("http://h.example").unwrap().join(&format!("http://h.example{target}")).unwrap();
    url.query_pairs().filter(|(name, _)| name != "sid").map(|(name, value)| (name.into(), value.into())).collect()
}

proptest! {
    #[test]
    fn other_parameters_and_the_fragment_stay_as_url_reads_them(target in target()) {
        let put = with(&target, "sid", "T");
        prop_assert_eq!(others(&put), others(&target), "{}", put);
        let parse = |text: &str| Url::parse(&format!("http://h.example{text}")).unwrap();
        let (before, after) = (parse(&target), parse(&put));
        prop_assert_eq!(after.fragment(), before.fragment());
        let ours: Vec<_> = after.query_pairs().filter(|(name, _)| name == "sid").map(|pair| pair.1.into_owned()).collect();
        prop_assert_eq!(ours, ["T"]);
    }

    #[test]
    fn setting_twice_is_setting_once(target in target()) {
        let once = with(&target, "sid", "T");
        prop_assert_eq!(with(&once, "sid", "T"), once.clone());
        prop_assert_eq!(with(&with(&target, "sid", "old"), "sid", "T"), once);
    }

    #[test]
    fn a_parameter_that_was_set_can_be_removed(target in target()) {
        let clean = without(&target, "sid").unwrap_or(target);
        prop_assert_eq!(without(&clean, "sid"), None);
        let back = without(&with(&clean, "sid", "T"), "sid").unwrap();
        prop_assert_eq!(back, clean);
    }

    #[test]
    fn a_parameter_that_was_set_is_found(target in target()) {
        let put = with(&target, "sid", "T");
        let (before, _) = put.split_once('#').unwrap_or((&put, ""));
        let (path, query) = before.split_once('?').unwrap();
        prop_assert_eq!(values(path, Some(query), "sid").collect::<Vec<_>>(), ["T"]);
    }
}
