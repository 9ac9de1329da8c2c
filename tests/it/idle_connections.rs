//! What a client costs that does nothing: memory of its idle connection, and where that goes when it leaves.

use std::time::Duration;

use crate::world::tls::{Authority, Client};
use crate::world::{Conf, Proxy, Wire, World, eventually};

const REQUEST: &str = "GET /plain HTTP/1.1\r\nHost: shop.example.org\r\n\r\n";
/// Few enough for the usual limit of open files, many enough to be seen.
const CLIENTS: u64 = 300;
/// Issue of memory to the system is delayed by the allocator, and asked for every few seconds.
const RETURN_PATIENCE: Duration = Duration::from_secs(30);

/// Resident memory for each of many idle connections, after one response each, and those connections.
fn idle(proxy: &Proxy, connect: impl Fn() -> Wire) -> (f64, Vec<Wire>) {
    let open = |count: u64| -> Vec<Wire> {
        let served = (0..count).map(|_| {
            let mut wire = connect();
            wire.send(REQUEST);
            wire.receive("GET").expect(200);
            wire
        });
        served.collect()
    };
    // Code, threads, pools.
    drop(open(50));
    let before = proxy.resident_kib();
    let wires = open(CLIENTS);
    let grown = proxy.resident_kib().saturating_sub(before);
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let each = grown as f64 / CLIENTS as f64;
    (each, wires)
}

#[test]
fn an_idle_connection_takes_a_few_kibibytes() {
    let world = World::start(Conf::servers("a"));
    let (each, _wires) = idle(&world, || world.wire());
    assert!(each < 8.0, "{each} KiB for each idle connection");
}

#[test]
fn an_idle_connection_with_tls_takes_not_much_more() {
    let authority = Authority::new();
    let conf = Conf::servers("a").listener("tls: { certificates: [{ cert: a.pem, key: a.key }] }");
    let world = World::builder(conf)
        .before(|environment| drop(authority.issue(environment.directory(), "a", &["shop.example.org"])))
        .start();
    let client = Client::new(&authority);
    let (each, _wires) = idle(&world, || client.connect(&world.address, "shop.example.org"));
    assert!(each < 20.0, "{each} KiB for each idle connection");
}

/// A request that waits for the rest of its body; it takes far more memory than an idle connection.
fn unfinished_upload(world: &World) -> Wire {
    let mut wire = world.wire();
    wire.send("POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n");
    wire.send("x".repeat(60_000));
    wire
}

#[test]
fn the_memory_of_connections_is_returned_when_they_close() {
    let world = World::start(Conf::servers("a"));
    drop(idle(&world, || world.wire()));
    let before = world.resident_kib();
    let wires: Vec<_> = (0..CLIENTS).map(|_| unfinished_upload(&world)).collect();
    #[expect(clippy::cast_precision_loss, reason = "some hundred")]
    world.expect_metric("homing_server_requests_in_flight", &[], CLIENTS as f64);
    eventually(RETURN_PATIENCE, "requests take memory", || world.resident_kib() > before + CLIENTS * 30);
    drop(wires);
    eventually(RETURN_PATIENCE, "most of it is returned, without a request that would ask for memory", || {
        // Compared with the peak, since requests may still have been growing when the clients left.
        world.resident_kib() < before + (world.peak_resident_kib() - before) / 3
    });
}
