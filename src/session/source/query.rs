//! The sealed token in the URL: `?sessionId=…` or `;sessionId=…`, for clients that keep no cookies.

use super::{Presented, SourceInput};
use crate::session::token::codec::PoolCodec;

/// Reads tokens from the query and path parameter of one name.
#[derive(Debug, Clone)]
pub struct QuerySource {
    /// The parameter's name.
    pub name: Box<str>,
    /// The token is put into `Location` and into links of HTML answers.
    pub rewrite_links: bool,
}

impl QuerySource {
    /// From the parameter of this name.
    #[must_use]
    pub fn new(name: &str, rewrite_links: bool) -> Self {
        Self { name: name.into(), rewrite_links }
    }

    /// Whom the request's URL names. Allocates nothing.
    #[must_use]
    pub fn presented(&self, input: &SourceInput<'_>, codec: &PoolCodec) -> Presented {
        Presented::first_that_opens(input.parameters(&self.name), codec)
    }
}
