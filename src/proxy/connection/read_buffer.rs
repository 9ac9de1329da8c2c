//! Bytes that were read from a connection and not used yet.
//!
//! Most client connections are idle, and most of the rest has used every byte that arrived. So a buffer has memory only while
//! it holds bytes, and that memory is shared by all connections of a thread.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

/// Bytes that one read may return: a few TLS records.
const CAPACITY: usize = 64 << 10;
/// Buffers that a thread keeps for its next reads. A read that has to wait returns its buffer at once, so more than one is
/// in use only when a client sends more than its request.
const SPARE: usize = 2;

thread_local! {
    static SPARE_BUFFERS: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

fn take_spare() -> Box<[u8]> {
    let spare = SPARE_BUFFERS.with_borrow_mut(Vec::pop);
    spare.unwrap_or_else(|| vec![0; CAPACITY].into_boxed_slice())
}

fn return_spare(buffer: Box<[u8]>) {
    SPARE_BUFFERS.with_borrow_mut(|spare| {
        if spare.len() < SPARE {
            spare.push(buffer);
        }
    });
}

/// The buffer of one connection.
#[derive(Debug, Default)]
pub(crate) struct ReadBuffer {
    memory: Option<Box<[u8]>>,
    /// The bytes are those from `start` to `end`.
    start: usize,
    end: usize,
}

impl ReadBuffer {
    pub(crate) const fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.memory.as_deref().and_then(|memory| memory.get(self.start..self.end)).unwrap_or_default()
    }

    /// Removes the first `count` bytes; the memory goes back with the last one.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        if self.is_empty() {
            self.release();
        }
    }

    /// Copies as many bytes as fit, and returns how many.
    pub(crate) fn peek(&self, to: &mut ReadBuf<'_>) -> usize {
        let bytes = self.bytes();
        let bytes = bytes.get(..to.remaining()).unwrap_or(bytes);
        to.put_slice(bytes);
        bytes.len()
    }

    /// Moves as many bytes as fit.
    pub(crate) fn give(&mut self, to: &mut ReadBuf<'_>) {
        let count = self.peek(to);
        self.consume(count);
    }

    /// Adds bytes behind those that are there.
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        let mut all = Vec::with_capacity(self.bytes().len() + bytes.len());
        all.extend_from_slice(self.bytes());
        all.extend_from_slice(bytes);
        self.replace(all);
    }

    /// Adds bytes before those that are there.
    pub(crate) fn put_before(&mut self, bytes: &[u8]) {
        let mut all = Vec::with_capacity(bytes.len() + self.bytes().len());
        all.extend_from_slice(bytes);
        all.extend_from_slice(self.bytes());
        self.replace(all);
    }

    fn replace(&mut self, bytes: Vec<u8>) {
        self.release();
        self.end = bytes.len();
        self.memory = (self.end > 0).then(|| bytes.into_boxed_slice());
    }

    /// Reads once, behind the bytes that are there. Returns how many arrived; 0 at the end of the stream.
    pub(crate) fn poll_fill<S>(&mut self, source: &mut S, context: &mut Context<'_>) -> Poll<io::Result<usize>>
    where
        S: AsyncRead + Unpin + ?Sized,
    {
        if self.memory.as_ref().is_some_and(|memory| memory.len() == self.end) {
            self.grow();
        }
        let end = self.end;
        let memory = self.memory.get_or_insert_with(take_spare);
        let mut free = ReadBuf::new(memory.get_mut(end..).unwrap_or_default());
        let read = Pin::new(source).poll_read(context, &mut free);
        let count = free.filled().len();
        self.end += count;
        if self.is_empty() {
            self.release();
        }
        ready!(read)?;
        Poll::Ready(Ok(count))
    }

    /// Makes room behind the bytes.
    fn grow(&mut self) {
        let mut bytes = self.bytes().to_vec();
        let length = bytes.len();
        bytes.resize(length + CAPACITY, 0);
        self.replace(bytes);
        self.end = length;
    }

    fn release(&mut self) {
        (self.start, self.end) = (0, 0);
        if let Some(memory) = self.memory.take().filter(|memory| memory.len() == CAPACITY) {
            return_spare(memory);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use proptest::prelude::*;

    use super::*;

    fn fill(buffer: &mut ReadBuffer, mut source: &[u8]) -> usize {
        let Poll::Ready(count) = buffer.poll_fill(&mut source, &mut Context::from_waker(Waker::noop())) else {
            panic!("a slice never has to wait")
        };
        count.unwrap()
    }

    #[test]
    fn an_empty_buffer_has_no_memory() {
        let mut buffer = ReadBuffer::default();
        assert_eq!(fill(&mut buffer, b""), 0);
        assert!(buffer.memory.is_none(), "the end of a stream takes no memory");
        assert_eq!(fill(&mut buffer, b"abc"), 3);
        buffer.consume(2);
        assert!(buffer.memory.is_some());
        assert_eq!(buffer.bytes(), b"c");
        buffer.consume(1);
        assert!(buffer.memory.is_none());
    }

    #[test]
    fn a_thread_keeps_few_spare_buffers() {
        let mut buffers: Vec<_> = (0..10).map(|_| ReadBuffer::default()).collect();
        for buffer in &mut buffers {
            fill(buffer, b"x");
        }
        for buffer in &mut buffers {
            buffer.consume(1);
        }
        assert_eq!(SPARE_BUFFERS.with_borrow(Vec::len), SPARE);
    }

    #[test]
    fn bytes_that_were_put_take_only_their_own_memory() {
        let mut buffer = ReadBuffer::default();
        buffer.put(b"abc");
        assert_eq!(buffer.memory.as_ref().map(|memory| memory.len()), Some(3));
        assert_eq!(fill(&mut buffer, b"def"), 3, "and there is room for more");
        assert_eq!(buffer.bytes(), b"abcdef");
    }

    proptest! {
        #[test]
        fn bytes_come_out_as_they_went_in(
            pieces in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..40), any::<bool>()), 0..10),
            room in 1usize..50,
        ) {
            let mut buffer = ReadBuffer::default();
            let (mut put, mut got) = (Vec::new(), Vec::new());
            for (piece, how) in &pieces {
                if *how {
                    buffer.put(piece);
                } else {
                    prop_assert_eq!(fill(&mut buffer, piece), piece.len());
                }
                put.extend_from_slice(piece);
                let mut out = vec![0; room];
                let mut out = ReadBuf::new(&mut out);
                buffer.give(&mut out);
                got.extend_from_slice(out.filled());
            }
            got.extend_from_slice(buffer.bytes());
            prop_assert_eq!(got, put);
        }
    }
}
