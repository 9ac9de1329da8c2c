//! The sealed token in a request header: the Gateway API's session persistence of type `Header`.

use http::HeaderName;

use super::{SessionClaim, SourceInput};
use crate::message::WrittenName;
use crate::session::token::codec::PoolCodec;

/// Reads tokens from the header of one name.
#[derive(Debug, Clone)]
pub struct HeaderSource {
    /// The header's name; `None` if it is not valid, which the check excludes.
    pub name: Option<WrittenName>,
}

impl HeaderSource {
    /// From the header of this name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let written = HeaderName::from_bytes(name.as_bytes()).ok();
        Self { name: written.map(|written| WrittenName { name: written, written: name.to_owned().into() }) }
    }

    /// The token in the request's header. Allocates nothing.
    #[must_use]
    pub fn claim(&self, input: &SourceInput<'_>, codec: &PoolCodec) -> SessionClaim {
        let Some(name) = &self.name else { return SessionClaim::Nothing };
        SessionClaim::first_that_opens(input.request.fields.all(&name.name).map(<[u8]>::trim_ascii), codec)
    }
}
