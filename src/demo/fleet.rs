//! The three sample servers: each listens, remembers carts while it runs, and can be stopped and started.
//!
//! Stopping is as hard as a crash: the listener is closed, open connections are reset, the memory is gone.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::shop;
use super::shop::Memory;
use super::wire::{Bad, Reply, Wire};

/// Connections that one sample server serves at a time; more wait in the listener's queue.
const MAX_CONNECTIONS: usize = 1024;
/// After this time the last server stopped from the page starts again: nobody else could take the order.
pub(super) const LAST_ONE_RETURNS_AFTER: Duration = Duration::from_secs(10);

/// All sample servers.
pub(super) struct Fleet {
    pub(super) servers: Vec<SampleServer>,
}

/// One sample server, running or stopped.
pub(super) struct SampleServer {
    pub(super) name: &'static str,
    /// For the page.
    pub(super) colour: &'static str,
    pub(super) address: SocketAddr,
    /// Requests of clients since the demo started, without health checks and the page's own polls.
    pub(super) requests: AtomicU64,
    /// What exists only while the server runs. Taken for a moment by starting, stopping and the page's questions;
    /// never held across an await.
    life: Mutex<Option<Life>>,
}

struct Life {
    memory: Arc<Memory>,
    stop: watch::Sender<bool>,
    ended: JoinHandle<()>,
}

impl SampleServer {
    pub(super) fn new(name: &'static str, colour: &'static str, address: SocketAddr) -> Self {
        Self { name, colour, address, requests: AtomicU64::new(0), life: Mutex::new(None) }
    }

    pub(super) fn is_up(&self) -> bool {
        self.life.lock().is_some()
    }

    /// Carts in its memory; 0 when stopped.
    pub(super) fn carts(&self) -> usize {
        let memory = self.life.lock().as_ref().map(|life| Arc::clone(&life.memory));
        memory.map_or(0, |memory| memory.len())
    }
}

impl Fleet {
    /// The server of this name and its place.
    pub(super) fn find(&self, name: &str) -> Option<(usize, &SampleServer)> {
        self.servers.iter().enumerate().find(|(_, server)| server.name == name)
    }

    /// Starts a server with an empty memory; a running one is left alone. Needs the runtime's context.
    pub(super) fn start(self: &Arc<Self>, index: usize) -> io::Result<()> {
        let Some(server) = self.servers.get(index) else {
            return Ok(());
        };
        if server.is_up() {
            return Ok(());
        }
        self.serve(index, std::net::TcpListener::bind(server.address)?)
    }

    /// Serves on a listener that is already bound.
    pub(super) fn serve(self: &Arc<Self>, index: usize, listener: std::net::TcpListener) -> io::Result<()> {
        let Some(server) = self.servers.get(index) else {
            return Ok(());
        };
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let memory = Arc::new(Memory::default());
        let (stop, stopped) = watch::channel(false);
        let place = Place { fleet: Arc::clone(self), index, memory: Arc::clone(&memory) };
        let ended = tokio::spawn(accept(place, listener, stopped));
        *server.life.lock() = Some(Life { memory, stop, ended });
        Ok(())
    }

    /// Stops a server; returns when its port is closed and every connection has been reset.
    pub(super) async fn stop(&self, index: usize) {
        let life = self.servers.get(index).and_then(|server| server.life.lock().take());
        let Some(Life { memory: _, stop, ended }) = life else {
            return;
        };
        // Nobody listens any more only if the server has already ended, which is what we want.
        let _ = stop.send(true);
        let _ = ended.await;
    }

    /// Stops a server on the page's order. If it was the last, it starts again by itself a little later, since there
    /// is nobody left whom the page could ask.
    pub(super) async fn stop_from_page(self: Arc<Self>, index: usize) {
        self.stop(index).await;
        if self.servers.iter().any(SampleServer::is_up) {
            return;
        }
        sleep(LAST_ONE_RETURNS_AFTER).await;
        if !self.servers.iter().any(SampleServer::is_up) {
            // Should its port be taken meanwhile, the terminal's keys still work.
            let _ = self.start(index);
        }
    }
}

/// Where a connection is served.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) fleet: Arc<Fleet>,
    pub(super) index: usize,
    pub(super) memory: Arc<Memory>,
}

impl Place {
    /// The server that this is.
    pub(super) fn server(&self) -> Option<&SampleServer> {
        self.fleet.servers.get(self.index)
    }

    /// Counts a request of a client.
    pub(super) fn count(&self) {
        if let Some(server) = self.server() {
            server.requests.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn accept(place: Place, listener: TcpListener, mut stopped: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            _ = stopped.changed() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => { connections.spawn(connection(place.clone(), stream, stopped.clone())); }
                // Out of file descriptors, or a client that left at once: do not spin.
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// How a connection ended.
enum Ended {
    /// Its server was stopped: reset it.
    Stopped,
    /// All is said.
    Closed,
    /// All is said, and what was said is that this server stops.
    StopServer,
}

async fn connection(place: Place, mut stream: TcpStream, mut stopped: watch::Receiver<bool>) {
    let ended = tokio::select! {
        biased;
        _ = stopped.changed() => Ended::Stopped,
        ended = talk(&place, &mut stream) => ended,
    };
    match ended {
        Ended::Stopped => {
            // An error means that the connection is gone already.
            let _ = stream.set_zero_linger();
        }
        Ended::Closed => linger(&mut stream).await,
        Ended::StopServer => {
            linger(&mut stream).await;
            tokio::spawn(Arc::clone(&place.fleet).stop_from_page(place.index));
        }
    }
}

async fn talk(place: &Place, stream: &mut TcpStream) -> Ended {
    let mut wire = Wire::new(stream);
    loop {
        match wire.next_request().await {
            Ok(Some(request)) => {
                let reply = shop::answer(place, &request).await;
                let keep_alive = request.head.keep_alive && !reply.then_stop;
                let sent = wire.answer(&reply, request.head.method == "HEAD", keep_alive).await;
                if reply.then_stop {
                    return Ended::StopServer;
                }
                if sent.is_err() || !keep_alive {
                    return Ended::Closed;
                }
            }
            Ok(None) | Err(Bad::Gone) => return Ended::Closed,
            Err(Bad::Refused(status, why)) => {
                // Whether the refusal arrives is the sender's luck.
                let _ = wire.answer(&Reply::text(status, format!("{why}\n")), false, false).await;
                return Ended::Closed;
            }
        }
    }
}

/// Closes our side and drops what still arrives for a moment: closing with unread bytes would reset the connection and
/// could take the reply with it.
async fn linger(stream: &mut TcpStream) {
    let _ = stream.shutdown().await;
    let mut scrap = [0_u8; 4096];
    let drain = async { while matches!(stream.read(&mut scrap).await, Ok(count) if count > 0) {} };
    let _ = timeout(Duration::from_millis(300), drain).await;
}
