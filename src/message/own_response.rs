//! A response of the proxy itself, as data. An adapter writes it to the client.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use smallvec::SmallVec;

/// A complete response.
#[derive(Debug)]
pub struct OwnResponse {
    /// Status.
    pub status: StatusCode,
    /// Fields in the order in which they are written, `Content-Length` among them.
    pub fields: SmallVec<[(HeaderName, HeaderValue); 8]>,
    /// Body; not sent in response to HEAD.
    pub body: Bytes,
}
