//! The file changes while the proxy runs: everything of the new one or nothing of it.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::world::{
    App, Browser, Conf, Launch, PATIENCE, Proxy, QUICK_CHECK, SESSION_COOKIE, Signal, World, eventually,
};

const SUCCESS: &str = "homing_config_last_reload_success";
const MOVES: &str = "homing_session_moves_total";

fn browsers_with_servers(world: &World, count: usize) -> Vec<(Browser, String)> {
    let start = |_| {
        let browser = world.browser();
        let home = browser.server();
        (browser, home)
    };
    (0..count).map(start).collect()
}

#[test]
fn a_changed_file_is_noticed_without_a_signal() {
    let mut world = World::start(Conf::servers("a"));
    let before = world.configuration_hash();
    let text = world.environment.rewrite(Conf::servers("a b"));
    world.write_config(&text);
    eventually(PATIENCE, "the new server takes sessions", || world.browser().server() == "b");
    assert_ne!(world.configuration_hash(), before);
    assert_eq!(world.metric(SUCCESS, &[]), 1.0);
}

#[test]
fn a_file_written_in_place_is_noticed_too() {
    let mut world = World::start(Conf::servers("a"));
    let text = world.environment.rewrite(Conf::servers("a b"));
    fs::write(&world.config, text).expect("written in place");
    eventually(PATIENCE, "the new server takes sessions", || world.browser().server() == "b");
}

#[test]
fn a_replaced_symlink_is_noticed() {
    // As Kubernetes does it: file -> ..data/file, ..data -> a directory, and ..data is replaced.
    let mut world = World::start(Conf::servers("a"));
    let directory = world.directory().join("mounted");
    let write = |version: &str, text: &str| {
        fs::create_dir_all(directory.join(version)).expect("a directory");
        fs::write(directory.join(version).join("homing.yaml"), text).expect("a file");
        symlink(version, directory.join("..new")).expect("a symlink");
        fs::rename(directory.join("..new"), directory.join("..data")).expect("to replace the symlink");
    };
    let launch = world.environment.launch("-k");
    write("..1", &world.environment.render_for("-k"));
    symlink("..data/homing.yaml", directory.join("homing.yaml")).expect("a symlink");
    let proxy = Proxy::start(&Launch { config: directory.join("homing.yaml"), ..launch }, world.directory());
    assert_eq!(proxy.browser().server(), "a");
    world.environment.rewrite(Conf::servers("a b"));
    write("..2", &world.environment.render_for("-k"));
    eventually(PATIENCE, "the new server takes sessions", || proxy.browser().server() == "b");
}

#[test]
fn hup_reloads_at_once() {
    let mut world = World::start(Conf::servers("a"));
    world.reload(Conf::servers("a b"));
    let servers: Vec<_> = browsers_with_servers(&world, 4).into_iter().map(|(_, home)| home).collect();
    assert!(servers.iter().any(|s| s == "b"), "{servers:?}");
    assert!(world.metric("homing_config_reloads_total", &[]) >= 1.0, "reloads are counted");
}

#[test]
fn hup_without_a_change_changes_nothing() {
    let world = World::start(Conf::servers("a b"));
    let sessions = browsers_with_servers(&world, 4);
    let before = world.configuration_hash();
    for _ in 0..3 {
        world.signal(Signal::SIGHUP);
    }
    eventually(PATIENCE, "a reload", || world.reloads() >= 1.0);
    assert_eq!(world.configuration_hash(), before);
    for (browser, home) in &sessions {
        assert_eq!(browser.server(), *home);
    }
}

#[test]
fn a_broken_file_changes_nothing_and_says_so() {
    let mut world = World::start(Conf::servers("a b"));
    let sessions = browsers_with_servers(&world, 4);
    let before = world.configuration_hash();
    assert_eq!(world.metric(SUCCESS, &[]), 1.0, "the file that it started with was fine");
    let broken = [
        Conf::servers("a b").pool("balance: round_robbin").to_string(),
        Conf::servers("a b").server("a", "state: maint, wieght: 1").to_string(),
        "pools: [".to_owned(),
        String::new(),
        "\0\0\0".to_owned(),
    ];
    for text in broken {
        world.try_reload(text);
        eventually(PATIENCE, "the metric says so", || world.metric(SUCCESS, &[]) == 0.0);
        assert_eq!(world.configuration_hash(), before, "the old one is in force");
        for (browser, home) in &sessions {
            assert_eq!(browser.server(), *home, "no client notices");
        }
    }
    let log = world.log();
    assert!(log.contains("round_robbin") && log.contains("homing.yaml:"), "the log says what and where:\n{log}");
    world.reload(Conf::servers("a b c"));
    assert_eq!(world.metric(SUCCESS, &[]), 1.0, "and when it is mended");
}

#[test]
fn a_vanished_file_changes_nothing() {
    let world = World::start(Conf::servers("a b"));
    fs::remove_file(&world.config).expect("the file goes");
    world.signal(Signal::SIGHUP);
    eventually(PATIENCE, "the metric says so", || world.metric(SUCCESS, &[]) == 0.0);
    assert_eq!(world.browser().get("/echo").status, 200);
}

/// Stops the load also when the test fails, which would wait for it otherwise.
struct StopWhenDone<'a>(&'a AtomicBool);

impl Drop for StopWhenDone<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn fifty_reloads_under_load_cost_no_request_and_move_no_session() {
    let mut world = World::start(Conf::servers("a b c"));
    let (stop, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    let sessions = browsers_with_servers(&world, 4);
    thread::scope(|scope| {
        let clients: Vec<_> = sessions
            .iter()
            .map(|(browser, home)| {
                let (stop, served) = (&stop, &served);
                scope.spawn(move || {
                    while !stop.load(Ordering::SeqCst) {
                        let n = served.fetch_add(1, Ordering::SeqCst);
                        let answer = if n % 7 == 0 { browser.post("/echo", "body") } else { browser.get("/echo") };
                        assert_eq!(answer.server(), *home, "a session is not moved by a reload");
                    }
                })
            })
            .collect();
        let enough = StopWhenDone(&stop);
        for n in 0..50 {
            world.reload(Conf::servers("a b c").server("a", &format!("weight: {}", 2 + n % 2)));
        }
        drop(enough);
        for client in clients {
            client.join().expect("every request was answered");
        }
    });
    assert!(served.load(Ordering::SeqCst) > 200, "there was some load: {served:?}");
    assert_eq!(world.metric(MOVES, &[]), 0.0);
    assert_eq!(world.metric("homing_requests_total", &[("code", "502")]), 0.0);
}

#[test]
fn a_request_in_progress_is_finished_under_the_old_file() {
    let mut world = World::start(Conf::servers("a b"));
    let alice = world.browser();
    let home = alice.server();
    let address = world.address.clone();
    let asked = thread::spawn(move || alice.copy_at(&address).get("/slow?ms=1500").server());
    eventually(PATIENCE, "the request arrives", || world.count("GET", "/slow") == 1);
    let other = if home == "a" { "b" } else { "a" };
    world.reload(Conf::servers(other));
    assert_eq!(asked.join().expect("an answer"), home);
}

#[test]
fn a_listener_that_changes_is_reported_as_restart_only() {
    let mut world = World::start(Conf::servers("a"));
    let port = world.environment.address("proxy-new");
    world.try_reload(Conf::servers("a").to_string().replace("{{proxy}}", &port.to_string()));
    eventually(PATIENCE, "the log says so", || world.log().to_lowercase().contains("restart"));
    assert!(!port.is_listening(), "not before a restart");
    assert_eq!(world.browser().server(), "a", "the old listener serves on");
}

#[test]
fn process_wide_settings_are_reported_as_restart_only() {
    let mut world = World::start(Conf::servers("a").top("proxy: { threads: 1, shutdown_grace: 30s }"));
    assert!(!world.log().to_lowercase().contains("restart"));
    world.try_reload(Conf::servers("a b").top("proxy: { threads: 2, shutdown_grace: 30s }"));
    eventually(PATIENCE, "the log says so", || world.log().to_lowercase().contains("restart"));
    assert!(world.log().contains("threads"), "and names what:\n{}", world.log());
    eventually(PATIENCE, "the rest of the file is in force", || world.browser().server() == "b");
}

#[test]
fn limits_of_a_listener_change_at_once() {
    let mut world = World::start(Conf::servers("a"));
    world.browser().post("/echo", "more than ten bytes").expect(200);
    world.reload(Conf::servers("a").listener("max_body_size: 10B"));
    world.browser().post("/echo", "more than ten bytes").expect(413);
}

#[test]
fn a_session_follows_its_servers_name_to_another_address() {
    let mut world = World::start(Conf::servers("a b"));
    let sessions = browsers_with_servers(&world, 6);
    world.reload(Conf::servers("a b").address("a", "{{moved}}"));
    for (browser, home) in &sessions {
        let expected = if home == "a" { "moved" } else { "b" };
        assert_eq!(browser.server(), expected, "the name is the identity");
    }
    assert_eq!(world.metric(MOVES, &[]), 0.0, "no session moved");
}

#[test]
fn sessions_stay_when_servers_are_reordered_added_and_renamed_around_them() {
    let mut world = World::start(Conf::servers("a b c"));
    let sessions = browsers_with_servers(&world, 9);
    for servers in ["c b a", "x a y b z c", "c a b"] {
        world.reload(Conf::servers(servers));
        for (browser, home) in &sessions {
            assert_eq!(browser.server(), *home, "with {servers}");
        }
    }
    assert_eq!(world.metric(MOVES, &[]), 0.0);
}

#[test]
fn health_is_carried_over() {
    let check = "health_check: { type: http, path: /healthz, interval: 5s, timeout: 1s, rise: 1, fall: 1 }";
    let mut world = World::builder(Conf::servers("a b").pool(check))
        .before(|environment| environment.app("b").set_health(500))
        .start();
    let before = (world.app("a").probes(), world.app("b").probes());
    world.reload(Conf::servers("a b").pool(check).server("a", "weight: 2"));
    for _ in 0..6 {
        assert_eq!(world.browser().server(), "a", "a server that was down is still down");
    }
    assert!(world.app("a").probes() <= before.0 + 1, "no new first verdict was needed");
    assert_eq!(world.app("b").requests(), 0);
}

#[test]
fn a_server_that_a_reload_adds_has_a_verdict_before_traffic() {
    let mut world = World::start(Conf::servers("a").pool(QUICK_CHECK));
    let app = App::reserve("b");
    app.set_health(500);
    app.start();
    world.reload(Conf::servers("a b").address("b", &app.address().to_string()).pool(QUICK_CHECK));
    for _ in 0..10 {
        assert_eq!(world.browser().server(), "a");
    }
    assert_eq!(app.requests(), 0, "it was never well");
}

#[test]
fn the_table_is_carried_over() {
    let mut world = World::start(Conf::servers("a b"));
    let sessions = browsers_with_servers(&world, 6);
    for (browser, home) in &sessions {
        assert_eq!(browser.server(), *home);
    }
    let entries = world.metric("homing_table_entries", &[]);
    assert_eq!(entries, 6.0);
    world.reload(Conf::servers("a b c"));
    assert_eq!(world.metric("homing_table_entries", &[]), entries);
    for (browser, home) in &sessions {
        assert_eq!(browser.server(), *home);
    }
    world.expect_metric("homing_session_lookups_total", &[("result", "hit")], 6.0);
}

#[test]
fn counters_are_not_reset() {
    let mut world = World::start(Conf::servers("a b"));
    browsers_with_servers(&world, 6);
    world.expect_metric("homing_requests_total", &[("pool", "web")], 6.0);
    world.reload(Conf::servers("a b").pool("balance: random"));
    browsers_with_servers(&world, 1);
    world.expect_metric("homing_requests_total", &[("pool", "web")], 7.0);
}

#[test]
fn a_renamed_cookie_takes_effect_at_once() {
    let mut world = World::start(Conf::servers("a b"));
    let alice = world.browser();
    alice.server();
    world.reload(Conf::servers("a b").persistence("cookie: { name: HOME }"));
    let answer = alice.get("/echo");
    assert!(answer.set_cookie("HOME").is_some(), "a new name, a new session");
    let old = answer.received("cookie").join("; ");
    assert!(old.contains(SESSION_COOKIE), "the old name belongs to the application now: {old}");
}

#[test]
fn the_gauges_of_removed_servers_go() {
    let mut world = World::start(Conf::servers("a b"));
    browsers_with_servers(&world, 2);
    assert!(world.metrics().has("homing_server_up", &[("server", "b")]));
    world.reload(Conf::servers("a c"));
    eventually(Duration::from_secs(5), "no gauge speaks of a removed server", || {
        let metrics = world.metrics();
        !metrics.has("homing_server_up", &[("server", "b")]) && metrics.has("homing_server_up", &[("server", "c")])
    });
}
