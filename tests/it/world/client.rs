//! One client connection with control over every byte, and the answers that come back.

use std::io::{self, ErrorKind, Write as _};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::http1::{Head, Reader};
use super::net::{Address, PATIENCE, Stream};

/// An answer as it came over the wire.
#[derive(Debug, Clone, Default)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
    /// The 1xx answers before it.
    pub(crate) informational: Vec<Head>,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.head.all(name)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The application server's JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("no JSON from an application server ({e}): {} {:?}", self.status, self.text()))
    }

    /// The server that answered, by its own account.
    pub(crate) fn server(&self) -> String {
        assert_eq!(
            self.status,
            200,
            "an answer of an application server was expected: {:?} {:?}",
            self.head,
            self.text()
        );
        self.json()["server"].as_str().expect("the server's name").to_owned()
    }

    /// The headers that the server received, by name.
    pub(crate) fn received(&self, name: &str) -> Vec<String> {
        let json = self.json();
        let headers = json["headers"].as_array().expect("the headers that arrived");
        let values = headers.iter().filter(|pair| pair[0].as_str().is_some_and(|n| n.eq_ignore_ascii_case(name)));
        values.map(|pair| pair[1].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// The `Set-Cookie` lines that set a cookie of that name.
    pub(crate) fn set_cookies(&self, name: &str) -> Vec<&str> {
        let starts = format!("{name}=");
        self.all("set-cookie").into_iter().filter(|line| line.starts_with(&starts)).collect()
    }

    /// The one `Set-Cookie` line of that name, if any.
    pub(crate) fn set_cookie(&self, name: &str) -> Option<&str> {
        let lines = self.set_cookies(name);
        assert!(lines.len() <= 1, "the cookie {name} was set more than once: {lines:?}");
        lines.first().copied()
    }

    /// Asserts the status, showing the answer when it is another.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "another status was expected: {:?} {:?}", self.head, self.text());
        self
    }
}

/// A connection of a client.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) reader: Reader,
}

impl Wire {
    pub(crate) fn connect(address: &Address) -> Self {
        Self::try_connect(address).unwrap_or_else(|e| panic!("cannot connect to {address}: {e}"))
    }

    pub(crate) fn try_connect(address: &Address) -> io::Result<Self> {
        Ok(Self { reader: Reader::new(Stream::connect(address)?) })
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).unwrap_or_else(|e| panic!("the connection does not take the request: {e}"));
    }

    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.reader.stream.write_all(bytes.as_ref())
    }

    /// The answer to a request of that method, 1xx answers aside (101 is an answer).
    pub(crate) fn receive(&mut self, method: &str) -> Response {
        self.try_receive(method).unwrap_or_else(|e| panic!("no answer: {e}"))
    }

    pub(crate) fn try_receive(&mut self, method: &str) -> io::Result<Response> {
        let mut informational = Vec::new();
        loop {
            let response = self.try_receive_head()?;
            if (100..200).contains(&response.status) && response.status != 101 {
                informational.push(response.head);
                continue;
            }
            let mut response = Response { informational, ..response };
            let empty = method == "HEAD" || matches!(response.status, 101 | 204 | 304);
            if !empty {
                let head = response.head.clone();
                let body = &mut response.body;
                self.reader.body(&head, true, |piece| body.extend_from_slice(piece))?;
            }
            return Ok(response);
        }
    }

    /// The next head, whichever it is; its body is left to the caller.
    pub(crate) fn receive_head(&mut self) -> Response {
        self.try_receive_head().unwrap_or_else(|e| panic!("no answer: {e}"))
    }

    pub(crate) fn try_receive_head(&mut self) -> io::Result<Response> {
        let head =
            self.reader.head()?.ok_or_else(|| io::Error::new(ErrorKind::UnexpectedEof, "closed without an answer"))?;
        let status = head.word(1).parse().map_err(|e| {
            io::Error::new(ErrorKind::InvalidData, format!("{:?} is no status line: {e}", head.first_line))
        })?;
        Ok(Response { status, head, ..Response::default() })
    }

    /// How long it takes until the other side ends the connection; what it sends before that is read and dropped.
    /// `None`: it is still open after `patience`.
    pub(crate) fn time_to_close(&mut self, patience: Duration) -> Option<Duration> {
        let start = Instant::now();
        loop {
            let left = patience.checked_sub(start.elapsed()).filter(|left| !left.is_zero())?;
            let _ = self.reader.stream.set_patience(left);
            match self.reader.fill() {
                Ok(0) => return Some(start.elapsed()),
                Ok(_) => {}
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return None,
                Err(_) => return Some(start.elapsed()),
            }
        }
    }

    /// Everything until the other side ends the connection or falls silent for `silence`.
    pub(crate) fn drain(&mut self, silence: Duration) -> Vec<u8> {
        let _ = self.reader.stream.set_patience(silence);
        while matches!(self.reader.fill(), Ok(n) if n > 0) {}
        let _ = self.reader.stream.set_patience(PATIENCE);
        self.reader.pending().to_vec()
    }
}

/// One GET with these headers, over a connection of its own.
#[track_caller]
pub(crate) fn get_with(address: &Address, target: &str, headers: &[(&str, &str)]) -> Response {
    request_with(address, "GET", target, headers)
}

/// One request without a body, over a connection of its own.
#[track_caller]
pub(crate) fn request_with(address: &Address, method: &str, target: &str, headers: &[(&str, &str)]) -> Response {
    let frame = [("Host", "example.test"), ("Connection", "close")];
    let headers: Vec<_> = frame.iter().chain(headers).map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    let mut wire = Wire::connect(address);
    wire.send(request_text(method, target, &headers, b""));
    wire.receive(method)
}

/// The text of a request.
pub(crate) fn request_text(method: &str, target: &str, headers: &[(String, String)], body: &[u8]) -> Vec<u8> {
    let mut text = format!("{method} {target} HTTP/1.1\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}
