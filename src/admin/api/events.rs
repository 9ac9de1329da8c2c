//! The event list: as a page, as a page that waits for the next event, and as a stream of server-sent events.

use std::time::Duration;

use crate::admin::problem::Problem;
use crate::admin::request::AdminRequest;
use crate::app::state::AppState;
use crate::session::key::{Digest8, SessionKey};
use crate::telemetry::events::{self, Event};

use super::view::{EventView, Page};

/// The longest that a request waits.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Which events are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EventQuery {
    /// Only those after the one with this id.
    pub(crate) after: u64,
    /// When there are none, until the next one, at most so long.
    wait: Duration,
}

impl EventQuery {
    pub(crate) fn of(request: &AdminRequest) -> Result<Self, Problem> {
        let [after, wait] = request.parameters(["after", "wait"])?;
        // A client that lost its stream goes on where that ended.
        let after = request.field("last-event-id").map(str::to_owned).or(after);
        let invalid = |what: &str| Problem::bad_request(format!("{what} is expected"));
        let after = after.map_or(Ok(0), |text| text.parse().map_err(|_text| invalid("after: the id of an event")))?;
        let wait = wait.map_or(Ok(Duration::ZERO), |text| {
            humantime::parse_duration(&text).map_err(|_text| invalid("wait: a duration like 30s"))
        })?;
        if wait > LONGEST_WAIT {
            return Err(invalid("wait: at most 60s"));
        }
        Ok(Self { after, wait })
    }
}

pub(crate) async fn list(app: &AppState, query: EventQuery) -> Page<EventView, u64> {
    let list = events::list();
    if list.after(query.after).is_empty() && !query.wait.is_zero() {
        let _ = tokio::time::timeout(query.wait, list.grown(query.after)).await;
    }
    let found = list.after(query.after);
    let next = found.last().map_or_else(|| query.after.min(list.last_id()), |last| last.id);
    Page { items: found.iter().map(|event| event_view(event, app)).collect(), next }
}

pub(crate) fn event_view(Event { id, at, change }: &Event, app: &AppState) -> EventView {
    let text = |value: &Option<std::sync::Arc<str>>| value.as_deref().map(str::to_owned);
    let digest = |key| app.current.load().log_key.digest8(SessionKey(key));
    EventView {
        id: *id,
        at: crate::session::token::UnixMillis(*at).into(),
        kind: change.kind.into(),
        pool: text(&change.pool),
        server: text(&change.server),
        from: text(&change.from),
        to: text(&change.to),
        reason: text(&change.reason),
        who: text(&change.who),
        session: change.session.map(digest).as_ref().map(|digest: &Digest8| digest.as_str().to_owned()),
    }
}

/// An event as it is written to a stream.
pub(crate) fn frame(event: &EventView) -> String {
    let data = serde_json::to_string(event).unwrap_or_default();
    format!("id: {}\nevent: {}\ndata: {data}\n\n", event.id, event.kind)
}
