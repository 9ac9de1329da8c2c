//! The server of the streams.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use super::super::http1::{Hash, query};
use super::connection::Connection;
use super::{PACE, PIECE, State, event_text, header, wrong};

pub(super) async fn serve(listener: std::net::TcpListener, state: Arc<State>) {
    let listener = TcpListener::from_std(listener).expect("a listener");
    while !state.is_over() {
        let accepted = tokio::time::timeout(Duration::from_millis(100), listener.accept()).await;
        let Ok(Ok((stream, _))) = accepted else { continue };
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            // The proxy may end a connection that it keeps; what is wrong with a stream its client says.
            let _ = serve_connection(stream, &state).await;
        });
    }
}

async fn serve_connection(stream: TcpStream, state: &State) -> io::Result<()> {
    let mut connection = Connection::new(stream)?;
    loop {
        let head = connection.head().await?;
        let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let number = query(&target, "stream").and_then(|number| number.parse().ok());
        let Some(number) = number.filter(|number| *number < state.arrived.len()) else { return wrong(head) };
        match target.split('?').next() {
            Some("/ws") => return echo_frames(&mut connection).await,
            Some("/sse") => send_events(&mut connection, number, state).await?,
            _ => take_upload(&mut connection, &head, number, state).await?,
        }
    }
}

async fn echo_frames(connection: &mut Connection) -> io::Result<()> {
    let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                  Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    connection.send(answer.as_bytes()).await?;
    loop {
        let (kind, data) = connection.frame().await?;
        connection.send_frame(kind, &data, false).await?;
        if kind == 8 {
            return Ok(());
        }
    }
}

async fn send_events(connection: &mut Connection, number: usize, state: &State) -> io::Result<()> {
    let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    connection.send(head).await?;
    let mut piece = 0;
    while !state.is_finishing() {
        connection.send_part(event_text(number, piece).as_bytes(), false).await?;
        piece += 1;
        tokio::time::sleep(PACE).await;
    }
    connection.send(b"0\r\n\r\n").await
}

async fn take_upload(connection: &mut Connection, head: &str, number: usize, state: &State) -> io::Result<()> {
    let (mut hash, mut length) = (Hash::new(), 0);
    let mut left = header(head, "content-length").and_then(|length| length.parse::<usize>().ok());
    loop {
        let part = match &mut left {
            Some(0) => None,
            Some(left) => {
                let part = connection.some(*left).await?;
                *left -= part.len();
                Some(part)
            }
            None => connection.chunk().await?,
        };
        let Some(part) = part else { break };
        // Pieces that wait together arrive together: what counts is the bytes.
        length += part.len();
        hash.update(&part);
        state.arrived[number].store(length / PIECE, Ordering::SeqCst);
    }
    let answer = format!("HTTP/1.1 200 OK\r\nX-Digest: {length} {}\r\nContent-Length: 0\r\n\r\n", hash.hex());
    connection.send(answer.as_bytes()).await
}
