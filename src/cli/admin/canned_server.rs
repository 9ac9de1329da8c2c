//! A server with one response, for the tests of the client.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread::{JoinHandle, spawn};

use super::address::AdminAddress;

/// Answers one connection.
pub(super) struct CannedServer {
    pub(super) address: AdminAddress,
    thread: JoinHandle<String>,
}

impl CannedServer {
    /// On a free port.
    pub(super) fn on_tcp(response: &'static [u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let thread = spawn(move || answer(&mut listener.accept().expect("a client").0, response));
        Self { address: AdminAddress::Tcp("127.0.0.1".to_owned(), port), thread }
    }

    /// On a socket in the file system.
    pub(super) fn on_unix(path: &Path, response: &'static [u8]) -> Self {
        let listener = UnixListener::bind(path).expect("a socket");
        let thread = spawn(move || answer(&mut listener.accept().expect("a client").0, response));
        Self { address: AdminAddress::Unix(path.to_owned()), thread }
    }

    /// The request that came.
    pub(super) fn request(self) -> String {
        self.thread.join().expect("it was asked")
    }
}

/// Reads a request of one head, and a body if it has a length; responds in two parts.
fn answer(stream: &mut (impl Read + Write), response: &[u8]) -> String {
    let (mut request, mut byte) = (String::new(), [0]);
    let mut missing = usize::MAX;
    while missing > 0 && stream.read(&mut byte).expect("readable") > 0 {
        request.push(char::from(byte[0]));
        missing = missing.saturating_sub(1);
        if request.ends_with("\r\n\r\n") && missing > 1_000_000 {
            let length = request.to_ascii_lowercase().split("content-length: ").nth(1).map(|rest| {
                rest.split("\r\n").next().and_then(|length| length.parse::<usize>().ok()).expect("a length")
            });
            missing = length.unwrap_or(0);
        }
    }
    let (first, second) = response.split_at(response.len() / 2);
    for part in [first, second] {
        stream.write_all(part).and_then(|()| stream.flush()).expect("writable");
    }
    request
}
