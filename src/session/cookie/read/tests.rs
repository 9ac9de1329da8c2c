//! Hostile fields first, then agreement with the `cookie` crate on fields that follow the grammar.

use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn found<'a>(fields: &[&'a str], name: &'a str) -> Vec<&'a str> {
    let fields: Vec<&[u8]> = fields.iter().map(|field| field.as_bytes()).collect();
    values(fields, name.as_bytes()).map(|value| std::str::from_utf8(value).unwrap()).collect()
}

fn left(fields: &[&str], name: &str) -> String {
    match without(fields.iter().map(|field| field.as_bytes()), name.as_bytes()) {
        CookieRewrite::Unchanged => "(unchanged)".into(),
        CookieRewrite::Remove => "(removed)".into(),
        CookieRewrite::Slice(field) => String::from_utf8(field.to_vec()).unwrap(),
        CookieRewrite::Replace(field) => String::from_utf8(field).unwrap(),
    }
}

#[test]
fn every_cookie_of_the_name_is_found_in_every_field() {
    assert_eq!(found(&["s=1; a=2; s=3", "b=4", "s=5"], "s"), ["1", "3", "5"]);
    assert_eq!(found(&[], "s"), [""; 0]);
}

#[test]
fn names_are_compared_exactly() {
    assert_eq!(found(&["S=1; ss=2; xs=3; s =4; s=5"], "s"), ["4", "5"]);
    assert_eq!(found(&["a=s=1; s; =s; s-=1"], "s"), [""; 0]);
}

#[test]
fn blanks_quotes_and_odd_delimiters_do_no_harm() {
    assert_eq!(found(&[";;; s=1;;s=2 ;\t s\t=\t 3 \t;"], "s"), ["1", "2", "3"]);
    assert_eq!(found(&["s=\"1\"; s=\"; s=\"\"; s=a\"b\""], "s"), ["1", "\"", "", "a\"b\""]);
    assert_eq!(found(&["s=a=b=; s=; s"], "s"), ["a=b=", ""]);
    assert_eq!(found(&["s=1,s=2"], "s"), ["1,s=2"]);
}

#[test]
fn our_cookie_goes_and_the_rest_stays_byte_for_byte() {
    assert_eq!(left(&["s=1"], "s"), "(removed)");
    assert_eq!(left(&["s=1; a=2"], "s"), "a=2");
    assert_eq!(left(&["a=2; s=1"], "s"), "a=2");
    assert_eq!(left(&["a=2; s=1; b=3; s=4"], "s"), "a=2; b=3");
    assert_eq!(left(&["a=2;s=1;b=\"x;y\";  c ; d = ÿ"], "s"), "a=2;b=\"x;y\";  c ; d = ÿ");
}

#[test]
fn a_request_without_our_cookie_is_left_alone() {
    assert_eq!(left(&[], "s"), "(unchanged)");
    assert_eq!(left(&[""], "s"), "(unchanged)");
    assert_eq!(left(&["; ;"], "s"), "(unchanged)");
    assert_eq!(left(&["a=1;; S=2;ss=3 "], "s"), "(unchanged)");
}

#[test]
fn crumbs_become_one_field() {
    assert_eq!(left(&["a=1", "b=2"], "s"), "a=1; b=2");
    assert_eq!(left(&["a=1", "s=0", "b=2; s=0", "", " ; ", "c=3"], "s"), "a=1; b=2; c=3");
    assert_eq!(left(&["s=0", "s=1"], "s"), "(removed)");
    assert_eq!(left(&["", " "], "s"), "(removed)");
}

#[test]
fn a_megabyte_of_delimiters_takes_no_longer_than_a_megabyte() {
    for hostile in ["; ", ";", "s", "s;", "s=;", " ", "\t=", "s=\"", "s ", "\""] {
        let field = hostile.repeat((1 << 20) / hostile.len());
        let began = Instant::now();
        let count = values([field.as_bytes()], b"s").count();
        let rewritten = without([field.as_bytes(), field.as_bytes()], b"s");
        // Quadratic time would be hours.
        assert!(began.elapsed() < Duration::from_secs(60), "{hostile:?}: {count} values, {rewritten:?}");
    }
}

/// Names and values as RFC 6265 has them.
fn cookies() -> impl Strategy<Value = Vec<(String, String)>> {
    vec(("[abs]{1,2}|[!#$%&'*+.^_`|~0-9A-Za-z-]{1,8}", "[!#-+./:<-\\[\\]-~0-9A-Z-]{0,12}"), 0..8)
}

fn field_of(cookies: &[(String, String)]) -> String {
    cookies.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
}

/// Bytes that are likely to matter.
fn hostile() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let byte = prop_oneof![4 => prop::sample::select(&b"s=;; \t\"a"[..]), 1 => any::<u8>()];
    vec(vec(byte, 0..40), 0..4)
}

/// What is left, however it came about.
#[derive(Debug, PartialEq)]
enum Left {
    Unchanged,
    Nothing,
    Field(Vec<u8>),
}

impl From<CookieRewrite<'_>> for Left {
    fn from(rewritten: CookieRewrite<'_>) -> Self {
        match rewritten {
            CookieRewrite::Unchanged => Self::Unchanged,
            CookieRewrite::Remove => Self::Nothing,
            CookieRewrite::Slice(field) => Self::Field(field.to_vec()),
            CookieRewrite::Replace(field) => Self::Field(field),
        }
    }
}

fn slices(fields: &[Vec<u8>]) -> impl Iterator<Item = &[u8]> {
    fields.iter().map(Vec::as_slice)
}

proptest! {
    #[test]
    fn one_field_in_one_look_is_what_going_piece_by_piece_makes_of_it(fields in hostile(), of_ours: bool) {
        // Those that have a value, as an application's cookie is left where it has no token; or all.
        let ours = |value: &[u8]| !of_ours || !value.is_empty();
        let edit = |piece: &[u8]| {
            let drops = value_of(piece, b"s").is_some_and(ours) || value_of(piece, b"a").is_some();
            if drops { Edit::Drop } else { Edit::Keep }
        };
        for field in slices(&fields) {
            let quick = Left::from(without_matching([field], b"s", b"a", ours));
            if pieces(field).all(|piece| edit(piece) == Edit::Keep) {
                prop_assert_eq!(quick, Left::Unchanged);
            } else {
                prop_assert_eq!(quick, Left::from(joined_by_pieces([field].into_iter(), edit)));
            }
        }
    }

    #[test]
    fn we_read_what_the_cookie_crate_reads(cookies in cookies()) {
        let field = field_of(&cookies);
        let oracle: Vec<_> = cookie::Cookie::split_parse(field.as_str())
            .filter_map(Result::ok)
            .filter(|cookie| cookie.name() == "s")
            .map(|cookie| cookie.value().to_owned())
            .collect();
        prop_assert_eq!(found(&[&field], "s"), oracle);
    }

    #[test]
    fn the_cookie_crate_finds_all_others_and_none_of_ours(cookies in cookies(), cut in 0_usize..8) {
        let (front, back) = cookies.split_at(cut.min(cookies.len()));
        let fields = [field_of(front), field_of(back)];
        let others: Vec<_> = cookies.iter().filter(|(name, _)| name != "s").cloned().collect();
        match Left::from(without(fields.iter().map(String::as_bytes), b"s")) {
            Left::Unchanged => prop_assert!(false, "two fields are joined"),
            Left::Nothing => prop_assert!(others.is_empty()),
            Left::Field(joined) => {
                let joined = String::from_utf8(joined).unwrap();
                let read: Vec<_> = cookie::Cookie::split_parse(joined.as_str())
                    .map(|cookie| cookie.unwrap())
                    .map(|cookie| (cookie.name().to_owned(), cookie.value().to_owned()))
                    .collect();
                prop_assert_eq!(&read, &others);
                prop_assert_eq!(joined, field_of(&others));
            }
        }
    }

    #[test]
    fn nothing_of_ours_is_left_and_twice_is_once(fields in hostile()) {
        let ours = values(slices(&fields), b"s").count();
        match Left::from(without(slices(&fields), b"s")) {
            Left::Unchanged => prop_assert!(ours == 0 && fields.len() < 2),
            Left::Nothing => prop_assert!(!fields.is_empty()),
            Left::Field(joined) => {
                prop_assert_eq!(values([&joined[..]], b"s").count(), 0);
                prop_assert_eq!(without([&joined[..]], b"s"), CookieRewrite::Unchanged);
            }
        }
    }

    #[test]
    fn other_cookies_are_untouched_whatever_the_bytes(fields in hostile()) {
        let others: Vec<&[u8]> = slices(&fields)
            .flat_map(|field| field.split(|byte| *byte == b';'))
            .filter(|piece| value_of(piece, b"s").is_none())
            .map(|piece| piece.trim_start_blanks().trim_end_blanks())
            .filter(|piece| !piece.is_empty())
            .collect();
        if let Left::Field(joined) = Left::from(without(slices(&fields), b"s")) {
            let kept: Vec<&[u8]> = joined
                .split(|byte| *byte == b';')
                .map(|piece| piece.trim_start_blanks().trim_end_blanks())
                .filter(|piece| !piece.is_empty())
                .collect();
            prop_assert_eq!(kept, others);
        }
    }
}

#[test]
fn one_field_stays_as_it_is_and_several_become_one() {
    let one = |fields: &[&str]| Left::from(joined(fields.iter().map(|field| field.as_bytes())));
    assert_eq!(one(&[]), Left::Unchanged);
    assert_eq!(one(&["; a=1;; b=2 "]), Left::Unchanged);
    assert_eq!(one(&["a=1", "b=2", "c=3"]), Left::Field(b"a=1; b=2; c=3".to_vec()));
    assert_eq!(one(&["", " "]), Left::Nothing);
}
