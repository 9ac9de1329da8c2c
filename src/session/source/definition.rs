//! What a source says of itself: its settings in the file, and how they become what reads requests.

use super::claim::{SessionClaim, SourceInput};
use crate::config::address;
use crate::config::check_context::NodeRef;
use crate::config::cookie::Cookie;
use crate::config::diagnostics::Diagnostics;
use crate::config::suggest;
use crate::message::{RequestEdits, RequestView};
use crate::session::token::codec::PoolCodec;
use crate::session::token::keyring::Keyring;

/// The settings of a source. Their fields are the keys of the file, their doc comments the manual.
pub(crate) trait SourceDefinition: Sized {
    /// What reads requests.
    type Source: SessionSource;
    /// A pool may have several that differ.
    const REPEATABLE: bool = false;
    /// What it reads is the token.
    const READS_TOKEN: bool = false;
    /// What it reads is of one client only.
    const IDENTIFIES_CLIENT: bool = true;

    /// Checks what the schema cannot say. Returns the settings as they are used.
    fn check(&self, at: NodeRef<'_>, diagnostics: &mut Diagnostics) -> Self;

    /// Where it reads, in a pool with this cookie.
    fn carriers<'a>(&'a self, _cookie: &'a Cookie) -> Carriers<'a> {
        Carriers::default()
    }

    /// What reads requests to a pool.
    fn build(&self, pool: &PoolContext<'_>) -> Self::Source;
}

/// What reads requests.
pub trait SessionSource {
    /// What the request names here.
    fn claim(&self, input: &SourceInput<'_>, codec: &PoolCodec) -> SessionClaim;

    /// What the proxy has put into the request and a server need not see. `hidden`: the token is not for servers
    /// (`cookie.hide_from_server`).
    fn strip(&self, _request: &RequestView<'_>, _hidden: bool, _edits: &mut RequestEdits<'_>) {}
}

impl<T: SessionSource> SessionSource for Box<T> {
    fn claim(&self, input: &SourceInput<'_>, codec: &PoolCodec) -> SessionClaim {
        (**self).claim(input, codec)
    }

    fn strip(&self, request: &RequestView<'_>, hidden: bool, edits: &mut RequestEdits<'_>) {
        (**self).strip(request, hidden, edits);
    }
}

/// Where in a request a source reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Carriers<'a> {
    /// Cookie.
    pub cookie: Option<&'a str>,
    /// Header.
    pub header: Option<&'a str>,
    /// Query parameter, and the path parameter of the same name.
    pub query: Option<&'a str>,
}

/// The pool that a source is built for.
#[derive(Debug, Clone, Copy)]
pub struct PoolContext<'a> {
    /// Name of the pool.
    pub name: &'a str,
    /// Its servers: name, and the route id in ids of the application (`servers[].route`).
    pub servers: &'a [(&'a str, &'a str)],
    /// Its cookie.
    pub cookie: &'a Cookie,
    /// The keys that seal tokens and hash ids.
    pub keys: &'a Keyring,
}

/// Headers that say something else, whatever they are sent for.
pub(crate) const RESERVED_HEADERS: &[&str] = &[
    "authorization",
    "client-cert",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "forwarded",
    "host",
    "homing-session-data",
    "homing-session-moved",
    "keep-alive",
    "proxy-connection",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-client-cert-fingerprint",
    "x-client-cert-subject",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
];

/// Reports what is no name of a cookie.
pub(crate) fn check_cookie(name: &str, at: NodeRef<'_>, diagnostics: &mut Diagnostics) {
    if !address::is_token(name) || name.len() > 128 {
        let message = format!("{} is no name for a cookie", suggest::quoted(name));
        diagnostics.problem(at.location, message, "use letters, digits and !#$%&'*+-.^_`|~, at most 128");
    }
}

/// Reports what is no name of a query parameter.
pub(crate) fn check_parameter(name: &str, at: NodeRef<'_>, diagnostics: &mut Diagnostics) {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    if name.is_empty() || name.len() > 128 || !name.bytes().all(fits) {
        let message = format!("{} is no name for a query parameter", suggest::quoted(name));
        diagnostics.problem(at.location, message, "use letters, digits, \"-\", \".\", \"_\" and \"~\", at most 128");
    }
}

/// Reports what is no name of a header of its own. Returns it in lower case.
pub(crate) fn check_header(name: &str, at: NodeRef<'_>, diagnostics: &mut Diagnostics) -> String {
    let lower = name.to_lowercase();
    if !address::is_token(name) || name.len() > 128 {
        let message = format!("{} is no name for a header", suggest::quoted(name));
        diagnostics.problem(at.location, message, "use letters, digits and \"-\", like X-Session");
    } else if RESERVED_HEADERS.contains(&lower.as_str()) {
        let message = format!("header {} cannot name a session: it has a meaning of its own", suggest::quoted(name));
        diagnostics.problem(at.location, message, "use a header of its own, like X-Session");
    }
    lower
}
