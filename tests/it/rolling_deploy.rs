//! `conf/examples/rolling-deploy.sh` replaces servers one after the other under load.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::admin_api::ask;
use crate::handoff::{handing_over, shopping};
use crate::overrides::with_state_file;
use crate::snapshot::with_snapshot;
use crate::world::client::Response;
use crate::world::operator::shell;
use crate::world::{Browser, Conf, PATIENCE, QUICK_CHECK, World, eventually};

const MOVES: &str = "homing_session_moves_total";
const SESSIONS: &str = "homing_sessions";
const SERVERS: [&str; 3] = ["a", "b", "c"];

/// Finds no server down that is slow on a busy machine.
const PATIENT_CHECK: &str = "health_check: { type: http, path: /healthz, interval: 2s, timeout: 2s, rise: 1, fall: 5 }";

/// The deadline is longer than a restart of the proxy takes.
fn conf() -> Conf {
    let conf = handing_over("a b c").pool("drain_deadline: 3s").pool(PATIENT_CHECK);
    with_state_file(with_snapshot(conf, "sessions", "1h"))
}

/// The script, as it runs.
struct Deploy {
    child: Child,
    directory: PathBuf,
}

impl Deploy {
    /// The command that replaces a server asks the test to do it, and waits until it is done.
    fn start(world: &World, arguments: &str) -> Self {
        let ask = "echo $SERVER > asked.new && mv asked.new asked && while [ -e asked ]; do sleep 0.05; done";
        let child = script(world, &format!("{arguments} -- sh -c '{ask}'")).spawn().expect("the script runs");
        Self { child, directory: world.directory().to_owned() }
    }

    /// Waits until the script replaces a server, which is empty by then.
    fn replaces(&mut self, server: &str) {
        let asked = self.directory.join("asked");
        eventually(Duration::from_secs(60), &format!("{server} is to be replaced"), || {
            let ended = self.child.try_wait().expect("its state");
            assert!(ended.is_none(), "the script goes on: {ended:?}\n{}", messages(&self.directory));
            asked.exists()
        });
        assert_eq!(fs::read_to_string(asked).expect("a name").trim(), server);
    }

    fn replaced(&self) {
        fs::remove_file(self.directory.join("asked")).expect("it was asked for");
    }

    fn expect_success(mut self) {
        let ended = self.child.wait().expect("an end");
        assert!(ended.success(), "{ended}\n{}", messages(&self.directory));
    }
}

impl Drop for Deploy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn script(world: &World, arguments: &str) -> std::process::Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/examples/rolling-deploy.sh");
    let mut command = shell(&world.admin, world.directory(), &format!("exec {} {arguments}", script.display()));
    let messages = fs::File::create(world.directory().join("messages")).expect("a file");
    command.stdout(Stdio::null()).stderr(messages);
    command
}

/// What the script said.
fn messages(directory: &Path) -> String {
    fs::read_to_string(directory.join("messages")).unwrap_or_default()
}

/// A client found itself on another server.
#[derive(Debug, Clone)]
struct Change {
    from: String,
    to: String,
    /// The request that showed it.
    sent: Instant,
    answered: Instant,
}

/// A client with a cart.
struct Shopper {
    browser: Browser,
    home: String,
}

/// All requests of all clients.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    /// The proxy is being restarted.
    away: AtomicBool,
    served: AtomicUsize,
    refused: AtomicUsize,
}

impl Load {
    /// Sends requests until it is stopped; each has to be answered with the client's cart. Returns the client's changes.
    fn shop(&self, shopper: &Shopper) -> Vec<Change> {
        let (mut home, mut changes) = (shopper.home.clone(), Vec::new());
        while !self.stop.load(Ordering::SeqCst) {
            let sent = Instant::now();
            let cart = self.ask_until_answered(&shopper.browser).expect(200).text();
            let server = cart.strip_prefix("alice has tea,milk on ");
            let server = server.unwrap_or_else(|| panic!("the session is lost: {cart}")).to_owned();
            if server != home {
                let change = Change { from: home, to: server.clone(), sent, answered: Instant::now() };
                changes.push(change);
                home = server;
            }
            self.served.fetch_add(1, Ordering::SeqCst);
            thread::sleep(Duration::from_millis(20));
        }
        changes
    }

    /// As a client that tries again while the proxy is away. Otherwise every request is answered.
    fn ask_until_answered(&self, browser: &Browser) -> Response {
        let start = Instant::now();
        loop {
            let was_away = self.away.load(Ordering::SeqCst);
            let error: io::Error = match browser.request("GET", "/kept-cart").try_send() {
                Ok(answer) => return answer,
                Err(error) => error,
            };
            let may_fail = was_away || self.away.load(Ordering::SeqCst);
            assert!(may_fail, "a request failed: {error}");
            assert!(is_refusal(&error) && start.elapsed() < PATIENCE, "{error}");
            self.refused.fetch_add(1, Ordering::SeqCst);
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn restart(&self, world: &mut World) {
        self.away.store(true, Ordering::SeqCst);
        world.restart_proxy();
        self.away.store(false, Ordering::SeqCst);
    }
}

/// The connection is refused, or was closed before its request was taken up.
fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof
    )
}

/// Ends the load also when a step fails, which would wait for it otherwise.
struct StopAtEnd<'a>(&'a Load);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::SeqCst);
    }
}

/// Keeps requests of all clients coming while `during` runs. Returns the changes of each client.
fn under_load(shoppers: &[Shopper], load: &Load, during: impl FnOnce()) -> Vec<Vec<Change>> {
    thread::scope(|scope| {
        let threads: Vec<_> = shoppers.iter().map(|shopper| scope.spawn(|| load.shop(shopper))).collect();
        let stop = StopAtEnd(load);
        during();
        drop(stop);
        threads.into_iter().map(|thread| thread.join().expect("every request was answered")).collect()
    })
}

fn shoppers(world: &World) -> Vec<Shopper> {
    let shopper = |_| {
        let browser = world.browser();
        let home = shopping(&browser);
        Shopper { browser, home }
    };
    (0..24).map(shopper).collect()
}

/// The script has replaced the servers at these moments. A session moved when its server was drained, and only then. Returns
/// how many moves that were.
fn assert_each_moved_with_its_server(
    shoppers: &[Shopper],
    changes: &[Vec<Change>],
    replaced: &[(&str, Instant)],
) -> usize {
    let mut moves = 0;
    for (shopper, changes) in shoppers.iter().zip(changes) {
        let (mut home, mut changes) = (shopper.home.as_str(), changes.iter());
        let mut before = None;
        for (server, at) in replaced {
            if home == *server {
                let change = changes.next().unwrap_or_else(|| panic!("it stayed on {server}, which was replaced"));
                assert_eq!(change.from, home);
                assert!(change.sent < *at, "after {server} was replaced: {change:?}");
                assert!(
                    before.is_none_or(|before| change.answered > before),
                    "before {server} was drained: {change:?}"
                );
                home = &change.to;
                moves += 1;
            }
            before = Some(*at);
        }
        assert!(changes.next().is_none(), "a session moved that had no reason to: {:?}", changes.as_slice());
    }
    moves
}

fn is_draining(world: &World, server: &str) -> bool {
    world.metric("homing_server_state", &[("server", server), ("state", "drain")]) == 1.0
}

fn drain_started(world: &World, server: &str) -> String {
    let pools = ask(world, "GET", "/api/v1/pools", &[], "").expect(200).json();
    let servers = pools["items"][0]["servers"].as_array().expect("servers").clone();
    let found = servers.iter().find(|one| one["name"] == server).expect("the server");
    found["drain"]["started"].as_str().expect("it drains").to_owned()
}

/// Moves in the access log, which all proxies of the test have written, and how many were not for a drain.
fn logged_moves(world: &World) -> (usize, usize) {
    let moved: Vec<_> = world.access_log().into_iter().filter(|line| line["outcome"] == "moved").collect();
    (moved.len(), moved.iter().filter(|line| line["reason"] != "drain").count())
}

#[test]
fn a_rolling_deploy_fails_no_request_loses_no_session_and_moves_only_those_of_the_server_that_drains() {
    let world = World::start(conf());
    let (shoppers, load) = (shoppers(&world), Load::default());
    let mut replaced = Vec::new();
    let changes = under_load(&shoppers, &load, || {
        let mut deploy = Deploy::start(&world, "--healthy-for 1 web a b c");
        for server in SERVERS {
            deploy.replaces(server);
            assert_eq!(world.metric(SESSIONS, &[("server", server)]), 0.0, "{server} is empty");
            replaced.push((server, Instant::now()));
            world.app(server).restart();
            deploy.replaced();
        }
        deploy.expect_success();
    });
    let moves = assert_each_moved_with_its_server(&shoppers, &changes, &replaced);
    assert!(moves >= shoppers.len(), "each moved at least once: {moves}");
    world.expect_metric(MOVES, &[("reason", "drain")], moves as f64);
    world.expect_metric(MOVES, &[], moves as f64);
    let served = load.served.into_inner();
    assert!(served > 500, "there was some load: {served}");
    assert_eq!(world.metric("homing_requests_total", &[]), world.metric("homing_requests_total", &[("code", "200")]));
    for server in SERVERS {
        assert_eq!(world.metric("homing_server_state", &[("server", server), ("state", "ready")]), 1.0);
    }
}

#[test]
fn a_rolling_deploy_goes_on_over_restarts_of_the_proxy() {
    let mut world = World::start(conf());
    let (shoppers, load) = (shoppers(&world), Load::default());
    let mut replaced = Vec::new();
    let changes = under_load(&shoppers, &load, || {
        let mut deploy = Deploy::start(&world, "--healthy-for 1 web a b c");
        for server in SERVERS {
            if server == "b" {
                // In the middle of a drain, whose clock goes on.
                eventually(PATIENCE, "b drains", || is_draining(&world, "b"));
                let started = drain_started(&world, "b");
                load.restart(&mut world);
                assert_eq!(drain_started(&world, "b"), started);
            }
            deploy.replaces(server);
            replaced.push((server, Instant::now()));
            world.app(server).restart();
            if server == "c" {
                load.restart(&mut world);
            }
            deploy.replaced();
        }
        deploy.expect_success();
    });
    let moves = assert_each_moved_with_its_server(&shoppers, &changes, &replaced);
    assert!(moves >= shoppers.len(), "each moved at least once: {moves}");
    eventually(PATIENCE, "the access log has them all", || logged_moves(&world) == (moves, 0));
    let failed: Vec<_> = world.access_log().into_iter().filter(|line| line["status"] != 200).collect();
    assert!(failed.is_empty(), "{failed:?}");
    let (served, refused) = (load.served.into_inner(), load.refused.into_inner());
    assert!(served > 500 && refused > 0, "{served} were served, {refused} refused");
}

/// Runs the script until it ends; its exit code and what it said.
fn run(world: &World, arguments: &str) -> (Option<i32>, String) {
    run_as(world, arguments, "")
}

fn run_as(world: &World, arguments: &str, token: &str) -> (Option<i32>, String) {
    let output: Output = script(world, arguments).env("HOMING_ADMIN_TOKEN", token).output().expect("the script runs");
    (output.status.code(), messages(world.directory()))
}

#[track_caller]
fn expect_words(said: &str, words: &[&str]) {
    for words in words {
        assert!(said.contains(words), "{words}:\n{said}");
    }
}

#[test]
fn a_rolling_deploy_stops_at_the_first_failure_and_says_what_to_do() {
    let world = World::start(Conf::servers("a b c").pool(QUICK_CHECK));
    let (code, said) = run(&world, "--ignore-silent --healthy-for 0 web a b c -- sh -c '[ $SERVER = a ]'");
    assert_eq!(code, Some(1), "{said}");
    expect_words(
        &said,
        &[
            "web/a: ready",
            "stopped: the command failed for web/b: sh -c",
            "homing server set web/b --state ready",
            "remain: b c",
        ],
    );
    assert!(is_draining(&world, "b") && !is_draining(&world, "a") && !is_draining(&world, "c"));
    // The command says that it has replaced the server, which does not serve.
    world.app("b").set_health(500);
    world.wait_for_health("b", false);
    let (code, said) = run(&world, "--ignore-silent --health-timeout 1 web b c -- true");
    assert_eq!(code, Some(1), "{said}");
    expect_words(&said, &["web/b was not healthy within 1s", "remain: b c"]);
    assert!(is_draining(&world, "b"));
    // And another does not serve either.
    for server in ["a", "c"] {
        world.app(server).set_health(500);
        world.wait_for_health(server, false);
    }
    let (code, said) = run(&world, "--ignore-silent web b -- true");
    assert_eq!(code, Some(1), "{said}");
    expect_words(&said, &["no other server of web is ready and up", "web/b is as it was"]);
    for server in SERVERS {
        world.app(server).set_health(200);
        world.wait_for_health(server, true);
    }
    let (code, said) = run(&world, "--ignore-silent --healthy-for 0 web b c -- true");
    assert_eq!(code, Some(0), "{said}");
    assert!(SERVERS.iter().all(|server| !is_draining(&world, server)));
}

#[test]
fn a_drain_that_takes_too_long_stops_a_rolling_deploy_or_ends_by_force() {
    let world = World::start(Conf::servers("a b").pool(QUICK_CHECK));
    let client = world.browser();
    let home = client.server();
    assert_eq!(client.server(), home);
    let (code, said) = run(&world, &format!("--drain-timeout 1s web {home} -- touch replaced"));
    assert_eq!(code, Some(1), "{said}");
    expect_words(&said, &["1 session is bound", &format!("web/{home} did not become empty"), "takes the drain back"]);
    assert!(!world.directory().join("replaced").exists());
    assert_eq!(client.server(), home, "the session is where it was");
    let forced = "--drain-timeout 1s --maint-on-timeout --healthy-for 0";
    let (code, said) = run(&world, &format!("{forced} web {home} -- sh -c 'homing servers > states'"));
    assert_eq!(code, Some(0), "{said}");
    expect_words(&said, &["not empty in time", &format!("web/{home}: ready")]);
    let states = fs::read_to_string(world.directory().join("states")).expect("written by the command");
    assert!(states.contains("maint"), "nothing goes to a server that is replaced: {states}");
}

#[test]
fn a_wrong_command_line_of_a_rolling_deploy_changes_nothing() {
    let world = World::start(Conf::servers("a b"));
    for (arguments, words) in [
        ("", "POOL is missing"),
        ("web -- true", "name the servers"),
        ("web a b", "COMMAND is missing"),
        ("web a b --", "COMMAND is missing"),
        ("--healthy-for 2s web a -- true", "a number of seconds"),
        ("--force web a -- true", "unknown option --force"),
        ("--maint-on-timeout web a -- true", "--maint-on-timeout needs --drain-timeout"),
        ("--admin", "needs a value"),
    ] {
        let (code, said) = run(&world, arguments);
        assert_eq!(code, Some(2), "{arguments}: {said}");
        expect_words(&said, &[words, "--help"]);
    }
    for (arguments, words) in
        [("web z a -- true", "has no server web/z"), ("web a b -- true", "web/a has no health check")]
    {
        let (code, said) = run(&world, arguments);
        assert_eq!(code, Some(1), "{arguments}: {said}");
        expect_words(&said, &[words, "Nothing was changed."]);
    }
    assert_eq!(world.metric("homing_server_state", &[("state", "ready")]), 2.0);
    assert_eq!(run(&world, "--help").0, Some(0));
}

#[test]
fn a_rolling_deploy_shows_its_token_to_the_proxy_and_drains_at_every_proxy() {
    let tokens = "admin: { address: \"{{admin}}\", tokens: [\
        { name: eve, role: viewer, secret: \"viewer-secret-0123456789\" }, \
        { name: ops, role: operator, secret: \"operator-secret-0123456789\" }] }";
    let mut world = World::start(Conf::servers("a b").pool(QUICK_CHECK).top(tokens));
    let other = world.another_proxy("-2");
    let arguments =
        format!("--admin {} --admin {} --healthy-for 0 --ignore-silent web a -- true", world.admin, other.admin);
    for (token, code, words) in [
        ("", 1, "cannot be listed"),
        ("viewer-secret-0123456789", 1, "may still drain"),
        ("operator-secret-0123456789", 0, "web/a: ready"),
    ] {
        let (ended, said) = run_as(&world, &arguments, token);
        assert_eq!(ended, Some(code), "{said}");
        expect_words(&said, &[words]);
    }
    for proxy in [&*world, &other] {
        let drained = proxy.log().lines().filter(|line| line.contains("to=\"drain\"") && line.contains("ops")).count();
        assert_eq!(drained, 1, "{}", proxy.log());
    }
}

#[test]
fn the_command_that_the_page_and_the_help_show_works() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md");
    let page = fs::read_to_string(page).expect("the page");
    let shown = page.lines().find_map(|line| line.strip_prefix("    rolling-deploy.sh ")).expect("a command");
    let conf = Conf::servers("a b").pool(QUICK_CHECK).persistence("idle_timeout: 1s");
    let world = World::start(conf);
    let help = script(&world, "--help").stdout(Stdio::piped()).output().expect("the script runs").stdout;
    assert!(String::from_utf8_lossy(&help).contains(&format!("  rolling-deploy.sh {shown}\n")), "{shown}");
    // The servers are on this machine.
    let ssh = world.directory().join("ssh");
    fs::write(&ssh, "#!/bin/sh\necho \"$@\" >>reached\n").expect("a file");
    fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755)).expect("a program");
    let (code, said) = run(&world, &shown.replace("shop a b c", "web b"));
    assert_eq!(code, Some(0), "{said}");
    let reached = fs::read_to_string(world.directory().join("reached")).expect("it was reached");
    assert_eq!(reached, "app-b sudo systemctl restart shop\n");
}
