//! Server connections that belong to one client connection, because a handshake on it authenticates the connection.
//!
//! The request that begins a handshake is sent over a dedicated connection. The challenge before it usually comes over a
//! shared one, and Pingora fixes under which group a connection is pooled before it is established. So that connection is
//! ended after the challenge, and the handshake begins on one of its own.

use std::time::Duration;

use http::{Method, StatusCode, Version, header};
use nix::sys::socket::{Shutdown, shutdown};
use pingora::Result;
use tokio::time::sleep;

use crate::message::ResponseView;
use crate::pool::ServerIndex;
use crate::proxy::connection::authentication::{ConnectionAuthentication, authenticates_connection};
use crate::proxy::context::RequestContext;

/// The server of the client connection's last request, where the client has no session that decides: a handshake cannot go
/// on elsewhere.
pub(super) fn preferred(ctx: &RequestContext) -> Option<ServerIndex> {
    let server = ctx.dedicated.as_ref()?.server?;
    if ctx.attempts.count > 0 || ctx.session.session().is_some() || ctx.session.created.is_some() {
        return None;
    }
    let pool = &ctx.pool_runtime()?.pool;
    pool.find(server).filter(|index| pool.servers.get(*index).is_some_and(|server| server.condition().accepts_bound()))
}

/// A final response head: the server is remembered, and a challenge makes the next server connections dedicated ones. True
/// when the connection of this response has to be ended now, since the response ends with its head.
pub(crate) fn note_response(
    connection: Option<&ConnectionAuthentication>,
    method: &Method,
    response: &ResponseView<'_>,
    version: Version,
    ctx: &mut RequestContext,
) -> bool {
    let dedicated = ctx.dedicated.is_some();
    if !dedicated && !is_challenge(response) {
        return false;
    }
    let (Some(connection), Some(server)) = (connection, ctx.server()) else { return false };
    let server = server.id;
    if !dedicated {
        connection.dedicate(rand::random());
    }
    connection.note_server(server);
    // The streams of an HTTP/2 connection are of several clients, and such a handshake is not defined for it.
    ctx.attempts.unshare = !dedicated && version != Version::HTTP_2;
    let has_no_body =
        method == Method::HEAD || response.fields.get(&header::CONTENT_LENGTH).is_some_and(|length| length == b"0");
    ctx.attempts.unshare && has_no_body
}

fn is_challenge(response: &ResponseView<'_>) -> bool {
    let name = match response.status {
        StatusCode::UNAUTHORIZED => header::WWW_AUTHENTICATE,
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => header::PROXY_AUTHENTICATE,
        _ => return false,
    };
    response.fields.all(&name).any(authenticates_connection)
}

/// How long the runtime gets to notice that the connection has ended, before Pingora tests whether it can be pooled.
const NOTICE: Duration = Duration::from_millis(1);

/// The response has arrived to its end. Ends the reading side of its connection, so that Pingora finds it closed and does
/// not pool it; returns how long to wait for that.
pub(crate) fn end_connection(ctx: &mut RequestContext) -> Option<Duration> {
    let socket = ctx.attempts.socket.filter(|_| std::mem::take(&mut ctx.attempts.unshare))?;
    // The only error is that the server has closed it already.
    let _ = shutdown(socket, Shutdown::Read);
    Some(NOTICE)
}

/// The same where the response has no body.
pub(super) async fn end_bodyless(ctx: &mut RequestContext) -> Result<()> {
    if let Some(notice) = end_connection(ctx) {
        sleep(notice).await;
    }
    Ok(())
}
