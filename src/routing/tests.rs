//! The router against a slow model of it, in any order of the file.

use http::HeaderMap;
use proptest::prelude::*;

use super::*;
use crate::config::{Config, ProcessEnvironment, RequestHeaders, Route, Scheme, Share};

/// A route in short notation, to its own pool: hosts, prefix, headers as `name=value`.
fn route(name: &str, hosts: &[&str], path_prefix: &str, headers: &[&str]) -> Route {
    let hosts = hosts.iter().map(|host| match host.strip_prefix("*.") {
        Some(domain) => HostPattern::Below(domain.to_owned()),
        None => HostPattern::Exact((*host).to_owned()),
    });
    let headers = headers.iter().map(|field| field.split_once('=').unwrap());
    Route {
        name: name.to_owned(),
        hosts: hosts.collect(),
        path_prefix: path_prefix.to_owned(),
        headers: headers.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect(),
        target: config::RouteTarget::Pool(name.to_owned()),
        request_headers: RequestHeaders::default(),
    }
}

fn to_https(route: Route) -> Route {
    let to = config::Redirect { scheme: Some(Scheme::Https), host: None, port: None, path: None, status: 308 };
    Route { target: config::RouteTarget::Redirect(to), ..route }
}

fn router(routes: &[Route]) -> Router {
    Router::build(routes, &routes.iter().flat_map(Route::pools).collect::<Vec<_>>())
}

fn fields(headers: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
    }
    map
}

/// The name of the route that matches a request.
fn found<'r>(routes: &'r [Route], host: &str, path: &str, headers: &[(&str, &str)], secure: bool) -> Option<&'r str> {
    let router = router(routes);
    let index =
        router.find(RouteInput { host: host.as_bytes(), path, fields: Fields::Map(&fields(headers)), secure })?.index;
    assert_eq!(router.route(index).unwrap().index, index);
    routes.get(index?).map(|route| route.name.as_str())
}

#[test]
fn the_longest_prefix_wins_at_the_end_of_a_segment() {
    let routes = ["/", "/shop", "/shop/cart"].map(|path| route(path, &[], path, &[]));
    for (path, prefix) in [
        ("/", "/"),
        ("/shop", "/shop"),
        ("/shop/", "/shop"),
        ("/shop/cart/3", "/shop/cart"),
        ("/shop;sid=1", "/shop"),
        ("/shop;sid=1/cart", "/shop"),
        ("/shopping", "/"),
        ("*", "/"),
        ("", "/"),
    ] {
        assert_eq!(found(&routes, "x", path, &[], false), Some(prefix), "{path}");
    }
}

#[test]
fn an_exact_host_goes_before_wildcards_and_those_before_any_host() {
    let routes = [
        route("any", &[], "/deep/path", &[]),
        route("domain", &["*.example.org"], "/deep", &[]),
        route("sub", &["*.shop.example.org"], "/", &[]),
        route("exact", &["de.shop.example.org", "shop.example.org"], "/deep", &[]),
    ];
    for (host, path, name) in [
        ("shop.example.org", "/deep/path", Some("exact")),
        ("SHOP.Example.org.:8080", "/deep", Some("exact")),
        ("de.shop.example.org", "/deep", Some("exact")),
        ("de.shop.example.org", "/", Some("sub")),
        ("a.b.shop.example.org", "/deep/path", Some("sub")),
        ("shop.example.org", "/", None),
        ("www.example.org", "/deep/path", Some("domain")),
        ("www.example.org", "/", None),
        ("example.org", "/deep/path", Some("any")),
        ("notexample.org", "/deep/path", Some("any")),
        (".example.org", "/deep/path", Some("any")),
        ("", "/deep/path", Some("any")),
        ("[::1]:80", "/deep/path", Some("any")),
        (&"a.".repeat(300), "/deep/path", Some("any")),
    ] {
        assert_eq!(found(&routes, host, path, &[], false), name, "{host}{path}");
    }
}

#[test]
fn the_most_headers_win_and_every_one_must_match() {
    let routes = [
        route("plain", &[], "/", &[]),
        route("beta", &[], "/", &["x-beta=1"]),
        route("both", &[], "/", &["x-beta=1", "x-team=blue"]),
        route("deep", &[], "/deep", &[]),
    ];
    for (path, headers, name) in [
        ("/", &[] as &[(&str, &str)], "plain"),
        ("/", &[("X-Beta", "1")], "beta"),
        ("/", &[("x-beta", "11")], "plain"),
        ("/", &[("x-beta", "0"), ("x-beta", "1")], "beta"),
        ("/", &[("x-beta", "1"), ("x-team", "blue")], "both"),
        ("/", &[("x-team", "blue")], "plain"),
        ("/deep", &[("x-beta", "1")], "deep"),
    ] {
        assert_eq!(found(&routes, "x", path, headers, false), Some(name), "{path} {headers:?}");
    }
}

#[test]
fn a_redirect_does_not_match_where_it_leads() {
    let routes = [route("shop", &[], "/", &[]), to_https(route("https", &[], "/", &[]))];
    assert_eq!(found(&routes, "x", "/", &[], false), Some("https"));
    assert_eq!(found(&routes, "x", "/", &[], true), Some("shop"));
    assert_eq!(found(&routes[1..], "x", "/", &[], true), None);
}

#[test]
fn a_single_pool_needs_no_routes() {
    let router = Router::build(&[], &["web"]);
    let headers = HeaderMap::new();
    let input = RouteInput { host: b"any", path: "/thing", fields: Fields::Map(&headers), secure: false };
    let route = router.find(input).unwrap();
    assert_eq!(route.index, None);
    assert!(matches!(route.target, RouteTarget::Pool(0)));
    assert!(router.route(None).is_none(), "a route has an index");
}

#[test]
fn a_split_knows_its_pools_by_index() {
    let mut split = route("split", &[], "/", &[]);
    split.target = config::RouteTarget::Split(["b", "a"].map(|pool| Share { pool: pool.into(), weight: 1 }).into());
    let router = Router::build(&[split], &["a", "b"]);
    let RouteTarget::Split(split) = &router.route(Some(0)).unwrap().target else { panic!("a split") };
    assert_eq!(split.pools().collect::<Vec<_>>(), [1, 0]);
}

/// How specific a route is for a request: a greater rank wins. Written from the manual, not from the router.
fn rank(route: &Route, host: &str, path: &str, headers: &HeaderMap, secure: bool) -> Option<impl Ord + use<>> {
    let host = host.to_lowercase();
    let host_rank = if route.hosts.is_empty() {
        0
    } else {
        let fit = |pattern: &HostPattern| match pattern {
            HostPattern::Exact(name) => (*name == host).then_some(1000),
            HostPattern::Below(domain) => {
                let labels = host.strip_suffix(&format!(".{domain}"))?;
                (!labels.is_empty()).then_some(1 + domain.len())
            }
        };
        route.hosts.iter().filter_map(fit).max()?
    };
    let prefix = route.path_prefix.trim_end_matches('/');
    let path_fits = prefix.is_empty() || path == prefix || path.starts_with(&format!("{prefix}/"));
    let headers_fit =
        route.headers.iter().all(|(name, value)| headers.get_all(name).iter().any(|field| field == value));
    let redirects = matches!(route.target, config::RouteTarget::Redirect(_));
    (path_fits && headers_fit && !(redirects && secure)).then_some((
        host_rank,
        prefix.len(),
        route.headers.len(),
        redirects,
        // Of two values of one repeated header the first in the alphabet.
        Reverse(route.headers.iter().map(|(_, value)| value.as_bytes().to_vec()).collect::<Vec<_>>()),
    ))
}

fn routes() -> impl Strategy<Value = Vec<Route>> {
    let host = prop::sample::select(vec!["a.x", "b.a.x", "*.x", "*.a.x", "*.b.a.x", "x"]);
    let hosts = prop::collection::btree_set(host, 0..3);
    let path = prop::sample::select(vec!["/", "/p", "/p/q", "/pq"]);
    let header = prop::sample::select(vec!["h=1", "h=2", "i=1"]);
    let headers = prop::collection::btree_set(header, 0..3)
        .prop_filter("one value of a header", |headers| !(headers.contains("h=1") && headers.contains("h=2")));
    let one = (hosts, path, headers, prop::bool::weighted(0.4)).prop_map(|(hosts, path, headers, redirects)| {
        let hosts: Vec<&str> = hosts.into_iter().collect();
        let route = route("", &hosts, path, &headers.into_iter().collect::<Vec<_>>());
        if redirects { to_https(route) } else { route }
    });
    prop::collection::vec(one, 1..12).prop_map(|mut routes| {
        // What the check refuses: of one host and prefix, as many headers, and requests in common.
        let mut kept: Vec<Route> = Vec::new();
        for route in routes.drain(..) {
            let conflict = kept.iter().any(|other| {
                let hosts = route.hosts.is_empty() && other.hosts.is_empty()
                    || route.hosts.iter().any(|host| other.hosts.contains(host));
                let redirects = |route: &Route| matches!(route.target, config::RouteTarget::Redirect(_));
                let differ = |(n, v): &(HeaderName, HeaderValue)| other.headers.iter().any(|(m, w)| n == m && v != w);
                let common = route.headers.len() == other.headers.len() && !route.headers.iter().any(differ);
                hosts && route.path_prefix == other.path_prefix && common && redirects(&route) == redirects(other)
            });
            if !conflict {
                kept.push(route);
            }
        }
        for (index, route) in kept.iter_mut().enumerate() {
            route.name = index.to_string();
            if let config::RouteTarget::Pool(pool) = &mut route.target {
                pool.clone_from(&route.name);
            }
        }
        kept
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_router_agrees_with_a_model_that_asks_every_route_in_any_order(
        routes in routes(),
        host in prop::sample::select(vec!["a.x", "A.X", "b.a.x", "c.b.a.x", "x", "y.x", ""]),
        path in prop::sample::select(vec!["/", "/p", "/p/", "/p/q/r", "/pq", "/z"]),
        headers in prop::collection::vec(prop::sample::select(vec![("h", "1"), ("h", "2"), ("i", "1"), ("h", "3")]), 0..4),
        secure: bool,
        turn in 0usize..12,
    ) {
        let map = fields(&headers);
        let ranked = routes.iter().filter_map(|route| Some((rank(route, host, path, &map, secure)?, route)));
        let best = ranked.max_by(|one, other| one.0.cmp(&other.0)).map(|(_, route)| route.name.as_str());
        prop_assert_eq!(found(&routes, host, path, &headers, secure), best);
        let mut turned = routes.clone();
        turned.rotate_left(turn % routes.len());
        prop_assert_eq!(found(&turned, host, path, &headers, secure), best);
        turned.reverse();
        prop_assert_eq!(found(&turned, host, path, &headers, secure), best);
    }
}

/// A line of `routes:`, without its name.
fn line() -> impl Strategy<Value = String> {
    let pick = |words: &[&'static str]| prop::sample::select(words.to_vec());
    let host = pick(&["", "a.x", "'*.x'", "'*.a.x'", "b.a.x, '*.x'"]);
    let headers = pick(&["", "", "h: '1'", "h: '2'", "i: '1'", "h: '1', i: '1'"]);
    let target = pick(&[
        "pool: p",
        "pool: p",
        "redirect: { scheme: https }",
        "redirect: { host: a.x }",
        "redirect: { path: /p }",
        "split: [{ pool: p }]",
    ]);
    (host, pick(&["/", "/p"]), headers, target).prop_map(|(hosts, path, headers, target)| {
        format!("match: {{ hosts: [{hosts}], path_prefix: {path}, headers: {{ {headers} }} }}, {target} }}")
    })
}

/// The routes of a file, when the check accepts it.
fn checked<'l>(lines: impl Iterator<Item = &'l String>) -> Option<Vec<Route>> {
    let routes: Vec<String> = lines.map(|line| format!("  - {line}\n")).collect();
    let text = format!(
        "version: 1\nlisteners: [{{ address: '127.0.0.1:80' }}]\npools: {{ p: {{ servers: [{{ name: a, address: 'a:1' }}] }} }}\nroutes:\n{}",
        routes.concat()
    );
    match Config::parse("routes", text, &ProcessEnvironment) {
        Ok(loaded) => Some(loaded.config.routes.to_vec()),
        Err(problems) => {
            let conflict = |problem: &config::Problem| problem.message.contains(" requests");
            assert!(problems.iter().all(conflict), "only conflicts were expected:\n{problems}");
            None
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn what_the_check_accepts_it_accepts_in_any_order_and_every_request_keeps_its_route(
        lines in prop::collection::vec(line(), 1..5), turn in 0usize..5,
    ) {
        let lines: Vec<String> =
            lines.iter().enumerate().map(|(index, line)| format!("{{ name: r{index}, {line}")).collect();
        let straight = checked(lines.iter());
        let turn = turn % lines.len();
        let turned = checked(lines[turn..].iter().chain(&lines[..turn]).rev());
        prop_assert_eq!(straight.is_some(), turned.is_some(), "{:#?}", lines);
        let (Some(straight), Some(turned)) = (straight, turned) else { return Ok(()) };
        for host in ["a.x", "b.a.x", "c.x", "y"] {
            for path in ["/", "/p", "/p/q"] {
                for headers in [&[] as &[_], &[("h", "1")], &[("h", "2"), ("h", "1")], &[("h", "1"), ("i", "1")]] {
                    for secure in [true, false] {
                        let one = found(&straight, host, path, headers, secure);
                        let other = found(&turned, host, path, headers, secure);
                        prop_assert_eq!(one, other, "{} {} {:?} {} {:#?}", host, path, headers, secure, lines);
                    }
                }
            }
        }
    }
}
