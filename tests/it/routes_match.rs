//! Wildcard hosts and header matches, and changes to what servers get.

use crate::world::h2c::{H2Request, h2};
use crate::world::http1::Head;
use crate::world::{Response, World};

/// Routes as they stand in a file, and pools of one server each, named as they are.
pub(crate) fn routed(routes: &str, pools: &str) -> String {
    let mut yaml = format!(
        "version: 1\nlisteners: [{{ address: \"{{{{proxy}}}}\" }}]\nadmin: {{ address: \"{{{{admin}}}}\" }}\n\
         log: {{ access: \"{{{{access}}}}\" }}\nroutes:\n{routes}pools:\n"
    );
    for pool in pools.split_whitespace() {
        yaml.push_str(&format!("  {pool}: {{ servers: [{{ name: s, address: \"{{{{{pool}}}}}\" }}] }}\n"));
    }
    yaml
}

fn ask(world: &World, host: &str, target: &str, headers: &[(&str, &str)]) -> Response {
    let browser = world.browser();
    let mut request = browser.request("GET", target).host(host);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    request.send()
}

const HOSTS: &str = "
  - { name: any, match: { path_prefix: /help }, pool: any }
  - { name: domain, match: { hosts: [\"*.example.org\"] }, pool: domain }
  - { name: shops, match: { hosts: [\"*.Shop.example.org\"] }, pool: shops }
  - { name: admin, match: { hosts: [admin.shop.example.org], path_prefix: /admin }, pool: office }
";

#[test]
fn a_wildcard_takes_every_name_below_it_and_the_longest_goes_first() {
    let world = World::start(routed(HOSTS, "any domain shops office"));
    for (host, target, pool) in [
        ("de.shop.example.org", "/", "shops"),
        ("a.b.SHOP.example.org:8080", "/help", "shops"),
        ("shop.example.org", "/help", "domain"),
        ("admin.shop.example.org", "/admin", "office"),
        ("admin.shop.example.org", "/elsewhere", "shops"),
        ("example.org", "/help", "any"),
        ("other.example", "/help", "any"),
    ] {
        assert_eq!(ask(&world, host, target, &[]).server(), pool, "{host}{target}");
    }
    ask(&world, "example.org", "/", &[]).expect(404);
    let request = H2Request { authority: "de.shop.example.org", ..H2Request::get("/") };
    assert_eq!(h2(&world.address, request).server(), "shops", "over HTTP/2 too");
}

const HEADERS: &str = "
  - { name: all, pool: all }
  - { name: beta, match: { headers: { X-Beta: \"1\" } }, pool: beta }
  - { name: blue, match: { headers: { x-beta: \"1\", x-team: blue } }, pool: blue }
  - { name: deep, match: { path_prefix: /deep }, pool: deep }
";

#[test]
fn a_route_may_ask_for_headers_and_the_one_that_asks_for_most_goes_first() {
    let world = World::start(routed(HEADERS, "all beta blue deep"));
    for (target, headers, pool) in [
        ("/", &[] as &[(&str, &str)], "all"),
        ("/", &[("x-BETA", "1")], "beta"),
        ("/", &[("X-Beta", "2")], "all"),
        ("/", &[("X-Beta", "2"), ("X-Beta", "1")], "beta"),
        ("/", &[("X-Beta", "1"), ("X-Team", "blue")], "blue"),
        ("/", &[("X-Beta", "1"), ("X-Team", "Blue")], "beta"),
        ("/", &[("X-Team", "blue")], "all"),
        ("/deep", &[("X-Beta", "1")], "deep"),
    ] {
        assert_eq!(ask(&world, "x.example", target, headers).server(), pool, "{target} {headers:?}");
    }
    assert_eq!(h2(&world.address, H2Request::get("/").header("x-beta", "1")).server(), "beta", "over HTTP/2 too");
}

#[test]
fn the_order_of_routes_with_hosts_and_headers_means_nothing() {
    for routes in [HOSTS, HEADERS] {
        let turned = routes.lines().rev().collect::<Vec<_>>().join("\n") + "\n";
        let pools = if routes == HOSTS { "any domain shops office" } else { "all beta blue deep" };
        let answers = [routes, &turned].map(|routes| {
            let world = World::start(routed(routes, pools));
            let hosts = ["x.example", "a.shop.example.org", "shop.example.org", "admin.shop.example.org"];
            let mut answers = Vec::new();
            for (host, target) in hosts.iter().flat_map(|host| ["/help", "/deep", "/admin"].map(|path| (*host, path))) {
                for headers in [&[] as &[_], &[("x-beta", "1")], &[("x-beta", "1"), ("x-team", "blue")]] {
                    let answer = ask(&world, host, target, headers);
                    answers.push(if answer.status == 200 { answer.server() } else { answer.status.to_string() });
                }
            }
            answers
        });
        assert_eq!(answers[0], answers[1]);
        assert_eq!(answers[0].len(), 36);
    }
}

#[test]
fn a_route_changes_what_its_servers_get_and_no_other_does() {
    let world = World::start(routed(
        "
  - name: beta
    match: { path_prefix: /beta }
    pool: web
    request_headers:
      set: { x-env: beta, X-Forwarded-Proto: https, host: app.internal:8080 }
      remove: [X-Debug, cookie]
  - { name: all, pool: web }
",
        "web",
    ));
    let headers = [("X-Env", "mine"), ("x-env", "mine too"), ("x-debug", "1"), ("Cookie", "a=b"), ("X-Other", "kept")];
    let changed = ask(&world, "shop.example", "/beta", &headers);
    assert_eq!(changed.received("x-env"), ["beta"], "in place of both that the client sent");
    assert_eq!(changed.received("x-debug"), Vec::<String>::new());
    assert_eq!(changed.received("cookie"), Vec::<String>::new());
    assert_eq!(changed.received("x-other"), ["kept"]);
    assert_eq!(changed.received("x-forwarded-proto"), ["https"], "the operator overrules the proxy");
    assert_eq!(changed.received("host"), ["app.internal:8080"]);
    assert_eq!(changed.received("x-forwarded-host"), ["shop.example"]);
    let named = ask(&world, "shop.example", "/beta", &[("Connection", "keep-alive, x-env")]);
    assert_eq!(named.received("x-env"), ["beta"], "no client takes it off");
    let alone = ask(&world, "shop.example", "/", &headers);
    assert_eq!(alone.received("x-env"), ["mine", "mine too"]);
    assert_eq!((alone.received("x-debug").len(), alone.received("cookie").len()), (1, 1));
    assert_eq!(alone.received("x-forwarded-proto"), ["http"]);
}

#[test]
fn answers_are_counted_by_route() {
    let world = World::start(routed(HEADERS.replace("  - { name: all, pool: all }\n", "").as_str(), "beta blue deep"));
    for _ in 0..3 {
        ask(&world, "x.example", "/", &[("x-beta", "1")]).expect(200);
    }
    ask(&world, "x.example", "/deep/status", &[]).expect(200);
    ask(&world, "x.example", "/", &[]).expect(404);
    const COUNTED: &str = "homing_route_requests_total";
    world.expect_metric(COUNTED, &[("route", "beta"), ("code", "200")], 3.0);
    world.expect_metric(COUNTED, &[("route", "deep"), ("code", "200")], 1.0);
    world.expect_metric("homing_requests_total", &[("pool", "-"), ("code", "404")], 1.0);
    assert_eq!(world.metrics().sum(COUNTED, &[]), 4.0, "what no route took is not in it");
    let line: Head = ask(&world, "x.example", "/deep/logged", &[]).head;
    assert!(line.header("content-length").is_some());
    assert_eq!(world.access_line("/deep/logged")["route"], "deep");
}
