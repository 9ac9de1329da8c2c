//! The sealed token in the URL: `?sessionId=…` or `;sessionId=…`, for clients that keep no cookies.

use http::{HeaderValue, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::claim::{SessionClaim, SourceInput};
use super::definition::{Carriers, PoolContext, SessionSource, SourceDefinition, check_parameter};
use crate::config::check_context::NodeRef;
use crate::config::cookie::Cookie;
use crate::config::diagnostics::Diagnostics;
use crate::message::{RequestEdits, RequestView, WrittenName};
use crate::session::token::codec::PoolCodec;
use crate::session::url_params;

static REFERER: WrittenName = WrittenName::new("Referer", "referer");

/// The sealed token in the URL, for clients that keep no cookies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-shorthand" = "name"))]
pub struct QuerySettings {
    /// Name of the query parameter. The path parameter of the same name (`/cart;sessionId=…`) counts too.
    pub name: String,
    /// Puts the token into `Location` and into links, frames and forms of HTML answers that lead to this site.
    pub rewrite_links: bool,
}

impl Default for QuerySettings {
    fn default() -> Self {
        Self { name: "sessionId".to_owned(), rewrite_links: false }
    }
}

impl SourceDefinition for QuerySettings {
    type Source = QuerySource;
    const READS_TOKEN: bool = true;

    fn check(&self, at: NodeRef<'_>, diagnostics: &mut Diagnostics) -> Self {
        check_parameter(&self.name, at.key("name"), diagnostics);
        self.clone()
    }

    fn carriers<'a>(&'a self, _cookie: &'a Cookie) -> Carriers<'a> {
        Carriers { query: Some(&self.name), ..Carriers::default() }
    }

    fn build(&self, _pool: &PoolContext<'_>) -> QuerySource {
        QuerySource { name: self.name.as_str().into(), rewrite_links: self.rewrite_links }
    }
}

/// Reads tokens from the query and path parameter of one name.
#[derive(Debug, Clone)]
pub struct QuerySource {
    /// The parameter's name.
    pub name: Box<str>,
    /// The token is put into `Location` and into links of HTML responses.
    pub rewrite_links: bool,
}

impl SessionSource for QuerySource {
    /// Allocates nothing.
    fn claim(&self, input: &SourceInput<'_>, codec: &PoolCodec) -> SessionClaim {
        SessionClaim::first_that_opens(input.parameters(&self.name), codec)
    }

    fn strip(&self, request: &RequestView<'_>, hidden: bool, edits: &mut RequestEdits<'_>) {
        if hidden {
            from_target(request, &self.name, edits);
            from_referer(request, &self.name, edits);
        }
    }
}

/// Several sources may each remove a parameter.
fn from_target(request: &RequestView<'_>, name: &str, edits: &mut RequestEdits<'_>) {
    let target = edits.target.as_deref().or_else(|| std::str::from_utf8(request.target()).ok());
    if let Some(clean) = target.and_then(|target| url_params::without(target, name)) {
        edits.target = Some(clean);
    }
}

/// The page before had the token in its URL.
fn from_referer(request: &RequestView<'_>, name: &str, edits: &mut RequestEdits<'_>) {
    let earlier = edits.set.iter().find(|(set, _)| set.name == REFERER.name).and_then(|(_, value)| value.to_str().ok());
    let referer = earlier.or_else(|| request.fields.get_str(&header::REFERER));
    let clean = referer.and_then(|referer| url_params::without(referer, name));
    if let Some(clean) = clean.and_then(|clean| HeaderValue::try_from(clean).ok()) {
        edits.set(&REFERER, clean);
    }
}
