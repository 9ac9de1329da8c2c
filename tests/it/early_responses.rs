//! Uploads that are refused, answered early, or never end; connections of HTTP/2 that do nothing.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, SendStream};
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::world::app::answers::pattern;
use crate::world::frames::{PREFACE, frame, kind, settings};
use crate::world::h2c::{H2Request, h2_try};
use crate::world::net::Address;
use crate::world::{Conf, PATIENCE, World};

/// Runs a client of HTTP/2.
fn h2<T>(world: &World, work: impl AsyncFnOnce(SendRequest<Bytes>) -> T) -> T {
    let Address::Tcp(address) = world.address else { panic!("h2c is tried over TCP") };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async move {
        let stream = tokio::net::TcpStream::connect(address).await.expect("a connection");
        let (client, connection) = h2::client::handshake(stream).await.expect("an HTTP/2 handshake");
        tokio::spawn(connection);
        timeout(PATIENCE, work(client.ready().await.expect("a stream"))).await.expect("in time")
    })
}

/// Begins an upload.
fn upload(client: &mut SendRequest<Bytes>, path: &str) -> (ResponseFuture, SendStream<Bytes>) {
    let uri = format!("http://example.test{path}");
    let request = http::Request::post(uri).body(()).expect("a request");
    client.send_request(request, false).expect("a stream")
}

fn short_timeouts() -> Conf {
    Conf::servers("a").listener("timeouts: { request_body: 1s, keepalive: 1s }")
}

#[test]
fn an_upload_that_stops_gets_408_and_is_counted() {
    let world = World::start(short_timeouts());
    for (framing, sent) in [("Content-Length: 10", "half"), ("Transfer-Encoding: chunked", "4\r\nhalf\r\n")] {
        let mut wire = world.wire();
        wire.send(format!("POST /upload HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n{sent}"));
        wire.receive_head().expect(408);
    }
    world.expect_metric("homing_requests_rejected_total", &[("reason", "body_timeout")], 2.0);
    let line = world.access_line("/upload");
    assert_eq!((&line["status"], &line["reason"]), (&json!(408), &json!("body_timeout")), "{line}");
    assert_eq!(world.browser().server(), "a", "its server has not failed");
}

#[test]
fn an_upload_over_http2_that_stops_is_reset() {
    let world = World::start(short_timeouts());
    let took = h2(&world, async |mut client| {
        let (response, mut body) = upload(&mut client, "/upload");
        body.send_data(Bytes::from_static(b"half"), false).expect("a piece");
        let start = Instant::now();
        let result = response.await;
        assert!(
            result.is_err_and(|error| error.is_reset()),
            "the stream ends, and nothing says that its server failed"
        );
        start.elapsed()
    });
    assert!(took > Duration::from_millis(700) && took < Duration::from_secs(5), "{took:?}");
    world.expect_metric("homing_requests_rejected_total", &[("reason", "body_timeout")], 1.0);
    let line = world.access_line("/upload");
    assert_eq!((&line["status"], &line["reason"]), (&json!(408), &json!("body_timeout")), "{line}");
    assert_eq!((&line["protocol"], &line["bytes_in"]), (&json!("HTTP/2.0"), &json!(4)), "{line}");
    let whole = world.app("a").seen().iter().filter(|seen| seen.body_complete).count();
    assert_eq!(whole, 0, "no server took it for a whole request");
    assert_eq!(world.browser().server(), "a");
}

#[test]
fn an_upload_over_http2_may_take_long_as_long_as_it_moves() {
    let world = World::start(short_timeouts());
    let status = h2(&world, async |mut client| {
        let (response, mut body) = upload(&mut client, "/upload");
        for _ in 0..6 {
            body.send_data(Bytes::from_static(b"piece"), false).expect("a piece");
            sleep(Duration::from_millis(500)).await;
        }
        body.send_data(Bytes::new(), true).expect("the end");
        response.await.expect("a response").status()
    });
    assert_eq!(status, 200);
}

#[test]
fn a_stream_over_http2_that_has_its_response_may_stay_open() {
    let world = World::start(short_timeouts());
    let events = h2(&world, async |mut client| {
        let request = http::Request::get("http://example.test/sse?events=4&every=1200").body(()).expect("a request");
        let (response, _) = client.send_request(request, true).expect("a stream");
        let mut body = response.await.expect("a response").into_body();
        let mut text = Vec::new();
        while let Some(piece) = body.data().await {
            text.extend_from_slice(&piece.expect("the whole stream"));
        }
        String::from_utf8_lossy(&text).matches("data:").count()
    });
    assert_eq!(events, 4);
}

#[test]
fn an_upload_over_http2_that_is_too_large_gets_its_413() {
    let world = World::start(Conf::servers("a").listener("max_body_size: 10KiB"));
    let (status, page) = h2(&world, async |mut client| {
        let (response, mut body) = upload(&mut client, "/large");
        let sender = tokio::spawn(async move {
            // As a client that sends all of it before it reads.
            for _ in 0..200 {
                body.reserve_capacity(1024);
                if body.send_data(Bytes::from(pattern(1024)), false).is_err() {
                    break;
                }
                sleep(Duration::from_millis(5)).await;
            }
            // What ended the stream; the server need not wait for the rest.
            body
        });
        let response = response.await.expect("the response, and not an error of the stream");
        let (status, mut body) = (response.status(), response.into_body());
        let mut page = Vec::new();
        while let Some(piece) = body.data().await {
            page.extend_from_slice(&piece.expect("the whole page"));
        }
        let _ = sender.await;
        (status, page)
    });
    assert_eq!(status, 413);
    assert!(String::from_utf8_lossy(&page).contains("too large"), "{page:?}");
    let request = H2Request::post("/large", pattern(200_000)).header("content-length", "200000");
    let announced = &h2_try(&world.address, vec![request])[0];
    assert_eq!(announced.as_ref().map(|response| response.status), Ok(413), "of an announced length too");
    assert_eq!(world.browser().server(), "a", "the server is not blamed");
}

#[test]
fn an_early_response_over_http2_ends_its_stream_without_an_error() {
    let world = World::start(Conf::servers("a").address("a", &early_server().to_string()));
    let reason = h2(&world, async |mut client| {
        let (response, mut body) = upload(&mut client, "/upload");
        body.send_data(Bytes::from_static(b"half"), false).expect("a piece");
        let response = response.await.expect("a response");
        assert_eq!(response.status(), 401);
        let mut page = response.into_body();
        while let Some(piece) = page.data().await {
            piece.expect("the whole page");
        }
        std::future::poll_fn(|context| body.poll_reset(context)).await.expect("the rest is not waited for")
    });
    assert_eq!(reason, Reason::NO_ERROR);
}

/// A server that answers uploads when it has their heads, and reads the rest for nothing.
fn early_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            thread::spawn(move || {
                let mut buffer = vec![0; 65536];
                let mut head = Vec::new();
                while !head.windows(4).any(|four| four == b"\r\n\r\n") {
                    match stream.read(&mut buffer) {
                        Ok(count) if count > 0 => head.extend_from_slice(&buffer[..count]),
                        _ => return,
                    }
                }
                let _ = stream.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno");
                while matches!(stream.read(&mut buffer), Ok(count) if count > 0) {}
            });
        }
    });
    address
}

#[test]
fn a_client_that_sends_on_can_read_an_early_response() {
    let world = World::start(Conf::servers("a").listener("max_body_size: 10KiB"));
    let body = pattern(3 << 20);
    let announced = format!("Content-Length: {}\r\n\r\n", body.len());
    for length in [announced.as_str(), "Transfer-Encoding: chunked\r\n\r\n300000\r\n"] {
        for _ in 0..5 {
            let mut wire = world.wire();
            wire.send(format!("POST /upload HTTP/1.1\r\nHost: x\r\n{length}"));
            for piece in body.chunks(16 << 10) {
                if wire.try_send(piece).is_err() {
                    break;
                }
            }
            wire.receive("POST").expect(413);
        }
    }
}

#[test]
fn a_client_can_read_the_early_response_of_a_server() {
    let world = World::start(Conf::servers("a").address("a", &early_server().to_string()));
    for _ in 0..5 {
        let mut wire = world.wire();
        wire.send("POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf");
        wire.receive("POST").expect(401);
    }
}

/// A server that answers uploads when it has their heads, and closes the connection with the rest unread.
fn abrupt_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut byte = [0];
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
                head.push(byte[0]);
            }
            let response = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 5\r\nConnection: close\r\n\r\nlarge";
            let _ = stream.write_all(response.as_bytes());
        }
    });
    address
}

#[test]
fn the_early_response_of_a_server_to_a_large_upload_arrives_each_time() {
    let world = World::start(Conf::servers("a").address("a", &abrupt_server().to_string()));
    let body = pattern(3 << 20);
    for _ in 0..50 {
        let mut wire = world.wire();
        wire.send(format!("POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len()));
        for piece in body.chunks(16 << 10) {
            if wire.try_send(piece).is_err() {
                break;
            }
        }
        assert_eq!(wire.receive("POST").expect(413).text(), "large");
    }
    for _ in 0..50 {
        let responses = h2_try(&world.address, vec![H2Request::post("/upload", body.clone())]);
        assert_eq!(responses[0].as_ref().map(|response| response.status), Ok(413));
    }
}

#[test]
fn a_failure_is_told_whatever_is_behind_the_request() {
    let world = World::start(Conf::servers("a").address("a", "127.0.0.1:1"));
    for _ in 0..20 {
        let mut wire = world.wire();
        wire.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(3000));
        wire.receive("GET").expect(503);
    }
}

#[test]
fn a_refused_request_is_told_so_whatever_is_behind_it() {
    let world = World::start(Conf::servers("a"));
    for _ in 0..20 {
        let mut wire = world.wire();
        wire.send(format!("GET /x y HTTP/1.1\r\nHost: x\r\n\r\n{}", "GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(500)));
        wire.receive("GET").expect(400);
    }
}

#[test]
fn a_connection_that_only_sends_frames_of_its_own_is_closed() {
    let world = World::start(short_timeouts());
    let priority = frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 0, 1]);
    for noise in [frame(kind::PING, 0, 0, &[0; 8]), settings(&[]), priority] {
        let mut wire = world.wire();
        wire.send([PREFACE, &settings(&[])].concat());
        let start = Instant::now();
        while wire.try_send(&noise).is_ok() && wire.time_to_close(Duration::from_millis(100)).is_none() {
            assert!(start.elapsed() < Duration::from_secs(8), "frames of type {} are no requests", noise[3]);
        }
    }
}

#[test]
fn an_authority_is_judged_as_a_host() {
    let world = World::start(Conf::servers("a"));
    for authority in ["a,b.example", "u@a.example", "a.example:80:90", "a.example:80"] {
        let mut wire = world.wire();
        wire.send(format!("GET /echo HTTP/1.1\r\nHost: {authority}\r\n\r\n"));
        let host = wire.receive("GET").status;
        let over_http2 = h2_try(&world.address, vec![H2Request { authority, ..H2Request::get("/echo") }]);
        let over_http2 = over_http2[0].as_ref().map_or(400, |response| response.status);
        assert_eq!(over_http2, host, "{authority}");
    }
}
