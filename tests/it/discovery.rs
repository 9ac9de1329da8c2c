//! Pools whose servers are discovered: from a file, and by DNS.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::symlink;
use std::time::Duration;

use serde_json::json;

use crate::admin_api::ask;
use crate::world::app::App;
use crate::world::ports::Port;
use crate::world::stores::NameServer;
use crate::world::{Browser, Conf, PATIENCE, World, eventually};

/// The configuration with `discovery` instead of its servers, which are started all the same.
fn discovered(conf: &Conf, discovery: &str) -> String {
    let mut text = String::new();
    for line in conf.to_string().lines() {
        match line {
            "    servers:" => text.push_str(&format!("    discovery: {discovery}\n")),
            line if line.starts_with("      - { name:") => text.push_str(&format!("# {line}\n")),
            line => text.push_str(&format!("{line}\n")),
        }
    }
    text
}

const BY_FILE: &str = "{ file: servers.json }";

/// A list of targets, one group each, with labels.
fn targets(world: &World, servers: &[(&str, &[(&str, &str)])]) -> String {
    let group = |(name, labels): &(&str, &[(&str, &str)])| {
        let labels: serde_json::Map<_, _> = labels.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect();
        json!({ "targets": [world.app(name).address().to_string()], "labels": labels })
    };
    json!(servers.iter().map(group).collect::<Vec<_>>()).to_string()
}

fn named<'a>(names: &'a [&'a str]) -> Vec<(&'a str, &'a [(&'a str, &'a str)])> {
    names.iter().map(|name| (*name, &[] as &[(&str, &str)])).collect()
}

/// Written aside and renamed, as careful tools do.
fn put(world: &World, text: &str) {
    let file = world.directory().join("servers.json");
    fs::write(file.with_extension("new"), text).expect("the list");
    fs::rename(file.with_extension("new"), file).expect("the list is replaced");
}

/// A world whose file lists these of its servers.
fn by_file(conf: &Conf, listed: &[&str]) -> World {
    let names: Vec<String> = listed.iter().map(|name| (*name).to_owned()).collect();
    World::builder(discovered(conf, BY_FILE))
        .before(move |environment| {
            let group = |name: &String| json!({ "targets": [environment.app(name).address().to_string()] });
            let list = json!(names.iter().map(group).collect::<Vec<_>>()).to_string();
            fs::write(environment.directory().join("servers.json"), list).expect("the list");
        })
        .start()
}

/// How many servers the pool has now, those that drain included.
fn servers(world: &World) -> usize {
    let pools = ask(world, "GET", "/api/v1/pools", &[], "").expect(200).json();
    pools["items"][0]["servers"].as_array().expect("servers").len()
}

#[track_caller]
fn wait_for_servers(world: &World, count: usize) {
    eventually(PATIENCE, &format!("{count} servers are known"), || servers(world) == count);
}

/// A client that has come back once to this server.
fn client_of(world: &World, server: &str) -> Browser {
    loop {
        let client = world.browser();
        if client.server() == server {
            assert_eq!(client.server(), server);
            return client;
        }
    }
}

#[test]
fn a_list_in_a_file_is_followed_without_a_reload() {
    let world = by_file(&Conf::servers("a b c"), &["a", "b"]);
    let (of_a, of_b) = (client_of(&world, "a"), client_of(&world, "b"));
    put(&world, &targets(&world, &named(&["a", "b", "c"])));
    wait_for_servers(&world, 3);
    let of_c = client_of(&world, "c");
    assert_eq!((of_a.server(), of_b.server()), ("a".into(), "b".into()), "sessions stay");
    put(&world, &targets(&world, &named(&["a", "c"])));
    wait_for_servers(&world, 2);
    let next = of_b.server();
    assert_ne!(next, "b");
    assert_eq!((of_a.server(), of_b.server(), of_c.server()), ("a".into(), next, "c".into()));
    assert_eq!(world.metric("homing_session_moves_total", &[("reason", "removed")]), 1.0);
    assert_eq!(world.reloads(), 0.0, "it is no reload of the configuration");
}

#[test]
fn half_a_list_or_a_faulty_one_changes_nothing() {
    let world = by_file(&Conf::servers("a b"), &["a", "b"]);
    let file = world.directory().join("servers.json");
    let whole = targets(&world, &named(&["a"]));
    // Each is another one, and is logged once.
    let mut faults = 0;
    let expect_a_fault = |faults: &mut usize| {
        *faults += 1;
        eventually(PATIENCE, "the fault is logged", || world.log().matches("the last servers stay").count() == *faults);
    };
    for broken in [&whole[..whole.len() / 2], "", "[{\"targets\": [\"nonsense\"]}]"] {
        fs::write(&file, broken).expect("the list");
        expect_a_fault(&mut faults);
        assert_eq!(servers(&world), 2, "{broken:?}");
    }
    fs::remove_file(&file).expect("the list is removed");
    expect_a_fault(&mut faults);
    assert_eq!(servers(&world), 2);
    put(&world, &whole);
    wait_for_servers(&world, 1);
    assert_eq!(world.browser().server(), "a");
}

#[test]
fn a_list_behind_a_symlink_is_followed_when_the_link_is_swapped() {
    let world = by_file(&Conf::servers("a b"), &["a"]);
    let directory = world.directory();
    for (version, listed) in [("1", &["a", "b"][..]), ("2", &["b"])] {
        let data = directory.join(format!("..data-{version}"));
        fs::create_dir(&data).expect("a directory");
        fs::write(data.join("servers.json"), targets(&world, &named(listed))).expect("the list");
        symlink(format!("..data-{version}"), directory.join("..data.new")).expect("a link");
        fs::rename(directory.join("..data.new"), directory.join("..data")).expect("the link is swapped");
        if version == "1" {
            symlink("..data/servers.json", directory.join("link.new")).expect("a link");
            fs::rename(directory.join("link.new"), directory.join("servers.json")).expect("the file becomes a link");
        }
        wait_for_servers(&world, listed.len());
    }
}

#[test]
fn labels_name_weigh_and_drain_a_server() {
    let world = by_file(&Conf::servers("a b c"), &["a", "b", "c"]);
    let list = targets(
        &world,
        &[
            ("a", &[("name", "first"), ("weight", "3")]),
            ("b", &[("name", "second"), ("state", "drain")]),
            ("c", &[("weight", "0")]),
        ],
    );
    put(&world, &list);
    world.expect_metric("homing_server_weight", &[("server", "first")], 3.0);
    world.expect_metric("homing_server_state", &[("server", "second"), ("state", "drain")], 1.0);
    for _ in 0..10 {
        assert_eq!(world.browser().server(), "a");
    }
    put(&world, &targets(&world, &[("a", &[("name", "first"), ("state", "maint")])]));
    world.expect_metric("homing_server_state", &[("server", "first"), ("state", "maint")], 1.0);
    let events = ask(&world, "GET", "/api/v1/events", &[], "").expect(200).json();
    let is_change = |event: &serde_json::Value| event["kind"] == "state" && event["to"] == "maint";
    let change = events["items"].as_array().expect("events").iter().find(|event| is_change(event)).expect("the change");
    assert_eq!((&change["server"], &change["who"]), (&json!("first"), &json!("discovery")));
}

#[test]
fn a_server_that_leaves_the_list_drains_first() {
    let world = by_file(&Conf::servers("a b").pool("drain_deadline: 1h"), &["a", "b"]);
    let of_b = client_of(&world, "b");
    put(&world, &targets(&world, &named(&["a"])));
    let removed = || {
        let pools = ask(&world, "GET", "/api/v1/pools", &[], "").expect(200).json();
        pools["items"][0]["servers"].as_array().expect("servers").iter().filter(|one| one["removed"] == true).count()
    };
    eventually(PATIENCE, "it drains", || removed() == 1);
    assert_eq!(of_b.server(), "b", "its sessions stay");
    for _ in 0..5 {
        assert_eq!(world.browser().server(), "a", "it gets no new ones");
    }
    put(&world, &targets(&world, &named(&["a", "b"])));
    eventually(PATIENCE, "it is back", || removed() == 0);
    assert_eq!(of_b.server(), "b", "it never left");
}

#[test]
fn a_server_at_the_address_of_one_that_left_inherits_no_session() {
    let world = by_file(&Conf::servers("a b").persistence("sources: [{ cookie: {} }, { client_ip: {} }]"), &["a", "b"]);
    let of_a = client_of(&world, "a");
    put(&world, &targets(&world, &named(&["b"])));
    wait_for_servers(&world, 1);
    put(&world, &targets(&world, &named(&["a", "b"])));
    wait_for_servers(&world, 2);
    let unknown = || world.metric("homing_session_lookups_total", &[("result", "unknown_server")]);
    let before = unknown();
    let next = of_a.server();
    assert_eq!(unknown(), before + 1.0, "the token from before it left is not honoured");
    assert_eq!(of_a.server(), next);
    let new = client_of(&world, "a");
    assert_eq!(new.server(), "a", "its own sessions are");
    assert_eq!(unknown(), before + 1.0);
}

#[test]
fn sessions_of_discovered_servers_survive_a_restart_of_the_proxy() {
    let mut world = by_file(&Conf::servers("a b"), &["a", "b"]);
    let clients = [client_of(&world, "a"), client_of(&world, "b")];
    world.restart_proxy();
    assert_eq!(clients.map(|client| client.server()), ["a", "b"]);
}

#[test]
fn a_proxy_that_starts_before_its_list_serves_when_it_comes() {
    let world = World::start(discovered(&Conf::servers("a b"), BY_FILE));
    world.browser().get("/echo").expect(503);
    put(&world, &targets(&world, &named(&["a"])));
    wait_for_servers(&world, 1);
    assert_eq!(world.browser().server(), "a");
}

/// Servers at one port of several addresses, as pods are; and that port.
fn pods(names: &[(&'static str, u8)], discovery: impl FnOnce(u16) -> String) -> World {
    let port = Port::reserve();
    let number = port.address().port();
    let mut builder = World::builder(discovered(&Conf::servers(""), &discovery(number)));
    let mut reserved = Some(port);
    for (name, last) in names {
        let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, *last)), number);
        let port = reserved.take();
        builder = builder.with_app(|_| App::at(name, address.into(), port));
    }
    builder.start()
}

#[test]
fn the_addresses_of_a_name_are_followed_and_a_name_server_that_fails_empties_no_pool() {
    let dns = NameServer::start(&["host-record=app.test,127.0.0.2", "host-record=app.test,127.0.0.3"]);
    let world = pods(&[("a", 2), ("b", 3), ("c", 4)], |port| {
        format!("{{ dns: {{ name: app.test, port: {port}, resolvers: ['{}'], min_ttl: 1s }} }}", dns.address())
    });
    let (of_a, of_b) = (client_of(&world, "a"), client_of(&world, "b"));
    assert_eq!(servers(&world), 2);
    let three = ["host-record=app.test,127.0.0.3", "host-record=app.test,127.0.0.4", "host-record=app.test,127.0.0.2"];
    dns.serve(&three);
    wait_for_servers(&world, 3);
    let of_c = client_of(&world, "c");
    let stay = || assert_eq!([&of_a, &of_b, &of_c].map(Browser::server), ["a", "b", "c"]);
    stay();
    for (what, fail) in [
        ("killed", Box::new(|| dns.kill()) as Box<dyn Fn()>),
        ("without the zone's records", Box::new(|| dns.serve(&["host-record=other.test,127.0.0.9"]))),
        ("frozen", Box::new(|| dns.freeze())),
    ] {
        fail();
        // More than two questions.
        let until = std::time::Instant::now() + Duration::from_secs(3);
        while std::time::Instant::now() < until {
            stay();
            std::thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(servers(&world), 3, "{what}");
    }
    dns.thaw();
    dns.serve(&["host-record=app.test,127.0.0.4"]);
    wait_for_servers(&world, 1);
    assert_eq!(of_c.server(), "c");
    assert_eq!((of_a.server(), of_b.server()), ("c".into(), "c".into()));
}

#[test]
fn records_of_a_service_give_ports_weights_and_backups() {
    let template = Conf::servers("a b c");
    // The servers' ports are known only when they are reserved.
    let dns = NameServer::start(&["host-record=a.test,127.0.0.1"]);
    let discovery =
        format!("{{ dns: {{ name: _app._tcp.test, type: SRV, resolvers: ['{}'], min_ttl: 1s }} }}", dns.address());
    let world = World::start(discovered(&template, &discovery));
    world.browser().get("/echo").expect(503);
    let port = |name: &str| world.app(name).socket_address().port();
    let records = [
        format!("srv-host=_app._tcp.test,a.test,{},10,3", port("a")),
        format!("srv-host=_app._tcp.test,b.test,{},10,0", port("b")),
        format!("srv-host=_app._tcp.test,c.test,{},20,5", port("c")),
        "host-record=a.test,127.0.0.1".to_owned(),
        "host-record=b.test,127.0.0.1".to_owned(),
        "host-record=c.test,127.0.0.1".to_owned(),
    ];
    dns.serve(&records.each_ref().map(String::as_str));
    wait_for_servers(&world, 3);
    let name = |server: &str| format!("{server}.test:{}", port(server));
    assert_eq!(world.metric("homing_server_weight", &[("server", &name("a"))]), 3.0);
    assert_eq!(
        world.metric("homing_server_weight", &[("server", &name("b"))]),
        1.0,
        "a record of weight 0 has a small chance"
    );
    assert_eq!(world.metric("homing_server_weight", &[("server", &name("c"))]), 0.0, "a backup");
    for _ in 0..8 {
        assert_ne!(world.browser().server(), "c");
    }
    world.app("a").kill();
    world.app("b").kill();
    eventually(PATIENCE, "the backup serves", || world.browser().get("/echo").status == 200);
    assert_eq!(world.browser().server(), "c");
}
