//! The least speed of request bodies: it counts only while the proxy waits for the client.

use std::thread;
use std::time::{Duration, Instant};

use crate::world::app::answers::pattern;
use crate::world::h2c::{H2Request, h2_dribble, h2_try_for};
use crate::world::tls::{Authority, Client};
use crate::world::{App, Conf, PATIENCE, Response, Wire, World};

const LIMITED: &str = "homing_limited_total";
/// For what takes its time.
const PATIENT: Duration = Duration::from_secs(60);
/// When a body that is too slow is refused: 5 seconds, and a little for a busy machine.
const CUT: std::ops::Range<Duration> = Duration::from_millis(4500)..Duration::from_secs(12);

fn limited() -> Conf {
    Conf::servers("a b").listener("limits: { min_body_rate: 1KiB }")
}

fn head(length: usize) -> String {
    format!("POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n")
}

/// Ten bytes every 200 ms until there is an answer; its status, and how long that took.
fn dribble(wire: &mut Wire) -> (u16, Duration) {
    let start = Instant::now();
    wire.send(head(100_000));
    while start.elapsed() < Duration::from_secs(20) {
        let _ = wire.try_send("0123456789");
        let _ = wire.reader.stream.set_patience(Duration::from_millis(200));
        if let Ok(response) = wire.try_receive_head() {
            return (response.status, start.elapsed());
        }
    }
    panic!("a client that dribbles its body holds its connection for ever");
}

fn expect_client_blamed(world: &World, times: f64) {
    world.expect_metric(LIMITED, &[("limit", "min_body_rate")], times);
    world.expect_metric("homing_upstream_errors_total", &[], 0.0);
    world.expect_metric("homing_retries_total", &[], 0.0);
    assert_eq!(world.access_line("/upload")["reason"], "min_body_rate");
    let whole = world.apps().flat_map(App::seen).filter(|seen| seen.body_complete && seen.method == "POST").count();
    assert_eq!(whole, 0, "no server took it for a whole request");
}

#[test]
fn a_client_that_dribbles_its_body_gets_408() {
    let world = World::start(limited());
    let mut wire = world.wire();
    let (status, took) = dribble(&mut wire);
    assert_eq!(status, 408);
    assert!(CUT.contains(&took), "{took:?}");
    assert!(wire.time_to_close(PATIENCE).is_some());
    expect_client_blamed(&world, 1.0);
}

#[test]
fn a_client_that_stops_in_its_body_gets_408_over_tls() {
    let authority = Authority::new();
    let conf = limited().listener("tls: { certificates: [{ cert: a.pem, key: a.key }] }");
    let host = "shop.example.org";
    let world =
        World::builder(conf).before(|environment| drop(authority.issue(environment.directory(), "a", &[host]))).start();
    let mut wire = Client::new(&authority).connect(&world.address, host);
    let start = Instant::now();
    wire.send(format!("{}half", head(1000)));
    wire.receive("POST").expect(408);
    assert!(CUT.contains(&start.elapsed()), "{:?}", start.elapsed());
    expect_client_blamed(&world, 1.0);
}

#[test]
fn a_client_of_http2_that_dribbles_its_body_gets_408() {
    let world = World::start(limited());
    let start = Instant::now();
    let response = h2_dribble(&world.address, "/upload", 100, Duration::from_millis(200));
    assert_eq!(response.map(|response| response.status), Ok(408));
    assert!(CUT.contains(&start.elapsed()), "{:?}", start.elapsed());
    expect_client_blamed(&world, 1.0);
}

#[test]
fn a_body_that_is_fast_enough_on_average_may_pause() {
    let world = World::start(limited());
    let mut wire = world.wire();
    wire.send(head(20_010));
    wire.send("x".repeat(20_000));
    thread::sleep(Duration::from_secs(7)); // twenty thousand bytes are worth twenty seconds
    wire.send("0123456789");
    wire.receive("POST").expect(200);
    world.expect_metric(LIMITED, &[("limit", "min_body_rate")], 0.0);
}

/// Uploads more than fits into the buffers between the client and the server, some 11 MB, while the server reads nothing for so
/// long. Those bytes are worth less time at the rate, so that the body would be too slow if that time counted.
fn upload_to_a_slow_server(rate: &str, silent: Duration, upload: impl Fn(&World, &[u8]) -> Response + Sync) {
    let world = World::start(Conf::servers("a").listener(&format!("limits: {{ min_body_rate: {rate} }}")));
    let body = pattern(16 << 20);
    world.app("a").freeze();
    thread::scope(|scope| {
        let upload = scope.spawn(|| upload(&world, &body));
        thread::sleep(silent); // the server takes its time
        world.app("a").thaw();
        let response = upload.join().expect("an answer").expect(200);
        assert_eq!(response.json()["body_length"], body.len());
    });
    world.expect_metric(LIMITED, &[("limit", "min_body_rate")], 0.0);
}

#[test]
fn a_slow_server_does_not_cut_an_honest_upload() {
    upload_to_a_slow_server("2MiB", Duration::from_secs(9), |world, body| {
        let mut wire = world.wire();
        let _ = wire.reader.stream.set_patience(PATIENT);
        wire.send(head(body.len()));
        wire.send(body);
        wire.receive("POST")
    });
}

#[test]
fn a_slow_server_does_not_cut_an_honest_upload_over_http2() {
    upload_to_a_slow_server("700KiB", Duration::from_secs(20), |world, body| {
        let upload = vec![H2Request::post("/upload", body.to_vec())];
        h2_try_for(PATIENT, &world.address, upload).remove(0).expect("over HTTP/2")
    });
}

#[test]
fn a_server_that_answers_late_does_not_cut_a_request_whose_body_is_complete() {
    let world = World::start(limited());
    let mut wire = world.wire();
    wire.send("POST /slow?ms=7000 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello");
    wire.receive("POST").expect(200);
}

#[test]
fn a_client_that_waits_for_100_continue_is_not_cut_before_it() {
    let world = World::start(Conf::servers("a").listener("limits: { min_body_rate: 1KiB }"));
    world.app("a").freeze();
    let mut wire = world.wire();
    wire.send("POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    thread::sleep(Duration::from_secs(7)); // the server takes its time
    world.app("a").thaw();
    assert_eq!(wire.receive_head().status, 100);
    wire.send("hello");
    wire.receive("POST").expect(200);
}
