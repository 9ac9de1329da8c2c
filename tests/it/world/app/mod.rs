//! An application server with sessions in memory: raw HTTP/1.1 on threads of its own. It answers as JSON what it was
//! asked, in the words that came over the wire, and can be killed, frozen, made unreachable and started again.

pub(crate) mod answers;
mod carts;
pub(crate) mod desks;
mod websocket;

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use super::http1::{Head, Reader};
use super::net::{Address, Listener, PATIENCE, Stream};
use super::ports::Port;

/// What the proxy calls before it trusts a server. Not counted among the requests.
pub(crate) const HEALTH_PATH: &str = "/healthz";

/// A request as it reached the server.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) head: Head,
    /// Bytes of body that came, framing taken off.
    pub(crate) body_length: u64,
    /// The body came whole, as its framing promised.
    pub(crate) body_complete: bool,
}

impl Seen {
    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
}

/// An application server.
#[derive(Debug)]
pub(crate) struct App {
    shared: Arc<Shared>,
    _port: Option<Port>,
    acceptor: Mutex<Option<JoinHandle<()>>>,
    blackhole: Mutex<Option<Blackhole>>,
}

#[derive(Debug)]
struct Shared {
    name: String,
    address: Address,
    /// Rises with each kill; threads of an earlier life stop.
    life: AtomicU64,
    frozen: AtomicBool,
    health: AtomicU16,
    reset_next_reused: AtomicBool,
    gate: Mutex<u64>,
    gate_opened: Condvar,
    seen: Mutex<Vec<Seen>>,
    probes: AtomicUsize,
    connections: Mutex<HashMap<u64, Stream>>,
    accepted: AtomicU64,
    sessions: Mutex<HashMap<String, u64>>,
    carts: Mutex<HashMap<String, carts::Cart>>,
    /// Answers that could not be written to the end.
    unfinished: AtomicUsize,
}

/// A listener whose queue is full: the kernel drops every further SYN.
#[derive(Debug)]
struct Blackhole {
    _listener: Socket,
    _fillers: Vec<TcpStream>,
}

impl App {
    /// Reserves an address without listening on it.
    pub(crate) fn reserve(name: &str) -> Self {
        let port = Port::reserve();
        Self::at(name, port.address().into(), Some(port))
    }

    /// The same on `::1`.
    pub(crate) fn reserve_v6(name: &str) -> Self {
        let port = Port::reserve_v6();
        Self::at(name, port.address().into(), Some(port))
    }

    /// At an address of its own, e.g. a unix socket.
    pub(crate) fn at(name: &str, address: Address, port: Option<Port>) -> Self {
        let shared = Shared {
            name: name.to_owned(),
            address,
            life: AtomicU64::new(0),
            frozen: AtomicBool::new(false),
            health: AtomicU16::new(200),
            reset_next_reused: AtomicBool::new(false),
            gate: Mutex::new(0),
            gate_opened: Condvar::new(),
            seen: Mutex::default(),
            probes: AtomicUsize::new(0),
            connections: Mutex::default(),
            accepted: AtomicU64::new(0),
            sessions: Mutex::default(),
            carts: Mutex::default(),
            unfinished: AtomicUsize::new(0),
        };
        Self { shared: Arc::new(shared), _port: port, acceptor: Mutex::default(), blackhole: Mutex::default() }
    }

    /// Starts listening, for the first time or again, on the same address. A started server remembers no session.
    pub(crate) fn start(&self) {
        *lock(&self.blackhole) = None;
        let mut acceptor = lock(&self.acceptor);
        if acceptor.is_some() {
            return;
        }
        lock(&self.shared.sessions).clear();
        lock(&self.shared.carts).clear();
        self.shared.frozen.store(false, Ordering::SeqCst);
        let listener = once_free(|| Listener::bind(&self.shared.address))
            .unwrap_or_else(|e| panic!("server {} cannot listen on {}: {e}", self.shared.name, self.shared.address));
        let shared = Arc::clone(&self.shared);
        let life = shared.life.load(Ordering::SeqCst);
        *acceptor = Some(thread::spawn(move || shared.accept(&listener, life)));
    }

    /// As a crash: the port refuses, every connection is reset, sessions are gone.
    pub(crate) fn kill(&self) {
        *lock(&self.blackhole) = None;
        self.shared.life.fetch_add(1, Ordering::SeqCst);
        self.shared.gate_opened.notify_all();
        let acceptor = lock(&self.acceptor).take();
        if let Some(acceptor) = acceptor {
            let _ = Stream::connect(&self.shared.address);
            acceptor.join().expect("the acceptor ends");
        }
        if let Address::Unix(path) = &self.shared.address {
            let _ = std::fs::remove_file(path);
        }
        for stream in lock(&self.shared.connections).values() {
            stream.reset_on_close();
            let _ = stream.shutdown(Shutdown::Read);
        }
        let deadline = Instant::now() + PATIENCE;
        while !lock(&self.shared.connections).is_empty() {
            assert!(Instant::now() < deadline, "connections of server {} did not end", self.shared.name);
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Killed and restarted at once: connections kept open to it are dead.
    pub(crate) fn restart(&self) {
        self.kill();
        self.start();
    }

    /// Connections are accepted, nothing is answered any more.
    pub(crate) fn freeze(&self) {
        self.shared.frozen.store(true, Ordering::SeqCst);
    }

    /// Answers again, also what came in meanwhile.
    pub(crate) fn thaw(&self) {
        self.shared.frozen.store(false, Ordering::SeqCst);
    }

    /// Killed, and from now on connections are not even refused: SYNs go unanswered.
    pub(crate) fn blackhole(&self) {
        self.kill();
        let Address::Tcp(address) = self.shared.address else { panic!("only a TCP address can be a black hole") };
        let listener = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
        listener.set_reuse_address(true).expect("SO_REUSEADDR");
        once_free(|| listener.bind(&SockAddr::from(address))).expect("our reserved port");
        listener.listen(0).expect("a queue of one");
        let mut fillers = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(150)) {
            fillers.push(stream);
            assert!(fillers.len() < 16, "the queue of {address} never fills up: no black hole on this system");
        }
        *lock(&self.blackhole) = Some(Blackhole { _listener: listener, _fillers: fillers });
    }

    /// What `/healthz` answers from now on.
    pub(crate) fn set_health(&self, status: u16) {
        self.shared.health.store(status, Ordering::SeqCst);
    }

    /// The next request that comes over an already used connection is not answered: the connection is reset.
    pub(crate) fn reset_next_reused(&self) {
        self.shared.reset_next_reused.store(true, Ordering::SeqCst);
    }

    /// Whether that reset is still to come.
    pub(crate) fn reset_is_pending(&self) -> bool {
        self.shared.reset_next_reused.load(Ordering::SeqCst)
    }

    /// Lets `/gated` send its next piece.
    pub(crate) fn open_gate(&self) {
        *lock(&self.shared.gate) += 1;
        self.shared.gate_opened.notify_all();
    }

    pub(crate) fn name(&self) -> &str {
        &self.shared.name
    }

    pub(crate) fn address(&self) -> Address {
        self.shared.address.clone()
    }

    pub(crate) fn socket_address(&self) -> SocketAddr {
        match self.shared.address {
            Address::Tcp(address) => address,
            Address::Unix(_) => panic!("server {} has no IP address", self.shared.name),
        }
    }

    /// All requests whose head arrived, health checks aside.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        lock(&self.shared.seen).clone()
    }

    /// How many requests arrived, health checks aside.
    pub(crate) fn requests(&self) -> usize {
        lock(&self.shared.seen).len()
    }

    /// How many requests of that method and path arrived.
    pub(crate) fn count(&self, method: &str, path: &str) -> usize {
        lock(&self.shared.seen).iter().filter(|s| s.method == method && s.path() == path).count()
    }

    /// How many health checks were answered.
    pub(crate) fn probes(&self) -> usize {
        self.shared.probes.load(Ordering::SeqCst)
    }

    /// How many connections were accepted.
    pub(crate) fn connections(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// How many of them are open.
    pub(crate) fn open_connections(&self) -> usize {
        lock(&self.shared.connections).len()
    }

    /// How many answers the other side did not take to the end.
    pub(crate) fn unfinished(&self) -> usize {
        self.shared.unfinished.load(Ordering::SeqCst)
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Shared {
    fn accept(self: Arc<Self>, listener: &Listener, life: u64) {
        while let Ok(stream) = listener.accept() {
            if self.is_over(life) {
                stream.reset_on_close();
                return;
            }
            let id = self.accepted.fetch_add(1, Ordering::SeqCst);
            let Ok(handle) = stream.try_clone() else { continue };
            lock(&self.connections).insert(id, handle);
            let shared = Arc::clone(&self);
            thread::spawn(move || {
                let _ = stream.set_patient();
                shared.serve(Reader::new(stream), life);
                lock(&shared.connections).remove(&id);
            });
        }
    }

    /// One connection, request after request.
    fn serve(&self, mut reader: Reader, life: u64) {
        let mut reused = false;
        while let Ok(Some(head)) = reader.head() {
            while self.frozen.load(Ordering::SeqCst) && !self.is_over(life) {
                thread::sleep(Duration::from_millis(5));
            }
            if self.is_over(life) {
                return;
            }
            if reused && self.reset_next_reused.swap(false, Ordering::SeqCst) {
                reader.stream.reset_on_close();
                return;
            }
            reused = true;
            match self.answer(&mut reader, &head, life) {
                Ok(answers::Next::Keep) => {}
                Ok(answers::Next::Close) => return,
                Ok(answers::Next::Reset) => {
                    reader.stream.reset_on_close();
                    return;
                }
                Err(_) => {
                    self.unfinished.fetch_add(1, Ordering::SeqCst);
                    return;
                }
            }
        }
    }

    fn is_over(&self, life: u64) -> bool {
        self.life.load(Ordering::SeqCst) != life
    }
}

/// Binds the port that a listener of before has just left. A process that another test starts at this moment may still have that
/// listener, until it executes its program.
fn once_free<T>(bind: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match bind() {
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(5));
            }
            bound => return bound,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
