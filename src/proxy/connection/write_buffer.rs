//! Bytes of a response that were not written to the connection yet.
//!
//! Pingora writes the head of a response, then its body, then flushes. Small writes are collected until then: one system call,
//! and one TLS record. As with reads, the memory belongs to the connection only while it holds bytes.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

/// Bytes that are collected at most. Pingora's 1,460 are less than many small responses with their headers.
const CAPACITY: usize = 4 << 10;
/// Buffers that a thread keeps for its next writes.
const SPARE: usize = 4;

thread_local! {
    static SPARE_BUFFERS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// The buffer of one connection.
#[derive(Debug, Default)]
pub(super) struct WriteBuffer {
    bytes: Vec<u8>,
    /// Bytes of it that were written.
    written: usize,
}

impl WriteBuffer {
    pub(super) fn poll_write<S>(
        &mut self,
        sink: &mut S,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>>
    where
        S: AsyncWrite + Unpin + ?Sized,
    {
        ready!(self.poll_make_room(sink, context, bytes.len()))?;
        if bytes.len() >= CAPACITY {
            return Pin::new(sink).poll_write(context, bytes);
        }
        self.push(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    pub(super) fn poll_write_vectored<S>(
        &mut self,
        sink: &mut S,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>>
    where
        S: AsyncWrite + Unpin + ?Sized,
    {
        let length = slices.iter().map(|slice| slice.len()).sum();
        ready!(self.poll_make_room(sink, context, length))?;
        if length >= CAPACITY {
            return Pin::new(sink).poll_write_vectored(context, slices);
        }
        for slice in slices {
            self.push(slice);
        }
        Poll::Ready(Ok(length))
    }

    /// Writes everything that was collected.
    pub(super) fn poll_drain<S>(&mut self, sink: &mut S, context: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        S: AsyncWrite + Unpin + ?Sized,
    {
        if self.bytes.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while let Some(rest) = self.bytes.get(self.written..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut *sink).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.written += count,
            }
        }
        self.written = 0;
        self.bytes.clear();
        let spare = std::mem::take(&mut self.bytes);
        SPARE_BUFFERS.with_borrow_mut(|buffers| {
            if buffers.len() < SPARE {
                buffers.push(spare);
            }
        });
        Poll::Ready(Ok(()))
    }

    /// Drains the buffer if `length` bytes more do not fit.
    fn poll_make_room<S>(&mut self, sink: &mut S, context: &mut Context<'_>, length: usize) -> Poll<io::Result<()>>
    where
        S: AsyncWrite + Unpin + ?Sized,
    {
        if self.bytes.len() + length > CAPACITY { self.poll_drain(sink, context) } else { Poll::Ready(Ok(())) }
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.bytes.capacity() == 0 {
            let spare = SPARE_BUFFERS.with_borrow_mut(Vec::pop);
            self.bytes = spare.unwrap_or_else(|| Vec::with_capacity(CAPACITY));
        }
        self.bytes.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use proptest::prelude::*;

    use super::*;

    /// Accepts a few bytes a write, and counts writes.
    #[derive(Default)]
    struct Sink {
        bytes: Vec<u8>,
        most: usize,
        writes: usize,
    }

    impl AsyncWrite for Sink {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            let this = self.get_mut();
            this.writes += 1;
            let bytes = &bytes[..bytes.len().min(this.most)];
            this.bytes.extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn now<T>(poll: Poll<io::Result<T>>) -> T {
        match poll {
            Poll::Ready(result) => result.unwrap(),
            Poll::Pending => panic!("this sink never has to wait"),
        }
    }

    #[test]
    fn head_and_body_are_one_write_and_the_memory_is_returned() {
        let mut context = Context::from_waker(Waker::noop());
        let (mut buffer, mut sink) = (WriteBuffer::default(), Sink { most: usize::MAX, ..Sink::default() });
        now(buffer.poll_write(&mut sink, &mut context, b"head"));
        now(buffer.poll_write(&mut sink, &mut context, b"body"));
        assert_eq!(sink.writes, 0);
        now(buffer.poll_drain(&mut sink, &mut context));
        assert_eq!((sink.writes, sink.bytes.as_slice()), (1, b"headbody".as_slice()));
        assert_eq!(buffer.bytes.capacity(), 0);
    }

    proptest! {
        #[test]
        fn bytes_are_written_in_order(
            lengths in prop::collection::vec((0usize..6000, any::<bool>()), 0..12),
            most in 1usize..9000,
        ) {
            let mut context = Context::from_waker(Waker::noop());
            let (mut buffer, mut sink) = (WriteBuffer::default(), Sink { most, ..Sink::default() });
            let mut expected = Vec::new();
            for (index, (length, vectored)) in lengths.iter().enumerate() {
                let piece: Vec<u8> = (0..*length).map(|at| (at + index).to_le_bytes()[0]).collect();
                let (first, second) = piece.split_at(piece.len() / 2);
                let slices = [IoSlice::new(first), IoSlice::new(second)];
                let written = if *vectored {
                    now(buffer.poll_write_vectored(&mut sink, &mut context, &slices))
                } else {
                    now(buffer.poll_write(&mut sink, &mut context, &piece))
                };
                expected.extend_from_slice(&piece[..written]);
            }
            now(buffer.poll_drain(&mut sink, &mut context));
            prop_assert_eq!(sink.bytes, expected);
        }
    }
}
