//! The dashboard as an operator uses it, in Chromium.

use std::path::Path;

use serde_json::json;

use crate::admin_api::ask;
use crate::world::apps::chromium::Chromium;
use crate::world::{Browser, Conf, World};

const JSON: (&str, &str) = ("Content-Type", "application/json");
const TOKENS: &str = "admin: { address: \"{{admin}}\", tokens: [\
                      { name: ops, role: operator, secret: operator-secret-1 }, \
                      { name: eyes, role: viewer, secret: viewer-secret-01 }] }";
const VIEWS: [(&str, &str); 6] = [
    ("overview", "#/"),
    ("server", "#/servers/web/a"),
    ("sessions", "#/sessions?pool=web&server=a"),
    ("events", "#/events"),
    ("configuration", "#/configuration"),
    ("no such view", "#/nothing"),
];
/// Where the value of a session is typed in.
const VALUE: &str = "Its value; it is a secret, and is not kept";

fn look(world: &World, view: &str) -> Chromium {
    let mut page = Chromium::start(&format!("http://{}/", world.admin));
    page.open(view);
    page
}

/// Clients that have come back once, so that the table has their sessions.
fn clients(world: &World, many: usize) -> Vec<Browser> {
    let clients: Vec<_> = (0..many).map(|_| world.browser()).collect();
    clients.into_iter().inspect(|client| assert_eq!(client.server(), client.server())).collect()
}

#[track_caller]
fn set_state(world: &World, server: &str, state: &str) {
    let path = format!("/api/v1/pools/web/servers/{server}");
    ask(world, "PATCH", &path, &[JSON], &json!({ "state": state }).to_string()).expect(200);
}

#[test]
fn a_server_is_drained_by_button_and_watched_until_it_is_empty() {
    let world = World::start(Conf::servers("a b").persistence("idle_timeout: 6s"));
    let _clients = clients(&world, 4);
    let mut page = look(&world, "#/servers/web/a");
    page.click("button", "Set to drain");
    page.see("It keeps its sessions and gets no new ones.");
    page.click("button", "Cancel");
    assert_eq!(world.metric("homing_server_state", &[("server", "a"), ("state", "drain")]), 0.0, "not confirmed");
    page.click("button", "Set to drain");
    page.click("button", "Set to drain");
    page.see("Sessions still bound");
    world.expect_metric("homing_server_state", &[("server", "a"), ("state", "drain")], 1.0);
    page.see("drain by local");
    page.see("yes: it can be stopped");
    page.click("button", "Undo: as the file says");
    page.click("button", "Undo");
    world.expect_metric("homing_server_state", &[("server", "a"), ("state", "ready")], 1.0);
    page.assert_no_problems();
}

#[test]
fn a_session_is_found_by_its_cookie_moved_and_ended() {
    let world = World::start(Conf::servers("a b"));
    let client = clients(&world, 1).remove(0);
    let home = client.server();
    let other = if home == "a" { "b" } else { "a" };
    let mut page = look(&world, "#/sessions");
    page.fill(VALUE, &client.token().expect("a token"));
    page.click("button", "Explain");
    page.see("What would happen to its next request");
    assert!(page.text("main").contains(&format!("Server\n{home}")), "{}", page.text("main"));
    page.click("button", "Move");
    page.click("button", "Move");
    page.see("Its last moves");
    assert_eq!(client.server(), other, "it has moved");
    page.click("button", "End");
    page.click("button", "End");
    page.see("The session has ended.");
    client.server();
    assert_eq!(world.metric("homing_sessions_ended_total", &[("reason", "admin")]), 1.0);
    page.fill(VALUE, "no-token-at-all");
    page.click("button", "Explain");
    page.see("What would happen to its next request");
    page.assert_no_problems();
}

#[test]
fn a_viewer_signs_in_and_finds_no_button_that_changes_anything() {
    let world = World::start(Conf::servers("a b").top(TOKENS));
    let client = clients(&world, 1).remove(0);
    let mut page = look(&world, "#/servers/web/a");
    page.fill("Token", "a-wrong-secret-00");
    page.click("button", "Sign in");
    page.see("Sign in");
    page.fill("Token", "viewer-secret-01");
    page.click("button", "Sign in");
    page.see("State in force");
    for name in ["Set to drain", "Set to ready", "Set to maint", "Undo: as the file says"] {
        assert_eq!(page.count("button", name), 0, "{name}");
    }
    page.click("link", "Sessions");
    page.fill(VALUE, &client.token().expect("a token"));
    page.click("button", "Explain");
    page.see("Moves so far");
    assert_eq!(page.count("button", "Move") + page.count("button", "End"), 0);
    page.click("link", "Configuration");
    page.see("uptime");
    assert_eq!(page.count("button", "Reload"), 0);
    let text = page.text("body");
    assert!(!text.contains("secret-01") && !text.contains("secret-1"), "{text}");
    page.click("button", "Sign out");
    page.see("It stays in the memory of this page only.");
    page.assert_no_problems();
}

#[test]
fn an_open_page_says_that_the_proxy_is_gone_and_that_it_was_restarted() {
    let mut world = World::start(Conf::servers("a b"));
    let mut page = look(&world, "#/");
    page.see("Connected");
    world.stop_proxy();
    page.see("The proxy does not answer. What is shown is old.");
    world.start_proxy();
    page.see("The proxy was restarted.");
    page.see("Connected");
    assert_eq!(page.cell("a", "State"), "ready");
    page.assert_no_problems();
}

#[test]
fn numbers_on_the_page_are_those_of_the_metrics() {
    let world = World::start(Conf::servers("a b c"));
    let clients = clients(&world, 12);
    let mut page = look(&world, "#/");
    page.see("Connected");
    for server in ["a", "b", "c"] {
        let sessions = world.metric("homing_sessions", &[("server", server)]);
        assert_eq!(page.cell(server, "Sessions"), sessions.to_string());
        assert_eq!(page.cell(server, "Weight"), "1");
    }
    let cards = page.text(".cards");
    assert!(cards.contains("Sessions in the table\n12"), "{cards}");
    // While clients come back, the share of them that stays is shown.
    while !page.text(".cards").contains("Sessions on their server\n100.0 %") {
        for client in &clients {
            client.server();
        }
    }
    // Requests that fail are counted as such.
    for server in ["a", "b", "c"] {
        world.app(server).kill();
    }
    while page.text(".cards").contains("Errors (5xx) a second\n0.0") {
        for client in &clients {
            client.get("/echo");
        }
    }
    page.see("Last hour");
    page.assert_no_problems();
}

#[test]
fn a_refused_reload_is_shown_with_its_problems() {
    let mut world = World::start(Conf::servers("a b"));
    let mut page = look(&world, "#/configuration");
    page.see("uptime");
    world.try_reload(Conf::servers("a b").top("nonsense: 1"));
    page.see("unknown key \"nonsense\"");
    page.assert_no_problems();
}

#[test]
fn events_appear_while_the_page_is_open_and_can_be_filtered() {
    let world = World::start(Conf::servers("a b"));
    let mut page = look(&world, "#/events");
    page.see("of the last");
    set_state(&world, "a", "drain");
    page.see("drain");
    set_state(&world, "b", "maint");
    page.see("maint");
    page.fill("Contains", "maint");
    page.see("1 of the last");
    page.choose("Kind", "move");
    page.see("0 of the last");
    page.assert_no_problems();
}

#[test]
fn every_view_fits_every_screen_and_every_reader() {
    let world = World::start(Conf::servers("a b"));
    let _clients = clients(&world, 6);
    set_state(&world, "a", "drain");
    let mut page = look(&world, "#/");
    for (name, view) in VIEWS {
        page.open(view);
        page.see("Connect");
        for width in [360, 1024, 1920] {
            for scheme in ["light", "dark"] {
                page.view(width, scheme);
                page.assert_accessible(&format!("{name}, {width} pixels, {scheme}"), width == 1920);
            }
        }
        page.view(1024, "light");
        picture(&mut page, name);
    }
    page.assert_no_problems();
}

/// `make screenshots` sets the folder.
fn picture(page: &mut Chromium, name: &str) {
    if let (Ok(folder), false) = (std::env::var("HOMING_SCREENSHOTS"), name.contains(' ')) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(format!("dashboard-{name}.png"));
        page.screenshot(&path.to_string_lossy());
    }
}

#[test]
fn the_keyboard_is_enough_to_set_a_state() {
    let world = World::start(Conf::servers("a b"));
    let mut page = look(&world, "#/servers/web/a");
    page.see("State in force");
    tab_to(&mut page, "Set to maint");
    page.press("Enter");
    tab_to(&mut page, "Set to maint");
    page.press("Enter");
    world.expect_metric("homing_server_state", &[("server", "a"), ("state", "maint")], 1.0);
    page.assert_no_problems();
}

#[track_caller]
fn tab_to(page: &mut Chromium, name: &str) {
    for _ in 0..30 {
        page.press("Tab");
        if page.focused() == name {
            return;
        }
    }
    panic!("no way by Tab to {name:?}");
}
