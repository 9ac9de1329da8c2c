//! What an attempt's server is given: nothing when the session is bound there.

use http::HeaderName;

use crate::message::{RequestEdits, RequestView, WrittenName};
use crate::persistence::outcome::Outcome;
use crate::persistence::pool::{HandoffSettings, PoolPersistence};
use crate::persistence::scope::{RequestSession, Scope};
use crate::persistence::sessions::Sessions;
use crate::store::local::data::{HandoffPayload, Owner};
use crate::telemetry::metrics::Handoff;

use super::moved_header::{leaving, moved_header};
use super::owner::owner_of;
use super::state::InjectedHandoff;

static MOVED: WrittenName = WrittenName::new("Homing-Session-Moved", "homing-session-moved");

impl Sessions {
    /// Whether the data to inject is here; false: await [`fetch_handoff`](Self::fetch_handoff) first.
    pub fn has_handoff(&self, scope: &Scope<'_, '_>, state: &RequestSession) -> bool {
        self.store_for(state).is_none() || self.owner_to_fetch(scope, state).is_none()
    }

    /// Fetches what the session's last server handed over to another proxy, if it is injected now.
    pub async fn fetch_handoff(&self, scope: &Scope<'_, '_>, state: &mut RequestSession) {
        let (Some(store), Some(owner)) = (self.store_for(state), self.owner_to_fetch(scope, state)) else { return };
        let fetched = store.fetch_data(owner.key, owner.created, owner.pool, scope.now).await;
        state.store_unavailable |= fetched.is_err();
    }

    fn owner_to_fetch(&self, scope: &Scope<'_, '_>, state: &RequestSession) -> Option<Owner> {
        let (session, runtime) = match state.outcome? {
            Outcome::Moved | Outcome::Borrowed => leaving(scope, state)?,
            // Another proxy has moved it, and its server still has to be given what was handed over.
            Outcome::Kept => {
                let session = state.session()?;
                let pending = self.data.pending_handoff(&session.key, session.binding.epoch)?;
                pending.data.is_none().then_some((session, state.runtime(scope)?))?
            }
            _ => return None,
        };
        runtime.persistence.as_ref().filter(|persistence| hands_over(persistence))?;
        owner_of(session, runtime)
    }

    /// Takes off the headers that only the proxy may send, and adds what the attempt's server is given. What a client may
    /// never send, with or without handoff, is off already.
    pub fn inject_handoff<'a>(
        &self,
        request: &RequestView<'_>,
        scope: &Scope<'a, '_>,
        state: &mut RequestSession,
        edits: &mut RequestEdits<'a>,
    ) {
        let handoff = state.persistence(scope).and_then(|persistence| persistence.handoff.as_ref());
        if let Some(handoff) = handoff {
            take_off(request, handoff, edits);
        }
        state.injected = None;
        let Some(injected) = self.to_inject(handoff.is_some(), scope, state) else { return };
        if let Some(moved) = &injected.payload.moved_header {
            edits.set(&MOVED, moved.clone());
        }
        if let (Some(data), Some(handoff), Some(runtime)) = (&injected.payload.data, handoff, state.runtime(scope)) {
            edits.set(&handoff.header, data.clone());
            runtime.metrics.handoffs.inc(Handoff::Given as usize);
        }
        // Without handoff nothing is kept of it.
        state.injected = handoff.is_some().then(|| Box::new(injected));
    }

    /// A guest server is given the data too, or it could not serve the session, but no moved header: there was no move.
    fn to_inject(&self, handoff: bool, scope: &Scope<'_, '_>, state: &RequestSession) -> Option<InjectedHandoff> {
        match state.outcome? {
            Outcome::Moved | Outcome::Borrowed => {
                let (session, runtime) = leaving(scope, state)?;
                let epoch = session.binding.epoch;
                let kept = handoff && runtime.persistence.as_ref().is_some_and(hands_over);
                let data = kept.then(|| self.data.find(&session.key, epoch)).flatten();
                let moved = state.outcome == Some(Outcome::Moved);
                let told = moved.then(|| moved_header(session, runtime, self, state)).flatten();
                Some(InjectedHandoff { payload: HandoffPayload { moved_header: told, data }, epoch })
            }
            Outcome::Kept if handoff => {
                let session = state.session()?;
                let epoch = session.binding.epoch;
                Some(InjectedHandoff { payload: self.data.pending_handoff(&session.key, epoch)?, epoch })
            }
            _ => None,
        }
    }
}

/// Also where the name is written with `_` for `-`: servers that read headers as CGI does would take it for the same.
fn take_off(request: &RequestView<'_>, handoff: &HandoffSettings, edits: &mut RequestEdits<'_>) {
    let header = handoff.header.name.as_str();
    let same = |(one, other): (u8, u8)| one.eq_ignore_ascii_case(&other) || (one == b'_' && other == b'-');
    for (name, _) in request.fields.iter() {
        if name.len() == header.len()
            && name.bytes().zip(header.bytes()).all(same)
            && let Ok(name) = HeaderName::from_bytes(name.as_bytes())
        {
            edits.remove(name);
        }
    }
}

const fn hands_over(persistence: &PoolPersistence) -> bool {
    persistence.handoff.is_some()
}
