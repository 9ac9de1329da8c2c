//! The command line: what is said where, and how it ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::world::proxy::command;
use crate::world::{App, Browser, Conf, KEY_2, Launch, PATIENCE, Proxy, Signal, World, eventually};

const GOOD: &str = "
version: 1
listeners:
  - address: 127.0.0.1:8080
pools:
  web:
    servers:
      - { name: a, address: 127.0.0.1:9001 }
    persistence: {}
";

/// A directory with a configuration file of that text.
fn file(text: &str) -> (TempDir, PathBuf) {
    let directory = tempfile::Builder::new().prefix("homing-it-").tempdir().expect("a directory for the test");
    let path = directory.path().join("homing.yaml");
    fs::write(&path, text).expect("a configuration file");
    (directory, path)
}

/// A key whose secret is not in the file, which must not appear in any message.
const KEYS: &str = "keys: [{ id: k1, secret: \"${TEST_SECRET}\" }]\n";

fn run(arguments: &[&str]) -> (i32, String, String) {
    let secret = "a secret that only tests have";
    let output: Output = command().args(arguments).env("TEST_SECRET", secret).output().expect("the program runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().expect("it ends by itself"), text(output.stdout), text(output.stderr))
}

fn check(text: &str) -> (i32, String, String) {
    let (_directory, path) = file(text);
    run(&["check", "--config", path.to_str().expect("UTF-8")])
}

#[test]
fn check_says_nothing_when_all_is_fine() {
    let with_keys = format!("{GOOD}{KEYS}");
    assert_eq!(check(&with_keys), (0, String::new(), String::new()));
    let (_directory, path) = file(&with_keys);
    assert_eq!(run(&["-t", "--config", path.to_str().expect("UTF-8")]), (0, String::new(), String::new()));
}

#[test]
fn check_prints_warnings_and_strict_makes_them_problems() {
    let (_directory, path) = file(GOOD);
    let config = path.to_str().expect("UTF-8");
    let (code, stdout, stderr) = run(&["check", "--config", config]);
    assert_eq!((code, stdout.as_str()), (0, ""), "{stderr}");
    assert!(stderr.starts_with("warning: no keys are configured"), "{stderr}");
    assert_eq!(run(&["check", "--strict", "--config", config]), (78, String::new(), stderr));
    let with_keys = GOOD.replace("    persistence: {}\n", "") + KEYS;
    let (code, _, stderr) = check(&with_keys);
    assert!(code == 0 && stderr.contains("warning: pool \"web\" keeps no sessions"), "{stderr}");
    let stated = with_keys.replace("pools:\n  web:\n", "pools:\n  web:\n    persistence: null\n");
    assert_eq!(check(&stated), (0, String::new(), String::new()), "stated, not forgotten");
}

#[test]
fn help_lists_the_commands() {
    let (code, stdout, _) = run(&["help"]);
    assert!(code == 0 && stdout.contains("check") && stdout.contains("run"), "{stdout}");
    let (code, stdout, _) = run(&["help", "check"]);
    assert!(code == 0 && stdout.contains("--strict"), "{stdout}");
}

#[test]
fn check_of_a_shared_store_opens_no_connection() {
    let store = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    store.set_nonblocking(true).expect("a socket that does not wait");
    let address = store.local_addr().expect("an address");
    for section in [
        format!("{{ type: redis, redis: {{ urls: [\"redis://{address}\"] }} }}"),
        format!("{{ type: memcached, memcached: {{ servers: [\"{address}\"] }} }}"),
    ] {
        let text = format!("{GOOD}{KEYS}store: {section}\n");
        assert_eq!(check(&text), (0, String::new(), String::new()), "{section}");
        let (_directory, path) = file(&text);
        let (code, shown, stderr) = run(&["config", "show", "--config", path.to_str().expect("UTF-8")]);
        assert_eq!(code, 0, "{stderr}");
        assert!(shown.contains(&address.to_string()), "{shown}");
    }
    let connection = store.accept().map_err(|error| error.kind());
    assert!(matches!(connection, Err(std::io::ErrorKind::WouldBlock)), "{connection:?}");
}

#[test]
fn check_shows_a_problem_with_its_place_its_line_and_a_help() {
    let text =
        GOOD.replace("  web:", "  shop:") + "routes:\n  - name: all\n    match: { path_prefix: / }\n    pool: shopp\n";
    let (code, stdout, stderr) = check(&text);
    assert_eq!((code, stdout.as_str()), (78, ""), "messages go to stderr");
    for part in [
        "error: pool \"shopp\" does not exist",
        "homing.yaml:13:11",
        "13 |     pool: shopp",
        "^^^^^",
        "= help: did you mean \"shop\"?",
    ] {
        assert!(stderr.contains(part), "{part:?} is missing in:\n{stderr}");
    }
    let caret = stderr.lines().find(|line| line.contains('^')).and_then(|line| line.find('^'));
    let value = stderr.lines().find(|line| line.starts_with("13 |")).and_then(|line| line.find("shopp"));
    assert_eq!(caret, value, "the mark stands under the value:\n{stderr}");
    assert!(!stderr.contains("\u{1b}["), "no colours with NO_COLOR");
}

#[test]
fn check_shows_all_problems_at_once() {
    let text = "
version: 1
listeners:
  - address: 127.0.0.1:8080
    timeouts: { keepalive: 75 }
pools:
  web:
    balance: round_robbin
    servers:
      - { name: a, address: 127.0.0.1:9001, wieght: 2 }
      - { name: a, address: nowhere }
    persistence: { cookie: { same_site: none, secure: false } }
";
    let (code, _, stderr) = check(text);
    assert_eq!(code, 78);
    for place in [":5:28", ":8:14", ":10:45", ":11:"] {
        assert!(stderr.contains(&format!("homing.yaml{place}")), "{place} is missing in:\n{stderr}");
    }
    assert!(stderr.matches("error: ").count() >= 6, "six mistakes were made:\n{stderr}");
    assert!(
        stderr.contains("round_robin") && stderr.contains("weight") && stderr.contains("75s"),
        "each has its help:\n{stderr}"
    );
}

/// One mistake each, and a word that the message must have.
const MISTAKES: [(&str, &str); 30] = [
    ("version: 2\n", "version"),
    ("pools: {}\n", "pool"),
    ("listeners: []\n", "listener"),
    ("unknown_key: 1\n", "unknown_key"),
    ("keys: [{ id: k1, secret: short }]\n", "secret"),
    (
        "keys: [{ id: k, secret: \"0123456789012345678901234567890123456789012\" }, { id: k, secret: \"9123456789012345678901234567890123456789012\" }]\n",
        "k",
    ),
    ("keys: [{ id: k, secret: \"${NOT_SET_ANYWHERE}\" }]\n", "NOT_SET_ANYWHERE"),
    ("keys: [{ id: k, secret: \"${file:/no/such/file}\" }]\n", "/no/such/file"),
    ("keys: [{ id: k, secret: \"${NOT_SET_ANYWHERE:?run me with a key}\" }]\n", "run me with a key"),
    ("routes: [{ name: r, match: { path_prefix: shop }, pool: web }]\n", "path_prefix"),
    ("routes: [{ name: r, match: { hosts: [\"shop.*\"] }, pool: web }]\n", "wildcard"),
    (
        "routes: [{ name: r, match: { path_prefix: / }, pool: web }, { name: r, match: { path_prefix: /x }, pool: web }]\n",
        "r",
    ),
    ("routes: [{ name: r, match: { path_prefix: / }, split: [{ pool: web, weight: 0 }] }]\n", "weight 0"),
    ("store: { type: redis }\n", "homing keys generate"),
    ("store: { type: ignite }\n", "homing keys generate"),
    ("proxy: { upgrade_socket: upgrade.sock }\n", "the absolute path of a file"),
    ("store: { type: hazelcast }\n", "homing keys generate"),
    ("store: { snapshot: { path: sessions } }\n", "the absolute path of a file"),
    ("store: { snapshot: { path: /tmp/x, interval: 10ms } }\n", "at least 1s"),
    ("store: { max_sessions: 0 }\n", "max_sessions"),
    ("store: { max_sessions: many }\n", "max_sessions"),
    ("log: { level: loud }\n", "loud"),
    ("admin: { address: 0.0.0.0:9900 }\n", "token"),
    ("admin: { tokens: [{ name: ops, role: operator, secret: short }] }\n", "shorter than 16"),
    ("proxy: { threads: 0 }\n", "threads"),
    ("proxy: { shutdown_grace: 30 }\n", "30s"),
    ("proxy: { shutdown_grace: soon }\n", "soon"),
    ("proxy: { upgrade_socket: /tmp/x.sock }\n", "every user may write"),
    ("metrics: { address: 127.0.0.1 }\n", "127.0.0.1"),
    ("pools: { web: 1\n", "error"),
];

#[test]
fn every_mistake_has_a_message_that_names_it() {
    for (mistake, word) in MISTAKES {
        let key = mistake.split(':').next().unwrap_or_default();
        let mut text: String = GOOD.to_owned();
        if ["version", "pools", "listeners"].contains(&key) {
            // In the place of what the good file says.
            let kept = GOOD.split('\n').skip(1).collect::<Vec<_>>();
            let start = kept.iter().position(|line| line.starts_with(key)).expect("the key is there");
            let end =
                kept[start + 1..].iter().position(|line| !line.starts_with(' ')).map_or(kept.len(), |n| start + 1 + n);
            text = [&kept[..start], &[mistake.trim_end()][..], &kept[end..]].concat().join("\n");
        } else {
            text.push_str(mistake);
        }
        let (code, stdout, stderr) = check(&text);
        assert_eq!((code, stdout.as_str()), (78, ""), "{mistake}:\n{stderr}");
        assert!(stderr.contains("error: ") && stderr.contains(word), "{mistake}: {word:?} is missing in:\n{stderr}");
        assert!(stderr.contains("homing.yaml:"), "{mistake}: no place in:\n{stderr}");
        assert!(!stderr.contains("panicked"), "{mistake}:\n{stderr}");
    }
}

#[test]
fn hostile_files_are_clear_errors_soon() {
    let bomb = {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..12 {
            let refs = vec![format!("*a{}", n - 1); 9].join(", ");
            text.push_str(&format!("a{n}: &a{n} [{refs}]\n"));
        }
        text
    };
    let hostile = [
        ("deep nesting", "[".repeat(200_000)),
        ("deep mapping", "{a: ".repeat(100_000)),
        ("aliases that multiply", bomb),
        ("NUL", "version: 1\0\n".to_owned()),
        ("nothing", String::new()),
        ("a list", "- 1\n- 2\n".to_owned()),
        ("two documents", format!("{GOOD}---\n{GOOD}")),
        ("tabs", "version:\t1\n\tlisteners: []\n".to_owned()),
        ("a hundred megabytes", format!("# {}\n{GOOD}", "x".repeat(100 << 20))),
        ("repeated keys", format!("{GOOD}version: 1\n")),
        ("an alias to nothing", "version: *one\n".to_owned()),
        ("a tag", "version: !!python/object:os.system 1\n".to_owned()),
    ];
    for (what, text) in hostile {
        let start = std::time::Instant::now();
        let (code, _, stderr) = check(&text);
        assert_eq!(code, 78, "{what}:\n{}", &stderr[..stderr.len().min(2000)]);
        assert!(
            stderr.contains("error: ") && stderr.len() < 10_000,
            "{what}: a short clear error, not {} bytes",
            stderr.len()
        );
        assert!(start.elapsed() < Duration::from_secs(10), "{what}: {:?}", start.elapsed());
    }
}

#[test]
fn a_file_that_is_not_there_is_an_error_of_configuration() {
    for arguments in [["check", "--config", "/no/such/homing.yaml"], ["run", "--config", "/no/such/homing.yaml"]] {
        let (code, stdout, stderr) = run(&arguments);
        assert_eq!((code, stdout.as_str()), (78, ""), "{stderr}");
        assert!(stderr.contains("/no/such/homing.yaml"), "{stderr}");
    }
}

#[test]
fn run_with_a_bad_file_ends_with_its_problems() {
    let (_directory, path) = file(&GOOD.replace("servers", "severs"));
    let (code, _, stderr) = run(&["run", "--config", path.to_str().expect("UTF-8")]);
    assert_eq!(code, 78, "{stderr}");
    assert!(stderr.contains("severs") && stderr.contains("did you mean \"servers\""), "{stderr}");
}

#[test]
fn the_file_may_be_named_by_the_environment() {
    let (_directory, path) = file(&format!("{GOOD}keys: [{KEY_2}]\n"));
    let output = command().arg("check").env("HOMING_CONFIG", &path).output().expect("the program runs");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn values_come_from_the_environment_and_from_files() {
    let (directory, path) = file(&format!(
        "{}keys: [{{ id: k, secret: \"${{file:secret}}\" }}]\nproxy: {{ node: \"${{NODE_NAME:-edge}}-$${{x}}\" }}\n",
        GOOD.replace("127.0.0.1:9001", "\"${SERVER:?where is it}\"")
    ));
    let secret = directory.path().join("secret");
    fs::write(&secret, "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=\n").expect("a secret");
    let text =
        fs::read_to_string(&path).expect("the file").replace("file:secret", &format!("file:{}", secret.display()));
    fs::write(&path, text).expect("the file");
    let mut show = command();
    show.args(["config", "show", "--config", path.to_str().expect("UTF-8")]).env("SERVER", "127.0.0.1:9444");
    let output = show.output().expect("the program runs");
    let shown = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(shown.contains("127.0.0.1:9444") && shown.contains("edge-$${x}"), "as one would write it:\n{shown}");
    assert!(!shown.contains("ZmVkY2Jh"), "secrets are masked:\n{shown}");
}

#[test]
fn config_show_is_a_whole_configuration() {
    let (_directory, path) = file(&format!("{GOOD}keys: [{KEY_2}]\n"));
    let (code, shown, stderr) = run(&["config", "show", "--config", path.to_str().expect("UTF-8")]);
    assert_eq!(code, 0, "{stderr}");
    for part in ["idle_timeout: 30m", "connect_timeout: 2s", "balance: round_robin", "same_site: lax", "127.0.0.1:9001"]
    {
        assert!(shown.contains(part), "{part} is missing in:\n{shown}");
    }
    assert!(!shown.contains("ZmVkY2Jh"), "secrets are masked:\n{shown}");
}

#[test]
fn config_schema_is_a_json_schema() {
    let (code, stdout, _) = run(&["config", "schema"]);
    assert_eq!(code, 0);
    let schema: Value = serde_json::from_str(&stdout).expect("JSON");
    assert!(schema["$schema"].is_string() && schema["properties"]["pools"].is_object(), "{stdout}");
    assert_eq!(schema["additionalProperties"], false, "unknown keys are errors");
}

#[test]
fn config_example_is_commented_and_right() {
    let (code, example, _) = run(&["config", "example"]);
    assert_eq!(code, 0);
    assert!(example.matches('#').count() > 20, "commented:\n{example}");
    let (code, _, stderr) = check(&example);
    assert_eq!(code, 0, "its own check accepts it:\n{stderr}");
}

#[test]
fn a_generated_key_can_be_pasted() {
    let (code, first, _) = run(&["keys", "generate"]);
    let (_, second, _) = run(&["keys", "generate"]);
    assert_eq!(code, 0);
    assert_ne!(first, second, "a new one each time");
    let (code, _, warning) = check(&format!("{GOOD}{first}"));
    assert_eq!(code, 0, "{first}\n{warning}");
    assert!(warning.contains("stands in the configuration file") && !warning.contains("error"), "{warning}");
}

#[test]
fn explain_says_what_a_token_says() {
    let world = World::start(Conf::servers("a b"));
    let alice = world.browser();
    let home = alice.server();
    let token = alice.token().expect("a token");
    let config = world.config.to_str().expect("UTF-8");
    let (code, stdout, stderr) = run(&["explain", &token, "--config", config]);
    assert_eq!(code, 0, "{stderr}");
    for part in ["web", &home, "k1", "epoch"] {
        assert!(stdout.contains(part), "{part} is missing in:\n{stdout}");
    }
    let mut forged = token.into_bytes();
    let middle = forged.len() / 2;
    forged[middle] = if forged[middle] == b'A' { b'B' } else { b'A' };
    let (_, stdout, stderr) = run(&["explain", &String::from_utf8(forged).expect("ASCII"), "--config", config]);
    let said = format!("{stdout}{stderr}").to_lowercase();
    assert!(said.contains("open"), "why it does not open:\n{said}");
    assert!(!said.contains("panicked"));
    let (code, _, stderr) = run(&["explain", "x", "--pool", "nowhere", "--config", config]);
    assert!(code == 1 && stderr.contains("pool \"nowhere\" does not exist; pools: web"), "{stderr}");
    let (code, _, stderr) = run(&["explain", "10.0.0.1", "--config", config]);
    assert!(code == 1 && stderr.contains("no pool has the source client_ip"), "{stderr}");
    for nonsense in ["", "x", "%%%", &"A".repeat(10_000)] {
        let (code, stdout, stderr) = run(&["explain", "--config", config, "--", nonsense]);
        assert!(code != 0 || !stdout.is_empty(), "{nonsense:?} is explained: {stdout}{stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
    }
}

#[test]
fn version_and_completions_are_data() {
    let (code, version, _) = run(&["version"]);
    assert_eq!(code, 0);
    assert!(version.contains(env!("CARGO_PKG_VERSION")) || version.contains('.'), "{version}");
    for shell in ["bash", "zsh", "fish"] {
        let (code, script, _) = run(&["completions", shell]);
        assert_eq!(code, 0);
        assert!(script.contains("homing") && script.len() > 500, "{shell}");
    }
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    for arguments in [
        &["run", "--no-such-flag"][..],
        &["no-such-command"],
        &["config", "paint"],
        &["completions", "no-such-shell"],
        &["run", "--to", "nonsense"],
    ] {
        let (code, stdout, stderr) = run(arguments);
        assert_eq!((code, stdout.as_str()), (2, ""), "{arguments:?}:\n{stderr}");
        assert!(!stderr.is_empty(), "{arguments:?} is explained");
    }
    let (code, stdout, _) = run(&["--help"]);
    assert_eq!(code, 0);
    for word in ["run", "check", "demo", "config", "keys", "explain", "version", "completions"] {
        assert!(stdout.contains(word), "{word} is missing in the help");
    }
}

#[test]
fn a_quick_start_needs_no_file() {
    let mut environment = World::builder(Conf::servers("a b")).without_proxy();
    let (listen, admin, launch) = (environment.address("proxy"), environment.address("admin"), environment.launch(""));
    let to = |name: &str| format!("{name}={}", environment.app(name).address());
    let (at, doors) = (listen.to_string(), admin.to_string());
    let arguments = ["run", "--to", &to("a"), "--to", &to("b"), "--listen", &at, "--admin", &doors];
    let arguments = arguments.map(str::to_owned).to_vec();
    let proxy = Proxy::spawn(&Launch { arguments: Some(arguments), ..launch }, Path::new(environment.directory()));
    eventually(PATIENCE, "it listens", || listen.is_listening() || !proxy.is_running());
    let alice = Browser::new(listen);
    let home = alice.server();
    for _ in 0..5 {
        assert_eq!(alice.server(), home, "sticky, as by default");
    }
    proxy.signal(Signal::SIGTERM);
    assert_eq!(proxy.wait_for_exit(PATIENCE).0.code(), Some(0), "{}", proxy.log());
}

#[test]
fn a_command_whose_reader_leaves_does_not_panic() {
    let mut child = command()
        .args(["config", "schema"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the program runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert!(!String::from_utf8_lossy(&output.stderr).contains("panicked"), "{output:?}");
}

#[test]
fn an_app_that_is_not_there_does_not_fail_a_check() {
    let app = App::reserve("a");
    let text = GOOD.replace("127.0.0.1:9001", &app.address().to_string()) + &format!("keys: [{KEY_2}]\n");
    assert_eq!(check(&text).0, 0, "a check looks at the file, not at the world");
}
