//! What is known of sessions without a token outlives the process, when it may be written down.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::world::app::answers::saying;
use crate::world::client::get_with;
use crate::world::{Conf, KEY_1, PATIENCE, Signal, World, eventually};

const LOOKUPS: &str = "homing_session_lookups_total";
const MOVES: &str = "homing_session_moves_total";
const ENTRIES: &str = "homing_table_entries";
const SAVED: &str = "homing_snapshot_sessions";
const WRITES: &str = "homing_snapshot_writes_total";

/// The table is written to `file` in the test's directory.
pub(crate) fn with_snapshot(conf: Conf, file: &str, interval: &str) -> Conf {
    conf.top(&format!("store: {{ snapshot: {{ path: \"{{{{dir}}}}/{file}\", interval: {interval} }} }}"))
}

/// Learns `SID`, which servers hand out where a test makes them.
fn learning(servers: &str) -> Conf {
    Conf::servers(servers).persistence("sources: [{ learn: { cookie: SID } }]")
}

/// Makes servers hand out ids to so many clients; each with its server.
fn create_learned_sessions(world: &World, count: usize) -> Vec<(String, String)> {
    let hand_out = |n| {
        let id = format!("id-{n}");
        let answer = get_with(&world.address, &saying(200, &[&format!("Set-Cookie: SID={id}; Path=/")]), &[]);
        (id, answer.server())
    };
    let homes: Vec<_> = (0..count).map(hand_out).collect();
    assert!(homes.iter().map(|(_, home)| home).collect::<BTreeSet<_>>().len() > 1, "they are balanced");
    homes
}

fn server_of(world: &World, id: &str) -> String {
    get_with(&world.address, "/plain", &[("Cookie", &format!("SID={id}"))]).expect(200).text()
}

#[track_caller]
fn assert_on_their_servers(world: &World, homes: &[(String, String)]) {
    for (id, home) in homes {
        assert_eq!(&server_of(world, id), home, "{id} comes home");
    }
    world.expect_metric(LOOKUPS, &[("result", "hit")], homes.len() as f64);
}

pub(crate) fn crash(world: &mut World) {
    world.signal(Signal::SIGKILL);
    world.wait_for_exit(PATIENCE);
    world.forget_proxy();
}

pub(crate) fn file_of(world: &World) -> PathBuf {
    world.directory().join("sessions")
}

pub(crate) fn sibling(file: &Path, ending: &str) -> PathBuf {
    PathBuf::from(format!("{}{ending}", file.display()))
}

/// How often the log says this.
pub(crate) fn log_count(world: &World, what: &str) -> usize {
    world.log().matches(what).count()
}

#[test]
fn a_learned_session_survives_a_restart() {
    let mut world = World::start(with_snapshot(learning("a b c"), "sessions", "1h"));
    assert_eq!(log_count(&world, "no snapshot of the sessions yet"), 1);
    let homes = create_learned_sessions(&world, 12);
    world.restart_proxy();
    assert_eq!(log_count(&world, "the sessions were read from disk"), 1, "{}", world.log());
    assert_eq!((world.metric(ENTRIES, &[]), world.metric("homing_sessions", &[])), (12.0, 12.0));
    assert_on_their_servers(&world, &homes);
    world.restart_proxy();
    assert_on_their_servers(&world, &homes);
}

#[test]
fn without_a_snapshot_it_does_not() {
    let mut world = World::start(learning("a b c"));
    create_learned_sessions(&world, 12);
    world.restart_proxy();
    assert_eq!(world.metric(ENTRIES, &[]), 0.0);
    assert!(!file_of(&world).exists());
}

#[test]
fn a_learned_session_survives_a_crash_after_an_interval() {
    let mut world = World::start(with_snapshot(learning("a b c"), "sessions", "1s"));
    let homes = create_learned_sessions(&world, 12);
    world.expect_metric(SAVED, &[], 12.0);
    crash(&mut world);
    fs::write(sibling(&file_of(&world), ".new"), "half of what was being written").unwrap();
    world.start_proxy();
    assert!(!sibling(&file_of(&world), ".new").exists(), "what the crash left is cleared away");
    assert_on_their_servers(&world, &homes);
}

#[test]
fn an_address_survives_a_crash_after_an_interval() {
    let conf = Conf::servers("a b c").listener("trusted_proxies: [127.0.0.0/8]");
    let conf = conf.persistence("sources: [{ client_ip: {} }]");
    let mut world = World::start(with_snapshot(conf, "sessions", "1s"));
    let server = |world: &World, n: usize| {
        get_with(&world.address, "/plain", &[("X-Forwarded-For", &format!("192.0.2.{n}"))]).expect(200).text()
    };
    let homes: Vec<_> = (0..12).map(|n| server(&world, n)).collect();
    world.expect_metric(SAVED, &[], 12.0);
    crash(&mut world);
    world.start_proxy();
    for (n, home) in homes.iter().enumerate() {
        assert_eq!(&server(&world, n), home);
    }
    world.expect_metric(LOOKUPS, &[("source", "client_ip"), ("result", "hit")], 12.0);
}

#[test]
fn what_is_learned_while_the_process_stops_is_kept_too() {
    let conf = Conf::servers("a b c").persistence("sources: [{ learn: { cookie: APPSESSION } }]");
    let mut world = World::start(with_snapshot(conf, "sessions", "1h"));
    let mut late = world.wire();
    late.send("GET /slow?ms=1500 HTTP/1.1\r\nHost: x\r\n\r\n");
    eventually(PATIENCE, "the slow request arrives", || world.count("GET", "/slow") == 1);
    world.signal(Signal::SIGTERM);
    let answer = late.receive("GET").expect(200);
    let cookie = answer.set_cookie("APPSESSION").expect("an id").split(';').next().expect("a pair").to_owned();
    world.wait_for_exit(PATIENCE);
    assert_eq!(log_count(&world, "the sessions were written to disk"), 1, "{}", world.log());
    world.forget_proxy();
    world.start_proxy();
    assert_eq!(get_with(&world.address, "/echo", &[("Cookie", &cookie)]).server(), answer.server());
    world.expect_metric(LOOKUPS, &[("result", "hit")], 1.0);
}

#[test]
fn an_ended_session_stays_ended() {
    let conf = Conf::servers("a b c").persistence("sources: [{ header: { name: X-Session } }]");
    let conf = conf.persistence("issue: header").persistence("on_server_down: refuse");
    let mut world = World::start(with_snapshot(conf, "sessions", "1h"));
    let first = get_with(&world.address, "/say", &[]);
    let (token, home) = (first.header("x-session").expect("a token").to_owned(), first.server());
    let ask = |world: &World| get_with(&world.address, "/say", &[("X-Session", &token)]);
    world.app(&home).kill();
    ask(&world).expect(503);
    world.app(&home).start();
    world.restart_proxy();
    assert!(ask(&world).expect(200).header("x-session").is_some_and(|new| new != token), "it begins a new session");
    world.expect_metric(LOOKUPS, &[("source", "header"), ("result", "ended")], 1.0);
}

#[test]
fn sessions_idle_for_too_long_do_not_come_back() {
    let conf =
        |idle: &str| with_snapshot(learning("a b c").persistence(&format!("idle_timeout: {idle}")), "sessions", "1h");
    let mut world = World::start(conf("30m"));
    create_learned_sessions(&world, 12);
    world.stop_proxy();
    world.environment.rewrite(conf("1s"));
    eventually(PATIENCE, "the file is older than the sessions may be", || {
        let written = fs::metadata(file_of(&world)).unwrap().modified().unwrap();
        written.elapsed().is_ok_and(|age| age > Duration::from_millis(1_200))
    });
    world.start_proxy();
    assert_eq!(world.metric(ENTRIES, &[]), 0.0);
    assert!(world.log().contains("left_out=12"), "{}", world.log());
}

#[test]
fn sessions_of_a_server_that_is_gone_move() {
    let mut world = World::start(with_snapshot(learning("a b c"), "sessions", "1h"));
    let homes = create_learned_sessions(&world, 12);
    world.stop_proxy();
    world.environment.rewrite(with_snapshot(learning("a b"), "sessions", "1h"));
    world.start_proxy();
    for (id, home) in &homes {
        let server = server_of(&world, id);
        assert!(if home == "c" { server != "c" } else { &server == home }, "{id} of {home} is at {server}");
    }
    let moved = homes.iter().filter(|(_, home)| home == "c").count();
    world.expect_metric(MOVES, &[("reason", "removed")], moved as f64);
}

#[test]
fn a_damaged_file_is_skipped_whole_and_kept_aside() {
    let mut world = World::start(with_snapshot(learning("a b c"), "sessions", "1h"));
    create_learned_sessions(&world, 12);
    world.stop_proxy();
    let file = file_of(&world);
    let mut bytes = fs::read(&file).unwrap();
    let last_block = bytes.len() - 20;
    bytes[last_block] ^= 0x10;
    fs::write(&file, &bytes).unwrap();
    world.start_proxy();
    assert_eq!(
        (log_count(&world, "it is damaged"), log_count(&world, "was skipped, all of it")),
        (1, 1),
        "{}",
        world.log()
    );
    assert_eq!(world.metric(ENTRIES, &[]), 0.0, "nothing of it is loaded");
    assert_eq!(fs::read(sibling(&file, ".damaged")).unwrap(), bytes);
    let homes = create_learned_sessions(&world, 12);
    world.restart_proxy();
    assert_on_their_servers(&world, &homes);
}

#[test]
fn a_foreign_file_is_left_alone() {
    let mut world = World::start(learning("a b c"));
    let file = file_of(&world);
    fs::write(&file, "root:x:0:0:root:/root:/bin/sh\n").unwrap();
    world.reload(with_snapshot(learning("a b c"), "sessions", "1s"));
    eventually(PATIENCE, "two writes fail", || world.metric(WRITES, &[("result", "failure")]) >= 2.0);
    world.restart_proxy();
    eventually(PATIENCE, "two writes fail", || world.metric(WRITES, &[("result", "failure")]) >= 2.0);
    assert_eq!(log_count(&world, "it is not a snapshot of homing"), 1, "{}", world.log());
    assert_eq!(fs::read_to_string(&file).unwrap(), "root:x:0:0:root:/root:/bin/sh\n");
}

#[test]
fn a_disk_that_cannot_be_written_is_told_once_and_requests_go_on() {
    let world = World::start(with_snapshot(learning("a b c"), "none/sessions", "1s"));
    let homes = create_learned_sessions(&world, 12);
    eventually(PATIENCE, "three writes fail", || world.metric(WRITES, &[("result", "failure")]) >= 3.0);
    assert_eq!(log_count(&world, "cannot be written to disk"), 1, "{}", world.log());
    assert_on_their_servers(&world, &homes);
    fs::create_dir(world.directory().join("none")).unwrap();
    world.expect_metric(SAVED, &[], 12.0);
    eventually(PATIENCE, "and told when it is over", || log_count(&world, "written to disk again") == 1);
    assert!(world.metric("homing_snapshot_last_success_timestamp_seconds", &[]) > 1.7e9);
    assert!(world.metric("homing_snapshot_duration_seconds", &[]) > 0.0);
}

#[test]
fn two_proxies_do_not_write_one_file() {
    let mut world = World::start(with_snapshot(learning("a b c"), "sessions", "1s"));
    let second = world.another_proxy("2");
    assert_eq!(second.log().matches("another process writes it").count(), 1, "{}", second.log());
    let id = get_with(&second.address, &saying(200, &["Set-Cookie: SID=mine; Path=/"]), &[]).expect(200);
    assert_eq!(get_with(&second.address, "/plain", &[("Cookie", "SID=mine")]).text(), id.server(), "it serves");
    assert_eq!(second.metric(WRITES, &[("result", "success")]), 0.0);
    world.stop_proxy();
    eventually(PATIENCE, "the second takes over", || second.metric(SAVED, &[]) >= 1.0);
}

#[test]
fn a_reload_keeps_what_is_known_and_may_change_path_and_interval() {
    let mut world = World::start(learning("a b c"));
    let homes = create_learned_sessions(&world, 12);
    world.reload(with_snapshot(learning("a b c"), "sessions", "1h"));
    world.expect_metric(SAVED, &[], 12.0);
    assert_on_their_servers(&world, &homes);
    world.reload(with_snapshot(learning("a b c"), "others", "1s"));
    eventually(PATIENCE, "the other file is there", || world.directory().join("others").exists());
    fs::remove_file(file_of(&world)).unwrap();
    crash(&mut world);
    world.start_proxy();
    assert_on_their_servers(&world, &homes);
    world.reload(learning("a b c"));
    world.stop_proxy();
    assert!(!file_of(&world).exists(), "the former file is not written any more");
}

#[test]
fn the_file_holds_no_id_and_no_address() {
    let mut world = World::start(with_snapshot(learning("a b c").keys(&[KEY_1]), "sessions", "1h"));
    create_learned_sessions(&world, 12);
    world.stop_proxy();
    let bytes = fs::read(file_of(&world)).unwrap();
    let holds = |word: &[u8]| bytes.windows(word.len()).any(|part| part == word);
    assert!(holds(b"web") && !holds(b"id-"), "names of pools and servers, and keyed hashes");
}
