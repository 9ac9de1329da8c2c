//! A link between the proxy and something it speaks to, with a hand on it: bytes can be late, held, lost, or the whole
//! thing cut. It does not look into the bytes.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::ports::Port;
use super::{PATIENCE, eventually};

/// Connect to [`Link::address`] instead of to where it leads.
#[derive(Debug)]
pub(crate) struct Link {
    port: Port,
    to: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    delay: Duration,
    held: bool,
    losing: bool,
    cut: bool,
    /// How many connections there ever were, which number them.
    accepted: u64,
    /// Those below this number have lost bytes, and so never bring any again.
    lost_below: u64,
    /// Those below this number were cut.
    cut_below: u64,
    /// Those that are open: the client's side and the other.
    open: HashMap<u64, [TcpStream; 2]>,
}

/// One direction of one connection.
#[derive(Debug)]
struct Way {
    connection: u64,
    from: TcpStream,
    to: TcpStream,
}

impl Link {
    /// A link that forwards at once.
    pub(crate) fn to(to: SocketAddr) -> Self {
        let link = Self { port: Port::reserve(), to, shared: Arc::default(), acceptor: Mutex::default() };
        link.listen();
        link
    }

    /// Where its clients connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// From now on bytes come so much later, in each direction.
    pub(crate) fn delay(&self, delay: Duration) {
        self.change(|state| state.delay = delay);
    }

    /// From now on nothing comes through, in no direction. Connections stay, new ones are accepted and as silent. When the
    /// link is healed all comes, as after a partition that was shorter than TCP's patience.
    pub(crate) fn hold(&self) {
        self.change(|state| state.held = true);
    }

    /// The same, but what is sent meanwhile is lost: connections of before and from meanwhile stay silent for ever, also
    /// when the link is healed, and only new ones work, as after a firewall that forgot them.
    pub(crate) fn lose(&self) {
        self.change(|state| state.losing = true);
    }

    /// Every connection is reset, new ones are refused.
    pub(crate) fn cut(&self) {
        let acceptor = self.acceptor().take();
        self.change(|state| {
            state.cut = true;
            state.cut_below = state.accepted;
            for side in state.open.values().flatten() {
                // Reset when its last handle is dropped, which its reader and writer do now.
                let _ = SockRef::from(side).set_linger(Some(Duration::ZERO));
                let _ = side.shutdown(Shutdown::Read);
            }
        });
        if let Some(acceptor) = acceptor {
            // So that it notices.
            let _ = TcpStream::connect(self.address());
            acceptor.join().expect("the acceptor ends");
        }
        eventually(PATIENCE, "every connection of the link is reset", || self.open() == 0);
    }

    /// Forwards at once again, and takes connections.
    pub(crate) fn heal(&self) {
        self.change(|state| {
            if state.losing {
                state.lost_below = state.accepted;
            }
            (state.delay, state.held, state.losing, state.cut) = (Duration::ZERO, false, false, false);
        });
        self.listen();
    }

    /// How many connections were ever accepted.
    pub(crate) fn accepted(&self) -> u64 {
        self.shared.state().accepted
    }

    /// How many connections are open.
    pub(crate) fn open(&self) -> usize {
        self.shared.state().open.len()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.state());
        self.shared.changed.notify_all();
    }

    fn listen(&self) {
        let mut acceptor = self.acceptor();
        if acceptor.is_some() {
            return;
        }
        let listener = TcpListener::bind(self.address()).expect("our reserved port");
        let (shared, to) = (Arc::clone(&self.shared), self.to);
        *acceptor = Some(thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                if shared.state().cut {
                    return;
                }
                // Nothing behind it: the client's connection is closed.
                if let Ok(server) = TcpStream::connect_timeout(&to, PATIENCE) {
                    let _ = shared.join(client, server);
                }
            }
        }));
    }

    fn acceptor(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.acceptor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.cut();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Two sockets become one connection.
    fn join(self: &Arc<Self>, client: TcpStream, server: TcpStream) -> std::io::Result<()> {
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let sides = [client.try_clone()?, server.try_clone()?];
        let back = [server.try_clone()?, client.try_clone()?];
        let connection = {
            let mut state = self.state();
            if state.cut {
                return Ok(());
            }
            let connection = state.accepted;
            state.accepted += 1;
            state.open.insert(connection, sides);
            connection
        };
        let [from, to] = back;
        let ways = [Way { connection, from: client, to: server }, Way { connection, from, to }];
        let all = ways.map(|way| {
            let (sender, receiver) = mpsc::channel();
            let (shared, read) = (Arc::clone(self), way.from.try_clone());
            let reader = thread::spawn(move || drop(read.map(|from| receive(from, &sender))));
            [reader, thread::spawn(move || shared.forward(&way, &receiver))]
        });
        let shared = Arc::clone(self);
        thread::spawn(move || {
            all.into_iter().flatten().for_each(|thread| drop(thread.join()));
            shared.state().open.remove(&connection);
        });
        Ok(())
    }

    /// Writes what was read, each piece when its time has come; in the end the writing side is closed too.
    fn forward(&self, way: &Way, pieces: &Receiver<(Instant, Vec<u8>)>) {
        let mut to = &way.to;
        for (read, piece) in pieces {
            match self.wait(way.connection, read) {
                Pass::Now => {}
                Pass::Never => continue,
                Pass::Over => return,
            }
            if piece.is_empty() {
                let _ = to.shutdown(Shutdown::Write);
            } else if to.write_all(&piece).is_err() {
                // The other side learns it as it would from a real one.
                let _ = way.from.shutdown(Shutdown::Read);
                return;
            }
        }
    }

    /// Returns when what was read at that time may go on.
    fn wait(&self, connection: u64, read: Instant) -> Pass {
        let mut state = self.state();
        loop {
            let rest = (read + state.delay).saturating_duration_since(Instant::now());
            if connection < state.cut_below {
                return Pass::Over;
            } else if state.losing || connection < state.lost_below {
                return Pass::Never;
            } else if state.held {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            } else if rest > Duration::ZERO {
                state = self.changed.wait_timeout(state, rest).unwrap_or_else(PoisonError::into_inner).0;
            } else {
                return Pass::Now;
            }
        }
    }
}

/// What becomes of a piece.
enum Pass {
    Now,
    Never,
    Over,
}

/// Reads to the end, which is an empty piece.
fn receive(mut from: TcpStream, pieces: &Sender<(Instant, Vec<u8>)>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = from.read(&mut buffer).unwrap_or(0);
        if pieces.send((Instant::now(), buffer[..length].to_vec())).is_err() || length == 0 {
            return;
        }
    }
}
