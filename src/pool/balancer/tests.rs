use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::config::{self, ServerState};
use crate::pool::Pool;
use crate::pool::condition::Health;
use crate::session::key::ServerId;
use crate::telemetry::metrics::Metrics;

/// A server as a test writes it: `a`, `a*3` (weight), `a!` (backup).
fn server(text: &str, port: u16) -> config::Server {
    let backup = text.ends_with('!');
    let (name, weight) = text.trim_end_matches('!').split_once('*').unwrap_or((text.trim_end_matches('!'), "1"));
    config::Server {
        name: name.to_owned(),
        address: config::ServerAddress::Ip(([127, 0, 0, 1], port).into()),
        weight: weight.parse().unwrap(),
        state: ServerState::Ready,
        route: name.to_owned(),
        backup,
        removed: false,
        since: None,
    }
}

fn pool_of(balance: Balance, servers: Vec<config::Server>) -> Pool {
    pool_after(None, balance, servers)
}

fn pool_after(previous: Option<&Pool>, balance: Balance, servers: Vec<config::Server>) -> Pool {
    let health_check = config::HealthCheck {
        probe: config::Probe::Tcp,
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(1),
        rise: 2,
        fall: 3,
    };
    let config = config::Pool {
        discovery: None,
        name: "shop".into(),
        balance,
        hash_on: config::HashOn::ClientIp,
        servers,
        connection: config::Connection::default(),
        tls: None,
        streams_on_down: config::StreamsOnDown::End,
        drain_deadline: None,
        rebalance: None,
        health_check: Some(health_check),
        circuit_breaker: None,
        slow_start: Duration::ZERO,
        limits: config::PoolLimits::default(),
        retries: config::Retries {
            attempts: 2,
            on_connect_failure: true,
            on_reset_before_response: true,
            budget_percent: 20,
        },
        persistence: None,
    };
    let pool = Pool::build(&config, None, previous, &Metrics::new().unwrap());
    for server in &pool.servers {
        server.live.set_health(Health::Up);
    }
    pool
}

fn pool(balance: Balance, servers: &[&str]) -> Pool {
    let ports = 9_000..;
    pool_of(balance, servers.iter().zip(ports).map(|(text, port)| server(text, port)).collect())
}

fn set(pool: &Pool, name: &str, health: Health) {
    pool.server_named(name).unwrap().live.set_health(health);
}

/// Keys as sessions have them.
fn keys(many: u64) -> impl Iterator<Item = [u8; 16]> {
    let mut bits = 0x9e37_79b9_7f4a_7c15_u128;
    (0..many).map(move |_| {
        bits =
            bits.wrapping_mul(0xda94_2042_e4dd_58b5_2360_ed05_1fc6_5da4_u128 | 1).wrapping_add(0x1234_5678_9abc_def1);
        (bits ^ (bits >> 64)).to_be_bytes()
    })
}

fn counted(pool: &Pool, picks: impl Iterator<Item = Option<ServerIndex>>) -> BTreeMap<&str, u32> {
    let mut counts = BTreeMap::new();
    for pick in picks {
        *counts.entry(&*pool.servers[pick.expect("some server takes it")].name).or_default() += 1;
    }
    counts
}

fn new_sessions(pool: &Pool, many: u64) -> BTreeMap<&str, u32> {
    counted(pool, keys(many).map(|key| pool.pick_new(&key, &[])))
}

fn index(pool: &Pool, name: &str) -> ServerIndex {
    pool.find(ServerId::of(name)).unwrap()
}

const EVERY_BALANCE: [Balance; 4] = [Balance::RoundRobin, Balance::Random, Balance::LeastRequests, Balance::Hash];

#[test]
fn a_retired_pool_moves_sessions_to_the_same_servers_as_before() {
    let pool = pool(Balance::RoundRobin, &["a", "b*3", "c"]);
    let picks = || -> Vec<_> { (0..200_u32).map(|key| pool.pick_moved(&key.to_be_bytes(), &[])).collect() };
    let before = picks();
    pool.retire();
    assert_eq!(picks(), before);
}

#[test]
fn all_who_need_a_ring_that_is_not_built_yet_get_it() {
    let pool = pool(Balance::RoundRobin, &["a", "b*3", "c"]);
    let picks = || -> Vec<_> { (0..200_u32).map(|key| pool.pick_moved(&key.to_be_bytes(), &[])).collect() };
    let all: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..8).map(|_| scope.spawn(picks)).collect();
        running.into_iter().map(|one| one.join().unwrap()).collect()
    });
    pool.prepare();
    assert!(all.iter().all(|one| *one == picks()));
}

#[test]
fn a_reload_that_leaves_the_servers_as_they_are_takes_the_ring_over() {
    let reloaded = |before: &Pool, servers: &[&str]| {
        let servers = servers.iter().map(|text| server(text, 9_000)).collect();
        pool_after(Some(before), Balance::RoundRobin, servers)
    };
    let first = pool(Balance::RoundRobin, &["a", "b*3"]);
    first.prepare();
    let ring = |pool: &Pool| pool.balancer.ring.at(&pool.servers, pool.generation.load(Ordering::Acquire));
    for (servers, same) in
        [(&["a", "b*3"] as &[&str], true), (&["b*3", "a"], false), (&["a", "b"], false), (&["a"], false)]
    {
        let next = reloaded(&first, servers);
        assert_eq!(Arc::ptr_eq(&ring(&first), &ring(&next)), same, "{servers:?}");
    }
}

#[test]
fn round_robin_gives_exactly_the_weights_over_a_whole_cycle() {
    let pool = pool(Balance::RoundRobin, &["a*4", "b*2", "c*10", "d*0"]);
    let all = || BTreeMap::from([("a", 2), ("b", 1), ("c", 5)]);
    for _ in 0..3 {
        assert_eq!(new_sessions(&pool, 8), all(), "in lowest terms");
    }
    for (down, left) in [("a", [("b", 1), ("c", 5)]), ("b", [("a", 2), ("c", 5)]), ("c", [("a", 2), ("b", 1)])] {
        set(&pool, down, Health::Down);
        let cycle = left.iter().map(|(_, weight)| u64::from(*weight)).sum();
        for _ in 0..3 {
            assert_eq!(
                new_sessions(&pool, cycle),
                BTreeMap::from(left),
                "over those that are left while {down} is down"
            );
        }
        set(&pool, down, Health::Up);
    }
    assert_eq!(new_sessions(&pool, 8), all());
}

#[test]
fn random_gives_about_the_weights() {
    let pool = pool(Balance::Random, &["a", "b*2", "c*5"]);
    let counts = new_sessions(&pool, 16_000);
    // Five deviations: wrong once in a million runs.
    for (name, share) in [("a", 1.0 / 8.0), ("b", 2.0 / 8.0), ("c", 5.0 / 8.0_f64)] {
        let (expected, deviation) = (16_000.0 * share, (16_000.0 * share * (1.0 - share)).sqrt());
        assert!((f64::from(counts[name]) - expected).abs() < 5.0 * deviation, "{counts:?}");
    }
}

#[test]
fn least_requests_prefers_fewer_in_flight_for_the_weight_and_ties_spread() {
    let pool = pool(Balance::LeastRequests, &["a", "b", "c*4"]);
    let busy =
        |name, many| -> Vec<_> { (0..many).map(|_| pool.server_named(name).unwrap().admit(None).unwrap()).collect() };
    let _c = busy("c", 3);
    assert_eq!(new_sessions(&pool, 3_000).len(), 3, "one more makes each of them as busy as the others");
    let _a = busy("a", 1);
    let counts = new_sessions(&pool, 3_000);
    assert!(!counts.contains_key("a") && counts["b"] > 1_200 && counts["c"] > 1_200, "{counts:?}");
    let _b = busy("b", 1);
    assert_eq!(new_sessions(&pool, 10), BTreeMap::from([("c", 10)]), "4 in flight for weight 4 are less than 2 for 1");
    let _more = busy("c", 9);
    let counts = new_sessions(&pool, 1_000);
    assert!(!counts.contains_key("c") && counts.len() == 2, "{counts:?}");
}

#[test]
fn weight_0_accepts_no_session() {
    for balance in EVERY_BALANCE {
        let pool = pool(balance, &["a*0", "b", "c*0"]);
        assert_eq!(new_sessions(&pool, 200), BTreeMap::from([("b", 200)]), "{balance:?}");
        assert_eq!(pool.pick_moved(&[7; 16], &[index(&pool, "b")]), None, "{balance:?}");
        set(&pool, "b", Health::Down);
        assert_eq!(pool.pick_new(&[7; 16], &[]), None, "{balance:?}");
    }
}

#[test]
fn backups_take_sessions_only_while_no_other_can() {
    for balance in EVERY_BALANCE {
        let pool = pool(balance, &["a", "spare!", "second!", "b"]);
        let tried = [index(&pool, "a"), index(&pool, "b")];
        let new = new_sessions(&pool, 400);
        assert!(new.len() == 2 && !new.contains_key("spare") && !new.contains_key("second"), "{balance:?} {new:?}");
        let moved = counted(&pool, keys(400).map(|key| pool.pick_moved(&key, &[])));
        assert_eq!(moved.keys().copied().collect::<Vec<_>>(), ["a", "b"], "{balance:?}");
        // Others that failed this request cannot take it either; and one backup alone does not take all of it.
        for picks in [Pool::pick_new, Pool::pick_moved] {
            let counts = counted(&pool, keys(400).map(|key| picks(&pool, &key, &tried)));
            assert!(counts.len() == 2 && counts["spare"] > 100 && counts["second"] > 100, "{balance:?} {counts:?}");
        }
        set(&pool, "a", Health::Down);
        assert_eq!(new_sessions(&pool, 100), BTreeMap::from([("b", 100)]), "{balance:?}");
        set(&pool, "b", Health::Draining);
        let left = new_sessions(&pool, 400);
        assert!(left.len() == 2 && left.contains_key("spare"), "{balance:?} {left:?}");
    }
}

#[test]
fn a_change_of_health_counts_for_the_next_request() {
    for balance in EVERY_BALANCE {
        let pool = pool(balance, &["a", "b"]);
        for _ in 0..20 {
            for (down, up) in [("a", "b"), ("b", "a")] {
                set(&pool, up, Health::Up);
                set(&pool, down, Health::Down);
                assert_eq!(new_sessions(&pool, 4), BTreeMap::from([(up, 4)]), "{balance:?}");
            }
        }
    }
}

#[test]
fn with_balance_hash_a_key_stays_and_only_those_of_a_lost_server_go_elsewhere() {
    let names = ["a", "b*2", "c*5", "d*10"];
    let pool = pool(Balance::Hash, &names);
    let homes = |pool: &Pool| -> Vec<_> { keys(1_500).map(|key| pool.pick_new(&key, &[]).unwrap()).collect() };
    let before = homes(&pool);
    assert_eq!(homes(&pool), before, "the same key, the same server");
    for lost in ["a", "c", "d"] {
        set(&pool, lost, Health::Down);
        let gone = index(&pool, lost);
        for (before, after) in before.iter().zip(homes(&pool)) {
            assert!(after != gone && (*before == gone || *before == after), "{lost} is down");
        }
        set(&pool, lost, Health::Up);
        assert_eq!(homes(&pool), before, "{lost} is back");
    }
}

#[test]
fn a_server_that_leaves_the_file_takes_only_its_own_keys_along() {
    let before = pool(Balance::Hash, &["a", "b", "c", "d", "e"]);
    let after = pool(Balance::Hash, &["e", "d", "b", "a"]);
    for key in keys(1_500) {
        for picks in [Pool::pick_new, Pool::pick_moved] {
            let was = &before.servers[picks(&before, &key, &[]).unwrap()].name;
            let is = &after.servers[picks(&after, &key, &[]).unwrap()].name;
            assert!(was == is || &**was == "c", "{was} became {is}");
        }
    }
}

/// Sessions of the first server, moved over the others, against their weights; `within` in hundredths.
fn spreads(weights: &[u16], sessions: u32, within: f64) {
    let texts: Vec<_> = weights.iter().enumerate().map(|(n, weight)| format!("server-{n}*{weight}")).collect();
    let pool = pool(Balance::RoundRobin, &texts.iter().map(String::as_str).collect::<Vec<_>>());
    set(&pool, "server-0", Health::Down);
    let counts = counted(&pool, keys(sessions.into()).map(|key| pool.pick_moved(&key, &[0])));
    let total: f64 = weights[1..].iter().map(|weight| f64::from(*weight)).sum();
    for (n, weight) in weights.iter().enumerate().skip(1) {
        let fair = f64::from(sessions) * f64::from(*weight) / total;
        let got = f64::from(counts.get(&*format!("server-{n}")).copied().unwrap_or_default());
        // Three deviations of chance on top, which fewer sessions than a million cannot do without.
        let bound = fair * within / 100.0 + 3.0 * fair.sqrt();
        assert!((got - fair).abs() <= bound, "{weights:?}: server-{n} took {got}, fair is {fair:.0}");
    }
}

#[test]
fn moved_sessions_spread_within_a_tenth_of_weight() {
    for survivors in [2, 3, 4, 6, 9, 14, 19] {
        spreads(&vec![1; survivors as usize + 1], 2_000 * survivors, 10.0);
    }
    for weights in [&[10, 1, 2, 5][..], &[1, 2, 5, 10], &[3, 1, 1, 1, 3], &[100, 50, 100, 25], &[7, 7, 9, 11, 13]] {
        spreads(weights, 10_000, 10.0);
    }
}

#[test]
fn the_sessions_of_a_server_of_nearly_all_weight_are_shared_too() {
    // Their few points on so large a ring say their weights only roughly.
    spreads(&[65_535, 1, 3], 1_000, 25.0);
}

#[test]
fn moved_sessions_go_where_they_go_whatever_the_order_and_the_addresses() {
    let (names, mut turned) = (["a*3", "b", "c*2", "d", "e*0", "f!"], ["a*3", "b", "c*2", "d", "e*0", "f!"]);
    turned.rotate_left(2);
    turned.reverse();
    let here = pool(Balance::RoundRobin, &names);
    let mut servers: Vec<_> = turned.iter().zip(20_000..).map(|(text, port)| server(text, port)).collect();
    servers[0].address = config::ServerAddress::Unix("/run/app.sock".into());
    let there = pool_of(Balance::Hash, servers);
    for down in [&[][..], &["b"], &["a", "d"], &["a", "b", "c", "d"]] {
        for pool in [&here, &there] {
            pool.servers.iter().for_each(|server| server.live.set_health(Health::Up));
            for name in down {
                set(pool, name, Health::Down);
            }
        }
        for key in keys(1_000) {
            let one = here.pick_moved(&key, &[]).map(|at| &here.servers[at].name);
            let other = there.pick_moved(&key, &[]).map(|at| &there.servers[at].name);
            assert_eq!(one, other, "{down:?} are down");
        }
    }
}

#[test]
fn a_second_failure_moves_only_the_sessions_of_the_second_server() {
    let pool = pool(Balance::RoundRobin, &["a", "b", "c", "d", "e"]);
    let place = |key: &[u8; 16]| pool.pick_moved(key, &[]).unwrap();
    set(&pool, "a", Health::Down);
    let before: Vec<_> = keys(1_500).map(|key| place(&key)).collect();
    set(&pool, "c", Health::Down);
    let gone = index(&pool, "c");
    for (before, key) in before.into_iter().zip(keys(1_500)) {
        assert!(before == gone || before == place(&key));
    }
}

#[test]
fn two_hundred_servers_that_are_down_are_searched_quickly() {
    let texts: Vec<_> = (0..200).map(|n| format!("s{n}*{}", n % 7)).collect();
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    for balance in EVERY_BALANCE {
        let pool = pool(balance, &texts);
        let all: Vec<_> = (0..200).collect();
        assert_eq!((pool.pick_new(&[1; 16], &all), pool.pick_moved(&[1; 16], &all)), (None, None), "all were tried");
        pool.servers.iter().for_each(|server| server.live.set_health(Health::Down));
        pool.pick_new(&[1; 16], &[]);
        let began = Instant::now();
        for key in keys(50) {
            assert_eq!((pool.pick_new(&key, &[]), pool.pick_moved(&key, &[])), (None, None), "{balance:?}");
        }
        // A debug build on a busy machine: far less than this, far more than a walk along the ring takes.
        let took = began.elapsed() / 100;
        assert!(took < Duration::from_millis(5), "{balance:?} took {took:?} to find no server");
    }
}

#[test]
fn the_largest_weight_beside_the_least_costs_neither_memory_nor_time() {
    let began = Instant::now();
    for balance in EVERY_BALANCE {
        let pool = pool(balance, &["large*65535", "little*1"]);
        let counts = new_sessions(&pool, 500);
        assert!(balance == Balance::LeastRequests || counts["large"] > 480, "{balance:?} {counts:?}");
        set(&pool, "large", Health::Down);
        assert_eq!(new_sessions(&pool, 50), BTreeMap::from([("little", 50)]), "{balance:?}");
    }
    let servers: Vec<_> = (0..100).map(|n| format!("s{n}*{}", if n == 0 { 1 } else { 65_535 })).collect();
    let pool = pool(Balance::RoundRobin, &servers.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(pool.pick_new(&[], &[]).is_some());
    let points: usize = by_weight(&pool.servers, |_| true).iter().map(|backend| backend.weight).sum();
    assert!(points <= UNITS_MAX + 100, "{points} entries for round robin");
    assert!(began.elapsed() < Duration::from_secs(60), "{:?} for five pools", began.elapsed());
}

#[test]
fn a_pool_of_one_server_and_a_pool_without_weight() {
    for balance in EVERY_BALANCE {
        let one = pool(balance, &["a"]);
        assert_eq!((one.pick_new(b"", &[]), one.pick_moved(b"", &[])), (Some(0), Some(0)));
        assert_eq!((one.pick_new(b"", &[0]), one.pick_moved(b"", &[0])), (None, None));
        let empty = pool(balance, &["a*0"]);
        assert_eq!((empty.pick_new(b"", &[]), empty.pick_moved(b"", &[])), (None, None));
    }
}

#[derive(Debug, Clone)]
struct Drawn {
    weight: u16,
    backup: bool,
    state: ServerState,
    health: Health,
    tried: bool,
}

fn drawn() -> impl Strategy<Value = Drawn> {
    let weight = prop_oneof![Just(0_u16), Just(1), 1_u16..20];
    let state =
        prop_oneof![4 => Just(ServerState::Ready), 1 => Just(ServerState::Drain), 1 => Just(ServerState::Maint)];
    let health = prop_oneof![4 => Just(Health::Up), 1 => Just(Health::Draining), 1 => Just(Health::Down), 1 => Just(Health::Unknown)];
    (weight, any::<bool>(), state, health, prop::bool::weighted(0.3))
        .prop_map(|(weight, backup, state, health, tried)| Drawn { weight, backup, state, health, tried })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Against the rule, written out again.
    #[test]
    fn a_picked_server_accepts_sessions_and_one_is_picked_if_any_accepts(
        servers in prop::collection::vec(drawn(), 1..8),
        balance in prop::sample::select(EVERY_BALANCE.to_vec()),
        key: [u8; 16],
    ) {
        let written = servers.iter().zip(0_u16..).map(|(drawn, n)| config::Server {
            weight: drawn.weight,
            state: drawn.state,
            backup: drawn.backup,
            ..server(&format!("s{n}"), 9_000 + n)
        });
        let pool = pool_of(balance, written.collect());
        for (server, drawn) in pool.servers.iter().zip(&servers) {
            server.live.set_health(drawn.health);
        }
        let servers = &servers;
        let tried: Vec<_> = (0..servers.len()).filter(|at| servers[*at].tried).collect();
        let takes = |drawn: &Drawn| drawn.weight > 0 && drawn.state == ServerState::Ready && drawn.health == Health::Up;
        let left = |backup| (0..servers.len()).filter(move |at| !servers[*at].tried && servers[*at].backup == backup);
        let mut expected: Vec<_> = left(false).filter(|at| takes(&servers[*at])).collect();
        if expected.is_empty() {
            expected = left(true).filter(|at| takes(&servers[*at])).collect();
        }
        for _ in 0..4 {
            for picked in [pool.pick_new(&key, &tried), pool.pick_moved(&key, &tried)] {
                prop_assert_eq!(picked.is_some(), !expected.is_empty());
                prop_assert!(picked.is_none_or(|picked| expected.contains(&picked)), "{:?} not of {:?}", picked, expected);
            }
        }
        prop_assert_eq!(pool.pick_moved(&key, &tried), pool.pick_moved(&key, &tried));
    }
}
