//! Upgrades under load: a thousand open streams, and twenty upgrades one after the other.

use std::time::Duration;

use crate::upgrade::{assert_ends_well, both, hand_over_to, successor, upgrade};
use crate::world::crowd::{Crowd, CrowdServer};
use crate::world::traffic::under_traffic;
use crate::world::{Address, Conf, PATIENCE, World, eventually};

const UPGRADES: usize = 20;
/// WebSockets, and as many event streams and uploads.
const OF_EACH_KIND: u16 = 340;
const MOVES: &str = "homing_session_moves_total";
const BY_PATH: &str = "homing_requests_by_path_total";

#[test]
fn a_thousand_websockets_event_streams_and_uploads_survive_an_upgrade_whole() {
    let server = CrowdServer::listen();
    let conf = Conf::servers("a")
        .address("a", &server.address.to_string())
        .top("proxy: { upgrade_socket: \"{{dir}}/upgrade.sock\", shutdown_grace: 2m }");
    let mut world = World::start(conf);
    let Address::Tcp(proxy) = world.address else { panic!("the proxy listens on TCP") };
    let crowd = Crowd::open(server, proxy, usize::from(OF_EACH_KIND));
    crowd.await_pieces(2);
    if std::env::var_os("HOMING_TEST_FAST_PATH").is_none() {
        // Uploads whose body is not there with the head take the full path, as WebSockets do.
        world.expect_metric(BY_PATH, &[("path", "full")], 2.0 * f64::from(OF_EACH_KIND));
    }
    let new = successor(&mut world);
    let before = crowd.pieces();
    let old = hand_over_to(&mut world, new);
    assert!(crowd.pieces() > before, "no piece arrived while the new process took over");
    eventually(PATIENCE, "the old process accepts no more", || old.log().contains("stopping"));
    crowd.await_pieces(4);
    assert!(old.is_running(), "it has streams:\n{}", old.log());
    crowd.finish();
    assert_ends_well(&old, Duration::from_secs(20));
    assert!(!old.log().contains("aborted"), "{}", old.log());
    // Their requests end with their streams, and are logged then.
    let lines = old.access_log();
    let served = |status: u16| lines.iter().filter(|line| line["status"] == status).count();
    assert_eq!((served(101), served(200)), (usize::from(OF_EACH_KIND), usize::from(2 * OF_EACH_KIND)));
    assert_eq!(world.metric(MOVES, &[]), 0.0);
}

#[test]
fn twenty_upgrades_under_load_lose_no_request_and_move_no_session() {
    let mut world = World::start(both("a b c"));
    let mut old = Vec::new();
    let address = world.address.clone();
    let requests = under_traffic(&address, |traffic| {
        traffic.await_requests(50);
        for _ in 0..UPGRADES {
            old.push(upgrade(&mut world));
            assert_eq!(world.metric(MOVES, &[]), 0.0);
            assert_eq!(world.metric("homing_session_lookups_total", &[("result", "unknown")]), 0.0);
            traffic.await_requests(100);
        }
        traffic.requests()
    });
    assert!(requests > UPGRADES * 100, "{requests}");
    for old in &old {
        assert_ends_well(old, Duration::from_secs(30));
        assert!(!old.log().contains("aborted"), "{}", old.log());
    }
}
