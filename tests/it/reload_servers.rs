//! Reloads with other servers each time: what belongs to servers that are gone goes with them, and nothing else does.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use crate::world::websocket::is_alive;
use crate::world::{PATIENCE, Proxy, World, eventually};

const RELOADS: usize = 20;
const CHECKS: &str = "{ type: http, path: /healthz, interval: 500ms, timeout: 400ms, rise: 1, fall: 2 }";

/// A pool `ws` that stays as it is, and a pool `web` whose servers have names that no other generation has.
fn conf(generation: usize, servers: usize, checks: &str) -> String {
    let name = |n: usize| {
        let app = ["a", "b"][n % 2];
        format!("      - {{ name: g{generation}s{n}, address: \"{{{{{app}}}}}\" }}\n")
    };
    let servers: String = (0..servers).map(name).collect();
    format!(
        "version: 1
listeners: [{{ address: \"{{{{proxy}}}}\" }}]
admin: {{ address: \"{{{{admin}}}}\" }}
log: {{ level: info, access: \"{{{{access}}}}\" }}
keys: [{{ id: k1, secret: \"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\" }}]
routes:
  - {{ name: ws, match: {{ path_prefix: /ws }}, pool: ws }}
  - {{ name: web, match: {{ path_prefix: / }}, pool: web }}
pools:
  ws:
    servers: [{{ name: w, address: \"{{{{w}}}}\" }}]
    persistence: {{ cookie: {{ name: WS }} }}
  web:
    health_check: {checks}
    connection: {{ idle_timeout: 1s }}
    circuit_breaker: {{}}
    persistence: {{}}
    servers:
{servers}"
    )
}

/// Threads and descriptors of the process.
fn resources(proxy: &Proxy) -> (usize, usize) {
    let count = |what: &str| fs::read_dir(format!("/proc/{}/{what}", proxy.pid())).expect("the process").count();
    (count("task"), count("fd"))
}

#[test]
fn checks_connections_gauges_and_threads_of_servers_that_are_gone_go_with_them() {
    const SERVERS: usize = 6;
    let mut world = World::start(conf(0, SERVERS, CHECKS));
    let mut socket = world.wire();
    socket.send(
        "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    socket.receive("GET").expect(101);
    let visit_all = |world: &World| (0..2 * SERVERS).for_each(|_| drop(world.browser().get("/plain").expect(200)));
    visit_all(&world);
    let (threads, descriptors) = resources(&world);
    for generation in 1..=RELOADS {
        world.reload(conf(generation, SERVERS, CHECKS));
        visit_all(&world);
        assert!(is_alive(&mut socket), "a WebSocket of a pool that stays, after reload {generation}");
    }
    let metrics = world.metrics();
    for gauge in ["homing_server_up", "homing_server_breaker", "homing_sessions", "homing_server_weight"] {
        let foreign: Vec<_> = metrics
            .matching(gauge, &[("pool", "web")])
            .filter(|one| !one.labels["server"].starts_with(&format!("g{RELOADS}s")))
            .collect();
        assert!(metrics.has(gauge, &[("pool", "web")]) && foreign.is_empty(), "{gauge}: {foreign:?}");
    }
    eventually(6 * PATIENCE, "connections to servers that are gone are closed", || {
        ["a", "b"].iter().all(|app| world.app(app).open_connections() <= SERVERS)
    });
    eventually(PATIENCE, "threads and descriptors are as before", || {
        let now = resources(&world);
        now.0 <= threads + 4 && now.1 <= descriptors + 8
    });
    let probes = || world.app("a").probes() + world.app("b").probes();
    let before = probes();
    std::thread::sleep(Duration::from_secs(2));
    // Four rounds and the start of a fifth; those of all generations would be some five hundred.
    assert!(probes() - before <= 6 * SERVERS, "{} checks in two seconds", probes() - before);
    assert!(is_alive(&mut socket));
    assert_eq!(world.metric("homing_session_moves_total", &[("pool", "ws")]), 0.0);
}

#[test]
fn series_of_very_many_servers_that_are_gone_do_not_wait_for_one_another() {
    const SERVERS: usize = 250;
    const RELOADS: usize = 6;
    let mut world = World::start(conf(0, SERVERS, "null"));
    for generation in 1..=RELOADS {
        world.reload(conf(generation, SERVERS, "null"));
    }
    // 1,500 are gone, and for 1,000 there is room until their grace is over.
    let gone = || {
        let text = world.metrics().text;
        let servers = text.split("server=\"").skip(1).filter_map(|rest| rest.split('"').next());
        let (of_now, gone): (BTreeSet<_>, BTreeSet<_>) = servers
            .filter(|server| server.starts_with('g'))
            .partition(|server| server.starts_with(&format!("g{RELOADS}s")));
        assert_eq!(of_now.len(), SERVERS);
        gone.len()
    };
    eventually(4 * PATIENCE, "series of some servers vanish", || gone() <= 1000);
    assert_eq!(gone(), 1000, "the others are still shown");
}

#[test]
fn the_first_checks_of_very_many_servers_do_not_starve_each_other() {
    const SERVERS: usize = 1_500;
    const CHECKS: &str = "{ type: http, path: /healthz, interval: 60s, timeout: 500ms, rise: 1, fall: 1 }";
    let mut world = World::start(conf(0, 2, CHECKS));
    world.reload(conf(1, SERVERS, CHECKS));
    let metrics = world.metrics();
    let down = metrics.matching("homing_server_up", &[("pool", "web")]).filter(|one| one.value == 0.0).count();
    assert_eq!(down, 0, "of {SERVERS} servers, all of which answer at once");
    world.browser().get("/plain").expect(200);
}
