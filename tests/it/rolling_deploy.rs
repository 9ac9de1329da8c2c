//! Three servers are replaced one after the other under load: drained, emptied, killed, started again, made ready.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::handoff::{handing_over, shopping};
use crate::snapshot::with_snapshot;
use crate::world::{Browser, Conf, PATIENCE, World, eventually};

const MOVES: &str = "homing_session_moves_total";
const SESSIONS: &str = "homing_sessions";
const SERVERS: [&str; 3] = ["a", "b", "c"];

fn conf() -> Conf {
    let conf = handing_over("a b c").pool("drain_deadline: 1s");
    with_snapshot(conf, "sessions", "1h")
}

/// Sends requests of all clients while `during` runs. Every one has to be answered with the client's cart.
fn under_load(clients: &[Browser], during: impl FnOnce()) -> usize {
    let (stop, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let threads: Vec<_> = clients
            .iter()
            .map(|client| {
                let (stop, served) = (&stop, &served);
                scope.spawn(move || {
                    while !stop.load(Ordering::SeqCst) {
                        let cart = client.get("/kept-cart").expect(200).text();
                        assert!(cart.starts_with("alice has tea,milk on "), "no session is lost: {cart}");
                        served.fetch_add(1, Ordering::SeqCst);
                        thread::sleep(Duration::from_millis(10));
                    }
                })
            })
            .collect();
        let finish = StopWhenDone(&stop);
        during();
        drop(finish);
        for thread in threads {
            thread.join().expect("every request was answered");
        }
    });
    served.into_inner()
}

/// Stops the load also when a step fails, which would wait for it otherwise.
struct StopWhenDone<'a>(&'a AtomicBool);

impl Drop for StopWhenDone<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn sessions_on(world: &World, server: &str) -> f64 {
    world.metric(SESSIONS, &[("server", server)])
}

/// Returns how many sessions the server had.
fn replace(world: &mut World, server: &str) -> f64 {
    let sessions = sessions_on(world, server);
    world.reload(conf().server(server, "state: drain"));
    eventually(PATIENCE, "it is empty", || sessions_on(world, server) == 0.0);
    world.app(server).kill();
    world.app(server).start();
    world.reload(conf());
    sessions
}

#[test]
fn no_request_fails_no_session_is_lost_and_only_those_of_drained_servers_move() {
    let mut world = World::start(conf());
    let clients: Vec<_> = (0..12).map(|_| world.browser()).collect();
    for client in &clients {
        drop(shopping(client));
    }
    let mut drained = 0.0;
    for server in SERVERS {
        let served = under_load(&clients, || drained += replace(&mut world, server));
        assert!(served > 50, "there was some load: {served}");
        // In between, the proxy is replaced, too.
        if server == "b" {
            world.restart_proxy();
            assert_eq!(world.metric(MOVES, &[]), 0.0, "counted from the start");
            drained = 0.0;
        } else {
            world.expect_metric(MOVES, &[("reason", "drain")], drained);
            world.expect_metric(MOVES, &[], drained);
        }
    }
    assert!(drained > 0.0, "the last one had sessions");
    assert_eq!(world.metric("homing_requests_total", &[("code", "502")]), 0.0);
}
