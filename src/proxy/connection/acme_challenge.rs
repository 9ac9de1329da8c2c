//! Connections of certificate authorities for the challenge tls-alpn-01 (RFC 8737): a handshake with another certificate, and no
//! request.

use std::io;

use memchr::memmem;
use rustls::server::{Acceptor, ClientHello};
use tokio::io::AsyncWriteExt;
use tokio_rustls::LazyConfigAcceptor;

use crate::app::state::AppState;
use crate::config::AcmeChallenge;

use super::buffered_socket::BufferedSocket;

/// Whether the handshake that begins may be for a challenge. Every client's is looked at, so the words are searched for in what
/// it has sent, and only where they are found the handshake is parsed.
pub(super) async fn is_offered(socket: &mut BufferedSocket) -> io::Result<bool> {
    socket.first_record().await.map(|record| memmem::find(record, AcmeChallenge::ALPN).is_some())
}

/// Does the handshake and ends the connection. An error: why there is no answer.
pub(super) async fn answer(app: &AppState, socket: BufferedSocket) -> io::Result<()> {
    let start = LazyConfigAcceptor::new(Acceptor::default(), socket).await?;
    let host = host_of(&start.client_hello()).ok_or_else(|| io::Error::other("not the handshake of a challenge"))?;
    let Some(config) = app.acme_handshake(&host).await else {
        return Err(io::Error::other("no such challenge"));
    };
    start.into_stream(config).await?.shutdown().await?;
    tracing::info!(host, "the challenge tls-alpn-01 was answered");
    Ok(())
}

/// The host of a challenge's handshake, which offers nothing else by ALPN.
fn host_of(hello: &ClientHello<'_>) -> Option<String> {
    let mut offered = hello.alpn()?;
    let is_challenge = offered.next() == Some(AcmeChallenge::ALPN) && offered.next().is_none();
    hello.server_name().filter(|_| is_challenge).map(str::to_owned)
}
