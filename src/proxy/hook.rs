//! What Pingora's asynchronous hooks give back.
//!
//! Pingora asks for a future in a box. An `async fn` makes one with room for all that may be awaited in it, allocated for
//! every request. But hardly a request waits in a hook, so a hook does its work when it is called, and what it gives back
//! is an answer that is there already; only what must wait is an `async fn`.

use std::future::{poll_fn, ready};
use std::pin::Pin;
use std::task::Poll;

use pingora::Result;

/// A hook's answer, which may have to be waited for.
pub(crate) type Hook<'hook, T> = Pin<Box<dyn Future<Output = T> + Send + 'hook>>;

/// An answer that is there already.
pub(crate) fn now<'hook, T: Send + 'hook>(answer: T) -> Hook<'hook, T> {
    Box::pin(ready(answer))
}

/// The same of a hook that has only errors to tell. When there is none, the future has no size, and its box no memory.
pub(crate) fn done<'hook>(result: Result<()>) -> Hook<'hook, Result<()>> {
    match result {
        Ok(()) => Box::pin(poll_fn(|_| Poll::Ready(Ok(())))),
        Err(error) => now(Err(error)),
    }
}

/// The request goes on, if there is no error: it was not answered here.
pub(crate) fn not_answered<'hook>(result: Result<()>) -> Hook<'hook, Result<bool>> {
    match result {
        Ok(()) => Box::pin(poll_fn(|_| Poll::Ready(Ok(false)))),
        Err(error) => now(Err(error)),
    }
}

/// Nothing to tell.
pub(crate) fn nothing<'hook>() -> Hook<'hook, ()> {
    Box::pin(poll_fn(|_| Poll::Ready(())))
}
