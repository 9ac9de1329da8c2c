//! The engine of Ignite against real nodes: what it promises, alone and in a cluster, while nodes of the cluster die, hang,
//! come back empty and are added.

use std::sync::Arc;
use std::time::Duration;

use homing::config::{ClientCa, ClientCertificate, ClientTls, NamedFile, Secret};
use homing::store::engine::{Event, Kind, Name, StoreError, Value, WriteResult};
use homing::store::ignite::IgniteEngine;
use homing::store::ignite::settings::IgniteSettings;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::time::{Instant, sleep};

use crate::engine_contract::{holds, name, value};
use crate::engines::{CONNECT, Running};
use crate::world::PATIENCE;
use crate::world::stores::{Extras, IgniteNode, JavaStore};
use crate::world::tls::Authority;

const MINUTE: Duration = Duration::from_secs(60);

fn settings(nodes: &[&IgniteNode]) -> IgniteSettings {
    let addresses = nodes.iter().map(|node| node.address().to_string()).collect();
    IgniteSettings { addresses, ..IgniteSettings::default() }
}

fn running(nodes: &[&IgniteNode]) -> Running {
    with(&settings(nodes))
}

fn with(settings: &IgniteSettings) -> Running {
    Running::start(|runtime, told| IgniteEngine::start(settings, CONNECT, runtime.handle(), told).unwrap())
}

impl Running {
    fn bind(&self, name: &Name, value: &Value, ttl: Duration) {
        assert_eq!(self.run(self.engine.bind(name, value, ttl)), Ok(WriteResult::Stored));
    }

    fn kept(&self, names: &[Name]) -> Vec<Option<Value>> {
        self.run(self.engine.lookup(names)).expect("an answer")
    }

    /// So many bindings; which.
    fn bind_many(&self, count: usize, ttl: Duration) -> Vec<Name> {
        let names: Vec<_> = (0..count).map(|_| name(Kind::Binding)).collect();
        for name in &names {
            self.bind(name, &value(0, "a"), ttl);
        }
        names
    }

    #[track_caller]
    fn await_announcement(&mut self, name: &Name, value: &Value) {
        self.await_event(
            "the announcement",
            |event| matches!(event, Event::Announced(of, what) if (of, what) == (name, value)),
        );
    }

    /// Until every name can be written, so all nodes answer that are to.
    #[track_caller]
    fn await_all_writes(&self) {
        let begun = std::time::Instant::now();
        let all_written = || {
            self.run(async {
                let writes = (0..50).map(|_| self.bind_new_name());
                let writes = futures_util::future::join_all(writes);
                let written = tokio::time::timeout(Duration::from_secs(1), writes).await;
                written.is_ok_and(|writes| writes.iter().all(|written| *written == Ok(WriteResult::Stored)))
            })
        };
        while !all_written() {
            assert!(begun.elapsed() < PATIENCE * 2, "it takes writes of all names");
        }
    }
}

#[test]
fn a_node_satisfies_the_contract() {
    if !JavaStore::Ignite.is_here() {
        return;
    }
    let node = IgniteNode::start();
    running(&[&node]).satisfies_the_contract();
}

#[test]
fn three_nodes_keep_their_promises_and_what_one_of_them_takes_along_was_kept_by_another() {
    if !JavaStore::Ignite.is_here() {
        return;
    }
    let [first, second, third] = IgniteNode::cluster([true, true, false]);
    let steady = running(&[&first]);
    let mut moving = running(&[&second, &third]);
    // Longer than the test takes.
    let early = steady.bind_many(100, 10 * MINUTE);
    third.start_again();
    steady.run(holds(&steady.engine));
    assert!(steady.kept(&early).iter().all(Option::is_some), "after a node was added");
    let short = steady.bind_many(100, Duration::from_secs(8));
    let touches: Vec<_> = short.iter().map(|name| (name.clone(), MINUTE)).collect();
    steady.run(steady.engine.touch(&touches)).expect("touched");
    let begun = Instant::now();
    second.kill();
    moving.await_event("another node", |event| matches!(event, Event::Reconnected));
    steady.await_all_writes();
    assert!(steady.kept(&early).iter().all(Option::is_some), "after a node died");
    let moved = name(Kind::Binding);
    assert_eq!(steady.run(steady.engine.rebind(&moved, &value(1, "b"), MINUTE)), Ok(WriteResult::Stored));
    moving.await_announcement(&moved, &value(1, "b"));
    steady.run(async { tokio::time::sleep_until(begun + Duration::from_secs(9)).await });
    assert!(steady.kept(&short).iter().all(Option::is_some), "the copies know of touches");
    second.start_again();
    steady.await_all_writes();
    assert!(steady.kept(&early).iter().all(Option::is_some), "after a node came back empty");
    first.kill();
    moving.await_all_writes();
    assert!(moving.kept(&early).iter().all(Option::is_some), "the node that came back has its part");
    moving.satisfies_the_contract();
}

#[test]
fn a_frozen_node_is_left_and_holds_the_others_up_only_until_they_give_it_up() {
    if !JavaStore::Ignite.is_here() {
        return;
    }
    let [first, second] = IgniteNode::cluster([false, true]);
    let mut moving = running(&[&first, &second]);
    first.start_again();
    let steady = running(&[&first]);
    let names = steady.bind_many(100, MINUTE);
    second.freeze();
    moving.await_event("the first node, instead of the frozen one", |event| matches!(event, Event::Reconnected));
    steady.await_all_writes();
    moving.await_all_writes();
    assert!(steady.kept(&names).iter().all(Option::is_some), "nothing is lost");
    steady.run(holds(&steady.engine));
}

#[test]
fn a_cluster_that_comes_back_empty_is_given_its_caches_again() {
    if !JavaStore::Ignite.is_here() {
        return;
    }
    let node = IgniteNode::start();
    let mut running = running(&[&node]);
    let names = running.bind_many(10, MINUTE);
    node.kill();
    running.await_event("the loss", |event| matches!(event, Event::Lost(_)));
    assert!(matches!(running.run(running.bind_new_name()), Err(StoreError::Unreachable(_))));
    node.start_again();
    running.await_event("the node's return", |event| matches!(event, Event::Reconnected));
    assert_eq!(running.kept(&names), vec![None; 10]);
    let moved = name(Kind::Binding);
    assert_eq!(running.run(running.engine.rebind(&moved, &value(1, "b"), MINUTE)), Ok(WriteResult::Stored));
    running.await_announcement(&moved, &value(1, "b"));
    // The same after an operator has destroyed a cache.
    node.python("cache.destroy()");
    assert!(running.run(running.bind_new_name()).is_err(), "it is gone");
    running.await_event("a new connection", |event| matches!(event, Event::Reconnected));
    running.await_writes();
}

#[test]
fn a_frozen_node_is_noticed_without_a_request() {
    if !JavaStore::Ignite.is_here() {
        return;
    }
    let node = IgniteNode::start();
    let mut running = running(&[&node]);
    node.freeze();
    running.await_event("the loss", |event| matches!(event, Event::Lost(_)));
    node.thaw();
    running.await_event("the node's return", |event| matches!(event, Event::Reconnected));
    running.await_writes();
    // Callers that give up, as after a pause, do not leave others with their responses.
    running.gives_each_caller_its_own_response();
}

#[test]
fn another_client_reads_records_and_its_writes_are_announced() {
    if !JavaStore::Ignite.is_here() {
        return;
    }
    let node = IgniteNode::start();
    let mut running = running(&[&node]);
    let (name, data) = (name(Kind::Binding), name(Kind::Data));
    running.bind(&name, &value(0, "a"), MINUTE);
    running.bind(&data, &Value::new(1, b"cart\x00\xff"), MINUTE);
    let (key, data_key) = (name.as_str(), data.as_str());
    assert_eq!(node.python(&format!("print(cache.get('{key}'))")), "1 0 a 1764000000000 edge-1 ttl=60");
    let read = format!("print(client.get_cache('homing-data').get('{data_key}'))");
    assert_eq!(node.python(&read), "b'1 1 cart\\x00\\xff ttl=60'");
    let settings = node.python(
        "import pyignite.datatypes.prop_codes as p\ns = cache.settings\n\
         print([s[code] for code in (p.PROP_CACHE_MODE, p.PROP_CACHE_ATOMICITY_MODE, p.PROP_BACKUPS_NUMBER, \
         p.PROP_WRITE_SYNCHRONIZATION_MODE)])",
    );
    assert_eq!(settings, "[2, 1, 1, 0]", "partitioned, atomic, one backup, acknowledged by all copies");
    // Another program moves it, and ends it, as it likes to write.
    for (epoch, written) in [(1, "1 1 b 7 ops"), (2, "1 2 - 7 ops ttl=60")] {
        node.python(&format!("cache.put('{key}', '{written}')"));
        let text = written.strip_suffix(" ttl=60").unwrap_or(written);
        let value = Value::parse(text.as_bytes()).unwrap();
        assert_eq!(value.epoch(), epoch);
        running.await_announcement(&name, &value);
        assert_eq!(running.kept(std::slice::from_ref(&name)), [Some(value)]);
    }
    // What it writes without a life is given one by the next touch.
    node.python(&format!("cache.put('{key}', '1 3 b 7 ops')"));
    running.run(running.engine.touch(&[(name.clone(), Duration::from_secs(2))])).expect("touched");
    assert_eq!(node.python(&format!("print(cache.get('{key}'))")), "1 3 b 7 ops ttl=2");
    running.run(async { sleep(Duration::from_secs(3)).await });
    assert_eq!(running.kept(std::slice::from_ref(&name)), [None]);
    // What is no record is not taken for one, and silences nothing.
    node.python(&format!("cache.put('{key}', 7)\ncache.put(8, 'x')"));
    assert!(matches!(running.run(running.engine.lookup(&[name])), Err(StoreError::Unreadable(_))));
    let other = crate::engine_contract::name(Kind::Binding);
    node.python(&format!("cache.put('{}', '1 1 b 7 ops')", other.as_str()));
    running.await_announcement(&other, &Value::new(1, b"b 7 ops"));
}

#[test]
fn users_log_in() {
    if !JavaStore::Ignite.is_here() {
        return;
    }
    let node = IgniteNode::with(&Extras { authentication: true, ..Extras::default() });
    let as_user = |password: Option<&str>| IgniteSettings {
        username: password.map(|_| "ignite".to_owned()),
        password: password.map(Secret::new),
        ..settings(&[&node])
    };
    with(&as_user(Some("ignite"))).satisfies_the_contract();
    for (password, said) in [(Some("guess"), "does not take this user"), (None, "ignite at ")] {
        let why = refusal(&as_user(password));
        assert!(why.contains(said) && !why.contains("guess"), "{why}");
    }
}

/// Why it never connects.
fn refusal(settings: &IgniteSettings) -> String {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (tell, mut events) = tokio::sync::mpsc::unbounded_channel();
    let told = Arc::new(move |event| drop(tell.send(event)));
    let _engine = IgniteEngine::start(settings, CONNECT, runtime.handle(), told).unwrap();
    match runtime.block_on(async { tokio::time::timeout(PATIENCE, events.recv()).await }) {
        Ok(Some(Event::Lost(why))) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn clients_and_nodes_show_each_other_their_certificates() {
    if !JavaStore::Ignite.is_here() {
        return;
    }
    let authority = Authority::new();
    let node = IgniteNode::with(&Extras { clients_of: Some(&authority), ..Extras::default() });
    authority.issue(node.directory(), "edge", &["edge-1"]);
    let file = |name: &str| NamedFile { written: name.to_owned(), path: node.directory().join(name) };
    let chain = |name: &str| vec![CertificateDer::from_pem_file(node.directory().join(name)).unwrap()];
    let key = PrivateKeyDer::from_pem_file(node.directory().join("edge.key")).unwrap();
    let certificate = ClientCertificate {
        cert: file("edge.pem"),
        key: file("edge.key"),
        chain: chain("edge.pem"),
        private_key: Arc::new(key),
    };
    let ca = |name: &str| Some(ClientCa { file: file(name), authorities: chain(name) });
    let tls = ClientTls { authorities: ca("server.pem"), server_name: None, certificate: Some(certificate) };
    let over = |tls: ClientTls| IgniteSettings { tls_files: Some(tls), ..settings(&[&node]) };
    with(&over(tls.clone())).satisfies_the_contract();
    let named = ClientTls { server_name: Some("localhost".to_owned()), ..tls.clone() };
    with(&over(named)).run(async {});
    for (refused, said) in [
        (over(ClientTls { authorities: ca("clients.pem"), ..tls.clone() }), "certificate"),
        (over(ClientTls { server_name: Some("elsewhere".to_owned()), ..tls.clone() }), "certificate"),
        (over(ClientTls { certificate: None, ..tls }), "ignite at "),
        (settings(&[&node]), "ignite at "),
    ] {
        let why = refusal(&refused);
        assert!(why.contains(said), "{why}");
    }
}
