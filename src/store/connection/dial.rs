//! Connecting to a server: name resolution, TCP and the engine's handshake, each step in bounded time.

use std::fmt::Display;
use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use crate::store::engine::StoreError;

/// A stream of any kind.
pub(in crate::store) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}
/// TCP, TLS or a unix socket.
pub(in crate::store) type Stream = Box<dyn Duplex>;

/// Connects to a server.
#[derive(Clone, Copy)]
pub(in crate::store) struct Dialer<'a> {
    /// The server's name in errors.
    pub(in crate::store) label: &'a str,
    /// For each step.
    pub(in crate::store) limit: Duration,
}

impl Dialer<'_> {
    /// Resolves `host:port`, and tries its addresses in order until the handshake on one succeeds. The handshake bounds its steps by
    /// [`within`](Self::within).
    ///
    /// # Errors
    /// The last address's error.
    pub(in crate::store) async fn tcp<T, F>(
        &self,
        address: &str,
        handshake: impl Fn(TcpStream) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let mut last = self.unreachable("its name has no address");
        for address in self.io("finding its address", lookup_host(address)).await? {
            let connected = async {
                let stream = self.io("connecting", TcpStream::connect(address)).await?;
                stream.set_nodelay(true).map_err(|error| self.unreachable(error))?;
                handshake(stream).await
            };
            match connected.await {
                Ok(connected) => return Ok(connected),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// A step, which fails after the limit.
    pub(in crate::store) async fn within<T>(
        &self,
        step: &str,
        future: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        match timeout(self.limit, future).await {
            Ok(result) => result,
            Err(_elapsed) => Err(self.unreachable(format_args!("{step} took longer than {:?}", self.limit))),
        }
    }

    /// The same for a step of the network.
    pub(in crate::store) async fn io<T>(
        &self,
        step: &str,
        future: impl Future<Output = io::Result<T>>,
    ) -> Result<T, StoreError> {
        self.within(step, async { future.await.map_err(|error| self.unreachable(error)) }).await
    }

    /// Reads until `parse` finds a message. `closed` is the reason when the server closes the connection before.
    ///
    /// # Errors
    /// Of the stream, or of `parse`.
    pub(in crate::store) async fn read_message<T>(
        &self,
        stream: &mut (impl AsyncRead + Unpin),
        incoming: &mut BytesMut,
        mut parse: impl FnMut(&mut BytesMut) -> Result<Option<T>, StoreError>,
        closed: &str,
    ) -> Result<T, StoreError> {
        loop {
            if let Some(message) = parse(incoming)? {
                return Ok(message);
            }
            if stream.read_buf(incoming).await.map_err(|error| self.unreachable(error))? == 0 {
                return Err(self.unreachable(closed));
            }
        }
    }

    /// # Errors
    /// When the bytes cannot be written.
    pub(in crate::store) async fn write(
        &self,
        stream: &mut (impl AsyncWrite + Unpin),
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        let written = async {
            stream.write_all(bytes).await?;
            stream.flush().await
        };
        written.await.map_err(|error| self.unreachable(error))
    }

    pub(in crate::store) fn unreachable(&self, why: impl Display) -> StoreError {
        StoreError::Unreachable(format!("{}: {why}", self.label))
    }

    pub(in crate::store) fn refused(&self, why: impl Display) -> StoreError {
        StoreError::Refused(format!("{}: {why}", self.label))
    }

    pub(in crate::store) fn unreadable(&self, why: impl Display) -> StoreError {
        StoreError::Unreadable(format!("{}: {why}", self.label))
    }
}
