//! The rules and the dashboard of `conf/observability`: Prometheus' own tools accept them, and with a real Prometheus each alert
//! fires and clears.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rcgen::date_time_ymd;
use serde_json::{Value, json};

use crate::admin_api::change;
use crate::world::client::{Wire, get_with};
use crate::world::prometheus::{Prometheus, mixin, program};
use crate::world::stores::{Kind, RedisServer};
use crate::world::tls::Authority;
use crate::world::{Address, Browser, Conf, KEY_1, Launch, Proxy, QUICK_CHECK, World, eventually};

const PATIENCE: Duration = Duration::from_secs(90);

/// What a real proxy cannot be brought to: a bug, and what this version does not count.
const NOT_PROVOKED: [&str; 2] = ["HomingPanics", "HomingFastPathShareFallen"];

#[track_caller]
fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().expect("it runs");
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}\n{}{}", said(&output.stdout), said(&output.stderr));
}

fn yaml(name: &str) -> serde_yaml::Value {
    let text = fs::read_to_string(mixin().join(name)).expect("a readable file");
    serde_yaml::from_str(&text).expect("YAML")
}

/// Name and runbook of each alert.
fn alerts() -> Vec<(String, String)> {
    let rules = yaml("alerts.rules.yaml");
    let groups = rules["groups"].as_sequence().expect("groups");
    let rules = groups.iter().flat_map(|group| group["rules"].as_sequence().expect("rules"));
    let text = |value: &serde_yaml::Value| value.as_str().unwrap_or_default().to_owned();
    rules.map(|rule| (text(&rule["alert"]), text(&rule["annotations"]["runbook_url"]))).collect()
}

#[test]
fn prometheus_accepts_the_rules_and_each_alert_fires_when_it_should_and_not_before() {
    let directory = mixin();
    run(program("promtool").current_dir(&directory).args([
        "check",
        "rules",
        "recording.rules.yaml",
        "alerts.rules.yaml",
    ]));
    run(program("promtool").current_dir(&directory).args(["check", "config", "prometheus.yaml"]));
    run(program("promtool").current_dir(&directory).args(["test", "rules", "alerts.test.yaml"]));
    let tests = fs::read_to_string(directory.join("alerts.test.yaml")).expect("the tests");
    for (alert, _) in alerts() {
        assert!(
            [format!("\"{alert}\""), format!("alertname: {alert}\n")].iter().any(|named| tests.contains(named)),
            "alerts.test.yaml lets {alert} fire"
        );
    }
}

#[test]
fn each_alert_has_a_runbook() {
    let runbooks = fs::read_to_string(mixin().join("../../docs/alerts.md")).expect("the runbooks");
    let sections: BTreeSet<_> =
        runbooks.lines().filter_map(|line| line.strip_prefix("## ")).map(str::to_owned).collect();
    let alerts = alerts();
    for (alert, runbook) in &alerts {
        assert_eq!(*runbook, format!("docs/alerts.md#{}", alert.to_lowercase()));
    }
    assert_eq!(sections, alerts.into_iter().map(|(alert, _)| alert).collect(), "a section for each, and no other");
}

#[test]
fn prometheus_reads_every_expression_of_the_dashboard() {
    let text = fs::read_to_string(mixin().join("dashboard.json")).expect("the dashboard");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().cloned().unwrap_or_default());
    let plain = |text: &str| text.replace("$__rate_interval", "1m").replace("$job", "homing").replace("$pool", "web");
    let rule = |(n, target): (usize, Value)| {
        let expression = plain(target["expr"].as_str().expect("an expression"));
        assert!(!expression.contains('$'), "no other variable: {expression}");
        json!({ "record": format!("dashboard:expression:{n}"), "expr": expression })
    };
    let rules: Vec<_> = targets.enumerate().map(rule).collect();
    assert!(rules.len() > 40, "the dashboard has panels: {}", rules.len());
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("dashboard.rules.yaml");
    // JSON is YAML.
    fs::write(&file, json!({ "groups": [{ "name": "dashboard", "rules": rules }] }).to_string()).expect("the rules");
    run(program("promtool").args(["check", "rules"]).arg(&file));
    let mut ids: Vec<_> = panels.iter().map(|panel| panel["id"].as_u64().expect("an id")).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), panels.len(), "each panel has an id of its own");
}

/// The proxy whose servers, sessions and files are in trouble.
fn troubled() -> String {
    format!(
        "version: 1
listeners:
  - {{ address: '{{{{proxy}}}}' }}
  - {{ address: '{{{{proxy2}}}}', tls: {{ certificates: [{{ cert: '{{{{dir}}}}/edge.pem', key: '{{{{dir}}}}/edge.key' }}] }} }}
admin: {{ address: '{{{{admin}}}}' }}
log: {{ level: info, access: '{{{{access}}}}' }}
keys: [{KEY_1}]
store: {{ max_sessions: 130, snapshot: {{ path: '{{{{dir}}}}/snapshots/sessions', interval: 1s }} }}
routes:
  - {{ name: learned, match: {{ path_prefix: /learned }}, pool: learned }}
  - {{ name: crowd, match: {{ path_prefix: /crowd }}, pool: crowd }}
  - {{ name: empty, match: {{ path_prefix: /empty }}, pool: empty }}
  - {{ name: done, match: {{ path_prefix: /done }}, pool: done }}
  - {{ name: web, match: {{ path_prefix: / }}, pool: web }}
pools:
  web:
    servers: [{{ name: a, address: '{{{{a}}}}' }}, {{ name: b, address: '{{{{b}}}}' }}, {{ name: c, address: '{{{{c}}}}' }}]
    {QUICK_CHECK}
    persistence: {{ cookie: {{ name: WEB }}, on_server_down: borrow }}
  learned:
    servers: [{{ name: l, address: '{{{{l}}}}' }}]
    persistence: {{ sources: [{{ learn: {{ cookie: SID }} }}] }}
  crowd:
    servers: [{{ name: e, address: '{{{{e}}}}' }}, {{ name: f, address: '{{{{f}}}}', state: maint }}]
    persistence: {{ cookie: {{ name: CROWD }}, idle_timeout: 20s }}
  empty:
    servers: [{{ name: d, address: '{{{{d}}}}' }}]
    {QUICK_CHECK}
    persistence: {{ cookie: {{ name: EMPTY }} }}
  done:
    servers: [{{ name: g, address: '{{{{g}}}}' }}, {{ name: h, address: '{{{{h}}}}' }}]
    persistence: {{ cookie: {{ name: DONE }}, idle_timeout: 1s }}
"
    )
}

/// A certificate that ends in three days, or late.
fn certify(authority: &Authority, world_directory: &std::path::Path, ends_soon: bool) {
    let end = SystemTime::now() + Duration::from_secs(3 * 86_400);
    let end = humantime::format_rfc3339_seconds(end).to_string();
    let part = |range: std::ops::Range<usize>| end[range].parse::<u8>().expect("a number");
    let year = end[0..4].parse().expect("a year");
    let signed = authority.sign_with(&["edge"], |params| {
        if ends_soon {
            params.not_after = date_time_ymd(year, part(5..7), part(8..10));
        }
    });
    signed.write(world_directory, "edge");
}

/// Everything that goes wrong for as long as requests come.
fn bad_traffic(address: &Address, limited: &Address, world: &World, stop: &AtomicBool) {
    let clients: Vec<_> = (0..12).map(|_| world.browser()).collect();
    let guests: Vec<_> = clients.iter().filter(|client| client.server() == "a").collect();
    assert!(!guests.is_empty(), "some are at home on a");
    let mut held: Vec<Wire> = Vec::new();
    let (mut healthy, mut changed) = (true, Instant::now());
    for round in 0_usize.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        get_with(
            address,
            "/forged",
            &[("Cookie", "WEB=k1.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")],
        );
        get_with(address, "/learned", &[("Cookie", &format!("SID=never-learned-{round}"))]);
        // The proxy may refuse them, which is what they are for.
        for _ in 0..4 {
            held.extend(Wire::try_connect(limited).ok().filter(|_| held.len() < 600));
        }
        if changed.elapsed() > Duration::from_millis(1200) {
            (healthy, changed) = (!healthy, Instant::now());
            world.app("a").set_health(if healthy { 200 } else { 503 });
        }
        for client in &guests {
            drop(client.request("GET", "/plain").try_send());
        }
        thread::sleep(Duration::from_millis(50));
    }
    world.app("a").set_health(200);
}

fn set_state(world: &World, server: &str, state: &str) {
    let path = format!("/api/v1/pools/{}", server.replace('/', "/servers/"));
    change(world, "PATCH", &path, &json!({ "state": state })).expect(200);
}

/// The alerts that fire, which are also added to those that ever did.
fn seen(prometheus: &Prometheus, fired: &mut BTreeSet<String>) -> BTreeSet<String> {
    let firing = prometheus.firing();
    fired.extend(firing.iter().cloned());
    firing
}

/// Everything that goes wrong at once. Returns the server that drains for ever.
fn provoke(world: &World, other: &Proxy, authority: &Authority, redis: &RedisServer) -> String {
    // Sessions on one server only, nearly as many as the table has room for.
    for _ in 0..125 {
        let client = world.browser();
        (0..2).for_each(|_| drop(client.get("/crowd/plain").expect(200)));
    }
    set_state(world, "crowd/f", "ready");
    let elsewhere = |browser: Browser| Some(browser.server()).filter(|home| home != "a" && *home == browser.server());
    let home = (0..20).find_map(|_| elsewhere(world.browser())).expect("a session that is not on a");
    set_state(world, &format!("web/{home}"), "drain");
    set_state(world, "done/h", "drain");
    world.app("d").kill();
    fs::remove_dir_all(world.directory().join("snapshots")).expect("it was there");
    certify(authority, world.directory(), true);
    other.write_config("version: 1\nnonsense: true\n");
    redis.kill();
    home
}

/// Puts all of that right.
fn mend(world: &World, other: (&Proxy, &str), authority: &Authority, redis: &RedisServer, home: &str) {
    set_state(world, &format!("web/{home}"), "ready");
    set_state(world, "done/h", "ready");
    world.app("d").start();
    fs::create_dir(world.directory().join("snapshots")).expect("a directory");
    certify(authority, world.directory(), false);
    other.0.write_config(other.1);
    redis.restart();
}

#[test]
fn with_a_real_prometheus_each_alert_fires_and_clears() {
    let authority = Authority::new();
    let world = World::builder(troubled()).before(|environment| {
        certify(&authority, environment.directory(), false);
        fs::create_dir(environment.directory().join("snapshots")).expect("a directory");
    });
    let world = world.start();
    let redis = RedisServer::start(Kind::Redis);
    let mut environment = World::builder(Conf::servers("x").store(&redis.entry())).without_proxy();
    let launch = Launch { descriptors: Some(150), ..environment.launch("") };
    let other = Proxy::start(&launch, environment.directory());
    let prometheus = Prometheus::start(world.directory(), &[&world.admin, &other.admin]);
    eventually(PATIENCE, "both proxies are scraped", || prometheus.targets_up() == 2);

    let mut fired = BTreeSet::new();
    let differ = BTreeSet::from(["HomingConfigurationsDiffer".to_owned()]);
    eventually(PATIENCE, "there are two configurations, and all else is well", || prometheus.firing() == differ);
    let names = alerts().into_iter().map(|(alert, _)| alert);
    let provoked: BTreeSet<String> = names.filter(|alert| !NOT_PROVOKED.contains(&alert.as_str())).collect();
    let down = BTreeSet::from(["HomingProxyDown".to_owned()]);

    let home = provoke(&world, &other, &authority, &redis);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| bad_traffic(&world.address, &other.address, &world, &stop));
        let deadline = Instant::now() + PATIENCE;
        while !provoked.iter().all(|one| fired.contains(one) || down.contains(one)) && Instant::now() < deadline {
            seen(&prometheus, &mut fired);
            thread::sleep(Duration::from_millis(100));
        }
        stop.store(true, Ordering::Relaxed);
    });
    let left: Vec<_> = provoked.difference(&fired).filter(|one| !down.contains(*one)).collect();
    assert!(left.is_empty(), "these do not fire: {left:?}");

    mend(&world, (&other, &environment.render_for("")), &authority, &redis, &home);
    eventually(PATIENCE, "all is well again", || seen(&prometheus, &mut fired) == differ);

    drop(other);
    eventually(PATIENCE, "one proxy is gone, and one configuration is left", || seen(&prometheus, &mut fired) == down);
    let _back = Proxy::start(&launch, environment.directory());
    eventually(PATIENCE, "it is back", || !seen(&prometheus, &mut fired).contains("HomingProxyDown"));
    assert_eq!(fired, provoked, "no other fired");
}
