//! Hostile and heavy use of the admin listener: pages of other sites, guesses, silent connections, long lists.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::admin_api::ask;
use crate::world::client::request_text;
use crate::world::proxy::command;
use crate::world::{Address, Conf, Proxy, Wire, World};

const JSON: (&str, &str) = ("Content-Type", "application/json");
const TOKENS: &str = "admin: { address: \"{{admin}}\", tokens: [\
                      { name: ops, role: operator, secret: operator-secret-01 }, \
                      { name: eyes, role: viewer, secret: viewer-secret-01 }] }";
const OPERATOR: (&str, &str) = ("Authorization", "Bearer operator-secret-01");
const SERVER: &str = "/api/v1/pools/web/servers/a";

fn override_of_a(world: &World, headers: &[(&str, &str)]) -> Value {
    let pools = ask(world, "GET", "/api/v1/pools", headers, "").expect(200).json();
    pools["items"][0]["servers"][0]["override"].clone()
}

#[test]
fn a_page_of_another_site_neither_reads_nor_changes_anything() {
    let world = World::start(Conf::servers("a b"));
    let drain = "{\"state\":\"drain\"}";
    for foreign in [
        ("Origin", "http://evil.example"),
        ("Origin", "http://localhost.evil.example"),
        ("Origin", "null"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
    ] {
        ask(&world, "PATCH", SERVER, &[JSON, foreign], drain).expect(403);
        ask(&world, "GET", "/api/v1/sessions", &[foreign], "").expect(403);
        ask(&world, "POST", "/api/v1/reload", &[foreign], "").expect(403);
    }
    // What a form can send without asking first.
    for form in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        ask(&world, "POST", "/api/v1/explain", &[("Content-Type", form)], "{\"pool\":\"web\"}").expect(415);
    }
    let preflight = [("Origin", "http://evil.example"), ("Access-Control-Request-Method", "PATCH")];
    let refused = ask(&world, "OPTIONS", SERVER, &preflight, "");
    assert!(refused.status >= 400 && refused.header("access-control-allow-origin").is_none(), "{}", refused.status);
    assert_eq!(override_of_a(&world, &[]), Value::Null);
}

#[test]
fn a_name_that_points_here_is_refused_even_with_a_token() {
    let world = World::start(Conf::servers("a b").top(TOKENS));
    for host in ["evil.example", "localhost.evil.example", "evil.example:9900", "", "127.0.0.1.evil.example"] {
        for path in ["/", "/metrics", "/api/v1/status", "/api/v1/nothing"] {
            let refused = ask(&world, "GET", path, &[("Host", host), OPERATOR], "");
            assert!(matches!(refused.status, 400 | 421), "{host:?} {path}: {}", refused.status);
        }
    }
}

#[test]
fn without_a_token_nothing_is_told_not_even_what_exists() {
    let world = World::start(Conf::servers("a b").top(TOKENS));
    let client = world.browser();
    assert_eq!(client.server(), client.server());
    let mut bodies = BTreeSet::new();
    for (method, path) in [
        ("GET", "/api/v1/status"),
        ("GET", "/api/v1/pools"),
        ("GET", "/api/v1/sessions?pool=web"),
        ("GET", "/api/v1/sessions?pool=other"),
        ("GET", "/api/v1/sessions/web/00000000000000000000000000000000"),
        ("GET", "/api/v1/nothing"),
        ("GET", "/api/v1/openapi.json"),
        ("PATCH", SERVER),
        ("PATCH", "/api/v1/pools/web/servers/z"),
        ("POST", "/api/v1/reload"),
        ("POST", "/api/v1/upgrade"),
        ("POST", "/api/v1/explain"),
        ("DELETE", "/api/v1/sessions/web/00000000000000000000000000000000"),
    ] {
        bodies.insert(ask(&world, method, path, &[JSON], "{}").expect(401).text());
    }
    assert_eq!(bodies.len(), 1, "one response for all: {bodies:?}");
}

#[test]
fn head_has_the_head_of_get() {
    let world = World::start(Conf::servers("a b"));
    for path in ["/healthz", "/api/v1/pools"] {
        let mut wire = Wire::connect(&world.admin);
        for method in ["GET", "HEAD", "GET"] {
            let host = [("Host".to_owned(), "localhost".to_owned())];
            wire.send(request_text(method, path, &host, b""));
            let response = wire.receive(method).expect(200);
            assert_eq!(response.text().is_empty(), method == "HEAD", "{method} {path}");
        }
    }
}

#[test]
fn a_thousand_silent_connections_keep_no_operator_out() {
    let world = World::start(Conf::servers("a b"));
    let silent: Vec<_> = (0..1000)
        .map(|n| {
            let mut wire = Wire::connect(&world.admin);
            if n % 2 == 0 {
                wire.send("GET /api/v1/status HTTP/1.1\r\nHost: local");
            }
            wire
        })
        .collect();
    ask(&world, "GET", "/api/v1/status", &[], "").expect(200);
    ask(&world, "GET", "/healthz", &[], "").expect(200);
    world.browser().get("/echo").expect(200);
    drop(silent);
}

/// Every key of the list, page by page.
fn every_key(world: &World) -> Vec<String> {
    let (mut keys, mut path) = (Vec::new(), "/api/v1/sessions?pool=web&limit=1000".to_owned());
    loop {
        let page = ask(world, "GET", &path, &[], "").expect(200).json();
        keys.extend(page["items"].as_array().expect("items").iter().map(|one| one["key"].to_string()));
        match page["next"].as_str() {
            Some(next) => path = format!("/api/v1/sessions?pool=web&limit=1000&cursor={next}"),
            None => return keys,
        }
    }
}

fn visit(wire: &mut Wire, number: usize) {
    let client = format!("10.0.{}.{}", number / 250, number % 250);
    wire.send(format!("GET /plain HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {client}\r\n\r\n"));
    wire.receive("GET").expect(200);
}

#[test]
fn clients_are_served_while_several_operators_list_all_sessions() {
    const SESSIONS: usize = 3000;
    let conf = Conf::servers("a b")
        .listener("trusted_proxies: [127.0.0.0/8]")
        .persistence("sources: [client_ip: {}]")
        .persistence("issue: none");
    let world = World::start(conf);
    let mut wire = world.wire();
    (0..SESSIONS).for_each(|number| visit(&mut wire, number));
    let known: BTreeSet<_> = every_key(&world).into_iter().collect();
    assert_eq!(known.len(), SESSIONS);
    thread::scope(|scope| {
        let operators: Vec<_> = (0..4).map(|_| scope.spawn(|| every_key(&world))).collect();
        let mut number = SESSIONS;
        while number == SESSIONS || operators.iter().any(|operator| !operator.is_finished()) {
            let start = Instant::now();
            visit(&mut wire, number);
            assert!(start.elapsed() < Duration::from_secs(5), "no request waits for a list");
            number += 1;
        }
        for operator in operators {
            let keys = operator.join().expect("a list");
            let once: BTreeSet<_> = keys.iter().cloned().collect();
            assert_eq!(once.len(), keys.len(), "none twice");
            assert!(known.is_subset(&once), "none left out, though others came meanwhile");
        }
    });
}

#[test]
fn the_api_answers_on_a_unix_socket() {
    let mut environment =
        World::builder(Conf::servers("a b").top("admin: { address: \"unix:{{dir}}/admin.sock\" }")).without_proxy();
    let mut launch = environment.launch("");
    launch.admin = Address::Unix(environment.directory().join("admin.sock"));
    let proxy = Proxy::start(&launch, environment.directory());
    let status =
        command().args(["status", "-o", "json", "--admin", &launch.admin.to_string()]).output().expect("it runs");
    assert_eq!(status.status.code(), Some(0), "{}", String::from_utf8_lossy(&status.stderr));
    let status: Value = serde_json::from_slice(&status.stdout).expect("JSON");
    assert_eq!(status["state"], "ready");
    let admin = launch.admin.to_string();
    let set =
        command().args(["server", "set", "web/a", "--state", "drain", "--admin", &admin]).output().expect("it runs");
    assert_eq!(set.status.code(), Some(0), "{}", String::from_utf8_lossy(&set.stderr));
    let pools = command().args(["pools", "-o", "json", "--admin", &admin]).output().expect("it runs");
    let pools: Value = serde_json::from_slice(&pools.stdout).expect("JSON");
    let user = std::fs::metadata("/proc/self").expect("this process").uid().to_string();
    assert_eq!(pools["items"][0]["servers"][0]["override"]["by"], user, "a unix socket tells who calls");
    drop(proxy);
}
