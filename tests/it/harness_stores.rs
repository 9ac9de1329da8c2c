//! The tests' own tools, tested: real stores, and what can be done to them and to the way to them.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::world::apps::LONG;
use crate::world::client::Wire;
use crate::world::link::Link;
use crate::world::namespace::Namespace;
use crate::world::stores::{
    Cluster, Conversation, HazelcastMember, JavaStore, Kind, MemcachedServer, RedisServer, Reply, Sentinels,
};
use crate::world::tls::{Authority, Client};
use crate::world::{Address, Conf, PATIENCE, eventually};

const MOMENT: Duration = Duration::from_millis(200);

fn answers_within(conversation: &mut Conversation, patience: Duration) -> bool {
    conversation.set_patience(patience).expect("a connection");
    conversation.receive().is_ok()
}

#[test]
fn a_server_of_redis_or_valkey_answers_and_forgets_all_when_it_dies() {
    for kind in Kind::BOTH {
        let server = RedisServer::start(kind);
        server.command(&["SET", "a", "1", "PX", "60000"]).ok();
        assert_eq!(server.value("a").as_deref(), Some("1"), "{kind:?}");
        assert_eq!(server.value("b"), None);
        assert!(server.ttl("a").is_some_and(|ttl| ttl > Duration::from_secs(50)), "{:?}", server.ttl("a"));
        assert_eq!(server.ttl("b"), None);
        assert_eq!(Vec::from_iter(server.keys()), ["a"]);
        assert_eq!((server.calls_of("set"), server.calls_of("get")), (1, 2), "{:?}", server.calls());
        server.forget_calls();
        assert_eq!(server.calls_of("get"), 0, "{:?}", server.calls());
        assert!(matches!(server.command(&["NO", "SUCH"]), Reply::Error(_)), "an error is an answer");
        server.kill();
        assert!(!Address::from(server.address()).is_listening(), "a dead server refuses");
        server.start_again();
        assert_eq!(server.keys().len(), 0, "a server that was started again is empty");
        server.command(&["SET", "a", "1"]).ok();
        server.flush();
        assert_eq!(server.keys().len(), 0, "flushed");
    }
}

#[test]
fn a_frozen_store_answers_when_it_thaws() {
    let server = RedisServer::start(Kind::Valkey);
    let mut conversation = server.converse().expect("a connection");
    server.freeze();
    conversation.send(&["PING"]).expect("the kernel takes it");
    assert!(!answers_within(&mut conversation, MOMENT), "a frozen server is silent");
    assert!(Address::from(server.address()).is_listening(), "but the kernel accepts connections");
    server.thaw();
    assert!(answers_within(&mut conversation, PATIENCE));
    let memcached = MemcachedServer::start();
    memcached.freeze();
    let mut stream = TcpStream::connect(memcached.address()).expect("the kernel accepts");
    stream.write_all(b"version\r\n").expect("the kernel takes it");
    stream.set_read_timeout(Some(MOMENT)).expect("a connection");
    stream.read(&mut [0; 64]).expect_err("a frozen server is silent");
    memcached.thaw();
    stream.set_read_timeout(Some(PATIENCE)).expect("a connection");
    assert!(stream.read(&mut [0; 64]).expect("an answer") > 0);
}

#[test]
fn a_store_lets_only_its_user_in() {
    for kind in Kind::BOTH {
        let with_password = RedisServer::setup(kind).password("secret").start();
        let url = with_password.url();
        assert_eq!(url, format!("redis://default:secret@{}", with_password.address()));
        let with_user = RedisServer::setup(kind).user("homing", "secret", "~homing:* +get +set").start();
        for (server, name) in [(&with_password, "default"), (&with_user, "homing")] {
            let mut stranger = Conversation::open(server.address()).expect("a connection");
            let refused = stranger.command(&["GET", "homing:a"]).expect("an answer");
            assert!(matches!(&refused, Reply::Error(e) if e.starts_with("NOAUTH")), "{refused:?}");
            stranger.command(&["AUTH", name, "secret"]).expect("an answer").ok();
            stranger.command(&["SET", "homing:a", "1"]).expect("an answer").ok();
            assert_eq!(server.value("homing:a").as_deref(), Some("1"), "the test itself may look at all");
        }
        let mut user = Conversation::open(with_user.address()).expect("a connection");
        user.command(&["AUTH", "homing", "secret"]).expect("an answer").ok();
        let refused = user.command(&["GET", "other"]).expect("an answer");
        assert!(matches!(&refused, Reply::Error(e) if e.starts_with("NOPERM")), "{refused:?}");
    }
}

#[test]
fn a_store_speaks_tls() {
    let authority = Authority::new();
    let server = RedisServer::setup(Kind::Redis).tls(&authority).start();
    assert!(server.url().starts_with("rediss://"), "{}", server.url());
    let mut wire = Client::new(&authority).connect(&server.address().into(), "localhost");
    wire.send("PING\r\n");
    let mut answer = [0; 7];
    wire.reader.stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"+PONG\r\n");
    let stranger = Client::new(&Authority::new()).try_connect(&server.address().into(), "localhost").map(drop);
    stranger.expect_err("another authority's client does not believe it");
    server.command(&["SET", "a", "1"]).ok();
    let strict = RedisServer::setup(Kind::Redis).tls(&authority).line("tls-auth-clients yes").start();
    let asks =
        |mut wire: Wire| wire.try_send("PING\r\n").and_then(|()| wire.reader.stream.read_exact(&mut [0; 7])).is_ok();
    let shown = authority.sign(&["a-client"]);
    let client = Client::new(&authority);
    assert!(!client.try_connect(&strict.address().into(), "localhost").is_ok_and(asks), "it wants a certificate");
    assert!(asks(client.showing(&shown).connect(&strict.address().into(), "localhost")));
}

#[test]
fn a_cluster_spreads_keys_and_moves_them() {
    let cluster = Cluster::start(Kind::Redis);
    let keys: Vec<_> = (0..20).map(|n| format!("key-{n}")).collect();
    for key in &keys {
        cluster.command(key, &["SET", key, "1"]).ok();
    }
    assert!(cluster.nodes().iter().all(|node| !node.keys().is_empty()), "every node has some");
    let key = &keys[0];
    let (from, to) = (cluster.owner_of(key), (cluster.owner_of(key) + 1) % 3);
    cluster.begin_to_move_slot_of(key, to);
    let answer = |node: usize| match cluster.node(node).command(&["GET", key]) {
        Reply::Error(error) => error.split(' ').next().unwrap_or_default().to_owned(),
        value => value.text(),
    };
    assert_eq!((answer(from), answer(to)), ("ASK".to_owned(), "MOVED".to_owned()));
    cluster.end_moving_slot_of(key, to);
    assert_eq!((answer(from), answer(to)), ("MOVED".to_owned(), "1".to_owned()));
    assert_eq!(cluster.owner_of(key), to);
    cluster.node(to).restart();
    cluster.wait_until_ok();
    assert_eq!(cluster.owner_of(key), to, "a node that was started again has its slots");
    assert_eq!(cluster.node(to).keys().len(), 0, "and nothing in them");
}

#[test]
fn a_cluster_of_valkey_goes_on_without_a_node() {
    let cluster = Cluster::with(Kind::Valkey, |node| node.password("secret").line("cluster-require-full-coverage no"));
    assert!(cluster.entry().contains("mode: cluster"), "{}", cluster.entry());
    cluster.command("key", &["SET", "key", "1"]).ok();
    assert_eq!(cluster.owner_of("key"), 2);
    cluster.move_slot_of("key", 1);
    cluster.node(2).kill();
    assert_eq!(cluster.command("key", &["GET", "key"]).text(), "1");
    assert_eq!(cluster.keys(), ["key"]);
}

#[test]
fn sentinels_make_the_replica_master_when_the_master_dies() {
    let sentinels = Sentinels::start(Kind::Redis);
    let sentinel = sentinels.sentinel(2).url();
    assert!(sentinels.entry().contains(&sentinel), "{}: {sentinel}", sentinels.entry());
    let (old, replica) = (sentinels.master(), sentinels.replica());
    old.command(&["SET", "a", "1"]).ok();
    eventually(PATIENCE, "the replica has it", || replica.value("a").is_some());
    let refused = replica.command(&["SET", "a", "2"]);
    assert!(matches!(&refused, Reply::Error(e) if e.starts_with("READONLY")), "{refused:?}");
    let new = sentinels.fail_over();
    assert_eq!(new.address(), replica.address());
    assert_eq!(new.value("a").as_deref(), Some("1"), "nothing is lost");
    new.command(&["SET", "a", "2"]).ok();
    old.start_again();
    eventually(PATIENCE, "the old master is a replica", || old.value("a").as_deref() == Some("2"));
}

#[test]
fn sentinels_of_valkey_do_so_when_the_master_stands_still() {
    let sentinels = Sentinels::with(Kind::Valkey, |server| server.password("secret").line("masterauth secret"));
    let old = sentinels.master();
    old.command(&["SET", "a", "1"]).ok();
    eventually(PATIENCE, "the replica has it", || sentinels.replica().value("a").is_some());
    old.freeze();
    assert_eq!(sentinels.wait_for_failover_from(old).value("a").as_deref(), Some("1"));
}

#[test]
fn memcached_answers_and_forgets_all_when_it_dies() {
    let (server, other) = (MemcachedServer::start(), MemcachedServer::with(&["-m", "32"]));
    server.set("a", "one", 60);
    server.set("empty", "", 0);
    assert_eq!(server.get("a").as_deref(), Some("one"));
    assert_eq!(server.get("empty").as_deref(), Some(""));
    assert_eq!(Vec::from_iter(server.keys()), ["a", "empty"]);
    assert_eq!(server.stats()["cmd_get"], 2);
    assert!(server.delete("a") && !server.delete("a"));
    assert_eq!(server.ask("mn", &["MN"]), ["MN"]);
    server.flush();
    assert_eq!(server.get("empty"), None);
    server.set("a", "one", 0);
    server.restart();
    assert_eq!(server.get("a"), None, "a server that was started again is empty");
    server.kill();
    assert!(!Address::from(server.address()).is_listening(), "a dead server refuses");
    let entry = MemcachedServer::entry(&[&server, &other]);
    let servers = format!("servers: [\"{}\", \"{}\"]", server.address(), other.address());
    assert_eq!(entry, format!("type: memcached, memcached: {{ {servers} }}"));
}

#[test]
fn a_link_delays() {
    let server = RedisServer::start(Kind::Redis);
    let link = Link::to(server.address());
    let mut conversation = Conversation::open(link.address()).expect("a connection");
    let mut took = || {
        let start = Instant::now();
        // Three at once are no later than one.
        (0..3).for_each(|_| conversation.send(&["PING"]).expect("sent"));
        (0..3).for_each(|_| drop(conversation.receive().expect("an answer")));
        start.elapsed()
    };
    assert!(took() < MOMENT, "at once");
    link.delay(MOMENT);
    let late = took();
    assert!(late >= 2 * MOMENT, "there and back: {late:?}");
    assert!(late < 4 * MOMENT, "each piece once: {late:?}");
    link.heal();
    assert!(took() < MOMENT, "at once again");
    assert_eq!((link.accepted(), link.open()), (1, 1));
}

#[test]
fn a_link_holds_loses_and_cuts() {
    let server = RedisServer::start(Kind::Redis);
    let link = Link::to(server.address());
    let open = || Conversation::open(link.address()).expect("a connection");
    let mut old = open();
    link.hold();
    let mut new = open();
    for conversation in [&mut old, &mut new] {
        conversation.send(&["PING"]).expect("the link takes it");
        assert!(!answers_within(conversation, MOMENT), "a held link is silent");
    }
    link.heal();
    assert!([&mut old, &mut new].into_iter().all(|held| answers_within(held, PATIENCE)), "what was held comes");
    link.lose();
    old.send(&["PING"]).expect("the link takes it");
    assert!(!answers_within(&mut old, MOMENT), "what is lost does not come");
    link.heal();
    new.send(&["PING"]).expect("the link takes it");
    assert!(!answers_within(&mut new, MOMENT), "never again on a connection of then");
    let mut third = open();
    assert_eq!(third.command(&["PING"]).expect("an answer").text(), "PONG");
    link.cut();
    let ended = third.command(&["PING"]).expect_err("a cut connection is over");
    assert_ne!(ended.kind(), std::io::ErrorKind::WouldBlock, "and not just silent");
    assert_eq!(link.open(), 0);
    assert!(!Address::from(link.address()).is_listening(), "a cut link refuses");
    link.heal();
    assert_eq!(open().command(&["PING"]).expect("an answer").text(), "PONG");
    server.kill();
    open().command(&["PING"]).expect_err("nothing is behind the link");
}

/// A store and two ways to part with it: the network's, or where there is no right to that, a link's.
fn parted(part: &dyn Fn(), join: &dyn Fn(), address: SocketAddr, refuses_to_connect: bool) {
    let mut conversation = Conversation::open(address).expect("a connection");
    assert_eq!(conversation.command(&["PING"]).expect("an answer").text(), "PONG");
    part();
    conversation.send(&["PING"]).expect("our side takes it");
    assert!(!answers_within(&mut conversation, MOMENT), "silence");
    let connected = TcpStream::connect_timeout(&address, MOMENT);
    assert_eq!(connected.is_err(), refuses_to_connect, "{connected:?}");
    join();
    assert!(answers_within(&mut conversation, PATIENCE), "what was sent arrives after all");
    Conversation::open(address).expect("new connections too");
}

#[test]
fn a_partition_is_silent_and_heals() {
    match Namespace::create() {
        Ok(namespace) => {
            let server = RedisServer::setup(Kind::Redis).within(&namespace).start();
            parted(&|| namespace.partition(), &|| namespace.heal(), server.address(), true);
            let memcached = MemcachedServer::within(&namespace);
            memcached.set("a", "1", 0);
        }
        Err(why) => {
            eprintln!("no network namespace here ({why}): the partition is a held link's");
            let server = RedisServer::start(Kind::Redis);
            let link = Link::to(server.address());
            parted(&|| link.hold(), &|| link.heal(), link.address(), false);
        }
    }
}

#[test]
fn a_configuration_says_where_the_store_is() {
    let server = RedisServer::setup(Kind::Valkey).user("homing", "secret", "~* +@all").start();
    let text = Conf::servers("a").store(&server.entry()).store("near_ttl: 1s").to_string();
    let urls = format!("urls: [\"redis://homing:secret@{}\"]", server.address());
    assert!(text.contains(&format!("\nstore: {{ type: redis, redis: {{ {urls} }}, near_ttl: 1s }}\n")), "{text}");
}

#[test]
fn members_of_hazelcast_find_each_other_and_one_may_come_later() {
    if !JavaStore::Hazelcast.is_here() {
        return;
    }
    let [first, second, third] = HazelcastMember::cluster([true, true, false]);
    let size = |size: usize| {
        let said = format!("Members {{size:{size},");
        eventually(LONG, &said, || first.log().contains(&said));
    };
    size(2);
    third.start_again();
    size(3);
    second.kill();
    assert!(!Address::from(second.address()).is_listening(), "a dead member refuses");
    eventually(LONG, "the others miss it", || first.log().matches("Members {size:2,").count() == 2);
    third.freeze();
    assert!(Address::from(third.address()).is_listening(), "the kernel accepts for a frozen one");
    third.thaw();
}

#[test]
fn the_jars_of_the_stores_on_java_are_here_or_named() {
    for store in [JavaStore::Hazelcast, JavaStore::Ignite] {
        store.is_here();
    }
}
