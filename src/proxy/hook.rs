//! The form of Pingora's asynchronous hooks.
//!
//! Pingora wants a boxed future of each hook. An `async fn` makes one with room for everything that may be awaited in it,
//! allocated for every request. But few requests wait in a hook. So a hook does its work when it is called and returns a
//! future that is ready; only what has to wait is an `async fn`.

use std::future::{poll_fn, ready};
use std::pin::Pin;
use std::task::Poll;

use pingora::Result;

/// The result of a hook, which may have to be awaited.
pub(crate) type HookFuture<'hook, T> = Pin<Box<dyn Future<Output = T> + Send + 'hook>>;

/// A result that is ready.
pub(crate) fn now<'hook, T: Send + 'hook>(result: T) -> HookFuture<'hook, T> {
    Box::pin(ready(result))
}

/// The result of a hook that can only fail. Without an error the future has no size, and its box no memory.
pub(crate) fn done<'hook>(result: Result<()>) -> HookFuture<'hook, Result<()>> {
    match result {
        Ok(()) => Box::pin(poll_fn(|_| Poll::Ready(Ok(())))),
        Err(error) => now(Err(error)),
    }
}

/// The request proceeds to a server, unless there is an error: the proxy has not responded.
pub(crate) fn proceed<'hook>(result: Result<()>) -> HookFuture<'hook, Result<bool>> {
    match result {
        Ok(()) => Box::pin(poll_fn(|_| Poll::Ready(Ok(false)))),
        Err(error) => now(Err(error)),
    }
}

/// No result.
pub(crate) fn nothing<'hook>() -> HookFuture<'hook, ()> {
    Box::pin(poll_fn(|_| Poll::Ready(())))
}

/// Writes the signature of an asynchronous hook as `async_trait` would, but for a body that returns a [`HookFuture`]. The
/// first argument is the exchange and the last the context; arguments in between name their lifetimes.
macro_rules! hook {
    ($name:ident($exchange:tt, $ctx:ident) -> $result:ty => $body:expr) => {
        fn $name<'proxy, 'exchange, 'ctx, 'hook>(
            &'proxy self,
            $exchange: &'exchange mut ::pingora_proxy::Session,
            $ctx: &'ctx mut Self::CTX,
        ) -> $crate::proxy::hook::HookFuture<'hook, $result>
        where
            'proxy: 'hook,
            'exchange: 'hook,
            'ctx: 'hook,
        {
            $body
        }
    };
    ($name:ident<$($arg:lifetime),+>($exchange:tt, $($other:tt: $type:ty),+; $ctx:ident) -> $result:ty => $body:expr) => {
        fn $name<'proxy, 'exchange, $($arg,)+ 'ctx, 'hook>(
            &'proxy self,
            $exchange: &'exchange mut ::pingora_proxy::Session,
            $($other: $type,)+
            $ctx: &'ctx mut Self::CTX,
        ) -> $crate::proxy::hook::HookFuture<'hook, $result>
        where
            'proxy: 'hook,
            'exchange: 'hook,
            $($arg: 'hook,)+
            'ctx: 'hook,
        {
            $body
        }
    };
}
pub(crate) use hook;
