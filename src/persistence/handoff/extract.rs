//! What a server hands over with a response, and what its response means to what it was given.
//!
//! The last response below 500 of any server that serves the session counts, that of a guest server too: it says what the
//! client did last, and a log-out at a guest server must not be undone by what that server is given with the next request.
//! A response of 500 and above may come from a server that is half dead; what it says of the session is ignored.

use std::sync::atomic::Ordering::Relaxed;

use http::{HeaderValue, StatusCode};

use crate::message::{ResponseEdits, ResponseView};
use crate::persistence::outcome::Outcome;
use crate::persistence::pool::{HandoffSettings, PoolRuntime};
use crate::persistence::scope::{RequestSession, Scope};
use crate::persistence::sessions::Sessions;
use crate::pool::ServerIndex;
use crate::store::engine::Kind;
use crate::store::local::data::{HandoffPayload, Owner};
use crate::telemetry::metrics::Handoff;

use super::owner::{named, owner, owner_of};
use super::state::{DataChange, DataChanges, InjectedHandoff};

/// The handoff header of a response.
pub(in crate::persistence) enum ExtractedData {
    /// This is the session's data from now on.
    Data(HeaderValue),
    /// There is no data any more.
    Removed,
    /// That many bytes, which is more than the pool allows.
    TooLarge(usize),
    /// Several lines: ambiguous.
    SeveralLines,
}

/// Reads the handoff header and removes it, whatever the response is: clients never see it.
pub(in crate::persistence) fn extract(
    response: &ResponseView<'_>,
    scope: &Scope<'_, '_>,
    state: &RequestSession,
    edits: &mut ResponseEdits<'_>,
) -> Option<ExtractedData> {
    let handoff = settings(scope, state)?;
    let mut lines = response.fields.all(&handoff.header.name);
    let (first, several) = (lines.next()?, lines.next().is_some());
    let extracted = match first.len() {
        _ if several => ExtractedData::SeveralLines,
        0 => ExtractedData::Removed,
        size if size > handoff.max_size => ExtractedData::TooLarge(size),
        _ => ExtractedData::Data(response.fields.value(&handoff.header.name)?),
    };
    edits.remove.push(handoff.header.name.clone());
    Some(extracted)
}

fn settings<'a>(scope: &Scope<'a, '_>, state: &RequestSession) -> Option<&'a HandoffSettings> {
    state.persistence(scope)?.handoff.as_ref()
}

impl Sessions {
    /// Whether nothing is left to tell the shared store; false: await [`publish_data`](Self::publish_data).
    pub fn is_data_published(state: &RequestSession) -> bool {
        state.data_changes.is_empty()
    }

    /// Tells the shared store what changed of session data.
    pub async fn publish_data(&self, scope: &Scope<'_, '_>, state: &mut RequestSession) {
        let Some(shared) = &self.shared else { return };
        for DataChange { owner, data } in std::mem::take(&mut state.data_changes) {
            match self.store_for(state) {
                Some(store) => {
                    state.store_unavailable |= store.put_data(&owner, data.as_ref(), scope.now).await.is_err();
                }
                None => shared.write_behind(owner.key, Kind::Data),
            }
        }
    }
}

/// What the request's server has responded to: what it was given has arrived, or not, and what was extracted is kept.
pub(in crate::persistence) fn settle(
    status: StatusCode,
    extracted: Option<ExtractedData>,
    server: ServerIndex,
    sessions: &Sessions,
    scope: &Scope<'_, '_>,
    state: &mut RequestSession,
) {
    let injected = state.injected.take();
    if extracted.is_none() && injected.is_none() {
        return;
    }
    let failed = status.is_server_error();
    let mut settlement = Settlement { server, sessions, scope, state, changes: DataChanges::new() };
    if let Some(injected) = injected {
        settlement.arrived(*injected, failed);
    }
    if let (Some(extracted), false, Some(runtime)) = (extracted, failed, settlement.state.runtime(scope)) {
        let result = settlement.keep(extracted, runtime);
        runtime.metrics.handoffs.inc(result as usize);
    }
    let changes = settlement.changes;
    if sessions.shared.is_some() {
        state.data_changes = changes;
    }
}

/// One response of a server, settled.
struct Settlement<'a> {
    server: ServerIndex,
    sessions: &'a Sessions,
    scope: &'a Scope<'a, 'a>,
    state: &'a RequestSession,
    changes: DataChanges,
}

impl Settlement<'_> {
    /// A server has responded that was given something.
    fn arrived(&mut self, InjectedHandoff { payload, epoch }: InjectedHandoff, failed: bool) {
        let (data, table, now) = (&self.sessions.data, &self.sessions.table, self.scope.now);
        let moved_header = payload.moved_header.filter(|_| failed);
        match (self.state.outcome, self.state.session(), self.state.runtime(self.scope)) {
            (Some(Outcome::Kept), Some(session), _) if !failed => data.mark_delivered(&session.key, epoch),
            (Some(Outcome::Moved), Some(session), Some(runtime)) => {
                // When another request of it moved it elsewhere, that move stands.
                let responding = runtime.pool.servers.get(self.server);
                let here = responding.is_some_and(|server| server.id == session.binding.server);
                let is_live = here && !self.state.response_ids.ended;
                if let Some(owner) = owner_of(session, runtime).filter(|_| is_live) {
                    data.record_move(&owner, epoch, moved_header, table, now);
                    self.note_data_of(&owner);
                }
            }
            // From another version: it goes on under the name that this response gives it.
            (Some(Outcome::Moved), None, _) => {
                if let Some(owner) = owner(self.sessions, self.scope, self.state) {
                    let payload = HandoffPayload { moved_header, data: payload.data };
                    data.transfer(&owner, payload, table, now);
                    self.note_data_of(&owner);
                }
            }
            _ => {}
        }
    }

    fn note_data_of(&mut self, owner: &Owner) {
        let data = self.sessions.data.find_with_owner(&owner.key);
        self.changes.extend(data.map(|(owner, data)| DataChange { owner, data: Some(data) }));
    }

    fn keep(&mut self, extracted: ExtractedData, runtime: &PoolRuntime) -> Handoff {
        let (data, table) = (&self.sessions.data, &self.sessions.table);
        let named = named(self.scope, self.state);
        match extracted {
            ExtractedData::TooLarge(size) => {
                let what = "session data is larger than handoff.max_size and was refused; the old data stays";
                warn(runtime, self.server, self.scope, what, size);
                Handoff::RefusedSize
            }
            ExtractedData::SeveralLines => {
                let what = "session data on several lines was refused; the old data stays";
                warn(runtime, self.server, self.scope, what, 0);
                Handoff::RefusedLines
            }
            ExtractedData::Removed => {
                for owner in [named, owner(self.sessions, self.scope, self.state)].into_iter().flatten() {
                    data.forget(&owner.key);
                    self.changes.push(DataChange { owner, data: None });
                }
                Handoff::Forgotten
            }
            ExtractedData::Data(value) => {
                let Some(owner) = owner(self.sessions, self.scope, self.state) else { return Handoff::RefusedNobody };
                // The application gave its session another id, so that the old one gives access to nothing any more.
                if let Some(former) = named.filter(|named| named.key != owner.key) {
                    data.forget(&former.key);
                    self.changes.push(DataChange { owner: former, data: None });
                }
                if !data.keep(&owner, &value, table, self.scope.now) {
                    return Handoff::Late;
                }
                self.changes.push(DataChange { owner, data: Some(value) });
                Handoff::Taken
            }
        }
    }
}

/// Once a minute for a pool: an application that hands over too much does so with every response.
fn warn(runtime: &PoolRuntime, server: ServerIndex, scope: &Scope<'_, '_>, what: &str, size: usize) {
    let minute = scope.now.0 / 60_000;
    let handoff = runtime.persistence.as_ref().and_then(|persistence| persistence.handoff.as_ref());
    let Some(handoff) = handoff.filter(|handoff| handoff.warned.swap(minute, Relaxed) != minute) else { return };
    let server = runtime.pool.servers.get(server).map(|server| &*server.name);
    tracing::warn!(pool = %runtime.pool.name, server, size, max_size = handoff.max_size, "{what}");
}
