//! Whether a request begins a session, as far as that shows before its response.

use crate::config::Issue;

use super::resolve::IdentifiedBy;
use super::scope::{RequestSession, Scope};

/// Whether a request begins a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewSession {
    /// It does not.
    No,
    /// It does, if a server takes it.
    Certain,
    /// Its response decides: the application names its sessions, or the token has to find a place in the response.
    Possible,
}

impl RequestSession {
    /// Whether the request begins a session; asked when its session was resolved.
    pub fn new_session(&self, scope: &Scope<'_, '_>) -> NewSession {
        let Some(persistence) = self.persistence(scope) else { return NewSession::No };
        let issue = persistence.policy.issue;
        let issues = match issue {
            Issue::Cookie => persistence.owns_cookie() && persistence.can_issue(|| scope.uri()),
            Issue::Header => true,
            Issue::Query | Issue::None => false,
        };
        match self.session().map(|session| session.identified_by) {
            // An address is shared: its client is given a session of its own.
            Some(IdentifiedBy::Address) if issues => NewSession::Certain,
            Some(_) => NewSession::No,
            None if issues || self.lookup.unknown_address.is_some() => NewSession::Certain,
            None => {
                let finds_place = issue == Issue::Query || (issue == Issue::Cookie && !persistence.owns_cookie());
                if persistence.learns || finds_place { NewSession::Possible } else { NewSession::No }
            }
        }
    }
}
