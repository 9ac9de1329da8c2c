//! The sealed token in a request header: the Gateway API's session persistence of type `Header`.

use http::HeaderName;

use super::{Presented, SourceInput};
use crate::message::WrittenName;
use crate::session::token::codec::PoolCodec;

/// Reads tokens from the header of one name.
#[derive(Debug, Clone)]
pub struct HeaderSource {
    /// The header's name; `None` for a name that no header can have, which the check rules out.
    pub name: Option<WrittenName>,
}

impl HeaderSource {
    /// From the header of this name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let written = HeaderName::from_bytes(name.as_bytes()).ok();
        Self { name: written.map(|written| WrittenName { name: written, written: name.to_owned().into() }) }
    }

    /// Whom the request's header names. Allocates nothing.
    #[must_use]
    pub fn presented(&self, input: &SourceInput<'_>, codec: &PoolCodec) -> Presented {
        let Some(name) = &self.name else { return Presented::Nothing };
        Presented::first_that_opens(input.request.fields.all(&name.name).map(<[u8]>::trim_ascii), codec)
    }
}
