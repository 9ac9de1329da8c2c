//! The clients of the streams.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::super::http1::Hash;
use super::connection::Connection;
use super::{PACE, PIECE, State, event_text, header, wrong};

/// So many streams are being opened at a time.
const OPENING: usize = 50;
/// Bytes that an upload with a length declares. It sends pieces until the end, then the rest.
const DECLARED: usize = 256 * 1024;

pub(super) async fn run(proxy: SocketAddr, streams: usize, state: Arc<State>) {
    let opening = Arc::new(Semaphore::new(OPENING));
    let clients: Vec<_> = (0..streams)
        .map(|stream| {
            let (state, opening) = (Arc::clone(&state), Arc::clone(&opening));
            tokio::spawn(async move {
                let client = Client { stream, proxy, opening, state: Arc::clone(&state) };
                let (kind, result) = match stream % 3 {
                    0 => ("WebSocket", client.websocket().await),
                    1 => ("event stream", client.events().await),
                    _ => ("upload", client.upload().await),
                };
                match result {
                    Ok(()) => drop(state.ended.fetch_add(1, Ordering::SeqCst)),
                    Err(error) => {
                        let pieces = state.arrived[stream].load(Ordering::SeqCst);
                        state.note_break(format!("{kind} {stream} after {pieces} pieces: {error}"));
                    }
                }
            })
        })
        .collect();
    for client in clients {
        client.await.expect("a client's task");
    }
}

struct Client {
    stream: usize,
    proxy: SocketAddr,
    opening: Arc<Semaphore>,
    state: Arc<State>,
}

impl Client {
    /// Sends a request's head and, if it is answered before its body ends, reads the response's.
    async fn request(&self, head: &str, is_answered: bool) -> io::Result<(Connection, String)> {
        let _permit = self.opening.acquire().await.expect("the semaphore is open");
        let mut connection = Connection::new(TcpStream::connect(self.proxy).await?)?;
        connection.send(format!("{head}\r\nHost: crowd.test\r\n\r\n").as_bytes()).await?;
        let answer = if is_answered { connection.head().await? } else { String::new() };
        Ok((connection, answer))
    }

    async fn websocket(&self) -> io::Result<()> {
        let number = self.stream;
        let head = format!(
            "GET /ws?stream={number} HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
        );
        let (mut connection, answer) = self.request(&head, true).await?;
        if !answer.starts_with("HTTP/1.1 101 ") {
            return wrong(answer);
        }
        let mut piece = 0;
        while !self.state.is_finishing() {
            let text = format!("{number}:{piece}");
            connection.send_frame(1, text.as_bytes(), true).await?;
            let echo = connection.frame().await?;
            if echo != (1, text.clone().into_bytes()) {
                return wrong(format!("{echo:?} instead of {text}"));
            }
            self.state.note_piece(number);
            piece += 1;
            tokio::time::sleep(PACE).await;
        }
        connection.send_frame(8, &[], true).await?;
        if connection.frame().await? != (8, Vec::new()) {
            return wrong("no frame that closes");
        }
        connection.expect_end().await
    }

    async fn events(&self) -> io::Result<()> {
        let number = self.stream;
        let (mut connection, answer) = self.request(&format!("GET /sse?stream={number} HTTP/1.1"), true).await?;
        if !answer.starts_with("HTTP/1.1 200 ") {
            return wrong(answer);
        }
        let (mut text, mut piece) = (Vec::new(), 0);
        while let Some(part) = connection.chunk().await? {
            text.extend(part);
            while let Some(end) = text.windows(2).position(|two| two == b"\n\n") {
                let event: Vec<u8> = text.drain(..end + 2).collect();
                if event != event_text(number, piece).into_bytes() {
                    return wrong(format!("{:?} instead of event {piece}", String::from_utf8_lossy(&event)));
                }
                self.state.note_piece(number);
                piece += 1;
            }
        }
        if !self.state.is_finishing() || !text.is_empty() {
            return wrong(format!("the stream ended early, after {:?}", String::from_utf8_lossy(&text)));
        }
        Ok(())
    }

    /// Every second one declares its length.
    async fn upload(&self) -> io::Result<()> {
        let number = self.stream;
        let is_declared = number.is_multiple_of(2);
        let framing =
            if is_declared { format!("Content-Length: {DECLARED}") } else { "Transfer-Encoding: chunked".to_owned() };
        let head = format!("POST /upload?stream={number} HTTP/1.1\r\n{framing}");
        let (mut connection, _) = self.request(&head, false).await?;
        let (mut hash, mut sent) = (Hash::new(), 0);
        while !self.state.is_finishing() {
            if is_declared && sent + PIECE > DECLARED {
                return wrong("the declared length is too small for this test");
            }
            let piece = upload_piece(number, sent, PIECE);
            hash.update(&piece);
            sent += piece.len();
            connection.send_part(&piece, is_declared).await?;
            tokio::time::sleep(PACE).await;
        }
        if is_declared {
            let rest = upload_piece(number, sent, DECLARED - sent);
            hash.update(&rest);
            sent += rest.len();
            connection.send(&rest).await?;
        } else {
            connection.send(b"0\r\n\r\n").await?;
        }
        let answer = connection.head().await?;
        let expected = format!("{sent} {}", hash.hex());
        if !answer.starts_with("HTTP/1.1 200 ") || header(&answer, "x-digest") != Some(&expected) {
            return wrong(format!("{answer:?} instead of {expected}"));
        }
        Ok(())
    }
}

/// Bytes of an upload that differ between streams and places.
fn upload_piece(stream: usize, from: usize, length: usize) -> Vec<u8> {
    (from..from + length)
        .map(|at| (at.wrapping_mul(31) ^ (at >> 7) ^ stream.wrapping_mul(17)).to_le_bytes()[0])
        .collect()
}
