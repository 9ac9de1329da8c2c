//! Bytes to and from a server, with a look at the client meanwhile.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use pingora::ErrorType::{
    ConnectNoRoute, ConnectTimedout, ConnectionClosed, ReadError, ReadTimedout, WriteError, WriteTimedout,
};
use pingora::{Error, Result};
use tokio::io::AsyncWrite;

use crate::pool::server::Server;
use crate::pool::server_connection::ServerConnection;
use crate::pool::tls::PoolTls;
use crate::proxy::connection::deadlines::DeadlineStream;
use crate::proxy::connection::read_buffer::ReadBuffer;
use crate::proxy::context::RequestContext;

use super::settings::Timeouts;

/// A connection to the server of the attempt; true: it has carried other requests.
///
/// # Errors
/// Pingora's, by which the failed attempt is judged.
pub(super) async fn connect(ctx: &RequestContext, timeouts: &Timeouts) -> Result<(ServerConnection, bool)> {
    let server = ctx.server().and_then(|server| Some((server, server.peer_address()?)));
    let Some((server, address)) = server else { return Error::e_explain(ConnectNoRoute, "no address") };
    let tls = server.tls();
    // A connection from before an ejection would say nothing about the server.
    if !ctx.attempts.is_probe()
        && let Some(idle) = server.live.idle.take(&address, tls.map_or(0, |tls| tls.group()), ctx.started)
    {
        return Ok((idle, true));
    }
    if let Some(tls) = tls {
        // In a box: a handshake has a large future.
        return Box::pin(connect_with_tls(tls, server)).await.map(|connection| (connection, false));
    }
    let open = ServerConnection::open(&server.live.connections, &address);
    match tokio::time::timeout(timeouts.connect, open).await {
        Ok(opened) => opened.map(|connection| (connection, false)),
        Err(_) => Error::e_explain(ConnectTimedout, "connecting to a server"),
    }
}

/// As Pingora's proxy connects, in the same time.
async fn connect_with_tls(tls: &PoolTls, server: &Server) -> Result<ServerConnection> {
    let Some(peer) = server.peer() else { return Error::e_explain(ConnectNoRoute, "no address") };
    ServerConnection::open_with_tls(tls, &peer).await
}

/// The response was read to its end: the connection is kept until then for the next request. `most`: so many to all servers.
pub(super) fn keep(connection: ServerConnection, ctx: &RequestContext, until: Instant, most: usize) {
    if let Some(server) = ctx.server()
        && let Some(address) = server.peer_address()
    {
        server.live.idle.put(connection, address, until, most);
    }
}

/// Sends the head of a request.
pub(super) async fn send(
    server: &mut ServerConnection,
    bytes: &[u8],
    client: &mut DeadlineStream,
    timeout: Duration,
) -> Result<()> {
    client.clear_deadline();
    let mut sent = 0;
    poll_fn(|context| {
        while let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
            match Pin::new(&mut *server).poll_write(context, rest) {
                Poll::Ready(Ok(0)) => return Poll::Ready(failed(WriteError)),
                Poll::Ready(Ok(count)) => sent += count,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(write_error(error))),
                Poll::Pending => return client.poll_timeout(timeout, context).map(|()| failed(WriteTimedout)),
            }
        }
        match Pin::new(&mut *server).poll_flush(context) {
            Poll::Ready(flushed) => Poll::Ready(flushed.map_err(write_error)),
            Poll::Pending => client.poll_timeout(timeout, context).map(|()| failed(WriteTimedout)),
        }
    })
    .await
}

#[expect(clippy::unnecessary_box_returns, reason = "the form of Pingora's errors")]
fn write_error(error: io::Error) -> Box<Error> {
    Error::because(WriteError, "while writing request headers", error).into_up()
}

/// Reads more of a response. Returns how many bytes arrived; 0 at the end of the stream.
pub(super) async fn read(
    server: &mut ServerConnection,
    input: &mut ReadBuffer,
    client: &mut DeadlineStream,
    timeout: Duration,
) -> Result<usize> {
    client.clear_deadline();
    poll_fn(|context| {
        if let Poll::Ready(read) = input.poll_fill(server, context) {
            let read = read.map_err(|error| Error::because(ReadError, "while reading a response", error).into_up());
            return Poll::Ready(read);
        }
        if client.poll_gone(context).is_ready() {
            let error = Error::explain(ConnectionClosed, "while its response was under way");
            return Poll::Ready(Err(error.into_down()));
        }
        client.poll_timeout(timeout, context).map(|()| failed(ReadTimedout))
    })
    .await
}

fn failed<T>(kind: pingora::ErrorType) -> Result<T> {
    Err(Error::new(kind).into_up())
}
