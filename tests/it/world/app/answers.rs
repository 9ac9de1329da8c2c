//! What the application server answers, by path. Every behaviour takes `only=NAME`: other servers answer as `/echo`.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::http1::{Hash, Head, Reader, percent_decode, query};
use super::{HEALTH_PATH, Seen, Shared, lock, websocket};

/// What becomes of the connection.
pub(super) enum Next {
    Keep,
    Close,
    Reset,
}

/// The lines of `/set-cookies`, among them some that no RFC allows but applications send.
pub(crate) const ODD_SET_COOKIES: [&str; 7] = [
    "theme=dark; Path=/",
    "until=1; Expires=Wed, 09 Jun 2027 10:18:14 GMT; Path=/x",
    "quoted=\"a, b; c\"; HttpOnly",
    "=nameless; Path=/",
    "nothing",
    "theme=light; Path=/shop",
    "last=x==; Max-Age=99999999999999999999",
];

/// The target of a request that is answered with this status and these header lines.
pub(crate) fn saying(status: u16, lines: &[&str]) -> String {
    let encoded = |line: &&str| line.bytes().fold("&line=".to_owned(), |text, byte| text + &format!("%{byte:02x}"));
    format!("/say?status={status}{}", lines.iter().map(encoded).collect::<String>())
}

/// The request being answered.
pub(super) struct Asked<'a> {
    head: &'a Head,
    target: &'a str,
    body_length: u64,
    body_hash: String,
    life: u64,
}

impl Asked<'_> {
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        query(self.target, name)
    }

    fn number(&self, name: &str, default: u64) -> u64 {
        self.parameter(name).map_or(default, |v| v.parse().unwrap_or_else(|_| panic!("{name}={v} is no number")))
    }

    /// Header lines of the test's choice: every `line=`, percent-encoded. See [`saying`].
    fn lines(&self) -> String {
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        let lines = query.split('&').filter_map(|pair| pair.strip_prefix("line=")).map(percent_decode);
        lines.fold(String::new(), |text, line| text + &String::from_utf8_lossy(&line) + "\r\n")
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    /// The value of a cookie.
    pub(super) fn cookie(&self, name: &str) -> Option<String> {
        let lines = self.head.all("cookie");
        let mut pairs = lines.iter().flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
        pairs.find(|(named, _)| *named == name).map(|(_, value)| value.to_owned())
    }

    fn is_head(&self) -> bool {
        self.head.word(0) == "HEAD"
    }
}

impl Shared {
    pub(super) fn answer(&self, reader: &mut Reader, head: &Head, life: u64) -> io::Result<Next> {
        let target = head.word(1).to_owned();
        let path = target.split('?').next().unwrap_or_default().to_owned();
        if path == HEALTH_PATH {
            self.probes.fetch_add(1, Ordering::SeqCst);
            return plain(reader, self.health.load(Ordering::SeqCst), "text/plain", "health", &[]);
        }
        let index = self.note(head, &target);
        if head.has_token("expect", "100-continue") && path != "/no-continue" {
            reader.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let (mut length, mut hash) = (0, Hash::new());
        reader.body(head, false, |piece| {
            length += piece.len() as u64;
            hash.update(piece);
            self.update(index, |seen| seen.body_length = length);
        })?;
        self.update(index, |seen| seen.body_complete = true);
        let asked = Asked { head, target: &target, body_length: length, body_hash: hash.hex(), life };
        let elsewhere = asked.parameter("only").is_some_and(|name| name != self.name);
        self.behave(reader, &asked, if elsewhere { "/echo" } else { &path })
    }

    fn behave(&self, reader: &mut Reader, asked: &Asked<'_>, path: &str) -> io::Result<Next> {
        match path {
            "/slow" => {
                self.wait(asked.life, Duration::from_millis(asked.number("ms", 1000)));
                self.echo(reader, asked)
            }
            "/say" => self.say(reader, asked),
            "/status" => self.status(reader, asked),
            "/304" => raw(reader, b"HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\n\r\n", Next::Keep),
            "/cacheable" => plain(
                reader,
                200,
                "text/css",
                "a { color: red }",
                &["Cache-Control: public, max-age=3600", "ETag: \"1\""],
            ),
            "/plain" => plain(reader, 200, "text/plain", &self.name, &[]),
            "/set-cookies" => {
                let lines = ODD_SET_COOKIES.map(|line| format!("Set-Cookie: {line}"));
                plain(reader, 200, "text/plain", &self.name, &lines.each_ref().map(String::as_str))
            }
            "/chunked" => self.chunked(reader, asked),
            "/gated" => self.gated(reader, asked),
            "/sse" => self.events(reader, asked),
            "/download" => download(reader, asked),
            "/ws" => websocket::serve(reader, asked.head, &self.name),
            "/early-hints" => {
                reader.stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n")?;
                self.echo(reader, asked)
            }
            "/reset" => Ok(Next::Reset),
            "/die-midway" => reset_midway(reader, asked),
            "/until-close" => {
                reader.stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nfirst")?;
                self.wait(asked.life, Duration::from_millis(asked.number("ms", 1000)));
                raw(reader, b"last", Next::Close)
            }
            "/garbage" => raw(reader, b"BLAH BLAH BLAH\r\n\r\n", Next::Close),
            "/raw" => raw(reader, &percent_decode(asked.parameter("bytes").unwrap_or_default()), Next::Close),
            "/huge-header" => {
                let size = usize::try_from(asked.number("bytes", 1 << 20)).expect("a size");
                plain(reader, 200, "text/plain", &self.name, &[&format!("X-Huge: {}", "h".repeat(size))])
            }
            "/close" => {
                plain(reader, 200, "text/plain", &self.name, &["Connection: close"])?;
                Ok(Next::Close)
            }
            _ if path == "/kept-cart" || path.starts_with("/kept-cart/") => self.cart(reader, asked, path),
            _ if path == "/desk" || path.starts_with("/desk/") => self.desk(reader, asked, path),
            _ => self.echo(reader, asked),
        }
    }

    /// Everything about the request as JSON, and a session of the application's own.
    fn echo(&self, reader: &mut Reader, asked: &Asked<'_>) -> io::Result<Next> {
        let (session, visits, new) = self.visit(asked.head);
        let body = self.describe(asked, &session, visits).to_string();
        let mut answer =
            format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n", body.len());
        if new {
            let _ = write!(answer, "Set-Cookie: APPSESSION={session}; Path=/\r\n");
        }
        answer.push_str("\r\n");
        if !asked.is_head() {
            answer.push_str(&body);
        }
        raw(reader, answer.as_bytes(), Next::Keep)
    }

    fn describe(&self, asked: &Asked<'_>, session: &str, visits: u64) -> Value {
        json!({
            "server": self.name,
            "session": session,
            "visits": visits,
            "requests": lock(&self.seen).len(),
            "method": asked.head.word(0),
            "target": asked.target,
            "headers": asked.head.headers,
            "body_length": asked.body_length,
            "body_hash": asked.body_hash,
        })
    }

    /// The application's own session: known here, or new here.
    fn visit(&self, head: &Head) -> (String, u64, bool) {
        let named = head
            .all("cookie")
            .iter()
            .flat_map(|line| line.split(';'))
            .find_map(|pair| pair.trim().strip_prefix("APPSESSION=").map(str::to_owned));
        let mut sessions = lock(&self.sessions);
        if let Some((id, visits)) = named.and_then(|id| sessions.get_mut(&id).map(|visits| (id, visits))) {
            *visits += 1;
            return (id, *visits, false);
        }
        let id = format!("{}-{}-{}", self.name, self.life.load(Ordering::SeqCst), sessions.len());
        sessions.insert(id.clone(), 1);
        (id, 1, true)
    }

    /// What [`saying`] asks for, and everything about the request as JSON. No session of the application's own.
    fn say(&self, reader: &mut Reader, asked: &Asked<'_>) -> io::Result<Next> {
        let (status, lines) = (asked.number("status", 200), asked.lines());
        let body = self.describe(asked, "", 0).to_string();
        if status == 304 {
            return raw(reader, format!("HTTP/1.1 304 Not Modified\r\n{lines}\r\n").as_bytes(), Next::Keep);
        }
        let head = format!(
            "HTTP/1.1 {status} Status\r\nContent-Type: application/json\r\n{lines}Content-Length: {}\r\n\r\n",
            body.len()
        );
        raw(reader, [head, body].concat().as_bytes(), Next::Keep)
    }

    fn status(&self, reader: &mut Reader, asked: &Asked<'_>) -> io::Result<Next> {
        let code = asked.number("code", 200);
        if code == 204 || code == 304 {
            return raw(reader, format!("HTTP/1.1 {code} Nothing\r\n\r\n").as_bytes(), Next::Keep);
        }
        let code = u16::try_from(code).expect("a status");
        plain(reader, code, "text/plain", if asked.is_head() { "" } else { &self.name }, &[])
    }

    fn chunked(&self, reader: &mut Reader, asked: &Asked<'_>) -> io::Result<Next> {
        reader
            .stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        for n in 0..asked.number("pieces", 3) {
            chunk(reader, format!("{} {n}\n", self.name).as_bytes())?;
        }
        raw(reader, b"0\r\n\r\n", Next::Keep)
    }

    /// Pieces of which each but the first waits until the test opens the gate once more.
    fn gated(&self, reader: &mut Reader, asked: &Asked<'_>) -> io::Result<Next> {
        let lines = asked.lines();
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{lines}Transfer-Encoding: chunked\r\n\r\n");
        reader.stream.write_all(head.as_bytes())?;
        chunk(reader, b"data: 0\n\n")?;
        for n in 1..asked.number("pieces", 2) {
            let mut opened = lock(&self.gate);
            while *opened == 0 && !self.is_over(asked.life) {
                opened = self.gate_opened.wait_timeout(opened, Duration::from_millis(50)).expect("the gate").0;
            }
            *opened = opened.saturating_sub(1);
            drop(opened);
            if self.is_over(asked.life) {
                return Ok(Next::Reset);
            }
            chunk(reader, format!("data: {n}\n\n").as_bytes())?;
        }
        raw(reader, b"0\r\n\r\n", Next::Keep)
    }

    fn events(&self, reader: &mut Reader, asked: &Asked<'_>) -> io::Result<Next> {
        reader
            .stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        for n in 0..asked.number("events", 3) {
            if n > 0 {
                self.wait(asked.life, Duration::from_millis(asked.number("every", 100)));
            }
            chunk(reader, format!("data: {n}\n\n").as_bytes())?;
        }
        raw(reader, b"0\r\n\r\n", Next::Keep)
    }

    /// Time passes, unless the server is killed.
    fn wait(&self, life: u64, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until && !self.is_over(life) {
            thread::sleep(until.saturating_duration_since(Instant::now()).min(Duration::from_millis(10)));
        }
    }

    fn note(&self, head: &Head, target: &str) -> usize {
        let mut seen = lock(&self.seen);
        seen.push(Seen {
            method: head.word(0).to_owned(),
            target: target.to_owned(),
            head: head.clone(),
            body_length: 0,
            body_complete: false,
        });
        seen.len() - 1
    }

    fn update(&self, index: usize, change: impl FnOnce(&mut Seen)) {
        if let Some(seen) = lock(&self.seen).get_mut(index) {
            change(seen);
        }
    }
}

fn raw(reader: &mut Reader, bytes: &[u8], next: Next) -> io::Result<Next> {
    reader.stream.write_all(bytes)?;
    Ok(next)
}

pub(super) fn plain(reader: &mut Reader, status: u16, kind: &str, body: &str, lines: &[&str]) -> io::Result<Next> {
    let mut answer = format!("HTTP/1.1 {status} Status\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n", body.len());
    for line in lines {
        let _ = write!(answer, "{line}\r\n");
    }
    let _ = write!(answer, "\r\n{body}");
    raw(reader, answer.as_bytes(), Next::Keep)
}

fn chunk(reader: &mut Reader, data: &[u8]) -> io::Result<()> {
    let mut bytes = format!("{:x}\r\n", data.len()).into_bytes();
    bytes.extend_from_slice(data);
    bytes.extend_from_slice(b"\r\n");
    reader.stream.write_all(&bytes)
}

/// `bytes` bytes of a known pattern, with a length or in chunks.
fn download(reader: &mut Reader, asked: &Asked<'_>) -> io::Result<Next> {
    let size = asked.number("bytes", 1024);
    let in_chunks = asked.parameter("chunked").is_some();
    let framing = if in_chunks { "Transfer-Encoding: chunked".to_owned() } else { format!("Content-Length: {size}") };
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n{framing}\r\n\r\n");
    reader.stream.write_all(head.as_bytes())?;
    let block = pattern(64 * 1024);
    let mut left = size;
    while left > 0 {
        let n = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
        if in_chunks {
            chunk(reader, &block[..n])?;
        } else {
            reader.stream.write_all(&block[..n])?;
        }
        left -= n as u64;
    }
    if in_chunks { raw(reader, b"0\r\n\r\n", Next::Keep) } else { Ok(Next::Keep) }
}

/// Bytes in which a lost or swapped piece shows.
pub(crate) fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|i| u8::try_from(i % 251).unwrap_or_default()).collect()
}

/// Half an answer, then a reset.
fn reset_midway(reader: &mut Reader, asked: &Asked<'_>) -> io::Result<Next> {
    let framing =
        if asked.parameter("chunked").is_some() { "Transfer-Encoding: chunked" } else { "Content-Length: 1000" };
    reader.stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n{framing}\r\n\r\n").as_bytes())?;
    if asked.parameter("chunked").is_some() {
        chunk(reader, b"half an answer")?;
    } else {
        reader.stream.write_all(b"half an answer")?;
    }
    thread::sleep(Duration::from_millis(100)); // a reset overtakes what was sent just before it
    Ok(Next::Reset)
}
