//! Runs the shop on Pingora's HTTP server, on a listener that can be closed and opened again.
//!
//! Pingora's own services listen for as long as the process runs; a sample server stops and starts, so that the accept loop
//! is here, and each connection goes to Pingora.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use http::Version;
use pingora::apps::{HttpPersistentSettings, HttpServerApp, ReusedHttpStream, ServerApp};
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use pingora::protocols::l4::stream::Stream;
use pingora::server::ShutdownWatch;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::carts::Carts;
use super::fleet::{Fleet, RunningServer};
use super::message::{Reply, Request};
use super::shop::{Command, Outcome, RESTART_LAST_SERVER_AFTER, Shop};

/// Connections that one sample server serves at a time; more wait in the listener's queue.
const MAX_CONNECTIONS: usize = 1024;
/// Bytes of request line and headers; more: 431.
const MAX_HEAD: usize = 16 * 1024;
/// Bytes of a body; more: 413.
const MAX_BODY: usize = 64 * 1024;
/// Seconds that a connection may wait for its next request. Longer than the proxy keeps idle connections (30 s), so that it
/// is the proxy that closes them.
const KEEPALIVE_SECONDS: u64 = 120;
/// How long one read may wait within a request.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the rest of a refused body is read and dropped: closing with unread bytes would reset the connection, and the
/// client might lose the reply.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(300);

/// Starts a server with an empty memory; a running one is left alone. Needs the runtime's context.
pub(super) fn start(fleet: &Arc<Fleet>, index: usize) -> io::Result<()> {
    match fleet.servers.get(index) {
        Some(server) if !server.is_up() => serve(fleet, index, std::net::TcpListener::bind(server.address)?),
        _ => Ok(()),
    }
}

/// Serves on a listener that is already bound.
pub(super) fn serve(fleet: &Arc<Fleet>, index: usize, listener: std::net::TcpListener) -> io::Result<()> {
    let Some(server) = fleet.servers.get(index) else {
        return Ok(());
    };
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let carts = Arc::new(Carts::default());
    let (stop, stopped) = watch::channel(false);
    let shop = Shop { fleet: Arc::clone(fleet), index, carts: Arc::clone(&carts) };
    let task = tokio::spawn(accept(shop, listener, stopped));
    server.set_running(RunningServer { carts, stop, task });
    Ok(())
}

async fn accept(shop: Shop, listener: TcpListener, mut stopped: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            _ = stopped.changed() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => { connections.spawn(serve_connection(shop.clone(), stream, stopped.clone())); }
                // Out of file descriptors, or a client that has gone already: do not spin.
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn serve_connection(shop: Shop, stream: TcpStream, mut stopped: watch::Receiver<bool>) {
    // Pingora writes head and body apart.
    let _ = stream.set_nodelay(true);
    // A second handle on the socket, to reset it when Pingora has the first.
    let Ok(socket) = SockRef::from(&stream).try_clone() else {
        return;
    };
    let connection = Arc::new(Connection { shop, then_stop: AtomicBool::new(false) });
    let shutdown = stopped.clone();
    tokio::select! {
        biased;
        _ = stopped.changed() => {
            // Without lingering, closing is a reset. An error means that the connection is gone already.
            let _ = socket.set_linger(Some(Duration::ZERO));
        }
        _ = connection.process_new(Box::new(Stream::from(stream)), &shutdown) => {
            if connection.then_stop.load(Ordering::Relaxed) {
                tokio::spawn(stop_and_restart_last(connection.shop.clone()));
            }
        }
    }
}

/// Stops the server that a page's command went to. If it was the last one up, it starts again a little later, since the page
/// has no server left to send a command to.
async fn stop_and_restart_last(Shop { fleet, index, .. }: Shop) {
    if let Some(server) = fleet.servers.get(index) {
        server.stop().await;
    }
    if fleet.is_any_up() {
        return;
    }
    sleep(RESTART_LAST_SERVER_AFTER).await;
    if !fleet.is_any_up() {
        // Should its port be taken meanwhile, the terminal's keys still work.
        let _ = start(&fleet, index);
    }
}

/// One connection to a sample server: what Pingora hands requests to.
struct Connection {
    shop: Shop,
    /// The server stops when this connection has ended: its last reply said so.
    then_stop: AtomicBool,
}

#[async_trait]
impl HttpServerApp for Connection {
    async fn process_new_http(
        self: &Arc<Self>,
        mut exchange: ServerSession,
        _shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        exchange.set_pipelining_enabled(true);
        exchange.set_read_timeout(Some(READ_TIMEOUT));
        exchange.set_total_drain_timeout(Some(DRAIN_TIMEOUT));
        match exchange.read_request().await {
            Ok(true) => {}
            Ok(false) => return None,
            Err(_) => {
                // Whether the refusal arrives is the sender's luck.
                let _ = exchange.respond_error(400).await;
                exchange.shutdown().await;
                return None;
            }
        }
        // Off when the client asked for `Connection: close`.
        if exchange.get_keepalive().is_some() {
            exchange.set_keepalive(Some(KEEPALIVE_SECONDS));
        }
        let reply = match read_body(&mut exchange).await {
            Ok(body) => {
                let request = Request { head: exchange.req_header(), body: &String::from_utf8_lossy(&body) };
                self.respond(&request).await
            }
            Err(refusal) => {
                exchange.set_keepalive(None);
                refusal
            }
        };
        if reply.then_stop {
            exchange.set_keepalive(None);
            self.then_stop.store(true, Ordering::Relaxed);
        }
        send(exchange, reply).await.ok().flatten()
    }
}

impl Connection {
    async fn respond(&self, request: &Request<'_>) -> Reply {
        let reply = match self.shop.respond(request) {
            Outcome::Reply(reply) => reply,
            Outcome::Command(command, index) => self.execute(command, index).await,
        };
        let name = self.shop.server().map_or("", |server| server.name);
        reply.with("Served-By", name).with("Cache-Control", "no-store")
    }

    async fn execute(&self, command: Command, index: usize) -> Reply {
        let Some(server) = self.shop.fleet.servers.get(index) else {
            return Reply::text(404, "no such server\n");
        };
        let name = server.name;
        match command {
            Command::Start => match start(&self.shop.fleet, index) {
                Ok(()) => Reply::text(200, format!("{name} runs on {}\n", server.address)),
                Err(error) => Reply::text(500, format!("{name} cannot start on {}: {error}\n", server.address)),
            },
            // Its own server replies before it stops.
            Command::Stop if index == self.shop.index => {
                Reply { then_stop: true, ..Reply::text(200, format!("{name} stops\n")) }
            }
            Command::Stop => {
                server.stop().await;
                Reply::text(200, format!("{name} is stopped\n"))
            }
        }
    }
}

/// Reads the body, or says why the request is refused.
async fn read_body(exchange: &mut ServerSession) -> Result<Vec<u8>, Reply> {
    let head = exchange.req_header();
    if head.version == Version::HTTP_11 && head.headers.get_all(http::header::HOST).iter().count() != 1 {
        return Err(Reply::text(400, "exactly one Host is needed\n"));
    }
    let length = head.headers.get(http::header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let expects_continue = head.headers.get(http::header::EXPECT).is_some_and(|value| value == "100-continue");
    if exchange.to_h1_raw().len() > MAX_HEAD {
        return Err(Reply::text(431, "request line and headers are too large\n"));
    }
    if length.unwrap_or(0) > MAX_BODY {
        return Err(Reply::text(413, "the body is too large\n"));
    }
    let malformed = |_| Reply::text(400, "malformed body\n");
    if expects_continue && !exchange.is_body_done() {
        exchange.write_continue_response().await.map_err(malformed)?;
    }
    let mut body = Vec::new();
    while let Some(bytes) = exchange.read_request_body().await.map_err(malformed)? {
        body.extend_from_slice(&bytes);
        if body.len() > MAX_BODY {
            return Err(Reply::text(413, "the body is too large\n"));
        }
    }
    Ok(body)
}

/// Sends a reply; to a HEAD request without its body. Returns the connection if it carries another request.
async fn send(mut exchange: ServerSession, reply: Reply) -> pingora::Result<Option<ReusedHttpStream>> {
    let mut head = ResponseHeader::build(reply.status, Some(reply.headers.len() + 3))?;
    for (name, value) in reply.headers {
        head.append_header(name, value)?;
    }
    head.insert_header("Content-Length", reply.body.len())?;
    let has_body = exchange.req_header().method != http::Method::HEAD && !reply.body.is_empty();
    exchange.write_response_header(Box::new(head)).await?;
    if has_body {
        exchange.write_response_body(reply.body, true).await?;
    }
    if !exchange.is_body_done() {
        exchange.finish_body().await?;
        // Broken off or too long: the connection is closed in either case.
        let _ = exchange.drain_request_body().await;
    }
    let settings = HttpPersistentSettings::for_session(&exchange);
    let stream = exchange.finish().await?;
    Ok(stream.map(|stream| ReusedHttpStream::from_reusable_stream(stream, settings)))
}
