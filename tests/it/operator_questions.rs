//! Six questions of an operator, each answered by the command that docs/operations.md gives for it. The commands are read
//! from there, so that the page says what works.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::admin_api::ask;
use crate::world::operator;
use crate::world::stores::{Kind, RedisServer};
use crate::world::tls::Authority;
use crate::world::{Browser, Conf, PATIENCE, Proxy, World, eventually};

const SECTION: &str = "## Six questions";
const PROMPT: &str = "    $ ";

/// The commands of the section, in their order.
fn documented() -> Vec<String> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md")).expect("the page");
    let (_, section) = page.split_once(SECTION).expect("the section");
    let section = section.split("\n## ").next().expect("its text");
    section.lines().filter_map(|line| line.strip_prefix(PROMPT)).map(str::to_owned).collect()
}

/// The command of the page that contains this, as it stands there.
fn documented_with(words: &str) -> String {
    let found: Vec<_> = documented().into_iter().filter(|line| line.contains(words)).collect();
    assert_eq!(found.len(), 1, "{words}: {:?}", documented());
    found.concat()
}

/// A shell in the test's directory, as an operator's at the proxy.
fn shell(proxy: &Proxy, directory: &Path, line: &str) -> Command {
    operator::shell(&proxy.admin, directory, line)
}

#[track_caller]
fn answer(proxy: &Proxy, directory: &Path, line: &str) -> String {
    let output: Output = shell(proxy, directory, line).output().expect("the command runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{line}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// A client that has come back, so that the table knows it; its cookie is in the file that the page names.
fn known_client(world: &World) -> (Browser, String) {
    let client = world.browser();
    let home = client.server();
    assert_eq!(client.server(), home);
    let token = client.token().expect("a token");
    fs::write(world.directory().join("cookie.txt"), format!("SESSIONID={token}\n")).expect("a file");
    (client, home)
}

fn client_of(world: &World, server: &str) -> Browser {
    let found = (0..20).map(|_| known_client(world)).find(|(_, home)| home == server);
    found.expect("a client of each server").0
}

fn set_state(world: &World, server: &str, state: &str) {
    let path = format!("/api/v1/pools/web/servers/{server}");
    let body = json!({ "state": state }).to_string();
    ask(world, "PATCH", &path, &[("Content-Type", "application/json")], &body).expect(200);
}

#[test]
fn the_page_has_a_command_for_each_question() {
    assert_eq!(documented().len(), 6, "{:?}", documented());
}

#[test]
fn which_sessions_are_on_b() {
    let world = World::start(Conf::servers("a b c"));
    let clients: Vec<_> = (0..9).map(|_| known_client(&world)).collect();
    let on_b = clients.iter().filter(|(_, home)| home == "b").count();
    let list = answer(&world, world.directory(), &documented_with("sessions list"));
    let rows: Vec<_> = list.lines().skip(1).collect();
    assert!(list.starts_with("POOL") && rows.len() == on_b && on_b > 0, "{list}");
    assert!(rows.iter().all(|row| row.split_whitespace().nth(2) == Some("b")), "{list}");
}

#[test]
fn drain_b_and_say_when_it_is_empty() {
    let world = World::start(Conf::servers("a b").persistence("idle_timeout: 4s"));
    let client = client_of(&world, "b");
    let line = documented_with("--wait");
    let mut waits: Child = shell(&world, world.directory(), &line)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command runs");
    eventually(PATIENCE, "b drains", || {
        world.metric("homing_server_state", &[("server", "b"), ("state", "drain")]) == 1.0
    });
    assert_eq!(client.server(), "b", "its sessions stay");
    assert!(waits.try_wait().expect("a status").is_none(), "b is not empty");
    drop(client);
    eventually(Duration::from_secs(30), "the last session has expired, and none can come back", || {
        waits.try_wait().expect("a status").is_some()
    });
    let output = waits.wait_with_output().expect("an end");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("1 session is bound"), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("empty"), "{}", text(&output.stdout));
}

#[test]
fn why_a_user_landed_on_c() {
    let world = World::start(Conf::servers("a b c"));
    let (client, home) = known_client(&world);
    set_state(&world, &home, "maint");
    let line = documented_with("homing explain");
    let before = answer(&world, world.directory(), &line);
    let fact = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.split_whitespace().next() == Some(name));
        line.and_then(|line| line.split_whitespace().nth(1)).unwrap_or_default().to_owned()
    };
    assert_eq!(fact(&before, "server"), home, "{before}");
    assert_eq!(
        (fact(&before, "outcome"), fact(&before, "reason")),
        ("moved".to_owned(), "maint".to_owned()),
        "{before}"
    );
    let chosen = fact(&before, "chosen");
    assert_eq!(client.server(), chosen, "it goes where the answer said");
    fs::write(world.directory().join("cookie.txt"), client.token().expect("a token")).expect("a file");
    let after = answer(&world, world.directory(), &line);
    assert_eq!((fact(&after, "server"), fact(&after, "outcome")), (chosen, "kept".to_owned()), "{after}");
}

#[test]
fn end_that_users_session_everywhere() {
    let store = RedisServer::start(Kind::Redis);
    let mut world = World::start(Conf::servers("a b").store(&store.entry()));
    let other = world.another_proxy("-2");
    let (client, home) = known_client(&world);
    let there = client.copy_at(&other.address);
    assert_eq!([there.server(), there.server()], [home.clone(), home]);
    let ended = client.token().expect("a token");
    answer(&world, world.directory(), &documented_with("sessions end"));
    for proxy in [&*world, &other] {
        eventually(PATIENCE, "the session is over there", || {
            let late = Browser::new(proxy.address.clone());
            late.put_cookie("SESSIONID", &ended);
            late.server();
            late.token().is_some_and(|token| token != ended)
        });
    }
    assert_eq!(world.metric("homing_sessions_ended_total", &[("reason", "admin")]), 1.0);
}

#[test]
fn what_moved_in_the_last_ten_minutes_and_why() {
    let world = World::start(Conf::servers("a b"));
    let (client, home) = known_client(&world);
    set_state(&world, &home, "maint");
    let next = client.server();
    let list = answer(&world, world.directory(), &documented_with("events"));
    let rows: Vec<_> = list.lines().skip(1).collect();
    assert_eq!(rows.len(), 1, "{list}");
    let cells: Vec<_> = rows.concat().split_whitespace().map(str::to_owned).collect();
    assert!(["move", &home, &next, "maint"].iter().all(|cell| cells.iter().any(|found| found == cell)), "{list}");
}

#[test]
fn is_my_certificate_expiring() {
    let authority = Authority::new();
    let tls = "tls: { certificates: [{ cert: a.pem, key: a.key }] }";
    let world = World::builder(Conf::servers("a").listener(tls))
        .before(|environment| drop(authority.issue(environment.directory(), "a", &["shop.example.org"])))
        .start();
    let status = answer(&world, world.directory(), &documented_with("homing status"));
    let line = status.lines().find(|line| line.starts_with("certificates")).unwrap_or_default();
    assert!(line.contains("name=shop.example.org") && line.contains("expires="), "{status}");
    authority.issue(world.directory(), "a", &["shop.example.org"]);
    ask(&world, "POST", "/api/v1/reload", &[], "").expect(200);
    let events = ask(&world, "GET", "/api/v1/events", &[], "").expect(200).json();
    let of_certificates = |event: &&Value| event["kind"] == "certificate";
    let reasons: Vec<_> =
        events["items"].as_array().expect("items").iter().filter(of_certificates).map(|one| &one["reason"]).collect();
    assert_eq!(reasons, ["shop.example.org: loaded", "shop.example.org: renewed"]);
}
