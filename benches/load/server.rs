//! The application servers of the load bench: as cheap as they can be and all alike. One process and one thread answers on
//! as many ports as it is told, each under a name of its own (`s0`, `s1`, …) that every answer carries in `X-Server`.
//!
//! ```text
//! server COUNT [FIRST_PORT]    prints {"ports": [ … ]} once it listens on the loopback address
//! ```
//!
//! `/big…` answers 100 KiB, everything else 1 KiB, with seven headers. `/s…` also begins a session: a `Set-Cookie` with a
//! new `JSESSIONID`. Requests have no body and are not pipelined.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for the bench")]
#![allow(clippy::indexing_slicing, reason = "positions that were just found")]

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

const SMALL: usize = 1024;
const BIG: usize = 100 * 1024;

fn main() -> ExitCode {
    let count = std::env::args().nth(1).and_then(|count| count.parse().ok());
    // Zero: any that are free.
    let first = std::env::args().nth(2).map_or(Some(0), |port| port.parse().ok());
    let (Some(count), Some(first)) = (count, first) else {
        eprintln!("usage: server COUNT [FIRST_PORT]");
        return ExitCode::FAILURE;
    };
    match Servers::listen(count, first).and_then(|mut servers| servers.run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("server: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Servers {
    poll: Poll,
    /// Tokens `0..doors.len()`.
    doors: Vec<(TcpListener, Pages)>,
    /// Tokens from `doors.len()`; a place is used again when its connection ends.
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    /// The last id given to a session.
    last_id: u64,
    buffer: Vec<u8>,
}

impl Servers {
    fn listen(count: u16, first: u16) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut doors = Vec::new();
        for number in 0..count {
            let port = if first == 0 { 0 } else { first.saturating_add(number) };
            let mut door = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
            poll.registry().register(&mut door, Token(usize::from(number)), Interest::READABLE)?;
            doors.push((door, Pages::new(usize::from(number))));
        }
        let ports: io::Result<Vec<String>> =
            doors.iter().map(|(door, _)| Ok(door.local_addr()?.port().to_string())).collect();
        println!("{{\"ports\": [{}]}}", ports?.join(", "));
        let began = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos());
        let last_id = u64::try_from(began & u128::from(u64::MAX)).unwrap_or_default();
        Ok(Self { poll, doors, connections: Vec::new(), free: Vec::new(), last_id, buffer: vec![0; 16 * 1024] })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in &events {
                match event.token().0.checked_sub(self.doors.len()) {
                    None => self.accept(event.token().0)?,
                    Some(place) => self.serve(place, event),
                }
            }
        }
    }

    fn accept(&mut self, door: usize) -> io::Result<()> {
        loop {
            let mut stream = match self.doors[door].0.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            stream.set_nodelay(true)?;
            let place = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            let token = Token(self.doors.len() + place);
            self.poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
            self.connections[place] = Some(Connection { stream, door, asked: Vec::new(), answer: None });
        }
    }

    fn serve(&mut self, place: usize, event: &Event) {
        let Some(connection) = self.connections[place].as_mut() else { return };
        let pages = &self.doors[connection.door].1;
        let lives = connection.flush().is_ok()
            && (!event.is_readable()
                || connection.read(&mut self.buffer, event.is_read_closed(), pages, &mut self.last_id).is_ok());
        if !lives {
            self.connections[place] = None;
            self.free.push(place);
        }
    }
}

struct Connection {
    stream: TcpStream,
    door: usize,
    /// An incomplete request.
    asked: Vec<u8>,
    /// What is left to be written, and from where.
    answer: Option<(Rc<[u8]>, usize)>,
}

impl Connection {
    /// Answers what has come. An error also when the client has gone.
    fn read(&mut self, buffer: &mut [u8], closed: bool, pages: &Pages, last_id: &mut u64) -> io::Result<()> {
        loop {
            let read = match self.stream.read(buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let new = &buffer[..read];
            if self.asked.is_empty() && new.ends_with(b"\r\n\r\n") {
                self.answer = Some((pages.answer(new, last_id), 0));
            } else {
                self.asked.extend_from_slice(new);
                if self.asked.ends_with(b"\r\n\r\n") {
                    self.answer = Some((pages.answer(&self.asked, last_id), 0));
                    self.asked.clear();
                }
            }
            self.flush()?;
            // A short read has emptied the socket (epoll(7)); only the end of the stream could still be behind it.
            if read < buffer.len() && !closed {
                return Ok(());
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while let Some((bytes, from)) = &mut self.answer {
            match self.stream.write(&bytes[*from..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => *from += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
            if *from == bytes.len() {
                self.answer = None;
            }
        }
        Ok(())
    }
}

/// What one server says.
struct Pages {
    name: String,
    small: Rc<[u8]>,
    big: Rc<[u8]>,
}

impl Pages {
    fn new(number: usize) -> Self {
        let name = format!("s{number}");
        let small = page(&name, SMALL, "");
        let big = page(&name, BIG, "");
        Self { name, small, big }
    }

    fn answer(&self, request: &[u8], last_id: &mut u64) -> Rc<[u8]> {
        let path = request.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
        if path.starts_with(b"/s") {
            *last_id = last_id.wrapping_add(1);
            let id = u128::from(mixed(*last_id)) << 64 | u128::from(*last_id);
            page(&self.name, SMALL, &format!("Set-Cookie: JSESSIONID={id:032X}; Path=/; HttpOnly\r\n"))
        } else if path.starts_with(b"/big") {
            Rc::clone(&self.big)
        } else {
            Rc::clone(&self.small)
        }
    }
}

fn page(name: &str, length: usize, cookie: &str) -> Rc<[u8]> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nDate: Tue, 24 Nov 2026 09:00:00 GMT\r\nContent-Type: text/html; charset=utf-8\r\n\
         Content-Length: {length}\r\nCache-Control: no-cache\r\nETag: \"5f3a-62c1d0\"\r\nVary: Accept-Encoding\r\n\
         X-Server: {name}\r\n{cookie}\r\n"
    );
    [head.as_bytes(), &vec![b'x'; length]].concat().into()
}

/// The finalizer of `SplitMix64` (Steele, Lea, Flood 2014): ids that differ in every digit.
fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
