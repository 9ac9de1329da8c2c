//! HTTP/2 begins with a preface (RFC 9113, section 3.4), by which a connection without TLS is told from one of HTTP/1.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use http::StatusCode;
use pingora::http::ResponseHeader;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{GetProxyDigest, Peek};

use crate::proxy::connection::http2::Http2Connection;

use super::{DeadlineStream, PREFACE, TUNNEL};

impl DeadlineStream {
    /// The connection is left to Pingora, which may find that it is one of HTTP/2. Returns what its requests share then.
    pub(in crate::proxy::connection) fn begin_http2(&mut self) -> Arc<Http2Connection> {
        Arc::clone(self.http2.get_or_insert_default())
    }

    /// Whether the connection may be one of HTTP/2 without TLS, by its first bytes.
    pub(in crate::proxy::connection) fn may_be_http2(&self) -> bool {
        self.input.bytes().iter().zip(PREFACE).all(|(byte, expected)| byte == expected)
    }
}

impl GetProxyDigest for DeadlineStream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        // HTTP/1 asks for it with every request, HTTP/2 once for the connection.
        let http2 = self.preface_left > 0 || self.input.bytes().starts_with(PREFACE);
        if !http2 {
            return None;
        }
        let shared = Arc::clone(self.http2.as_ref()?);
        let no_response = ResponseHeader::build(StatusCode::OK, Some(0)).ok()?;
        Some(Arc::new(ProxyDigest::new(Box::new(no_response), Some(Box::new(shared)))))
    }
}

#[async_trait]
impl Peek for DeadlineStream {
    /// Pingora asks for as many bytes as the preface has, and its own streams wait for all of them, even when a request is
    /// shorter. Here it is enough that the first ones differ from the preface.
    async fn try_peek(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        while self.input.bytes().len() < buffer.len() && self.may_be_http2() {
            if poll_fn(|context| self.poll_more(context)).await? == 0 {
                break;
            }
        }
        for (to, from) in buffer.iter_mut().zip(self.input.bytes()) {
            *to = *from;
        }
        if self.input.bytes().starts_with(PREFACE) {
            if self.is_refused() {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            // It has its own timeouts.
            *self.phase.get_mut() = TUNNEL;
        }
        Ok(true)
    }
}
