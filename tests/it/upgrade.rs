//! Another process takes over from the running one, and no client notices: the same file, or a new one, the same sockets, the
//! same sessions.

use std::fmt::Display;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::Pid;
use serde_json::Value;

use crate::world::app::answers::saying;
use crate::world::client::get_with;
use crate::world::proxy::{binary, command};
use crate::world::websocket::{Frame, read_frame, write_frame};
use crate::world::{Browser, Conf, Launch, PATIENCE, Proxy, Signal, Wire, World, eventually};

pub(crate) fn conf(servers: &str) -> Conf {
    Conf::servers(servers).top("proxy: { upgrade_socket: \"{{dir}}/upgrade.sock\", shutdown_grace: 10s }")
}

/// Sessions of the proxy's cookie and of the application's.
pub(crate) fn both(servers: &str) -> Conf {
    conf(servers).persistence("sources: [{ cookie: {} }, { learn: { cookie: SID } }]")
}

pub(crate) fn socket(world: &World) -> PathBuf {
    world.directory().join("upgrade.sock")
}

/// Whether a process waits there. The file alone does not say so: it is there a moment before connections are accepted.
fn is_waiting(socket: &Path) -> bool {
    UnixStream::connect(socket).is_ok()
}

/// A process that waits for the sockets.
pub(crate) fn successor(world: &mut World) -> Proxy {
    let launch = world.environment.launch("");
    successor_by(world, launch)
}

fn successor_by(world: &World, launch: Launch) -> Proxy {
    let config = launch.config.display().to_string();
    let arguments = ["run", "--config", &config, "--upgrade"].map(str::to_owned).to_vec();
    let proxy = Proxy::spawn(&Launch { arguments: Some(arguments), ..launch }, world.directory());
    eventually(Duration::from_secs(60), "the new process waits", || is_waiting(&socket(world)) || !proxy.is_running());
    assert!(proxy.is_running(), "it did not start:\n{}", proxy.log());
    proxy
}

/// Waits until the new process serves alone. Returned is the old one.
pub(crate) fn hand_over_to(world: &mut World, new: Proxy) -> Proxy {
    world.signal(Signal::SIGQUIT);
    eventually(Duration::from_secs(120), "the new process serves", || {
        assert!(new.is_running(), "the new process ended:\n{}", new.log());
        new.log().contains("homing is ready")
    });
    world.replace_proxy(new)
}

pub(crate) fn upgrade(world: &mut World) -> Proxy {
    let new = successor(world);
    hand_over_to(world, new)
}

pub(crate) fn assert_ends_well(old: &Proxy, patience: Duration) {
    let (status, _) = old.wait_for_exit(patience);
    assert_eq!(status.code(), Some(0), "{}", old.log());
}

/// A learned session begins, and its next requests find its server.
fn learned_session(address: &crate::world::Address, id: &str) {
    // Without the proxy's cookie: only the table knows it.
    let browser = Browser::new(address.clone());
    let begin = saying(200, &[&format!("Set-Cookie: SID={id}; Path=/")]);
    let home = browser.request("GET", &begin).without_cookies().send().expect(200).server();
    let next = || browser.request("GET", "/plain").without_cookies().header("Cookie", &format!("SID={id}"));
    for _ in 0..3 {
        assert_eq!(next().send().expect(200).text(), home, "{id}");
    }
    assert_eq!(next().fresh().send().expect(200).text(), home, "{id}, on another connection");
}

#[test]
fn open_streams_and_uploads_survive_an_upgrade() {
    let mut world = World::start(conf("a"));
    let mut socket = world.wire();
    socket.send(
        "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    socket.receive("GET").expect(101);
    let mut events = world.wire();
    events.send("GET /sse?events=8&every=500 HTTP/1.1\r\nHost: x\r\n\r\n");
    let events_head = events.receive_head().expect(200);
    let mut upload = world.wire();
    upload.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nfirst");
    let mut idle = world.wire();
    idle.send("GET /plain HTTP/1.1\r\nHost: x\r\n\r\n");
    idle.receive("GET").expect(200);
    let old = upgrade(&mut world);
    eventually(PATIENCE, "the old process accepts no more", || old.log().contains("stopping"));

    write_frame(&mut socket.reader, &Frame::Text("still here".to_owned()), true).expect("the frame is taken");
    assert_eq!(read_frame(&mut socket.reader).expect("an answer"), Some(Frame::Text("still here".to_owned())));
    upload.send("again");
    assert_eq!(upload.receive("POST").expect(200).json()["body_length"], 10);
    let body = events_head.head.clone();
    let mut length = 0;
    events.reader.body(&body, true, |bytes| length += bytes.len()).expect("the stream ends whole");
    assert!(length > 0);
    idle.send("GET /plain HTTP/1.1\r\nHost: x\r\n\r\n");
    let last = idle.receive("GET").expect(200);
    assert_eq!(last.header("connection"), Some("close"), "a connection that was kept open has one more request");
    assert!(old.is_running(), "the WebSocket is open");
    drop((socket, events));
    assert_ends_well(&old, Duration::from_secs(8));
    world.browser().get("/plain").expect(200);
}

#[test]
fn sessions_and_what_operators_set_survive_without_a_snapshot_and_without_keys() {
    let mut world = World::start(both("a b c").keys(&[]).persistence("handoff: {}"));
    let homes: Vec<_> = (0..20)
        .map(|n| {
            let id = format!("id-{n}");
            let answer = get_with(&world.address, &saying(200, &[&format!("Set-Cookie: SID={id}; Path=/")]), &[]);
            (id, answer.server())
        })
        .collect();
    let browser = world.browser();
    let home = browser.server();
    let (pid, admin) = (world.pid().to_string(), world.admin.clone());
    let set = ["server", "set", "web/b", "--weight", "3", "--admin", &admin.to_string()].map(str::to_owned);
    assert!(command().args(set).output().expect("the program runs").status.success());
    let old = upgrade(&mut world);
    assert_ne!(world.pid().to_string(), pid);
    assert_eq!(browser.server(), home, "the key that the first process generated still opens its tokens");
    for (id, home) in &homes {
        let server = get_with(&world.address, "/plain", &[("Cookie", &format!("SID={id}"))]).expect(200).text();
        assert_eq!(&server, home, "{id}");
    }
    let pools: Value = world.admin("/api/v1/pools").expect(200).json();
    let servers = pools["items"][0]["servers"].as_array().expect("servers").clone();
    let b = servers.iter().find(|server| server["name"] == "b").expect("server b");
    assert_eq!(b["override"]["weight"], 3, "{b}");
    browser.disconnect();
    assert_ends_well(&old, Duration::from_secs(15));
}

#[test]
fn quit_with_no_process_waiting_changes_nothing() {
    let world = World::start(conf("a"));
    world.signal(Signal::SIGQUIT);
    eventually(PATIENCE, "a warning", || world.log().contains("no process waits at"));
    world.browser().get("/plain").expect(200);
    fs::write(socket(&world), "").expect("a file that an earlier process left");
    world.signal(Signal::SIGQUIT);
    eventually(PATIENCE, "a second warning", || world.log().matches("this process serves on").count() == 2);
    world.browser().get("/plain").expect(200);
    assert!(world.is_running());
}

#[test]
fn quit_without_an_upgrade_socket_changes_nothing() {
    let world = World::start(Conf::servers("a"));
    world.signal(Signal::SIGQUIT);
    eventually(PATIENCE, "a warning", || world.log().contains("proxy.upgrade_socket is not set"));
    world.browser().get("/plain").expect(200);
}

#[test]
fn a_new_process_that_cannot_start_leaves_the_old_one_serving() {
    let mut world = World::start(conf("a"));
    let home = world.directory().join("taken.sock");
    let _taken = std::os::unix::net::UnixListener::bind(&home).expect("a socket");
    // The new file has one more listener, which cannot be opened.
    let text = world.environment.render_for("");
    let more =
        text.replacen("listeners:\n", &format!("listeners:\n  - {{ address: \"unix:{}\" }}\n", home.display()), 1);
    let launch = world.environment.launch("");
    fs::write(world.directory().join("other.yaml"), more).expect("a file");
    let config = world.directory().join("other.yaml");
    let new = successor_by(&world, Launch { config, ..launch });
    world.signal(Signal::SIGQUIT);
    let (status, _) = new.wait_for_exit(PATIENCE);
    assert_eq!(status.code(), Some(1), "{}", new.log());
    eventually(PATIENCE, "the reason", || world.log().contains("cannot listen on"));
    assert!(world.log().contains("this process serves on"), "{}", world.log());
    world.browser().get("/plain").expect(200);
    assert!(home.exists(), "the path of another process's socket is left alone");
    let old = upgrade(&mut world);
    world.browser().get("/plain").expect(200);
    assert_ends_well(&old, Duration::from_secs(15));
}

#[test]
fn more_than_32_sockets_of_tcp_and_unix_are_handed_over_and_keep_their_paths() {
    let unix: Vec<_> = (0..40).map(|n| format!("  - {{ address: \"unix:{{{{dir}}}}/l{n}.sock\" }}\n")).collect();
    let unix = unix.concat();
    let conf = conf("a").top("metrics: { address: \"{{metrics}}\" }").to_string();
    let conf = conf.replacen("listeners:\n", &format!("listeners:\n{unix}"), 1);
    let conf = conf.replace("admin: { address: \"{{admin}}\" }", "admin: { address: \"unix:{{dir}}/admin.sock\" }");
    let mut world = World::builder(conf).without_proxy();
    let launch = world.launch("");
    let launch = Launch { admin: format!("unix:{}/admin.sock", world.directory().display()).as_str().into(), ..launch };
    let metrics = world.address("metrics");
    let old = Proxy::start(&launch, world.directory());
    let arguments = ["run", "--config", &launch.config.display().to_string(), "--upgrade"].map(str::to_owned).to_vec();
    let new = Proxy::spawn(&Launch { arguments: Some(arguments), ..launch.clone() }, world.directory());
    eventually(Duration::from_secs(60), "the new process waits", || {
        is_waiting(&world.directory().join("upgrade.sock"))
    });
    old.signal(Signal::SIGQUIT);
    assert_ends_well(&old, Duration::from_secs(60));
    let log = new.log();
    assert!(new.is_running() && log.contains("homing is ready"), "{log}");
    for n in 0..40 {
        let path = format!("unix:{}/l{n}.sock", world.directory().display());
        get_with(&path.as_str().into(), "/plain", &[]).expect(200);
    }
    get_with(&new.address, "/plain", &[]).expect(200);
    assert_eq!(new.readiness(), Some(200));
    get_with(&metrics, "/metrics", &[]).expect(200);
    new.stop();
    assert!(!world.directory().join("l0.sock").exists(), "the last process removes them");
}

#[test]
fn the_upgrade_socket_is_for_its_user_only_and_is_gone_after_the_upgrade() {
    let mut world = World::start(conf("a"));
    let new = successor(&mut world);
    let mode = fs::metadata(socket(&world)).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let _old = hand_over_to(&mut world, new);
    assert!(!socket(&world).exists());
    let left: Vec<_> = fs::read_dir(world.directory())
        .expect("the directory")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("upgrade"))
        .collect();
    assert_eq!(left, Vec::<String>::new());
}

#[test]
fn the_process_id_and_the_snapshot_follow_the_new_process() {
    let conf = conf("a b").persistence("sources: [{ learn: { cookie: SID } }]").to_string();
    let conf = conf.replace("proxy: {", "proxy: { pid_file: \"{{dir}}/homing.pid\",");
    let conf = format!("{conf}store: {{ snapshot: {{ path: \"{{{{dir}}}}/sessions\", interval: 1s }} }}\n");
    let mut world = World::start(conf);
    let pid = |world: &World| fs::read_to_string(world.directory().join("homing.pid")).unwrap_or_default();
    assert_eq!(pid(&world).trim(), world.pid().to_string());
    learned_session(&world.address, "before");
    let old = upgrade(&mut world);
    assert_eq!(pid(&world).trim(), world.pid().to_string());
    assert_ends_well(&old, Duration::from_secs(15));
    assert_eq!(pid(&world).trim(), world.pid().to_string(), "the old process does not remove it");
    eventually(PATIENCE, "the new process writes the snapshot", || {
        world.metric("homing_snapshot_writes_total", &[("result", "success")]) >= 1.0
    });
    assert_eq!(world.metric("homing_snapshot_sessions", &[]), 1.0);
}

#[test]
fn systemd_learns_of_the_new_main_process_and_of_no_stop() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("notify");
    let listener = UnixDatagram::bind(&path).expect("a socket");
    listener.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    let next = || {
        let mut text = [0; 500];
        let length = listener.recv(&mut text).expect("a message for systemd");
        String::from_utf8_lossy(&text[..length]).into_owned()
    };
    let mut world = World::builder(conf("a")).without_proxy();
    let environment = vec![("NOTIFY_SOCKET".to_owned(), path.display().to_string())];
    let launch = Launch { environment, ..world.launch("") };
    let old = Proxy::start(&launch, world.directory());
    assert!(next().starts_with(&format!("READY=1\nMAINPID={}", old.pid())));
    old.signal(Signal::SIGHUP);
    assert!(next().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(next(), "READY=1");
    let arguments = ["run", "--config", &launch.config.display().to_string(), "--upgrade"].map(str::to_owned).to_vec();
    let new = Proxy::spawn(&Launch { arguments: Some(arguments), ..launch }, world.directory());
    eventually(Duration::from_secs(60), "the new process waits", || {
        is_waiting(&world.directory().join("upgrade.sock"))
    });
    old.signal(Signal::SIGQUIT);
    assert_eq!(next(), format!("MAINPID={}", new.pid()), "from the process that systemd knows");
    assert!(next().starts_with(&format!("READY=1\nMAINPID={}", new.pid())));
    assert_ends_well(&old, Duration::from_secs(15));
    new.stop();
    assert!(next().starts_with("STOPPING=1"), "the first stop is that of the new process");
}

/// A process that is no child of the test.
struct Grandchild(Pid);

impl Drop for Grandchild {
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(self.0, Signal::SIGKILL);
    }
}

/// A world whose proxy was started by a link to the program, and the link.
pub(crate) fn with_program(conf: impl Display) -> (World, PathBuf) {
    let mut world = World::builder(conf).start();
    world.stop_proxy();
    let program = world.directory().join("homing");
    std::os::unix::fs::symlink(binary(), &program).expect("a link to the program");
    let launch = world.environment.launch("");
    let launch = Launch { program: Some(program.clone()), ..launch };
    let proxy = Proxy::start(&launch, world.directory());
    world.set_proxy(proxy);
    (world, program)
}

pub(crate) fn run_upgrade(world: &World) -> std::process::Output {
    let admin = world.admin.to_string();
    command().args(["upgrade", "--admin", &admin, "-o", "json"]).output().expect("the program runs")
}

/// Puts another program in the place of the one that runs.
pub(crate) fn replace(program: &Path, put: impl FnOnce(&Path)) {
    let aside = program.with_extension("new");
    put(&aside);
    fs::rename(aside, program).expect("to replace the program");
}

#[test]
fn the_upgrade_command_returns_when_the_new_program_serves() {
    let (world, program) = with_program(both("a b c"));
    let browser = world.browser();
    let home = browser.server();
    replace(&program, |aside| std::os::unix::fs::symlink(binary(), aside).expect("a link"));
    let output = run_upgrade(&world);
    assert_eq!(output.status.code(), Some(0), "{output:?}\n{}", world.log());
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let pid = i32::try_from(report["pid"].as_i64().expect("a process id")).expect("a small one");
    let new = Grandchild(Pid::from_raw(pid));
    assert_ne!(new.0, world.pid());
    assert_eq!(report["version"], env!("CARGO_PKG_VERSION"));
    let status = world.admin("/api/v1/status").expect(200).json();
    assert!(status["uptime_seconds"].as_f64().is_none_or(|uptime| uptime < 60.0), "{status}");
    assert_eq!(browser.server(), home);
    browser.disconnect();
    assert_ends_well(&world, Duration::from_secs(20));
    assert_eq!(world.browser().get("/plain").expect(200).status, 200);
    let again = run_upgrade(&world);
    assert_eq!(again.status.code(), Some(0), "the new one does it again: {again:?}\n{}", world.log());
    let report: Value = serde_json::from_slice(&again.stdout).expect("JSON");
    let newest = Grandchild(Pid::from_raw(i32::try_from(report["pid"].as_i64().expect("an id")).expect("a small one")));
    assert_ne!(newest.0, new.0);
    world.browser().get("/plain").expect(200);
}

#[test]
fn a_broken_new_program_or_file_changes_nothing_and_the_command_says_why() {
    let (world, program) = with_program(conf("a"));
    let script = |text: &'static str| {
        move |aside: &Path| {
            fs::write(aside, text).expect("a script");
            fs::set_permissions(aside, fs::Permissions::from_mode(0o755)).expect("an executable file");
        }
    };
    let cases: [(&'static str, &str); 3] = [
        ("#!/bin/sh\necho broken on purpose >&2\nexit 1\n", "broken on purpose"),
        ("#!/bin/sh\n[ \"$1\" = check ] && exit 0\nexit 3\n", "exit status: 3"),
        ("no program at all", "cannot be started"),
    ];
    for (text, why) in cases {
        replace(&program, script(text));
        let output = run_upgrade(&world);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(message.contains(why), "{why}: {message}");
        world.browser().get("/plain").expect(200);
    }
    replace(&program, |aside| std::os::unix::fs::symlink(binary(), aside).expect("a link"));
    let good = fs::read_to_string(&world.config).expect("the file");
    fs::write(&world.config, good.replace("pools:", "pool:")).expect("a file with a mistake");
    let output = run_upgrade(&world);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("pool"), "{output:?}");
    assert!(world.is_running());
    world.browser().get("/plain").expect(200);
}

#[test]
fn the_upgrade_command_needs_the_socket_and_a_proxy() {
    let world = World::start(Conf::servers("a"));
    let output = run_upgrade(&world);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("proxy.upgrade_socket is not set"), "{output:?}");
    world.stop();
    assert_eq!(run_upgrade(&world).status.code(), Some(69));
}

#[test]
fn a_process_with_no_predecessor_does_not_take_another_ones_place() {
    let mut world = World::start(conf("a"));
    let first = successor(&mut world);
    let launch = world.environment.launch("");
    let config = launch.config.display().to_string();
    let second = command().args(["run", "--config", &config, "--upgrade"]).output().expect("the program runs");
    assert_eq!(second.status.code(), Some(1), "{second:?}");
    assert!(String::from_utf8_lossy(&second.stderr).contains("another process waits there"), "{second:?}");
    let old = hand_over_to(&mut world, first);
    world.browser().get("/plain").expect(200);
    assert_ends_well(&old, Duration::from_secs(15));
    let mut wire = Wire::connect(&world.address);
    wire.send("GET /plain HTTP/1.1\r\nHost: x\r\n\r\n");
    wire.receive("GET").expect(200);
}
