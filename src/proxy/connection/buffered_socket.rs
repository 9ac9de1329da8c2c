//! The socket below TLS. rustls reads 4 KiB at a time, so an upload would take a system call for each.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use pingora::protocols::l4::stream::Stream as Socket;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{GetProxyDigest, Peek, Shutdown};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::delegate::delegate;
use super::read_buffer::ReadBuffer;

/// A socket that is read in large pieces.
pub(super) struct BufferedSocket {
    socket: Socket,
    input: ReadBuffer,
}

impl BufferedSocket {
    pub(super) fn new(socket: Socket) -> Self {
        Self { socket, input: ReadBuffer::default() }
    }

    /// The first byte, which is read again later; `None` at the end of the stream.
    pub(super) async fn first_byte(&mut self) -> io::Result<Option<u8>> {
        if self.input.is_empty() {
            std::future::poll_fn(|context| self.input.poll_fill(&mut self.socket, context)).await?;
        }
        Ok(self.input.bytes().first().copied())
    }

    /// The first record of TLS, which is read again later; less at the end of the stream.
    pub(super) async fn first_record(&mut self) -> io::Result<&[u8]> {
        while self.input.bytes().len() < record_length(self.input.bytes()) {
            let read = std::future::poll_fn(|context| self.input.poll_fill(&mut self.socket, context)).await?;
            if read == 0 {
                break;
            }
        }
        Ok(self.input.bytes())
    }
}

/// Of a record with these first bytes, at least (RFC 8446, section 5.1).
fn record_length(bytes: &[u8]) -> usize {
    const HEADER: usize = 5;
    match bytes {
        [_, _, _, high, low, ..] => HEADER + usize::from(u16::from_be_bytes([*high, *low])),
        _ => HEADER,
    }
}

impl AsyncRead for BufferedSocket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.input.is_empty() {
            ready!(this.input.poll_fill(&mut this.socket, context))?;
        }
        this.input.give(buffer);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for BufferedSocket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}

delegate!(BufferedSocket, socket);

impl GetProxyDigest for BufferedSocket {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.socket.get_proxy_digest()
    }
}

#[async_trait]
impl Shutdown for BufferedSocket {
    async fn shutdown(&mut self) {
        self.socket.shutdown().await;
    }
}

// TLS streams do not peek.
impl Peek for BufferedSocket {}
