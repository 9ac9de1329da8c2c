//! Open WebSockets, event streams and uploads by the hundred, and their server: async and on one thread, since a thread for each
//! end of each would take longer than the test.
//!
//! Every stream says its number with each piece, so that a piece that is lost, repeated or someone else's shows. A stream goes
//! on until [`Crowd::finish`], and must then end as its protocol ends.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::{PATIENCE, eventually};

mod clients;
mod connection;
mod server;

/// Between two pieces of a stream.
const PACE: Duration = Duration::from_millis(500);
/// Bytes of a piece of an upload.
const PIECE: usize = 1000;

/// What is known of all streams.
#[derive(Debug)]
struct State {
    /// Pieces that arrived at the other end, by stream.
    arrived: Vec<AtomicUsize>,
    /// Streams that ended as they should.
    ended: AtomicUsize,
    finishing: AtomicBool,
    broken: Mutex<Vec<String>>,
}

/// Streams of three kinds, as many of each, through one proxy.
#[derive(Debug)]
pub(crate) struct Crowd {
    state: Arc<State>,
    threads: Vec<JoinHandle<()>>,
}

/// The server of the streams.
#[derive(Debug)]
pub(crate) struct CrowdServer {
    pub(crate) address: SocketAddr,
    listener: std::net::TcpListener,
}

impl CrowdServer {
    /// Reserves an address and listens there; requests are served by the crowd.
    pub(crate) fn listen() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a listener that does not block");
        Self { address: listener.local_addr().expect("its address"), listener }
    }
}

impl Crowd {
    /// Begins to open `count` streams of each kind.
    pub(crate) fn open(server: CrowdServer, proxy: SocketAddr, count: usize) -> Self {
        // Two descriptors for each stream here, and two in the proxy, which inherits the limit.
        rlimit::increase_nofile_limit(u64::MAX).expect("the limit of descriptors");
        let streams = 3 * count;
        let state = Arc::new(State {
            arrived: (0..streams).map(|_| AtomicUsize::new(0)).collect(),
            ended: AtomicUsize::new(0),
            finishing: AtomicBool::new(false),
            broken: Mutex::default(),
        });
        let (for_server, for_clients) = (Arc::clone(&state), Arc::clone(&state));
        let server = thread::spawn(move || executor().block_on(server::serve(server.listener, for_server)));
        let clients = thread::spawn(move || executor().block_on(clients::run(proxy, streams, for_clients)));
        Self { state, threads: vec![server, clients] }
    }

    /// Waits until so many more pieces of every stream have arrived.
    #[track_caller]
    pub(crate) fn await_pieces(&self, more: usize) {
        let wanted: Vec<_> = self.arrived().map(|arrived| arrived + more).collect();
        let mut behind = 0;
        eventually(8 * PATIENCE, "pieces of every stream", || {
            self.assert_whole();
            behind = self.arrived().zip(&wanted).filter(|(arrived, wanted)| arrived < wanted).count();
            behind == 0
        });
    }

    /// Pieces of all streams that have arrived.
    pub(crate) fn pieces(&self) -> usize {
        self.arrived().sum()
    }

    /// Ends every stream as its protocol ends, and waits for that.
    #[track_caller]
    pub(crate) fn finish(mut self) {
        self.state.finishing.store(true, Ordering::SeqCst);
        let streams = self.state.arrived.len();
        eventually(4 * PATIENCE, "all streams end", || {
            self.assert_whole();
            self.state.ended.load(Ordering::SeqCst) == streams
        });
        for thread in std::mem::take(&mut self.threads) {
            thread.join().expect("the crowd's thread");
        }
    }

    fn arrived(&self) -> impl Iterator<Item = usize> {
        self.state.arrived.iter().map(|arrived| arrived.load(Ordering::SeqCst))
    }

    #[track_caller]
    fn assert_whole(&self) {
        let broken = self.state.broken.lock().unwrap_or_else(PoisonError::into_inner);
        let shown: Vec<_> = broken.iter().take(10).collect();
        assert!(broken.is_empty(), "{} of {} streams are broken: {shown:#?}", broken.len(), self.state.arrived.len());
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        // Of a test that failed, too.
        self.state.finishing.store(true, Ordering::SeqCst);
    }
}

impl State {
    fn note_piece(&self, stream: usize) {
        self.arrived[stream].fetch_add(1, Ordering::SeqCst);
    }

    fn is_finishing(&self) -> bool {
        self.finishing.load(Ordering::SeqCst)
    }

    fn is_over(&self) -> bool {
        self.is_finishing() && self.ended.load(Ordering::SeqCst) == self.arrived.len()
    }

    fn note_break(&self, why: String) {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).push(why);
    }
}

fn executor() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an executor")
}

fn wrong<T>(what: impl Into<String>) -> io::Result<T> {
    Err(io::Error::new(ErrorKind::InvalidData, what.into()))
}

fn event_text(stream: usize, piece: usize) -> String {
    format!("id: {piece}\ndata: of stream {stream}\n\n")
}

fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let mut lines = head.split("\r\n").filter_map(|line| line.split_once(": "));
    lines.find(|(named, _)| named.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}
