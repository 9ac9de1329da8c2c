//! The sealed token in a request header: the Gateway API's session persistence of type `Header`.

use http::HeaderName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::claim::{SessionClaim, SourceInput};
use super::definition::{Carriers, PoolContext, SessionSource, SourceDefinition, check_header};
use crate::config::check_context::NodeRef;
use crate::config::cookie::Cookie;
use crate::config::diagnostics::Diagnostics;
use crate::message::{RequestEdits, RequestView, WrittenName};
use crate::session::token::codec::PoolCodec;

/// The sealed token in a request header. With `issue: header` it is given in a response header of the same name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-shorthand" = "name"))]
pub struct HeaderSettings {
    /// Name of the header.
    #[schemars(extend("examples" = ["X-Session"]))]
    pub name: String,
}

impl SourceDefinition for HeaderSettings {
    type Source = HeaderSource;
    const READS_TOKEN: bool = true;

    fn check(&self, at: NodeRef<'_>, diagnostics: &mut Diagnostics) -> Self {
        Self { name: check_header(&self.name, at.key("name"), diagnostics) }
    }

    fn carriers<'a>(&'a self, _cookie: &'a Cookie) -> Carriers<'a> {
        Carriers { header: Some(&self.name), ..Carriers::default() }
    }

    fn build(&self, _pool: &PoolContext<'_>) -> HeaderSource {
        let name = HeaderName::from_bytes(self.name.as_bytes()).ok();
        HeaderSource { name: name.map(|name| WrittenName { name, written: self.name.clone().into() }) }
    }
}

/// Reads tokens from the header of one name.
#[derive(Debug, Clone)]
pub struct HeaderSource {
    /// The header's name; `None` for a name that no header can have, which the check rules out.
    pub name: Option<WrittenName>,
}

impl SessionSource for HeaderSource {
    /// Allocates nothing.
    fn claim(&self, input: &SourceInput<'_>, codec: &PoolCodec) -> SessionClaim {
        let Some(name) = &self.name else { return SessionClaim::Nothing };
        SessionClaim::first_that_opens(input.request.fields.all(&name.name).map(<[u8]>::trim_ascii), codec)
    }

    fn strip(&self, _request: &RequestView<'_>, hidden: bool, edits: &mut RequestEdits<'_>) {
        if let Some(name) = self.name.as_ref().filter(|_| hidden) {
            edits.remove(name.name.clone());
        }
    }
}
