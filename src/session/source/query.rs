//! The sealed token in the URL: `?sessionId=…` or `;sessionId=…`, for clients that keep no cookies.

use super::{SessionClaim, SourceInput};
use crate::session::token::codec::PoolCodec;

/// Reads tokens from the query and path parameter of one name.
#[derive(Debug, Clone)]
pub struct QuerySource {
    /// The parameter's name.
    pub name: Box<str>,
    /// The token is put into `Location` and into links of HTML responses.
    pub rewrite_links: bool,
}

impl QuerySource {
    /// From the parameter of this name.
    #[must_use]
    pub fn new(name: &str, rewrite_links: bool) -> Self {
        Self { name: name.into(), rewrite_links }
    }

    /// The token in the request's URL. Allocates nothing.
    #[must_use]
    pub fn claim(&self, input: &SourceInput<'_>, codec: &PoolCodec) -> SessionClaim {
        SessionClaim::first_that_opens(input.parameters(&self.name), codec)
    }
}
