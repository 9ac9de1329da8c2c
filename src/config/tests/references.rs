//! What parts of a file say of each other.

use super::parse;

#[test]
fn cross_references_are_checked_beside_problems_of_shape() {
    let text = "version: 1\nlisteners: [{ addres: 127.0.0.1:8080, trusted_proxies: [nowhere] }]\n\
                pools:\n  shop: { servers: [{ address: 127.0.0.1:9001, state: nowhere }, { name: b, address: x }], hash_on: nothing }\n  \
                api: { persistence: { idle_timeout: 48h } }\n\
                routes:\n  - { pool: shopp }\n  - { name: [x], match: { path_prefix: /x }, split: [{ pool: apii }] }\n";
    let said = parse(text).unwrap_err().to_string();
    for expected in [
        "pool \"shopp\" does not exist",
        "pool \"apii\" does not exist",
        "\"nowhere\" is not a network",
        "\"hash_on\" cannot be \"nothing\"",
        "\"x\" is not the address of a server",
        "idle_timeout (2d) is longer",
        "\"routes[0].name\" is missing",
    ] {
        assert!(said.contains(expected), "{expected}\n{said}");
    }
    assert!(!said.contains("\"-\"") && !said.contains("exists twice"), "nothing is said of what stands in:\n{said}");
}

#[test]
fn a_cookie_that_no_route_of_its_pool_serves_is_worth_a_warning() {
    let warned = |cookie: &str, matched: &str| {
        let text = format!(
            "version: 1\nlisteners: [{{ address: 127.0.0.1:8080 }}]\nkeys: [{{ id: k, secret: 0123456789abcdef }}]\n\
             pools: {{ web: {{ servers: [{{ name: a, address: 127.0.0.1:9001 }}], persistence: {{ cookie: {{ {cookie} }} }} }} }}\n\
             routes: [{{ name: r, match: {{ {matched} }}, pool: web }}]\n"
        );
        let loaded = parse(&text).unwrap_or_else(|problems| panic!("{problems}"));
        loaded.warnings.iter().any(|warning| warning.message.contains("browsers never send it"))
    };
    for (cookie, matched, expected) in [
        ("path: /shop", "path_prefix: /shop", false),
        ("path: /shop", "path_prefix: /", false),
        ("path: /shop/cart", "path_prefix: /shop", false),
        ("path: /", "path_prefix: /shop", false),
        ("path: /shop", "path_prefix: /shopping", true),
        ("path: /shop", "path_prefix: /api", true),
        ("domain: example.org", "hosts: [shop.example.org]", false),
        ("domain: example.org", "hosts: ['*.example.org']", false),
        ("domain: shop.example.org", "hosts: ['*.example.org']", false),
        ("domain: example.org", "hosts: [example.com]", true),
        ("domain: shop.example.org", "hosts: [example.org]", true),
    ] {
        assert_eq!(warned(cookie, matched), expected, "{cookie} {matched}");
    }
}
