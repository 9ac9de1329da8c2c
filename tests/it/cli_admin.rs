//! The commands that ask a running proxy.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::pty::openpty;
use nix::sys::termios::tcgetattr;
use serde_json::Value;

use crate::world::proxy::command;
use crate::world::{Browser, Conf, PATIENCE, World, eventually};

/// What a command said.
#[derive(Debug)]
struct Said {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Said {
    #[track_caller]
    fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}{}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }

    /// The words of the first line with this one.
    #[track_caller]
    fn row(&self, word: &str) -> Vec<&str> {
        let line = self.stdout.lines().find(|line| line.split_whitespace().any(|found| found == word));
        line.unwrap_or_else(|| panic!("no {word} in\n{}", self.stdout)).split_whitespace().collect()
    }
}

/// `homing` with these words, for the proxy of a world.
fn client(world: &World, line: &str) -> Command {
    let mut command = command();
    command.args(line.split_whitespace()).env("HOMING_ADMIN", world.admin.to_string());
    command
}

fn piped(mut command: Command) -> Child {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("it starts")
}

fn finish(child: Child) -> Said {
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said { code: output.status.code().expect("a code"), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

fn homing(world: &World, line: &str) -> Said {
    homing_with(world, line, "")
}

fn homing_with(world: &World, line: &str, input: &str) -> Said {
    let mut child = piped(client(world, line));
    // It need not read what it does not want.
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    finish(child)
}

/// A client that has come back, so that the table knows its session.
fn returning(world: &World) -> (Browser, String) {
    let browser = world.browser();
    let home = browser.server();
    assert_eq!(browser.server(), home, "the session stays");
    (browser, home)
}

fn three() -> World {
    World::start(Conf::servers("a b c"))
}

#[test]
fn without_a_proxy_the_exit_code_is_69() {
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    for admin in [port.to_string(), format!("http://{port}"), "unix:/nonexistent/homing.sock".to_owned()] {
        for line in ["status", "server set web/a --state drain --wait", "events --follow", "top", "reload"] {
            let mut command = command();
            let said = finish(piped({
                command.args(line.split_whitespace()).args(["--admin", &admin]);
                command
            }));
            let said = said.expect(69);
            assert!(said.stdout.is_empty() && said.stderr.starts_with("error: no proxy can be reached at"), "{said:?}");
        }
    }
}

#[test]
fn mistakes_of_the_command_line_have_the_exit_code_2() {
    for line in [
        "server set web --state drain",
        "server set web/a --state maint --wait",
        "status --admin nowhere",
        "sessions list --server b",
        "sessions show web/",
        "sessions show 03ca1ec4d3d04b4d01cce41351002622",
        "server set web/a --weight many",
        "explain c2VjcmV0",
        "man nothing",
    ] {
        let mut command = command();
        command.args(line.split_whitespace());
        let said = finish(piped(command)).expect(2);
        assert!(said.stdout.is_empty() && said.stderr.contains("error: "), "{line}: {said:?}");
    }
}

#[test]
fn status_shows_the_problems_of_a_refused_reload_line_by_line() {
    let world = three();
    world.write_config("version: 1\nbogus: 1\n");
    homing(&world, "reload").expect(78);
    let status = homing(&world, "status").expect(0);
    assert_eq!(status.row("last_reload.result")[1], "refused");
    assert!(status.stdout.contains("unknown key \"bogus\"\n"), "{}", status.stdout);
    assert!(!status.stdout.contains('\u{fffd}'), "{}", status.stdout);
}

#[test]
fn manual_pages_are_printed() {
    for (line, part) in [("man", "homing"), ("man server set", "ignore")] {
        let mut command = command();
        command.args(line.split_whitespace());
        let said = finish(piped(command)).expect(0);
        assert!(said.stdout.contains(".TH") && said.stdout.contains(part), "{}", said.stdout);
    }
}

#[test]
fn status_pools_and_servers_are_tables_for_people_and_json_for_scripts() {
    let world = three();
    let (_browser, home) = returning(&world);
    let status = homing(&world, "status").expect(0);
    assert_eq!(status.row("version")[1], env!("CARGO_PKG_VERSION"));
    assert_eq!(homing(&world, "status -o json").expect(0).json()["version"], env!("CARGO_PKG_VERSION"));
    let pools = homing(&world, "pools").expect(0);
    assert_eq!(pools.row("web")[..5], ["web", "round_robin", "3", "3", "3"], "what is not checked counts as up");
    let servers = homing(&world, "servers").expect(0);
    assert_eq!(servers.stdout.lines().count(), 4, "a header and three servers:\n{}", servers.stdout);
    assert_eq!(servers.row("SERVER")[..4], ["POOL", "SERVER", "ADDRESS", "STATE"]);
    assert_eq!(servers.row(&home)[3], "ready");
    let json = homing(&world, "servers -o json").expect(0).json();
    let of_home = json["items"].as_array().expect("items").iter().find(|server| server["name"] == home.as_str());
    assert_eq!(of_home.expect("the server")["sessions"], 1);
}

#[test]
fn which_sessions_are_on_a_server() {
    let world = three();
    let clients: Vec<_> = (0..6).map(|_| returning(&world)).collect();
    let home = &clients[0].1;
    let expected = clients.iter().filter(|(_, server)| server == home).count();
    let table = homing(&world, &format!("sessions list --server web/{home}")).expect(0);
    assert_eq!(table.stdout.lines().count(), 1 + expected, "{}", table.stdout);
    let all = homing(&world, "sessions list -o json").expect(0).json();
    assert_eq!((all["items"].as_array().expect("items").len(), &all["next"]), (6, &Value::Null));
    let page = homing(&world, "sessions list --limit 4 -o json").expect(0).json();
    let next = page["next"].as_str().expect("there are more");
    let rest = homing(&world, &format!("sessions list --cursor {next} -o json")).expect(0).json();
    let keys = |page: &Value| -> Vec<String> {
        page["items"].as_array().expect("items").iter().map(|session| session["key"].to_string()).collect()
    };
    let mut seen = keys(&page);
    seen.extend(keys(&rest));
    seen.sort();
    let mut whole = keys(&all);
    whole.sort();
    assert_eq!(seen, whole, "nothing twice, nothing left out");
}

#[test]
fn why_a_user_is_where_it_is_is_explained_by_the_running_proxy() {
    let world = three();
    let (browser, home) = returning(&world);
    let token = browser.token().expect("a token");
    let said = homing_with(&world, "explain", &token).expect(0);
    assert_eq!(said.row("server")[1], home);
    assert!(said.stdout.contains("\n 1. "), "step by step: {}", said.stdout);
    let json = homing_with(&world, "explain --pool web -o json", &token).expect(0).json();
    assert_eq!(json["chosen"], home.as_str());
    let config = world.config.to_str().expect("UTF-8");
    let file = homing_with(&world, &format!("explain --config {config}"), &token);
    assert!(file.code != 69 && !file.stdout.contains(" 1. "), "--config asks the file: {file:?}");
    let refused = homing(&world, &format!("explain {token}")).expect(2);
    assert!(refused.stderr.contains("standard input"), "{}", refused.stderr);
}

#[test]
fn a_session_is_shown_moved_and_ended_by_what_its_client_sends() {
    let world = three();
    let (browser, home) = returning(&world);
    let token = browser.token().expect("a token");
    let shown = homing_with(&world, "sessions show web", &token).expect(0);
    assert_eq!(shown.row("server")[1], home);
    let key = shown.row("key")[1].to_owned();
    let target = ["a", "b", "c"].into_iter().find(|name| *name != home).expect("another server");
    let moved = homing(&world, &format!("sessions move web/{key} --to {target}")).expect(0);
    assert_eq!(moved.row("server")[1], target);
    assert_eq!(browser.server(), target);
    let events = homing(&world, "events --once --kind move --since 10m").expect(0);
    assert!(events.row(target).contains(&home.as_str()), "what moved, and why: {}", events.stdout);
    homing_with(&world, "sessions end web", &browser.token().expect("a token")).expect(0);
    let gone = homing(&world, &format!("sessions show web/{key}")).expect(1);
    assert!(gone.stderr.starts_with("error: "), "{}", gone.stderr);
    let unknown = homing(&world, "sessions list --pool nothing").expect(1);
    assert!(unknown.stderr.contains("nothing"), "{}", unknown.stderr);
}

#[test]
fn a_servers_state_and_weight_are_set_and_taken_back() {
    let world = three();
    let set = homing(&world, "server set web/a --state drain --weight 5").expect(0);
    assert_eq!(set.row("a")[3..5], ["drain", "drain,weight=5"]);
    let json = homing(&world, "server set web/a --weight 7 -o json").expect(0).json();
    assert_eq!((&json["state"], &json["override"]["weight"]), (&Value::from("drain"), &Value::from(7)));
    let back = homing(&world, "server set web/a --reset").expect(0);
    assert_eq!(back.row("a")[3..5], ["ready", "-"]);
    homing(&world, "server set web/z --state drain").expect(1);
}

#[test]
fn a_wait_ends_when_the_server_is_empty_over_a_restart_of_the_proxy() {
    let conf = Conf::servers("a b c")
        .persistence("idle_timeout: 4s")
        .top("admin: { address: \"{{admin}}\", state_file: \"{{dir}}/servers.json\" }");
    let mut world = World::start(conf);
    let (_browser, home) = returning(&world);
    let line = format!("server set web/{home} --state drain --wait --timeout 60s");
    let waiting = piped(client(&world, &line));
    eventually(PATIENCE, "it drains", || homing(&world, "servers").row(&home)[3] == "drain");
    world.restart_proxy();
    let said = finish(waiting).expect(0);
    assert_eq!(said.row(&home)[12], "empty", "{said:?}");
    assert!(said.stderr.contains(&format!("web/{home}: ")), "progress: {}", said.stderr);
    let hasty = homing(&world, &format!("{line} --ignore-silent")).expect(0);
    assert_eq!(hasty.row(&home)[3], "drain");
}

#[test]
fn a_wait_ends_with_a_message_when_another_state_is_set() {
    let world = three();
    let (_browser, home) = returning(&world);
    let waiting = piped(client(&world, &format!("server set web/{home} --state drain --wait")));
    eventually(PATIENCE, "it drains", || homing(&world, "servers").row(&home)[3] == "drain");
    homing(&world, &format!("server set web/{home} --state ready")).expect(0);
    let said = finish(waiting).expect(1);
    assert!(said.stderr.contains("its state in force is ready"), "{}", said.stderr);
    assert!(said.stdout.is_empty(), "{}", said.stdout);
}

#[test]
fn a_wait_ends_with_a_message_when_its_time_is_up() {
    let world = three();
    let (_browser, home) = returning(&world);
    let start = Instant::now();
    let said = homing(&world, &format!("server set web/{home} --state drain --wait --timeout 1s")).expect(1);
    assert!(start.elapsed() >= Duration::from_secs(1), "{said:?}");
    assert!(said.stderr.contains("the time is up"), "{}", said.stderr);
    assert_eq!(homing(&world, "servers").row(&home)[3], "drain", "it drains on");
}

#[test]
fn events_are_followed_as_they_come() {
    let world = three();
    let mut child = client(&world, "events -o json").stdout(Stdio::piped()).spawn().expect("it starts");
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    homing(&world, "server set web/b --state drain").expect(0);
    let event = lines
        .map(|line| serde_json::from_str::<Value>(&line.expect("a line")).expect("one object a line"))
        .find(|event| event["kind"] == "state" && event["server"] == "b")
        .expect("the change");
    assert_eq!((&event["to"], &event["who"]), (&Value::from("drain"), &Value::from("local")));
    child.kill().and_then(|()| child.wait()).expect("it ends");
}

#[test]
fn a_reload_says_what_is_wrong_with_the_file() {
    let world = three();
    homing(&world, "reload").expect(0);
    let file = std::fs::read_to_string(&world.config).expect("the file");
    std::fs::write(&world.config, file.replace("version: 1", "version: 9")).expect("written");
    let refused = homing(&world, "reload").expect(78);
    assert!(refused.stderr.contains("version"), "every problem: {}", refused.stderr);
    assert!(refused.stdout.is_empty(), "{}", refused.stdout);
}

#[test]
fn top_without_a_terminal_prints_one_table_an_interval() {
    let world = three();
    let (browser, home) = returning(&world);
    let child = piped(client(&world, "top --interval 300ms --iterations 2"));
    for _ in 0..20 {
        browser.get("/").expect(200);
        thread::sleep(Duration::from_millis(20));
    }
    let said = finish(child).expect(0);
    assert_eq!(said.stdout.matches("POOL").count(), 2, "{}", said.stdout);
    let rates = said.stdout.lines().filter(|line| line.split_whitespace().nth(1) == Some(&home));
    let fastest = rates.filter_map(|line| line.split_whitespace().nth(9)?.parse::<f64>().ok()).fold(0.0, f64::max);
    assert!(fastest > 0.0, "responses a second: {}", said.stdout);
    assert!(!said.stdout.contains('\u{1b}'), "no terminal, no control characters");
}

#[test]
fn top_gives_the_terminal_back_as_it_was() {
    let world = three();
    // q and Ctrl-C.
    for key in [b'q', 3] {
        let terminal = openpty(None, None).expect("a terminal");
        let before = tcgetattr(&terminal.slave).expect("its modes").local_flags;
        let end = || Stdio::from(terminal.slave.try_clone().expect("a descriptor"));
        let mut top = client(&world, "top --interval 200ms");
        let mut child = top.stdin(end()).stdout(end()).stderr(end()).spawn().expect("it starts");
        let mut screen = File::from(terminal.master);
        let mut shown = String::new();
        let mut part = [0; 4096];
        while shown.matches("SESSIONS").count() < 3 {
            let size = screen.read(&mut part).expect("it draws again and again");
            shown.push_str(&String::from_utf8_lossy(&part[..size]));
        }
        screen.write_all(&[key]).expect("a key");
        while !shown.ends_with("\u{1b}[?1049l") {
            let size = screen.read(&mut part).expect("it leaves the screen");
            shown.push_str(&String::from_utf8_lossy(&part[..size]));
        }
        assert_eq!(child.wait().expect("it ends").code(), Some(0));
        assert!(shown.starts_with("\u{1b}[?1049h"), "a screen of its own: {shown:?}");
        assert_eq!(tcgetattr(&terminal.slave).expect("its modes").local_flags, before, "keys are echoed again");
    }
}
