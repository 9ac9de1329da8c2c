//! Another client of Hazelcast, which others wrote, reads what proxies wrote; moves and ends sessions, and proxies hear of it;
//! and leaves entries without end, as a proxy does that is killed halfway.

use std::time::Duration;

use homing::store::engine::{Kind, Value, WriteResult};
use homing::store::hazelcast::HazelcastEngine;

use crate::engine_contract::name;
use crate::engines::{CONNECT, Running};
use crate::outage_store_fleet::{Fleet, LOOKUPS, begin, learning, server};
use crate::world::stores::hazelcast::{settings, wall_clock};
use crate::world::stores::{HazelcastMember, JavaStore};
use crate::world::{PATIENCE, eventually};

const MAP: &str = "homing";

/// The only binding, by its key in the map.
#[track_caller]
fn only(member: &HazelcastMember) -> (String, Vec<String>) {
    let mut all = member.all();
    assert_eq!(all.len(), 1, "one session is kept: {all:?}");
    let (key, text) = all.pop_first().expect("one");
    let key = key.strip_prefix("homing:").expect("the map's name").to_owned();
    (key, text.split(' ').map(str::to_owned).collect())
}

#[test]
fn another_client_reads_moves_and_ends_sessions() {
    if !JavaStore::Hazelcast.is_here() {
        return;
    }
    let member = HazelcastMember::start();
    let entry = HazelcastMember::entry(&[&member]);
    // Nothing is asked for again: what is known, is known by the listener.
    let conf = learning("a b c").store("near_ttl: 1h, timeout: 1s").persistence("idle_timeout: 10s");
    let fleet = Fleet::start(&conf, &[entry.clone(), entry]);
    let home = begin(fleet.proxy(0), "alice");
    assert_eq!(server(fleet.proxy(1), "alice"), home);
    let (key, words) = only(&member);
    let text = format!("\"{}\"", words.join(" "));
    assert_eq!(member.ask_tool(MAP, &["get", &key]), text, "a string");
    assert_eq!((words[1].as_str(), &words[2]), ("0", &home));
    let life: u64 = member.ask_tool(MAP, &["life", &key]).parse().expect("a life");
    assert!((11_000..30_000).contains(&life), "idle_timeout and some seconds: {life}");

    let next = if home == "a" { "b" } else { "a" };
    member.ask_tool(MAP, &["replace", &key, &format!("1 1 {next} {} tool 1", words[3])]);
    for proxy in fleet.all() {
        eventually(PATIENCE, "the proxy hears of the move", || server(proxy, "alice") == next);
    }
    eventually(PATIENCE, "an entry without end is given its life by the next visits", || {
        assert_eq!(server(fleet.proxy(0), "alice"), next);
        member.ask_tool(MAP, &["life", &key]) != "null"
    });

    member.ask_tool(MAP, &["put", &key, &format!("1 2 - {} tool 1", words[3])]);
    for proxy in fleet.all() {
        let ended = || proxy.metric(LOOKUPS, &[("result", "ended")]);
        let before = ended();
        eventually(PATIENCE, "the proxy hears of the end", || {
            server(proxy, "alice");
            ended() > before
        });
    }
}

#[test]
fn an_interrupted_move_expires_by_the_maps_own_time_to_live_and_is_repaired_by_the_next_write() {
    if !JavaStore::Hazelcast.is_here() {
        return;
    }
    let member = HazelcastMember::start();
    let of_map = |map: &str| {
        let mut settings = settings(&[&member]);
        map.clone_into(&mut settings.map);
        Running::start(|runtime, told| {
            HazelcastEngine::start(&settings, CONNECT, runtime.handle(), wall_clock, told).unwrap()
        })
    };
    let (minute, older, newer) = (Duration::from_secs(60), Value::new(0, b"a 1 edge"), Value::new(1, b"b 1 edge"));
    let text = String::from_utf8(newer.text().to_vec()).unwrap();
    // The half of a move: `replaceIfSame`, and no `setTtl`.
    let half = |running: &Running, map: &str| {
        let name = name(Kind::Binding);
        let bound = running.run(running.engine.bind(&name, &older, minute));
        assert_eq!(bound, Ok(WriteResult::Stored));
        member.ask_tool(map, &["replace", name.as_str(), &text]);
        name
    };
    // This map has `time-to-live-seconds: 3`.
    let netted = of_map("netted");
    let lost = half(&netted, "netted");
    eventually(PATIENCE, "the map's own life ends it", || {
        netted.run(netted.engine.lookup(std::slice::from_ref(&lost))) == Ok(vec![None])
    });

    let running = of_map(MAP);
    for mend in [true, false] {
        let name = half(&running, MAP);
        assert_eq!(member.ask_tool(MAP, &["life", name.as_str()]), "null", "without the net it has no end");
        if mend {
            // The same write once more, as a proxy does that had no answer to it.
            assert_eq!(running.run(running.engine.rebind(&name, &newer, minute)), Ok(WriteResult::Stored));
        } else {
            running.run(running.engine.touch(&[(name.clone(), minute)])).expect("a visit");
        }
        assert_eq!(member.ask_tool(MAP, &["life", name.as_str()]), "61000");
    }
}
