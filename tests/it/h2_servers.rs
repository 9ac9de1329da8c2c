//! Servers that speak HTTP/2 and say which requests they have not processed: those go again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::failover::MOVES;
use crate::world::{Conf, World};

/// What a connection of the server does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Manner {
    /// Processes requests.
    Serve,
    /// Processes three requests, then ends as a server that restarts.
    ServeThree,
    /// Refuses each stream.
    Refuse,
    /// Ends with this code before the first stream is processed.
    GoAway(u32),
}

/// A server; its connections have the manners that it was opened with, the last one for all that follow.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    /// How often each request was processed, by its path.
    processed: Arc<Mutex<BTreeMap<String, usize>>>,
    /// How often one was not.
    refused: Arc<AtomicUsize>,
}

impl Server {
    pub(crate) fn open(manners: Vec<Manner>) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let server = Self { address, connections: Arc::default(), processed: Arc::default(), refused: Arc::default() };
        let this = server.clone();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    let number = this.connections.fetch_add(1, Ordering::SeqCst);
                    let manner = manners[number.min(manners.len() - 1)];
                    tokio::spawn(this.clone().connection(stream, manner));
                }
            });
        });
        server
    }

    async fn connection(self, stream: TcpStream, manner: Manner) {
        match manner {
            Manner::Serve => self.serve(stream, usize::MAX).await,
            Manner::ServeThree => self.serve(stream, 3).await,
            Manner::Refuse => drop(self.refuse(stream, None).await),
            Manner::GoAway(code) => drop(self.refuse(stream, Some(code)).await),
        }
    }

    async fn serve(self, stream: TcpStream, most: usize) {
        let Ok(mut connection) = h2::server::handshake(stream).await else { return };
        let mut accepted = 0;
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            accepted += 1;
            if accepted == most {
                connection.graceful_shutdown();
            }
            let this = self.clone();
            tokio::spawn(async move {
                let path = request.uri().path().to_owned();
                let wants_trailers = request.headers().get("te").is_some_and(|te| te == "trailers");
                let mut body = request.into_body();
                let mut text = Vec::new();
                while let Some(Ok(piece)) = body.data().await {
                    let _ = body.flow_control().release_capacity(piece.len());
                    text.extend_from_slice(&piece);
                }
                *this.processed.lock().unwrap().entry(path).or_default() += 1;
                if let Ok(mut send) = respond.send_response(http::Response::new(()), false) {
                    let _ = send.send_data(Bytes::from(text), !wants_trailers);
                    if wants_trailers {
                        let trailers =
                            [("grpc-status", "0")].map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
                        let _ = send.send_trailers(http::HeaderMap::from_iter(trailers));
                    }
                }
            });
        }
    }

    /// Frames by hand: `h2` would refuse only what it has accepted.
    async fn refuse(self, mut stream: TcpStream, go_away: Option<u32>) -> std::io::Result<()> {
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await?;
        stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await?;
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await?;
            let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            stream.read_exact(&mut vec![0; length]).await?;
            match (head[3], go_away) {
                (1, None) => {
                    self.refused.fetch_add(1, Ordering::SeqCst);
                    let id = &head[5..9];
                    stream.write_all(&[&[0, 0, 4, 3, 0], id, &[0, 0, 0, 7]].concat()).await?;
                }
                (1, Some(code)) => {
                    self.refused.fetch_add(1, Ordering::SeqCst);
                    let last = [0, 0, 0, 0];
                    stream.write_all(&[&[0, 0, 8, 7, 0, 0, 0, 0, 0], &last[..], &code.to_be_bytes()].concat()).await?;
                    // Closed by the client: closing now could reset the connection before the frame is read.
                    while stream.read(&mut [0; 1024]).await? > 0 {}
                    return Ok(());
                }
                (4, _) if head[4] & 1 == 0 => stream.write_all(&[0, 0, 0, 4, 1, 0, 0, 0, 0]).await?,
                _ => {}
            }
        }
    }

    pub(crate) fn processed(&self, path: &str) -> usize {
        self.processed.lock().unwrap().get(path).copied().unwrap_or_default()
    }
}

fn conf(server: &Server) -> Conf {
    Conf::servers("a").address("a", &server.address.to_string()).pool("connection: { protocol: h2 }")
}

const NO_ERROR: u32 = 0;
const INTERNAL_ERROR: u32 = 2;
const ENHANCE_YOUR_CALM: u32 = 11;

#[test]
fn what_a_server_did_not_process_goes_there_again_whatever_the_method() {
    for manner in
        [Manner::Refuse, Manner::GoAway(NO_ERROR), Manner::GoAway(INTERNAL_ERROR), Manner::GoAway(ENHANCE_YOUR_CALM)]
    {
        for (method, body) in [("GET", ""), ("POST", "order"), ("DELETE", ""), ("PATCH", "x")] {
            // A refused stream leaves its connection usable: the next attempt may use it too.
            let server = Server::open(vec![manner, Manner::Serve]);
            let world = World::start(conf(&server).pool("retries: { budget_percent: 0 }"));
            let response = world.browser().request(method, "/order").body(body).send();
            assert_eq!((response.status, response.text()), (200, body.to_owned()), "{method}, {manner:?}");
            assert_eq!(server.processed("/order"), 1, "{method}, {manner:?}");
            assert!(server.refused.load(Ordering::SeqCst) >= 1, "{method}, {manner:?}: it happened");
            world.expect_metric(MOVES, &[], 0.0);
            world.expect_metric("homing_upstream_errors_total", &[("server", "a")], 0.0);
        }
    }
}

/// One failure ejects a server for longer than a test takes.
const BREAKER: &str =
    "circuit_breaker: { consecutive_failures: 1, ejection_time: 1h, max_ejection_time: 1h, max_ejected_percent: 100 }";

fn expect_not_ejected(world: &World, when: &str) {
    assert_eq!(world.metric("homing_server_breaker", &[("server", "a"), ("state", "closed")]), 1.0, "{when}");
    assert!(!world.log().contains("server ejected"), "{when}: {}", world.log());
}

#[test]
fn what_a_server_did_not_process_does_not_eject_it() {
    for manner in [Manner::Refuse, Manner::GoAway(NO_ERROR), Manner::GoAway(ENHANCE_YOUR_CALM)] {
        let server = Server::open(vec![manner, Manner::Serve]);
        let world = World::start(conf(&server).pool(BREAKER));
        for n in 0..3 {
            world.browser().post(&format!("/{n}"), "order").expect(200);
        }
        assert!(server.refused.load(Ordering::SeqCst) >= 1, "it happened");
        expect_not_ejected(&world, &format!("{manner:?}"));
    }
    // Nor does it when the request fails for that.
    let server = Server::open(vec![Manner::Refuse]);
    let world = World::start(conf(&server).pool(BREAKER));
    for _ in 0..3 {
        let status = world.browser().post("/order", "x").status;
        assert!((500..=504).contains(&status), "{status}");
    }
    expect_not_ejected(&world, "it refuses everything");
    // A server that restarts ends each connection after some requests.
    let server = Server::open(vec![Manner::ServeThree]);
    let world = World::start(conf(&server).pool(BREAKER));
    let browser = world.browser();
    for n in 0..12 {
        browser.post(&format!("/{n}"), "order").expect(200);
    }
    expect_not_ejected(&world, "it restarts");
}

#[test]
fn a_session_stays_when_its_server_restarts() {
    let server = Server::open(vec![Manner::ServeThree, Manner::GoAway(NO_ERROR), Manner::Refuse, Manner::Serve]);
    let world = World::start(conf(&server));
    let alice = world.browser();
    alice.get("/first").expect(200);
    let token = alice.token();
    for n in 0..12 {
        alice.post(&format!("/{n}"), "x").expect(200);
        assert_eq!(server.processed(&format!("/{n}")), 1);
    }
    assert_eq!(alice.token(), token);
    world.expect_metric(MOVES, &[], 0.0);
}

#[test]
fn a_server_that_refuses_everything_is_not_asked_for_ever() {
    let server = Server::open(vec![Manner::Refuse]);
    let world = World::start(conf(&server));
    let response = world.browser().post("/order", "x");
    assert!((500..=504).contains(&response.status), "{:?}", response.head);
    let refused = server.refused.load(Ordering::SeqCst);
    assert!((2..=8).contains(&refused), "{refused}");
    let server = Server::open(vec![Manner::Refuse]);
    let world = World::start(conf(&server).pool("retries: { attempts: 0 }"));
    world.browser().post("/order", "x").expect(502);
    assert_eq!(server.refused.load(Ordering::SeqCst), 1, "without retries once");
}

#[test]
fn a_server_that_restarts_again_and_again_costs_no_request() {
    let server = Server::open(vec![Manner::ServeThree]);
    let world = World::start(conf(&server));
    let browser = world.browser();
    for n in 0..30 {
        browser.post(&format!("/{n}"), "order").expect(200);
        assert_eq!(server.processed(&format!("/{n}")), 1);
    }
    assert!(server.connections.load(Ordering::SeqCst) >= 10, "every connection ended after three requests");
}
