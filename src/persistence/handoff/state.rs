//! What a request carries of session data from one hook to the next.

use http::HeaderValue;

use crate::session::key::SessionKey;
use crate::store::local::data::{HandoffPayload, Owner};

/// What the current attempt's server was given, since its session was bound elsewhere.
pub(crate) struct InjectedHandoff {
    /// The headers.
    pub(super) payload: HandoffPayload,
    /// The epoch of the session's binding at that time.
    pub(super) epoch: u32,
}

/// A change of a session's data, for the shared store.
pub(in crate::persistence) struct DataChange {
    /// Whose data it is.
    pub(in crate::persistence) owner: Owner,
    /// `None`: there is no data any more.
    pub(in crate::persistence) data: Option<HeaderValue>,
}

/// Most responses change nothing.
pub(in crate::persistence) type DataChanges = Vec<DataChange>;

/// How a response names the session.
#[derive(Debug, Default)]
pub(in crate::persistence) struct ResponseIds {
    /// The application's id that it issues, and the index of its source.
    pub(in crate::persistence) learned: Option<(usize, SessionKey)>,
    /// The session of the token that it gives to a new client.
    pub(in crate::persistence) token: Option<SessionKey>,
    /// The session that the request named has ended.
    pub(in crate::persistence) ended: bool,
}
