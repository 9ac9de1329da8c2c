//! Seen from outside: stopping, logs, metrics, probes.

use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::world::{Conf, PATIENCE, QUICK_CHECK, Signal, Wire, World, eventually};

#[test]
fn a_graceful_stop_finishes_what_is_in_flight_and_then_ends() {
    let world = World::start(Conf::servers("a"));
    let mut idle = world.wire();
    idle.send("GET /plain HTTP/1.1\r\nHost: x\r\n\r\n");
    idle.receive("GET").expect(200);
    let mut busy = world.wire();
    busy.send("GET /slow?ms=2500 HTTP/1.1\r\nHost: x\r\n\r\n");
    eventually(PATIENCE, "the slow request arrives", || world.count("GET", "/slow") == 1);
    let start = Instant::now();
    world.signal(Signal::SIGTERM);
    eventually(Duration::from_secs(2), "readiness is off", || world.readiness() == Some(503));
    assert!(idle.time_to_close(Duration::from_secs(2)).is_some(), "idle connections close");
    assert_eq!(busy.receive("GET").expect(200).server(), "a", "what is in flight finishes");
    let (status, _) = world.wait_for_exit(Duration::from_secs(10));
    assert_eq!(status.code(), Some(0), "it ends well: {status:?}");
    let took = start.elapsed();
    assert!(took < Duration::from_secs(8), "as soon as all is done, long before the grace of 30 s: {took:?}");
}

#[test]
fn a_graceful_stop_with_nothing_to_do_ends_at_once() {
    let world = World::start(Conf::servers("a"));
    world.browser().server();
    world.signal(Signal::SIGTERM);
    let (status, took) = world.wait_for_exit(Duration::from_secs(10));
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn a_graceful_stop_does_not_wait_longer_than_its_grace() {
    let world = World::start(Conf::servers("a").top("proxy: { shutdown_grace: 1s }"));
    let mut busy = world.wire();
    busy.send("GET /slow?ms=60000 HTTP/1.1\r\nHost: x\r\n\r\n");
    eventually(PATIENCE, "the slow request arrives", || world.count("GET", "/slow") == 1);
    let start = Instant::now();
    world.signal(Signal::SIGTERM);
    let (status, _) = world.wait_for_exit(Duration::from_secs(15));
    let took = start.elapsed();
    assert!((Duration::from_millis(800)..Duration::from_secs(10)).contains(&took), "{took:?}, {status:?}");
}

#[test]
fn an_open_connection_learns_of_the_stop_with_its_answer() {
    let world = World::start(Conf::servers("a"));
    let mut wire = world.wire();
    wire.send("GET /slow?ms=1000 HTTP/1.1\r\nHost: x\r\n\r\n");
    eventually(PATIENCE, "the request arrives", || world.count("GET", "/slow") == 1);
    world.signal(Signal::SIGTERM);
    wire.receive("GET").expect(200);
    assert!(wire.time_to_close(Duration::from_secs(3)).is_some(), "it is not kept for another request");
}

#[test]
fn int_stops_now() {
    let world = World::start(Conf::servers("a"));
    let mut busy = world.wire();
    busy.send("GET /slow?ms=60000 HTTP/1.1\r\nHost: x\r\n\r\n");
    eventually(PATIENCE, "the slow request arrives", || world.count("GET", "/slow") == 1);
    world.signal(Signal::SIGINT);
    let (_, took) = world.wait_for_exit(Duration::from_secs(10));
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn a_taken_address_ends_the_start_with_a_clear_word() {
    let mut environment = World::builder(Conf::servers("a")).without_proxy();
    let address = environment.address("proxy");
    let _squatter = crate::world::net::Listener::bind(&address).expect("the address is ours");
    let launch = environment.launch("");
    let proxy = crate::world::Proxy::spawn(&launch, environment.directory());
    let (status, _) = proxy.wait_for_exit(Duration::from_secs(30));
    assert_eq!(status.code(), Some(1), "failed while running:\n{}", proxy.log());
    assert!(proxy.log().contains(&address.to_string()), "and says which address:\n{}", proxy.log());
}

#[test]
fn the_process_id_is_written_where_asked() {
    let world = World::start(Conf::servers("a").top("proxy: { pid_file: \"{{dir}}/homing.pid\" }"));
    let written = fs::read_to_string(world.directory().join("homing.pid")).expect("a pid file");
    assert_eq!(written.trim(), world.pid().to_string());
}

/// Every field of the contract.
const ACCESS_FIELDS: [&str; 22] = [
    "ts",
    "request_id",
    "client_ip",
    "method",
    "host",
    "path",
    "protocol",
    "status",
    "bytes_in",
    "bytes_out",
    "duration_ms",
    "upstream_ms",
    "route",
    "pool",
    "server",
    "attempts",
    "session",
    "source",
    "lookup",
    "outcome",
    "reason",
    "epoch",
];

#[track_caller]
fn assert_complete(line: &Value) {
    let missing: Vec<_> = ACCESS_FIELDS.iter().filter(|field| line.get(**field).is_none()).collect();
    assert!(missing.is_empty(), "{missing:?} are missing in {line}");
}

/// These fields of an access-log line, as text; absent and null alike.
fn words(line: &Value, names: &[&str]) -> Vec<String> {
    let text = |name: &&str| line[*name].as_str().map_or_else(|| line[*name].to_string(), str::to_owned);
    names.iter().map(text).collect()
}

#[test]
fn the_access_log_tells_every_request() {
    let world = World::start(Conf::servers("a b c"));
    let alice = world.browser();
    let home = alice.get("/first").server();
    alice.post("/second?secret=1", "twelve bytes");
    world.app(&home).kill();
    let next = alice.get("/third").server();
    let [first, second, third] = ["/first", "/second", "/third"].map(|path| world.access_line(path));
    for line in [&first, &second, &third] {
        assert_complete(line);
        assert_eq!(words(line, &["client_ip", "host", "status", "pool"]), ["127.0.0.1", "example.test", "200", "web"]);
        assert!(line["duration_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{line}");
        assert!(line["bytes_out"].as_u64().is_some_and(|n| n > 100), "{line}");
    }
    assert_eq!(words(&first, &["method", "lookup", "outcome", "server"]), ["GET", "none", "new", &home]);
    let of_second = ["method", "lookup", "outcome", "server", "bytes_in"];
    assert_eq!(words(&second, &of_second), ["POST", "restored", "kept", &home, "12"]);
    let of_third = ["lookup", "outcome", "reason", "epoch", "server", "attempts"];
    assert_eq!(words(&third, &of_third), ["hit", "moved", "connect_failure", "1", &next, "2"]);
}

#[test]
fn the_access_log_has_one_name_for_a_session() {
    let world = World::start(Conf::servers("a b"));
    let (alice, bob) = (world.browser(), world.browser());
    for (browser, path) in [(&alice, "/1"), (&bob, "/2"), (&alice, "/3"), (&bob, "/4"), (&alice, "/5")] {
        browser.get(path);
    }
    let name = |path: &str| world.access_line(path)["session"].as_str().map(str::to_owned).expect("a session");
    assert_eq!(name("/3").len(), 8, "the first eight characters of its keyed hash");
    assert_eq!(name("/3"), name("/5"));
    assert_ne!(name("/3"), name("/4"), "and another for another");
}

#[test]
fn no_log_ever_holds_a_token_or_a_cookie() {
    let world = World::start(Conf::servers("a b").top("log: { level: trace, format: text, access: \"{{access}}\" }"));
    let alice = world.browser();
    for _ in 0..3 {
        alice.get("/echo");
    }
    alice.put_cookie("APPLICATION", "a-secret-of-the-application");
    let token = alice.token().expect("a token");
    let stale = world.browser();
    stale.put_cookie("SESSIONID", &format!("{token}x"));
    stale.get("/stale");
    alice.get("/last");
    world.access_line("/last");
    let access = fs::read_to_string(&world.access_log).expect("the access log");
    assert!(!access.contains(&token) && !access.contains("a-secret-of"), "{access}");
    let own: String = world.log().lines().filter(|line| line.contains("homing")).collect();
    assert!(!own.contains(&token) && !own.contains("a-secret-of"), "not even at the most talkative level:\n{own}");
}

#[test]
fn the_access_log_tells_the_proxys_own_answers_too() {
    let world = World::start(Conf::servers("a"));
    world.app("a").kill();
    world.browser().get("/down").expect(503);
    let line = world.access_line("/down");
    assert_eq!(line["status"], 503);
    assert_complete(&line);
}

#[test]
fn the_access_log_may_go_to_standard_output() {
    let world = World::start(Conf::servers("a").top("log: { access: stdout }"));
    world.browser().get("/to-stdout");
    eventually(PATIENCE, "a line on stdout", || world.stdout().contains("/to-stdout"));
    let stdout = world.stdout();
    let line = stdout.lines().find(|line| line.contains("/to-stdout")).expect("just seen");
    assert_eq!(serde_json::from_str::<Value>(line).expect("JSON")["status"], 200);
    for line in stdout.lines() {
        serde_json::from_str::<Value>(line).unwrap_or_else(|e| panic!("something else on stdout ({e}): {line}"));
    }
}

#[test]
#[cfg(target_os = "linux")]
fn an_access_log_that_cannot_be_written_is_reported_once() {
    let world = World::start(Conf::servers("a").top("log: { access: /dev/full }"));
    let failures = || world.log().matches("the access log cannot be written").count();
    let client = world.browser();
    eventually(PATIENCE, "it is reported", || {
        client.server();
        failures() > 0
    });
    // Several more writes.
    for _ in 0..20 {
        client.server();
        thread::sleep(Duration::from_millis(50)); // the passing of time is the subject
    }
    assert_eq!(failures(), 1, "{}", world.log());
}

#[test]
fn usr1_reopens_the_access_log() {
    let world = World::start(Conf::servers("a"));
    world.browser().get("/before");
    world.access_line("/before");
    let rotated = world.directory().join("access.log.1");
    fs::rename(&world.access_log, &rotated).expect("rotated");
    world.browser().get("/between");
    world.signal(Signal::SIGUSR1);
    eventually(PATIENCE, "a new file", || world.access_log.exists());
    world.browser().get("/after");
    world.access_line("/after");
    let (old, new) =
        (fs::read_to_string(rotated).expect("the old"), fs::read_to_string(&world.access_log).expect("the new"));
    assert!(old.contains("/before") && !old.contains("/after"), "{old}");
    assert_eq!(old.matches("/between").count() + new.matches("/between").count(), 1, "no line is lost or doubled");
}

#[test]
fn the_access_log_is_whole_after_a_graceful_stop() {
    let world = World::start(Conf::servers("a"));
    for _ in 0..200 {
        world.browser().get("/plain");
    }
    world.stop();
    assert_eq!(world.access_log().len(), 200);
}

#[test]
fn the_log_can_be_text_or_json() {
    for (format, is_json) in [("json", true), ("text", false)] {
        let world = World::start(
            Conf::servers("a").pool(QUICK_CHECK).top(&format!("log: {{ level: info, format: {format} }}")),
        );
        world.app("a").kill();
        world.wait_for_health("a", false);
        world.stop();
        let log = world.log();
        assert!(log.lines().count() >= 1, "there is something to say");
        let json = log.lines().filter(|line| serde_json::from_str::<Value>(line).is_ok_and(|v| v.is_object())).count();
        assert_eq!(json, if is_json { log.lines().count() } else { 0 }, "{format}:\n{log}");
        assert!(!log.contains("\u{1b}["), "no colours in a file");
    }
}

#[test]
fn a_quiet_log_says_nothing_about_strangers() {
    let world = World::start(Conf::servers("a").top("log: { level: warn }"));
    let before = world.log().lines().count();
    for _ in 0..20 {
        let mut wire = world.wire();
        let _ = wire.try_send("nonsense\r\n\r\n");
        wire.drain(Duration::from_millis(50));
    }
    world.browser().server();
    let after = world.log().lines().count();
    assert!(after <= before + 3, "scanners do not fill the log:\n{}", world.log());
}

/// Names and labels.
const METRICS: &[(&str, &[&str])] = &[
    ("homing_requests_total", &["pool", "code"]),
    ("homing_request_duration_seconds_bucket", &["pool", "le"]),
    ("homing_request_duration_seconds_sum", &["pool"]),
    ("homing_request_duration_seconds_count", &["pool"]),
    ("homing_upstream_errors_total", &["pool", "server", "kind"]),
    ("homing_retries_total", &["pool", "result"]),
    ("homing_session_lookups_total", &["pool", "source", "result"]),
    ("homing_session_outcomes_total", &["pool", "outcome"]),
    ("homing_session_moves_total", &["pool", "reason"]),
    ("homing_sessions", &["pool", "server"]),
    ("homing_sessions_complete", &["pool"]),
    ("homing_sessions_ended_total", &["pool", "reason"]),
    ("homing_tokens_issued_total", &["pool", "reason"]),
    ("homing_table_entries", &[]),
    ("homing_table_capacity", &[]),
    ("homing_table_bytes", &[]),
    ("homing_snapshot_writes_total", &["result"]),
    ("homing_snapshot_last_success_timestamp_seconds", &[]),
    ("homing_snapshot_sessions", &[]),
    ("homing_snapshot_duration_seconds", &[]),
    ("homing_server_up", &["pool", "server"]),
    ("homing_server_state", &["pool", "server", "state"]),
    ("homing_server_requests_in_flight", &["pool", "server"]),
    ("homing_server_weight", &["pool", "server"]),
    ("homing_server_responses_total", &["pool", "server", "class"]),
    ("homing_server_response_seconds_count", &["pool", "server"]),
    ("homing_server_connect_seconds_count", &["pool", "server"]),
    ("homing_server_retries_total", &["pool", "server"]),
    ("homing_streams_open", &["pool", "server"]),
    ("homing_client_connections", &["listener"]),
    ("homing_bytes_total", &["pool", "direction"]),
    ("homing_resource_exhausted_total", &["operation", "resource"]),
    ("homing_health_checks_total", &["pool", "server", "result"]),
    ("homing_config_reloads_total", &["result"]),
    ("homing_config_last_reload_success", &[]),
    ("homing_config_info", &["hash"]),
    ("homing_store_up", &[]),
    ("homing_store_operations_total", &["op", "result"]),
    ("homing_store_operation_duration_seconds_count", &["op"]),
    ("homing_store_pending_writes", &[]),
    ("homing_store_announcements_total", &[]),
    ("homing_build_info", &["version", "revision", "node"]),
    ("process_cpu_seconds_total", &[]),
    ("process_resident_memory_bytes", &[]),
    ("process_open_fds", &[]),
];

#[test]
fn every_metric_of_this_version_is_there() {
    let world = World::start(Conf::servers("a b").pool(QUICK_CHECK).persistence("idle_timeout: 1s"));
    let alice = world.browser();
    let home = alice.server();
    alice.server();
    alice.get(&format!("/reset?only={home}"));
    world.signal(Signal::SIGHUP);
    eventually(PATIENCE, "the session idles out", || {
        world.metric("homing_sessions_ended_total", &[("reason", "idle")]) >= 1.0
    });
    let bob = world.browser();
    let home = bob.server();
    bob.server();
    world.app(&home).kill();
    bob.server();
    let metrics = world.metrics();
    for (name, labels) in METRICS {
        let sample = metrics.matching(name, &[]).next();
        let sample = sample.unwrap_or_else(|| panic!("{name} is missing in:\n{}", metrics.text));
        let expected: BTreeSet<&str> = labels.iter().copied().collect();
        assert_eq!(sample.labels.keys().map(String::as_str).collect::<BTreeSet<_>>(), expected, "the labels of {name}");
    }
    let unexplained: Vec<_> = metrics
        .samples
        .iter()
        .filter(|s| s.name.starts_with("homing_"))
        .map(|s| s.name.as_str())
        .filter(|name| {
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            !metrics.text.contains(&format!("# HELP {name} ")) && !metrics.text.contains(&format!("# HELP {family} "))
        })
        .collect();
    assert!(unexplained.is_empty(), "metrics without a word of help: {unexplained:?}");
}

#[test]
fn requests_are_counted_by_status() {
    let world = World::start(Conf::servers("a"));
    for code in [200, 200, 404, 500] {
        world.browser().get(&format!("/status?code={code}"));
    }
    for (code, count) in [("200", 2.0), ("404", 1.0), ("500", 1.0)] {
        world.expect_metric("homing_requests_total", &[("pool", "web"), ("code", code)], count);
    }
    world.expect_metric("homing_request_duration_seconds_count", &[("pool", "web")], 4.0);
}

#[test]
fn a_stranger_cannot_make_labels() {
    let world = World::start(Conf::servers("a"));
    for n in 0..30 {
        world.browser().request(&format!("METHOD{n}"), &format!("/path-{n}")).host(&format!("host-{n}.example")).send();
    }
    let text = world.metrics().text;
    assert!(!text.contains("path-1") && !text.contains("host-1") && !text.contains("METHOD1"), "no label is unbounded");
}

#[test]
fn the_admin_door_answers_probes_and_only_to_its_own_names() {
    let world = World::start(Conf::servers("a"));
    assert_eq!((world.admin("/healthz").status, world.admin("/readyz").status), (200, 200));
    let mut wire = Wire::connect(&world.admin);
    wire.send("GET /metrics HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n");
    wire.receive("GET").expect(421);
    world.admin("/nothing-here").expect(404);
}

#[test]
fn prometheus_may_have_a_door_of_its_own() {
    let mut world = World::start(Conf::servers("a").top("metrics: { address: \"{{metrics}}\", path: /prometheus }"));
    let mut wire = Wire::connect(&world.environment.address("metrics"));
    wire.send("GET /prometheus HTTP/1.1\r\nHost: homing.internal:9901\r\n\r\n");
    let answer = wire.receive("GET").expect(200);
    assert!(answer.text().contains("homing_build_info"));
    assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")), "{:?}", answer.head);
}

#[test]
fn the_proxy_serves_many_clients_at_once() {
    let world = World::start(Conf::servers("a b c"));
    let (failed, total) = thread::scope(|scope| {
        let clients: Vec<_> = (0..40)
            .map(|_| {
                scope.spawn(|| {
                    let browser = world.browser();
                    let home = browser.server();
                    (0..25).filter(|_| browser.server() != home).count()
                })
            })
            .collect();
        clients
            .into_iter()
            .fold((0, 0), |(failed, total), client| (failed + client.join().expect("answers"), total + 26))
    });
    assert_eq!(failed, 0, "every one of {total} requests came home");
    world.expect_metric("homing_requests_total", &[("pool", "web"), ("code", "200")], 1040.0);
}
