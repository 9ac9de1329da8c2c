//! What is promised of many sessions at once.

use std::collections::BTreeMap;

use homing::config::{OnServerDown, ServerState};
use homing::persistence::Outcome;
use homing::pool::condition::Health;

use crate::request::Behaviour;
use crate::setup::Setup;
use crate::world::World;

/// Every client comes and comes back; where they are at home.
fn settled(world: &mut World) -> Vec<String> {
    let clients = world.clients.len();
    for client in 0..clients {
        world.visit(client, 0);
    }
    (0..clients).map(|client| world.visit(client, 0).1.expect("a server serves")).collect()
}

fn all_visit(world: &mut World, proxy: usize) -> Vec<Option<String>> {
    (0..world.clients.len()).map(|client| world.visit(client, proxy).1).collect()
}

#[test]
fn sessions_of_a_dead_server_spread_by_weight_over_the_survivors_and_no_other_moves() {
    for weights in [vec![1; 3], vec![1; 5], vec![1, 2, 3, 4]] {
        let servers = weights.len();
        let mut world = World::new(0, Setup::plain(&weights), 1, 4_000);
        let before = settled(&mut world);
        world.proxies[0].check("s0", Health::Down);
        let after = all_visit(&mut world, 0);
        let mut arrived: BTreeMap<&str, f64> = BTreeMap::new();
        let mut moved = 0.0;
        for (before, after) in before.iter().zip(&after) {
            let after = after.as_deref().expect("a server serves");
            if before == "s0" {
                *arrived.entry(after).or_default() += 1.0;
                moved += 1.0;
            } else {
                assert_eq!(before, after, "a session moved though its server is well");
            }
        }
        assert_eq!(arrived.len(), servers - 1, "all survivors take some: {arrived:?}");
        let total: f64 = weights[1..].iter().map(|weight| f64::from(*weight)).sum();
        for (server, weight) in (1..servers).map(|n| (format!("s{n}"), f64::from(weights[n]))) {
            let fair = moved * weight / total;
            let got = arrived[&*server];
            // Ten per cent of weight, and three deviations of chance, since there are hundreds and not millions.
            let chance = 3.0 * (fair * (1.0 - weight / total)).sqrt();
            assert!((got - fair).abs() <= fair * 0.1 + chance, "{server} took {got} of {moved}, fair is {fair}");
        }
    }
}

#[test]
fn two_proxies_that_never_talked_move_every_session_to_the_same_server() {
    let mut world = World::new(1, Setup::plain(&[1, 2, 1, 3]), 2, 500);
    let before = settled(&mut world);
    let jars = world.clients.clone();
    for proxy in &world.proxies {
        proxy.check("s1", Health::Down);
    }
    let at_first = all_visit(&mut world, 0);
    // The same clients as they were before, at the proxy that knows nothing of them.
    let moved_jars = std::mem::replace(&mut world.clients, jars);
    let at_second = all_visit(&mut world, 1);
    assert_eq!(at_first, at_second, "both send every session to the same server");
    assert!(before.iter().any(|home| home == "s1"), "some had to move");
    for (one, other) in moved_jars.into_iter().zip(world.clients.clone()) {
        world.clients = vec![one, other];
        let here: Vec<_> = all_visit(&mut world, 0);
        assert_eq!(here[0], here[1], "whoever moved it, the session is in one place");
    }
}

#[test]
fn a_restart_of_all_proxies_moves_no_session() {
    let mut world = World::new(2, Setup::plain(&[1, 1, 1]), 2, 300);
    settled(&mut world);
    world.proxies[0].check("s2", Health::Down);
    world.proxies[1].check("s2", Health::Down);
    let before = all_visit(&mut world, 0);
    world.restart(0);
    world.restart(1);
    assert_eq!(all_visit(&mut world, 1), before, "not even home to a server that is back");
    assert_eq!(all_visit(&mut world, 0), before);
}

#[test]
fn borrowed_sessions_return_home_when_their_server_is_back() {
    let mut world = World::new(3, Setup { down: OnServerDown::Borrow, ..Setup::plain(&[1, 1, 1]) }, 1, 300);
    let before = settled(&mut world);
    let issued = world.clients.iter().map(|client| client.cookie.clone()).collect::<Vec<_>>();
    world.truth.insert("s0".into(), Behaviour::Refuses);
    for _ in 0..3 {
        for (home, now) in before.iter().zip(all_visit(&mut world, 0)) {
            assert_eq!(now.as_ref() == Some(home), home != "s0", "{home} {now:?}");
        }
    }
    world.truth.clear();
    assert_eq!(all_visit(&mut world, 0), before.into_iter().map(Some).collect::<Vec<_>>());
    let now = world.clients.iter().map(|client| client.cookie.clone()).collect::<Vec<_>>();
    assert!(now == issued, "a borrowed session needs no new token");
}

#[test]
fn a_server_that_flaps_ten_times_moves_each_session_once() {
    let mut world = World::new(4, Setup::plain(&[1, 1, 1]), 1, 300);
    let before = settled(&mut world);
    for _ in 0..10 {
        world.proxies[0].check("s0", Health::Down);
        all_visit(&mut world, 0);
        world.proxies[0].check("s0", Health::Up);
        all_visit(&mut world, 0);
    }
    for (client, home) in before.iter().enumerate() {
        let (request, _) = world.visit(client, 0);
        assert_eq!(request.session.unwrap().binding.epoch, u32::from(home == "s0"), "a session of {home}");
    }
}

#[test]
fn a_server_that_breaks_off_keeps_its_sessions() {
    let mut world = World::new(5, Setup::plain(&[1, 1, 1]), 1, 90);
    let before = settled(&mut world);
    world.truth.insert("s1".into(), Behaviour::BreaksOff);
    for (client, home) in before.iter().enumerate() {
        let (request, served) = world.visit(client, 0);
        assert_eq!(served.is_none(), home == "s1", "another server would overwrite the client's log-in");
        assert_eq!(request.outcome, Some(Outcome::Kept));
    }
    world.truth.clear();
    assert_eq!(all_visit(&mut world, 0), before.into_iter().map(Some).collect::<Vec<_>>());
}

#[test]
fn sessions_survive_a_new_order_new_weights_and_new_keys() {
    let mut world = World::new(6, Setup::plain(&[1, 1, 1, 1]), 2, 200);
    let before: Vec<_> = settled(&mut world).into_iter().map(Some).collect();
    world.setup.servers.reverse();
    world.setup.servers[1].weight = 0;
    world.setup.servers[2].weight = 9;
    world.setup.servers[3].state = ServerState::Drain;
    world.setup.first_key = 1;
    for at in 0..2 {
        world.reload(at);
        assert_eq!(all_visit(&mut world, at), before);
    }
}

#[test]
fn a_flood_without_cookies_costs_no_entry() {
    let mut world = World::new(7, Setup::plain(&[1, 1]), 1, 1);
    for _ in 0..2_000 {
        world.clients[0].cookie = None;
        world.visit(0, 0);
    }
    assert!(world.proxies[0].table.is_empty());
}

/// The hardest case: the same epoch on both proxies, and two servers.
#[test]
fn proxies_that_moved_a_session_apart_come_together_where_the_client_says() {
    let mut world = World::new(8, Setup::plain(&[1, 1, 1, 1]), 2, 300);
    let before = settled(&mut world);
    let jars = world.clients.clone();
    world.proxies[0].check("s0", Health::Down);
    all_visit(&mut world, 0);
    let moved_jars = std::mem::replace(&mut world.clients, jars);
    for down in ["s0", "s1"] {
        world.proxies[1].check(down, Health::Down);
    }
    let at_second = all_visit(&mut world, 1);
    let second_jars = std::mem::replace(&mut world.clients, moved_jars);
    world.heals();
    let mut apart = 0;
    for client in (0..before.len()).filter(|client| before[*client] == "s0") {
        // At the first proxy it is where the first moved it …
        let (_, first) = world.visit(client, 0);
        if first != at_second[client] {
            apart += 1;
            // … the second follows the client, and so does the first when the client holds what the second gave it.
            assert_eq!(world.visit(client, 1).1, first, "the second follows");
            world.clients[client] = second_jars[client].clone();
            for proxy in [0, 1, 0] {
                assert_eq!(world.visit(client, proxy).1, at_second[client], "all follow what the client shows");
            }
        }
    }
    assert!(apart >= 5, "{apart} of {} sessions were moved apart", before.len());
}
