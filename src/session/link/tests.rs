use proptest::prelude::*;

use super::*;

fn base() -> Base {
    Base::new(false, "h.example:8080", "/shop/cart?a=1").unwrap()
}

fn put(link: &str) -> Option<String> {
    base().rewrite(link, "sid", "T")
}

#[test]
fn a_link_of_ours_gets_the_token_in_the_form_it_was_written() {
    for (link, with_token) in [
        ("/", "/?sid=T"),
        ("", "/shop/cart?a=1&sid=T"),
        ("  ", "/shop/cart?a=1&sid=T"),
        ("item", "item?sid=T"),
        ("../x?b=2#part", "../x?b=2&sid=T#part"),
        ("?b=2", "?b=2&sid=T"),
        ("?", "?&sid=T"),
        (" /a\n/b\t", "/a/b?sid=T"),
        ("//h.example:8080/x", "//h.example:8080/x?sid=T"),
        ("http://h.example:8080", "http://h.example:8080?sid=T"),
        ("HTTP://H.Example:8080/x", "HTTP://H.Example:8080/x?sid=T"),
        ("http:item", "http:item?sid=T"),
        ("/\\h.example:8080/x", "/\\h.example:8080/x?sid=T"),
        ("item?sid=old&b=2", "item?b=2&sid=T"),
        ("item;sid=old", "item?sid=T"),
        ("/é?ü=ß", "/é?ü=ß&sid=T"),
    ] {
        assert_eq!(put(link).as_deref(), Some(with_token), "{link:?}");
    }
}

#[test]
fn every_other_link_stays() {
    for link in [
        "#x",
        " #x",
        "https://h.example:8080/",
        "http://h.example/",
        "http://other.example:8080/",
        "//other.example/",
        "\\\\other.example",
        "/\\other.example",
        "/\t/other.example",
        " \n//other.example",
        "ht\ntp://other.example",
        "http:\\\\other.example",
        "http://h.example:8080@other.example/",
        "blob:http://h.example:8080/x",
        "data:text/html,x",
        "javascript:go()",
        "java\nscript:go()",
        "mailto:a@h.example",
        "tel:1",
        "http://[",
        "http://h.example:99999/",
    ] {
        assert_eq!(put(link), None, "{link:?}");
    }
}

#[test]
fn a_link_that_has_the_token_stays() {
    assert_eq!(put("/x?sid=T#y"), None);
    assert_eq!(put("/x?b&sid=T"), None);
}

#[test]
fn a_link_that_would_lead_elsewhere_with_the_token_stays() {
    // Without its parameter the segment is `..`, which goes up.
    assert_eq!(put("/a/..;sid=old"), None);
    assert_eq!(put(";sid=old"), None);
}

#[test]
fn the_default_port_may_be_written_or_not() {
    let base = Base::new(true, "h.example:443", "/").unwrap();
    assert_eq!(base.rewrite("https://h.example/x", "sid", "T").unwrap(), "https://h.example/x?sid=T");
    let base = Base::new(true, "h.example", "/").unwrap();
    assert_eq!(base.rewrite("https://h.example:443/x", "sid", "T").unwrap(), "https://h.example:443/x?sid=T");
    assert_eq!(base.rewrite("http://h.example:443/x", "sid", "T"), None);
}

#[test]
fn relative_links_start_from_the_base_element() {
    let base = base().with_base_href("/other/dir/");
    assert_eq!(base.rewrite("x", "sid", "T").unwrap(), "x?sid=T");
    assert_eq!(base.rewrite("", "sid", "T").unwrap(), "/other/dir/?sid=T");
    assert_eq!(base.own("sid", "T"), "http://h.example:8080/shop/cart?a=1&sid=T");

    let away = base.with_base_href("https://cdn.example/");
    assert_eq!(away.rewrite("x", "sid", "T"), None);
    assert_eq!(away.rewrite("", "sid", "T"), None);
    assert_eq!(away.rewrite_action("#x", "sid", "T"), None);
    assert_eq!(away.rewrite("http://h.example:8080/x", "sid", "T").unwrap(), "http://h.example:8080/x?sid=T");

    let ignored = base.with_base_href("javascript:go()");
    assert_eq!(ignored.rewrite("", "sid", "T").unwrap(), "/shop/cart?a=1&sid=T");
}

#[test]
fn an_action_may_be_the_page_itself() {
    assert_eq!(base().rewrite_action("", "sid", "T").unwrap(), "/shop/cart?a=1&sid=T");
    assert_eq!(base().rewrite_action("#x", "sid", "T").unwrap(), "/shop/cart?a=1&sid=T#x");
    assert_eq!(base().rewrite_action("pay", "sid", "T").unwrap(), "pay?sid=T");
}

#[test]
fn a_page_whose_path_looks_like_a_host_is_written_in_full() {
    let base = Base::new(false, "h.example", "//other.example/x").unwrap();
    assert_eq!(base.own("sid", "T"), "http://h.example//other.example/x?sid=T");
    assert_eq!(base.rewrite("", "sid", "T").unwrap(), "http://h.example//other.example/x?sid=T");
}

#[test]
fn a_host_that_is_none_has_no_links() {
    for host in ["", "a b", "good@evil", "h/path", "h?x", "h#x", "h\\x", "[", "h:port", "h:99999"] {
        assert!(Base::new(false, host, "/").is_none(), "{host:?}");
    }
    assert!(Base::new(false, "[::1]:80", "*").is_some());
}

/// Links that are made of what matters here.
fn link() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "/",
        "//",
        "\\",
        "?",
        "&",
        ";",
        "=",
        "#",
        ":",
        "@",
        "sid=x",
        ";sid=y",
        "sid",
        "a",
        "b=1",
        "%2e",
        ".",
        "..",
        "é",
        "h.example",
        "h.example:8080",
        "H.EXAMPLE",
        "other.example",
        "http:",
        "https:",
        "http://h.example:8080",
        "javascript:",
        "data:",
        "blob:",
        "\t",
        "\n",
        " ",
        "\u{0}",
        "'",
        "\"",
        "<",
        "|",
        "[",
    ]);
    prop::collection::vec(piece, 0..10).prop_map(|pieces| pieces.concat())
}

/// Where a link leads, without what is ours: origin, path without our parameter, the other pairs, fragment.
fn leads_to(base: &Base, link: &str) -> (String, String, Vec<(String, String)>, Option<String>) {
    let url = base.start().join(link).unwrap();
    let others = |url: &Url| {
        url.query_pairs().filter(|(name, _)| name != "sid").map(|(name, value)| (name.into(), value.into())).collect()
    };
    let path = url_params::without(url.path(), "sid").unwrap_or_else(|| url.path().to_owned());
    let origin = format!("{}://{}@{:?}:{:?}", url.scheme(), url.username(), url.host(), url.port());
    // An empty query is no pair, and neither is what an empty pair between two `&` leaves.
    (origin, path, others(&url), url.fragment().map(str::to_owned))
}

proptest! {
    #[test]
    fn a_changed_link_leads_to_where_it_led(link in link(), href in prop::option::of(link())) {
        let base = href.map_or_else(base, |href| base().with_base_href(&href));
        if let Some(new) = base.rewrite(&link, "sid", "T") {
            prop_assert_eq!(leads_to(&base, &new), leads_to(&base, &link), "{}", new);
            prop_assert!(base.leads_here(&new));
            let url = base.start().join(&new).unwrap();
            let ours: Vec<_> = url.query_pairs().filter(|(name, _)| name == "sid").map(|pair| pair.1.into_owned()).collect();
            prop_assert_eq!(ours, ["T"]);
            prop_assert_eq!(base.rewrite(&new, "sid", "T"), None, "not idempotent");
        }
    }

    #[test]
    fn a_link_that_leads_elsewhere_never_changes(link in link()) {
        if !base().leads_here(&link) {
            prop_assert_eq!(put(&link), None);
        }
    }

    #[test]
    fn any_text_is_fine(link in any::<String>(), host in any::<String>(), path in any::<String>()) {
        if let Some(base) = Base::new(true, &host, &path) {
            prop_assert!(base.leads_here(""));
            if let Some(new) = base.rewrite(&link, "sid", "T") {
                prop_assert_eq!(leads_to(&base, &new), leads_to(&base, &link), "{}", new);
            }
        }
    }
}
