//! The sealed token in a request header: the Gateway API's session persistence of type `Header`.

use http::{HeaderName, HeaderValue};

use super::{Asked, Presented};
use crate::session::token::codec::PoolCodec;

/// Reads tokens from the header of one name.
#[derive(Debug, Clone)]
pub struct HeaderSource {
    /// The header's name; `None` for a name that no header can have, which the check rules out.
    pub name: Option<HeaderName>,
}

impl HeaderSource {
    /// From the header of this name, in lower case.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: HeaderName::from_bytes(name.as_bytes()).ok() }
    }

    /// Whom the request's header names. Allocates nothing.
    #[must_use]
    pub fn presented(&self, asked: &Asked<'_>, codec: &PoolCodec) -> Presented {
        let Some(name) = &self.name else { return Presented::Nobody };
        let fields = asked.headers.get_all(name).into_iter();
        Presented::first_that_opens(fields.map(HeaderValue::as_bytes).map(<[u8]>::trim_ascii), codec)
    }
}
