//! `homing explain`: tokens, application's ids and addresses.

use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use crate::world::app::answers::saying;
use crate::world::proxy::command;
use crate::world::stores::{Kind, RedisServer};
use crate::world::{Conf, PATIENCE, World, eventually};

/// Exit code, standard output, standard error.
fn explain(config: &Path, arguments: &[&str], input: &str) -> (i32, String, String) {
    let mut command = command();
    command.arg("explain").arg("--config").arg(config).args(arguments);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    // It need not read what it does not want.
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().expect("a code"), text(&output.stdout), text(&output.stderr))
}

#[track_caller]
fn expect(config: &Path, arguments: &[&str], input: &str, parts: &[&str]) -> String {
    let (code, stdout, stderr) = explain(config, arguments, input);
    assert_eq!(code, 0, "{stdout}{stderr}");
    for part in parts {
        assert!(stdout.contains(part), "{part} is missing in:\n{stdout}");
    }
    stdout
}

const SNAPSHOT: &str = "store: { snapshot: { path: \"{{dir}}/sessions\" } }";

fn learned(world: &World, id: &str) -> String {
    let browser = world.browser();
    browser.get(&saying(200, &[&format!("Set-Cookie: JSESSIONID={id}; Path=/")])).expect(200);
    browser.server()
}

#[test]
fn a_learned_id_is_explained_from_the_snapshot_as_the_access_log_names_it() {
    let conf = Conf::servers("a b c").persistence("sources: [learn: { cookie: JSESSIONID }]").top(SNAPSHOT);
    let world = World::start(conf);
    let home = learned(&world, "YWxpY2U=");
    let session = world.access_line("/echo")["session"].as_str().expect("the session's hash").to_owned();
    world.stop();
    let server = format!("server   {home}");
    let parts =
        ["pool     web", "source   learn", &server, &session, "lookup   hit", "epoch    0", "the snapshot on disk of"];
    expect(&world.config, &[], "YWxpY2U=\n", &parts);
    expect(&world.config, &["-"], "JSESSIONID=YWxpY2U=; Path=/", &parts);
    expect(&world.config, &["--pool", "web"], "YWxpY2U=", &parts);
    let unknown = expect(&world.config, &[], "invented", &["lookup   unknown", "own table may know more"]);
    assert!(!unknown.contains("server   "), "{unknown}");
    let (code, _, stderr) = explain(&world.config, &["--pool", "other"], "YWxpY2U=");
    assert!(code != 0 && !stderr.is_empty(), "{stderr}");
}

#[test]
fn an_id_is_never_taken_from_the_command_line() {
    let world = World::start(Conf::servers("a").persistence("sources: [learn: { cookie: JSESSIONID }]"));
    for arguments in [&["secret-id-1"][..], &["--id", "secret-id-1"]] {
        let (code, stdout, stderr) = explain(&world.config, arguments, "");
        assert_eq!(code, 1, "{stdout}{stderr}");
        assert!(stderr.contains("standard input"), "{stderr}");
        assert!(!stderr.contains("secret-id-1") && stdout.is_empty(), "it is not repeated: {stdout}{stderr}");
    }
}

#[test]
fn an_ended_session_and_one_that_moved_are_explained() {
    let persistence = "sources: [learn: { cookie: JSESSIONID }]";
    let world = World::start(Conf::servers("a b").persistence(persistence).top(SNAPSHOT));
    let browser = world.browser();
    browser.get(&saying(200, &["Set-Cookie: JSESSIONID=gone; Path=/"])).expect(200);
    browser.server();
    browser.get(&saying(200, &["Set-Cookie: JSESSIONID=; Path=/; Max-Age=0"])).expect(200);
    let traveller = world.browser();
    traveller.get(&saying(200, &["Set-Cookie: JSESSIONID=moved; Path=/"])).expect(200);
    let home = traveller.server();
    world.app(&home).kill();
    let next = traveller.server();
    assert_ne!(home, next);
    world.stop();
    let gone = expect(&world.config, &[], "gone", &["lookup   "]);
    assert!(!gone.contains("lookup   hit"), "{gone}");
    expect(&world.config, &[], "moved", &[&format!("server   {next}"), "epoch    1"]);
}

#[test]
fn an_address_is_explained() {
    let persistence = "sources: [client_ip: { ipv4_prefix: 24 }]";
    let world = World::start(Conf::servers("a b").persistence(persistence).top(SNAPSHOT));
    let home = world.browser().server();
    world.stop();
    let parts = ["source   client_ip", &format!("server   {home}"), "lookup   hit"];
    expect(&world.config, &["127.0.0.200"], "", &parts);
    expect(&world.config, &[], "127.0.0.9", &parts);
    expect(&world.config, &[], "192.0.2.1", &["lookup   unknown"]);
    let (code, _, stderr) = explain(&world.config, &["--id"], "127.0.0.1");
    assert!(code != 0 && stderr.contains("learn"), "no source reads ids: {stderr}");
}

#[test]
fn an_id_that_only_the_shared_store_knows_is_explained_and_nothing_is_written() {
    let store = RedisServer::start(Kind::Redis);
    let persistence = "sources: [learn: { cookie: JSESSIONID }]";
    let world = World::start(Conf::servers("a b").persistence(persistence).store(&store.entry()));
    let home = learned(&world, "alice");
    eventually(PATIENCE, "the store has it", || {
        let (_, stdout, _) = explain(&world.config, &[], "alice");
        stdout.contains(&format!("server   {home}")) && stdout.contains("the shared store")
    });
    expect(&world.config, &[], "stranger", &["lookup   unknown"]);
    let writes = |result| world.metric("homing_store_operations_total", &[("op", result)]);
    let before = (writes("bind"), writes("move"));
    expect(&world.config, &[], "stranger", &["lookup   unknown"]);
    assert_eq!((writes("bind"), writes("move")), before);
}

#[test]
fn a_route_id_is_explained() {
    let conf = Conf::servers("a b").server("b", "route: node2");
    let world = World::start(conf.persistence("sources: [route: { cookie: JSESSIONID }]"));
    expect(&world.config, &[], "0AB3.node2", &["source   route", "server   b", "by its route id"]);
    expect(&world.config, &[], "0AB3.node9", &["source   route", "lookup   "]);
}

#[test]
fn a_token_may_come_by_standard_input_too() {
    let world = World::start(Conf::servers("a b").pool("balance: round_robin"));
    let alice = world.browser();
    let home = alice.server();
    let token = alice.token().expect("a token");
    for arguments in [&[][..], &["-"]] {
        expect(&world.config, arguments, &format!("SESSIONID={token};\n"), &["pool     web", &home, "key      k1"]);
    }
    for nonsense in ["", "x", "a b c", "\u{e9}"] {
        let (code, _, stderr) = explain(&world.config, &[], nonsense);
        assert!(code == 1 && !stderr.contains("panicked"), "{nonsense:?}: {stderr}");
    }
}
