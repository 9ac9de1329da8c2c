//! Removes the token from a request, in whatever it is carried: the application need not know of it, and what it does not
//! see it cannot log.

use http::header;

use crate::message::{RequestEdits, RequestView};
use crate::persistence::PoolPersistence;
use crate::session::cookie::read::joined;

/// What is removed from a request to a pool that keeps sessions so. Several Cookie fields become one: HTTP/2 clients split
/// theirs, and HTTP/1 servers read only the first.
pub(crate) fn strip_token<'a>(
    request: &RequestView<'_>,
    persistence: Option<&'a PoolPersistence>,
    edits: &mut RequestEdits<'a>,
) {
    if !persistence.is_some_and(PoolPersistence::reads_cookie) {
        edits.cookie = joined(request.fields.all(&header::COOKIE)).into();
    }
    let Some(persistence) = persistence else { return };
    for source in &persistence.sources {
        source.strip(request, persistence.policy.cookie.hide_from_server, edits);
    }
}
