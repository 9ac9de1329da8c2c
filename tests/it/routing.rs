//! Which pool serves which request: exact host, then the longest path prefix.

use crate::world::{Conf, World};

/// One server each, named as its pool.
fn routed(routes: &[(&str, &str, &str)]) -> String {
    let mut yaml =
        "version: 1\nlisteners: [{ address: \"{{proxy}}\" }]\nadmin: { address: \"{{admin}}\" }\nroutes:\n".to_owned();
    for (n, (hosts, prefix, pool)) in routes.iter().enumerate() {
        let hosts = if hosts.is_empty() { String::new() } else { format!("hosts: [{hosts}], ") };
        yaml.push_str(&format!("  - {{ name: r{n}, match: {{ {hosts}path_prefix: {prefix} }}, pool: {pool} }}\n"));
    }
    yaml.push_str("pools:\n");
    let mut pools: Vec<_> = routes.iter().map(|(_, _, pool)| *pool).collect();
    pools.sort_unstable();
    pools.dedup();
    for pool in pools {
        yaml.push_str(&format!("  {pool}: {{ servers: [{{ name: s, address: \"{{{{{pool}}}}}\" }}] }}\n"));
    }
    yaml
}

fn pool_for(world: &World, host: &str, target: &str) -> String {
    let answer = world.browser().request("GET", target).host(host).send();
    if answer.status == 404 { "none".to_owned() } else { answer.server() }
}

#[test]
fn the_longest_prefix_wins_at_segment_boundaries() {
    let world = World::start(routed(&[
        ("", "/", "root"),
        ("", "/shop", "shop"),
        ("", "/shop/admin", "office"),
        ("", "/api/", "api"),
    ]));
    for (target, pool) in [
        ("/", "root"),
        ("/shop", "shop"),
        ("/shop/", "shop"),
        ("/shop?x=/shop/admin", "shop"),
        ("/shop/cart", "shop"),
        ("/shopping", "root"),
        ("/shop/admin", "office"),
        ("/shop/admin/users", "office"),
        ("/shop/administration", "shop"),
        ("/Shop", "root"),
        ("/api/v1", "api"),
        ("/apian", "root"),
    ] {
        assert_eq!(pool_for(&world, "example.test", target), pool, "{target}");
    }
}

#[test]
fn an_exact_host_comes_before_any_host() {
    let world = World::start(routed(&[("", "/deep/path", "any"), ("shop.example", "/", "shop"), ("", "/", "rest")]));
    for (host, target, pool) in [
        ("shop.example", "/", "shop"),
        ("shop.example", "/deep/path", "shop"),
        ("SHOP.Example", "/", "shop"),
        ("shop.example:8080", "/", "shop"),
        ("www.shop.example", "/", "rest"),
        ("other.example", "/deep/path/x", "any"),
        ("other.example", "/", "rest"),
    ] {
        assert_eq!(pool_for(&world, host, target), pool, "{host}{target}");
    }
}

#[test]
fn the_order_of_routes_means_nothing() {
    let routes = [("", "/", "root"), ("", "/a", "one"), ("", "/a/b", "two"), ("x.example", "/a", "host")];
    let mut turned = routes;
    turned.reverse();
    for order in [routes, turned] {
        let world = World::start(routed(&order));
        let got = [("e", "/"), ("e", "/a"), ("e", "/a/b"), ("x.example", "/a/b"), ("x.example", "/c")]
            .map(|(h, t)| pool_for(&world, h, t));
        assert_eq!(got, ["root", "one", "two", "host", "root"]);
    }
}

#[test]
fn a_request_that_no_route_takes_is_answered_with_404() {
    let world = World::start(routed(&[("shop.example", "/shop", "shop")]));
    for (host, target) in [("shop.example", "/"), ("shop.example", "/shopping"), ("other.example", "/shop")] {
        let answer = world.browser().request("GET", target).host(host).send().expect(404);
        assert_eq!(answer.all("set-cookie").len(), 0, "no token on the proxy's own answer");
    }
    assert_eq!(world.app("shop").requests(), 0);
    assert_eq!(pool_for(&world, "shop.example", "/shop/x"), "shop");
}

#[test]
fn several_hosts_may_share_a_route() {
    let world = World::start(routed(&[("\"a.example\", \"b.example\"", "/", "both"), ("", "/", "rest")]));
    assert_eq!(
        ["a.example", "b.example", "c.example"].map(|host| pool_for(&world, host, "/")),
        ["both", "both", "rest"]
    );
}

#[test]
fn an_absolute_target_is_routed_by_its_authority() {
    let world = World::start(routed(&[("shop.example", "/", "shop"), ("", "/", "rest")]));
    let mut wire = world.wire();
    wire.send("GET http://shop.example/x HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    assert_eq!(wire.receive("GET").server(), "shop");
}

#[test]
fn a_single_pool_needs_no_route() {
    let world = World::start(Conf::servers("a"));
    for (host, target) in [("x.example", "/"), ("y.example", "/deep/path")] {
        assert_eq!(pool_for(&world, host, target), "a");
    }
}

#[test]
fn sessions_of_two_pools_with_names_of_their_own_live_side_by_side() {
    let yaml = "
version: 1
listeners: [{ address: \"{{proxy}}\" }]
admin: { address: \"{{admin}}\" }
routes:
  - { name: one, match: { path_prefix: /one }, pool: one }
  - { name: two, match: { path_prefix: /two }, pool: two }
pools:
  one: { servers: [{ name: a, address: \"{{a}}\" }, { name: b, address: \"{{b}}\" }], persistence: { cookie: { name: ONE } } }
  two: { servers: [{ name: c, address: \"{{c}}\" }, { name: d, address: \"{{d}}\" }], persistence: { cookie: { name: TWO } } }
";
    let world = World::start(yaml);
    let alice = world.browser();
    let homes = ["/one", "/two"].map(|target| alice.get(target).server());
    for _ in 0..4 {
        assert_eq!(["/one", "/two"].map(|target| alice.get(target).server()), homes);
    }
    let cookies = alice.get("/one").received("cookie").join("; ");
    assert!(!cookies.contains("ONE="), "a pool's own token is hidden: {cookies}");
}
