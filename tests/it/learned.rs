//! The application's own session id: learned when a server hands it out, and from then on it brings its client home.

use std::collections::BTreeSet;
use std::fs;

use crate::world::app::answers::saying;
use crate::world::client::{get_with, request_with};
use crate::world::{Browser, Conf, KEY_1, KEY_2, PATIENCE, SESSION_COOKIE, World, at_once, eventually};

const LOOKUPS: &str = "homing_session_lookups_total";
const OUTCOMES: &str = "homing_session_outcomes_total";
const ENDED: &str = "homing_sessions_ended_total";
const ENTRIES: &str = "homing_table_entries";

/// The servers of the world set a cookie `APPSESSION` for every client that they do not know.
fn learning(servers: &str) -> Conf {
    Conf::servers(servers).persistence("sources: [{ learn: { cookie: APPSESSION } }]")
}

/// Learns `SID`, which servers hand out where a test makes them.
fn learning_sid(servers: &str) -> Conf {
    Conf::servers(servers).persistence("sources: [{ learn: { cookie: SID, query: sid, ends_on: [DELETE] } }]")
}

fn mcp() -> Conf {
    Conf::servers("a b c").persistence("sources: [{ learn: { header: Mcp-Session-Id, ends_on: [DELETE] } }]")
}

fn browsers(world: &World, count: usize) -> Vec<(Browser, String)> {
    let start = |_| {
        let browser = world.browser();
        let home = browser.server();
        browser.disconnect();
        (browser, home)
    };
    (0..count).map(start).collect()
}

/// Where a request with this id goes. The answer hands out nothing.
fn server_of(world: &World, id: &str) -> String {
    let answer = get_with(&world.address, "/plain", &[("Cookie", &format!("SID={id}"))]);
    answer.expect(200).text()
}

/// Makes a server hand out an id to a client that has none; its name.
fn create_learned_session(world: &World, id: &str) -> String {
    let set = format!("Set-Cookie: SID={id}; Path=/");
    get_with(&world.address, &saying(200, &[&set]), &[]).server()
}

/// The same at a server of the test's choice, whatever its turn.
fn create_learned_session_at(world: &World, server: &str, id: &str) {
    let set = format!("Set-Cookie: SID={id}; Path=/");
    let target = format!("{}&only={server}", saying(200, &[&set]));
    eventually(PATIENCE, "its turn", || get_with(&world.address, &target, &[]).server() == server);
}

fn sessions(world: &World) -> f64 {
    world.metric("homing_sessions", &[("pool", "web")])
}

#[test]
fn a_clients_own_id_keeps_it_on_its_server() {
    let world = World::start(learning("a b c"));
    let clients = browsers(&world, 12);
    let homes: BTreeSet<_> = clients.iter().map(|(_, home)| home).collect();
    assert_eq!(homes.len(), 3, "new clients are balanced");
    for visit in 2..7 {
        for (browser, home) in &clients {
            let answer = browser.get("/echo");
            assert_eq!((answer.server(), answer.json()["visits"].as_u64()), (home.clone(), Some(visit)));
            assert_eq!(answer.set_cookie(SESSION_COOKIE), None, "nothing is given beside the application's own");
        }
    }
    world.expect_metric(OUTCOMES, &[("outcome", "new")], 12.0);
    world.expect_metric(OUTCOMES, &[("outcome", "kept")], 60.0);
    world.expect_metric(LOOKUPS, &[("pool", "web"), ("source", "learn"), ("result", "none")], 12.0);
    world.expect_metric(LOOKUPS, &[("pool", "web"), ("source", "learn"), ("result", "hit")], 60.0);
    assert_eq!((sessions(&world), world.metric(ENTRIES, &[])), (12.0, 12.0));
}

#[test]
fn the_application_sees_its_cookie_under_any_name() {
    let conf = Conf::servers("a b c").persistence(&format!("sources: [{{ learn: {{ cookie: {SESSION_COOKIE} }} }}]"));
    let world = World::start(conf);
    let alice = world.browser();
    let home = alice.get(&saying(200, &[&format!("Set-Cookie: {SESSION_COOKIE}=x")])).server();
    for _ in 0..4 {
        let answer = alice.get("/say");
        assert_eq!((answer.server(), answer.received("cookie")), (home.clone(), vec![format!("{SESSION_COOKIE}=x")]));
    }
}

#[test]
fn an_id_in_a_header_keeps_its_client_on_its_server() {
    let world = World::start(mcp());
    let begin = |id: &str| {
        let target = saying(200, &[&format!("Mcp-Session-Id: {id}")]);
        request_with(&world.address, "POST", &target, &[("Content-Length", "0")]).server()
    };
    let homes: Vec<_> = (0..9).map(|n| (format!("id-{n}"), begin(&format!("id-{n}")))).collect();
    for (id, home) in homes.iter().chain(&homes) {
        let answer = get_with(&world.address, "/say", &[("mcp-session-id", id)]);
        assert_eq!(&answer.server(), home);
        assert_eq!(answer.received("mcp-session-id"), [id.as_str()], "the application sees its header");
    }
    assert_eq!(homes.iter().map(|(_, home)| home).collect::<BTreeSet<_>>().len(), 3);
    world.expect_metric(LOOKUPS, &[("source", "learn"), ("result", "hit")], 18.0);
}

#[test]
fn an_id_in_query_or_path_keeps_its_client_on_its_server() {
    let world = World::start(learning_sid("a b c"));
    for id in ["one", "two", "three", "four"] {
        let home = create_learned_session(&world, id);
        for target in [format!("/plain?x=1&sid={id}"), format!("/say;sid={id}"), format!("/say;a=b;sid={id}/c?d=e")] {
            let answer = get_with(&world.address, &target, &[]).expect(200);
            assert!(answer.text().contains(&home), "{target} goes to {home}: {}", answer.text());
        }
        assert_eq!(server_of(&world, id), home);
    }
    world.expect_metric(LOOKUPS, &[("source", "learn"), ("result", "hit")], 16.0);
}

#[test]
fn a_streaming_answer_counts_from_its_header_on() {
    let world = World::start(learning_sid("a b c"));
    let mut wire = world.wire();
    wire.send("GET /gated?pieces=2&line=Set-Cookie:%20SID=early HTTP/1.1\r\nHost: x\r\n\r\n");
    let head = wire.receive_head();
    assert_eq!(head.set_cookie("SID"), Some("SID=early"));
    let home = world.apps().find(|app| app.requests() == 1).expect("one of them").name().to_owned();
    for _ in 0..6 {
        assert_eq!(server_of(&world, "early"), home, "while the first answer still streams");
    }
    world.app(&home).open_gate();
    let mut body = Vec::new();
    wire.reader.body(&head.head, true, |piece| body.extend_from_slice(piece)).expect("the rest of it");
    assert!(body.ends_with(b"data: 1\n\n"), "it had not ended before");
}

#[test]
fn a_new_id_of_the_same_client_counts_as_its_first_did() {
    let world = World::start(learning_sid("a b c"));
    let home = create_learned_session(&world, "before-login");
    let renewed = saying(200, &["Set-Cookie: SID=after-login"]);
    assert_eq!(get_with(&world.address, &renewed, &[("Cookie", "SID=before-login")]).server(), home);
    for _ in 0..4 {
        assert_eq!(server_of(&world, "after-login"), home);
    }
}

#[test]
fn an_id_goes_to_the_server_that_handed_it_out_last() {
    let world = World::start(learning_sid("a b"));
    for server in ["a", "b", "a"] {
        create_learned_session_at(&world, server, "shared");
        for _ in 0..3 {
            assert_eq!(server_of(&world, "shared"), server);
        }
    }
    assert_eq!(world.metric(ENTRIES, &[]), 1.0, "it is one id all the time");
    world.expect_metric("homing_session_moves_total", &[], 0.0);
}

#[test]
fn a_session_is_dropped_when_the_application_expires_its_cookie() {
    let world = World::start(learning_sid("a b c"));
    for (n, gone) in [
        "Set-Cookie: SID=x; Max-Age=0",
        "Set-Cookie: SID=; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
        "Set-Cookie: SID=deleted; expires=Thu, 01-Jan-1970 00:00:01 GMT; Max-Age=-1; path=/",
    ]
    .iter()
    .enumerate()
    {
        let id = format!("id-{n}");
        let home = create_learned_session(&world, &id);
        assert_eq!(server_of(&world, &id), home);
        assert_eq!(sessions(&world), 1.0);
        let cookie = format!("SID={id}");
        assert_eq!(get_with(&world.address, &saying(200, &[gone]), &[("Cookie", &cookie)]).server(), home);
        assert_eq!(sessions(&world), 0.0, "{gone}");
        world.expect_metric(ENDED, &[("pool", "web"), ("reason", "ended")], (n + 1) as f64);
        world.expect_metric(LOOKUPS, &[("source", "learn"), ("result", "unknown")], n as f64);
        server_of(&world, &id);
        world.expect_metric(LOOKUPS, &[("source", "learn"), ("result", "unknown")], (n + 1) as f64);
    }
    let home = create_learned_session(&world, "kept");
    get_with(&world.address, &saying(200, &["Set-Cookie: other=; Max-Age=0"]), &[("Cookie", "SID=kept")]).expect(200);
    assert_eq!((server_of(&world, "kept"), sessions(&world)), (home, 1.0), "another cookie is another matter");
}

#[test]
fn a_session_ends_on_the_method_that_says_so_unless_the_server_refuses() {
    let world = World::start(mcp());
    let begin = saying(200, &["Mcp-Session-Id: id"]);
    let delete = |status| {
        let target = saying(status, &[]);
        request_with(&world.address, "DELETE", &target, &[("Mcp-Session-Id", "id")]).expect(status)
    };
    let mut ended = 0.0;
    for (status, ends) in [(405, false), (500, false), (401, false), (200, true), (204, true), (404, true), (410, true)]
    {
        let home = get_with(&world.address, &begin, &[]).server();
        if status == 204 {
            let target = "/status?code=204";
            request_with(&world.address, "DELETE", target, &[("Mcp-Session-Id", "id")]).expect(204);
        } else {
            assert_eq!(delete(status).json()["server"], home.as_str());
        }
        ended += f64::from(u8::from(ends));
        world.expect_metric(ENDED, &[("reason", "ended")], ended);
        assert_eq!(sessions(&world), f64::from(u8::from(!ends)), "{status}");
    }
}

#[test]
fn requests_with_one_unknown_id_go_to_one_server_and_nothing_is_stored() {
    let mut world = World::start(learning_sid("a b c"));
    let second = world.another_proxy("-2");
    let mut servers = BTreeSet::new();
    for n in 0..8 {
        let cookie = format!("SID=made-up-{n}");
        let ask = |proxy| get_with(proxy, "/plain", &[("Cookie", &cookie)]).expect(200).text();
        let here = at_once(if n == 0 { 100 } else { 10 }, || ask(&world.address));
        assert_eq!(here.len(), 1, "one id, one server: {here:?}");
        assert_eq!(at_once(10, || ask(&second.address)), here, "on every proxy alike");
        servers.extend(here);
    }
    assert!(servers.len() > 1, "different ids are spread: {servers:?}");
    for proxy in [&*world, &second] {
        assert_eq!(proxy.metric(ENTRIES, &[]), 0.0, "invented ids fill no table");
        assert_eq!(proxy.metric(OUTCOMES, &[("outcome", "new")]), 0.0, "and begins no session");
    }
    world.expect_metric(OUTCOMES, &[("outcome", "balanced")], 170.0);
    world.expect_metric(LOOKUPS, &[("source", "learn"), ("result", "unknown")], 170.0);
}

#[test]
fn an_unknown_id_counts_once_its_server_hands_it_out() {
    let world = World::start(learning_sid("a b c"));
    let home = server_of(&world, "old");
    let answer = get_with(&world.address, &saying(200, &["Set-Cookie: SID=old"]), &[("Cookie", "SID=old")]);
    assert_eq!(answer.server(), home);
    assert_eq!(world.metric(ENTRIES, &[]), 1.0);
    assert_eq!(server_of(&world, "old"), home);
    world.expect_metric(LOOKUPS, &[("source", "learn"), ("result", "hit")], 1.0);
}

#[test]
fn learned_sessions_survive_a_rotated_key_and_other_reloads() {
    let conf = |keys: &[&str]| learning("a b c").keys(keys);
    let mut world = World::start(conf(&[KEY_1]));
    let clients = browsers(&world, 9);
    let at_home = || {
        for (browser, home) in &clients {
            let servers = at_once(3, || browser.request("GET", "/echo").fresh().send().server());
            assert_eq!(servers, BTreeSet::from([home.clone()]), "every client comes home");
        }
    };
    world.reload(conf(&[KEY_2, KEY_1]));
    at_home();
    assert_eq!((sessions(&world), world.metric(ENTRIES, &[])), (9.0, 9.0), "under its new key each is there once");
    world.reload(conf(&[KEY_2]));
    at_home();
    let both = "sources: [{ cookie: {} }, { learn: { cookie: APPSESSION } }, { client_ip: {} }]";
    world.reload(Conf::servers("c b a").persistence(both).keys(&[KEY_2]));
    at_home();
    world.expect_metric(LOOKUPS, &[("result", "unknown")], 0.0);
    world.expect_metric(ENDED, &[], 0.0);
}

#[test]
fn no_id_is_written_down_anywhere() {
    let world = World::start(learning_sid("a b c").top("log: { level: trace, access: \"{{access}}\" }"));
    let secret = "f00dcafe4711deadbeef";
    create_learned_session(&world, secret);
    server_of(&world, secret);
    let cookie = format!("SID={secret}");
    for (method, target) in [("GET", "/plain"), ("GET", "/garbage"), ("DELETE", "/say"), ("GET", "/close")] {
        request_with(&world.address, method, target, &[("Cookie", &cookie)]);
        get_with(&world.address, &format!("{target}?sid={secret}"), &[]);
        get_with(&world.address, &format!("{target};sid={secret}/more;v=1;sid={secret}?a=b"), &[]);
    }
    eventually(PATIENCE, "every line of the access log", || world.access_log().len() == 14);
    let access = fs::read_to_string(&world.access_log).expect("an access log");
    let metrics = world.metrics().text;
    for (what, text) in [("log", world.log()), ("access log", access), ("metrics", metrics), ("stdout", world.stdout())]
    {
        assert!(!text.contains(secret), "the id is in the {what}");
    }
}

#[test]
fn the_access_log_says_which_source_named_the_session() {
    let world = World::start(learning_sid("a b c"));
    let target = |path: &str| path.to_owned() + &saying(200, &["Set-Cookie: SID=id"])["/say".len()..];
    let home = get_with(&world.address, "/say/first", &[]).expect(200);
    assert_eq!(home.status, 200);
    let line = world.access_line("/say/first");
    assert_eq!((&line["session"], &line["source"], line["lookup"].as_str()), (&().into(), &().into(), Some("none")));
    get_with(&world.address, &target("/say"), &[]).expect(200);
    let began = world.access_line("/say");
    assert_eq!((began["outcome"].as_str(), began["epoch"].as_u64()), (Some("new"), Some(0)));
    get_with(&world.address, "/plain", &[("Cookie", "SID=id")]).expect(200);
    let kept = world.access_line("/plain");
    let said = |name: &str| kept[name].as_str().unwrap_or_default().to_owned();
    assert_eq!([said("source"), said("lookup"), said("outcome")], ["learn", "hit", "kept"]);
    assert_eq!((kept["session"].as_str().map(str::len), &kept["session"]), (Some(8), &began["session"]));
    get_with(&world.address, "/cacheable", &[("Cookie", "SID=nobodys")]).expect(200);
    let unknown = world.access_line("/cacheable");
    assert_eq!((unknown["source"].as_str(), unknown["lookup"].as_str()), (Some("learn"), Some("unknown")));
    assert_eq!((&unknown["session"], unknown["outcome"].as_str()), (&().into(), Some("balanced")));
}
