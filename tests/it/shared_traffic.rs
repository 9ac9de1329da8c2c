//! What goes to a shared store, and what does not: nothing that a token says as well, no secret, and few commands.

use crate::shared_proxies::{By, Edge, LOOKUPS, OPERATIONS, learning, sessions, with_every_store};
use crate::world::app::answers::saying;
use crate::world::client::get_with;
use crate::world::stores::{Engine, Store};
use crate::world::{Conf, PATIENCE, eventually};

with_every_store! {
    sessions_with_tokens_are_written_when_they_move_and_not_before
    no_id_and_no_address_reaches_the_store
}

fn sessions_with_tokens_are_written_when_they_move_and_not_before(engine: Engine) {
    let store = Store::start(engine);
    let edge = Edge::start(&store.entry(), Conf::servers("a b c d").store("near_ttl: 1s"));
    let [first, second, third] = edge.proxies();
    let alice = first.browser();
    let home = alice.server();
    let sessions: Vec<_> = (0..9).map(|_| first.browser()).map(|client| (client.server(), client)).collect();
    for (server, client) in &sessions {
        for proxy in [first, second, third, first, second, third] {
            let copy = client.copy_at(&proxy.address);
            assert_eq!([copy.server(), copy.server(), copy.server(), copy.server()], [(); 4].map(|()| server.clone()));
        }
    }
    let of_second = alice.copy_at(&second.address);
    assert_eq!([alice.server(), of_second.server()], [home.clone(), home.clone()]);
    assert!(store.all().is_empty(), "216 requests at home: {:?}", store.all());
    for op in ["bind", "move", "touch"] {
        assert_eq!(edge.metric(OPERATIONS, &[("op", op)]), 0.0, "{op}");
    }
    let of_third = alice.copy_at(&third.address);
    edge.world.app(&home).kill();
    let next = alice.server();
    assert_ne!(next, home);
    store.expect_binding(1, &next);
    edge.world.app(&home).start();
    assert_eq!(of_third.server(), next, "an old token at a proxy that did not know the session");
    let token = of_third.token();
    eventually(PATIENCE, "an old token at a proxy that knew it at home", || of_second.server() == next);
    for client in [&alice, &of_second, &of_third] {
        assert_eq!(client.server(), next);
    }
    assert_eq!(of_third.token(), token, "a token of the move is given once");
    store.expect_binding(1, &next);
}

fn no_id_and_no_address_reaches_the_store(engine: Engine) {
    let store = Store::start(engine);
    let sources =
        "sources: [{ learn: { cookie: SID, query: sid } }, { learn: { header: Mcp-Session-Id } }, { client_ip: {} }]";
    let conf = Conf::servers("a b c").listener("trusted_proxies: [127.0.0.0/8]").persistence(sources);
    let edge = Edge::start(&store.entry(), conf.persistence("handoff: { enabled: true }"));
    let (secret, address) = ("f00dcafe4711deadbeef", "192.0.2.77");
    let from = [("X-Forwarded-For", address)];
    get_with(&edge.proxies()[0].address, "/plain", &from).expect(200);
    for (by, tail) in By::BOTH.into_iter().zip(["cafe", "f00d"]) {
        let secret = &format!("{secret}-{tail}");
        let lines = by.handing_out(secret) + &saying(200, &["Homing-Session-Data: cart"])["/say?status=200".len()..];
        let home = get_with(&edge.proxies()[0].address, &lines, &from).server();
        edge.world.app(&home).kill();
        let next = by.server(edge.proxies()[1], secret);
        assert_ne!(next, home);
        edge.world.app(&home).start();
    }
    get_with(&edge.proxies()[2].address, &format!("/plain?sid={secret}"), &[]).expect(200);
    eventually(PATIENCE, "three bindings and two carts", || store.all().len() >= 5);
    for (key, value) in store.all() {
        let session = key.strip_prefix("homing:web:").unwrap_or_else(|| panic!("not a name of ours: {key}"));
        assert_eq!(session.trim_end_matches(":d").len(), 22, "{key}");
        for raw in [secret, address, "f00d", "192."] {
            assert!(!key.contains(raw) && !value.contains(raw), "{key}: {value}");
        }
    }
}

/// 50 sessions and 20 rounds of requests, after all are known.
fn commands_of_a_thousand_requests(engine: Engine) {
    let store = Store::start(engine);
    let Store::Redis(server) = &store else { panic!("commands are counted of Redis and Valkey") };
    let edge = Edge::start(&store.entry(), learning("a b c"));
    let all = sessions(&edge, 50);
    let browser = edge.proxies()[0].browser();
    let round = || {
        for (by, id, home) in &all {
            let (name, value) = match by {
                By::Cookie => ("Cookie", format!("SID={id}")),
                By::Header => ("Mcp-Session-Id", id.clone()),
            };
            let answer = browser.request("GET", "/plain").header(name, &value).send().expect(200);
            assert_eq!(&answer.text(), home);
        }
    };
    round();
    // The first visit to a proxy is written to the store.
    let asked = edge.metric(OPERATIONS, &[("op", "lookup"), ("result", "ok")]);
    eventually(PATIENCE, "the first visits are told", || server.calls_of("pexpire") as f64 >= asked);
    let hits = edge.metric(LOOKUPS, &[("result", "hit")]);
    server.forget_calls();
    (0..20).for_each(|_| round());
    let of_sessions = ["get", "mget", "set", "eval", "evalsha", "pexpire", "publish", "unlink"];
    let calls = server.calls();
    let commands: u64 = of_sessions.iter().filter_map(|name| calls.get(*name)).sum();
    assert_eq!(edge.metric(LOOKUPS, &[("result", "hit")]) - hits, 1000.0);
    assert!(commands <= 20, "{commands} commands for a thousand requests: {calls:?}");
}

#[test]
fn returning_sessions_cost_redis_hardly_a_command() {
    commands_of_a_thousand_requests(Engine::Redis);
}

#[test]
fn returning_sessions_cost_valkey_hardly_a_command() {
    commands_of_a_thousand_requests(Engine::Valkey);
}
