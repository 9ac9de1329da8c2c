//! What the API says of pools, servers and the process. The types are its contract: the `OpenAPI` document is made from them.

use std::time::{Duration, UNIX_EPOCH};

use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use crate::pool::drain::DrainProgress;
use crate::session::token::UnixMillis;

/// A list, with the cursor of its next page.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Page<T, C> {
    pub(crate) items: Vec<T>,
    /// `null`: this was the last page.
    pub(crate) next: C,
}

/// What happened in 30 seconds.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct SampleView {
    /// The end of these seconds.
    pub(crate) at: Timestamp,
    pub(crate) requests: u64,
    /// Responses with a status of 500 and above.
    pub(crate) errors: u64,
    /// Requests with a session that went to its server.
    pub(crate) kept: u64,
    /// Requests with a session that were moved, borrowed or refused.
    pub(crate) elsewhere: u64,
    /// Sessions that moved.
    pub(crate) moves: u64,
    /// Of all pools: how many times its fair share of the sessions the most crowded server has. `null` without sessions.
    pub(crate) imbalance: Option<f64>,
}

/// A time as RFC 3339, in UTC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(transparent)]
pub(crate) struct Timestamp(#[schemars(extend("format" = "date-time"))] String);

impl From<UnixMillis> for Timestamp {
    fn from(time: UnixMillis) -> Self {
        // The last millisecond of the year 9999 is the last that the format can write.
        let time = Duration::from_millis(time.0.min(253_402_300_799_999));
        Self(humantime::format_rfc3339_millis(UNIX_EPOCH + time).to_string())
    }
}

/// A pool.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct PoolView {
    pub(crate) name: String,
    /// How new sessions are balanced.
    pub(crate) balance: &'static str,
    pub(crate) servers: Vec<ServerView>,
}

/// A server.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ServerView {
    pub(crate) name: String,
    pub(crate) address: String,
    /// As set, by the file or an operator.
    pub(crate) weight: u16,
    /// Its share of new sessions now.
    #[serde(serialize_with = "whole_number")]
    pub(crate) effective_weight: f64,
    /// In force: `ready`, `drain` or `maint`.
    pub(crate) state: &'static str,
    pub(crate) file_state: &'static str,
    /// What an operator has set.
    pub(crate) r#override: Option<OverrideView>,
    /// `up`, `down` or `unknown`.
    pub(crate) health: &'static str,
    /// `closed`, `open` or `half_open`.
    pub(crate) breaker: &'static str,
    /// Sessions in the table that are bound to it.
    pub(crate) sessions: u64,
    /// Whether that is all there are.
    pub(crate) sessions_complete: bool,
    pub(crate) in_flight: usize,
    /// Requests that wait for it.
    pub(crate) queued: usize,
    /// Open WebSockets, other upgraded connections and event streams.
    pub(crate) streams: usize,
    /// The file no longer has it; it drains.
    pub(crate) removed: bool,
    pub(crate) drain: Option<DrainView>,
}

/// What an operator has set for a server.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct OverrideView {
    pub(crate) state: Option<&'static str>,
    pub(crate) weight: Option<u16>,
    /// The name of the operator's token; without tokens the user id of the peer of a unix socket, or `local`.
    pub(crate) by: String,
    pub(crate) at: Timestamp,
}

/// How far a drain has come.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct DrainView {
    pub(crate) started: Timestamp,
    /// After it the rest is moved.
    pub(crate) deadline: Option<Timestamp>,
    /// Sessions in the table that are bound to it.
    pub(crate) bound: u64,
    /// Until then a client with a token that the table does not know may still come.
    pub(crate) silent_until: Option<Timestamp>,
    /// None is bound, and none can come.
    pub(crate) empty: bool,
}

impl From<DrainProgress> for DrainView {
    fn from(progress: DrainProgress) -> Self {
        let DrainProgress { started, deadline, bound, silent_until, empty } = progress;
        Self {
            started: started.into(),
            deadline: deadline.map(Into::into),
            bound,
            silent_until: silent_until.map(Into::into),
            empty,
        }
    }
}

/// The process.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct StatusView {
    pub(crate) version: &'static str,
    /// `proxy.node`.
    pub(crate) node: String,
    pub(crate) started: Timestamp,
    pub(crate) uptime_seconds: u64,
    /// `starting`, `ready` or `draining`.
    pub(crate) state: &'static str,
    pub(crate) configuration: ConfigurationView,
    pub(crate) last_reload: Option<ReloadView>,
    pub(crate) store: StoreView,
    pub(crate) table: TableView,
    /// Of the listeners, the first to expire first.
    pub(crate) certificates: Vec<CertificateView>,
    /// Requests in flight, with and without a pool.
    pub(crate) in_flight: usize,
    /// The caller: the name of the token; without tokens the user id of the peer of a unix socket, or `local`.
    pub(crate) caller: String,
    /// What the caller may do: `viewer` or `operator`.
    pub(crate) role: &'static str,
}

/// A certificate of a listener.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct CertificateView {
    /// Its first host, or else its file.
    pub(crate) name: String,
    pub(crate) expires: Timestamp,
}

/// The configuration in force.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ConfigurationView {
    pub(crate) hash: String,
    pub(crate) pools: usize,
    pub(crate) servers: usize,
    pub(crate) listeners: Vec<String>,
}

/// A reload.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ReloadView {
    pub(crate) at: Timestamp,
    pub(crate) who: String,
    /// `done` or `refused`.
    pub(crate) result: &'static str,
    /// What is different since.
    pub(crate) changes: Vec<String>,
    /// Why it was refused.
    pub(crate) problems: Vec<String>,
}

/// The process that serves after an upgrade.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct UpgradeView {
    /// Its id.
    pub(crate) pid: u32,
    /// The version of its program.
    pub(crate) version: String,
}

/// Where bindings live.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct StoreView {
    pub(crate) r#type: &'static str,
    /// Whether the shared store answers; `true` without one.
    pub(crate) up: bool,
}

/// The table of this process.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct TableView {
    pub(crate) entries: usize,
    pub(crate) capacity: usize,
    pub(crate) bytes: usize,
    /// Memory of what servers handed over.
    pub(crate) handoff_bytes: usize,
}

/// A session.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct SessionView {
    /// Keyed hash, the same on all proxies of one key set; the access log has its first eight characters.
    pub(crate) key: String,
    pub(crate) pool: String,
    pub(crate) server: String,
    /// How often it has moved.
    pub(crate) epoch: u32,
    pub(crate) created: Timestamp,
    pub(crate) last_seen: Timestamp,
    /// What names it; `null` where the pool has sources of several kinds, since the table does not keep which.
    pub(crate) source: Option<&'static str>,
    /// Its last four moves, oldest first. The moves of the 65,536 sessions that moved last are kept.
    pub(crate) moves: Vec<MoveView>,
}

/// A move of a session.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct MoveView {
    pub(crate) at: Timestamp,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) reason: String,
}

/// An event.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct EventView {
    pub(crate) id: u64,
    pub(crate) at: Timestamp,
    pub(crate) kind: &'static str,
    pub(crate) pool: Option<String>,
    pub(crate) server: Option<String>,
    pub(crate) from: Option<String>,
    pub(crate) to: Option<String>,
    pub(crate) reason: Option<String>,
    /// The name of a token, or what caused it.
    pub(crate) who: Option<String>,
    /// The session that moved or ended, as the access log writes it.
    pub(crate) session: Option<String>,
}

/// What would happen to a session now, and why.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ExplanationView {
    pub(crate) pool: String,
    /// The result of the lookup, as in `homing_session_lookups_total`.
    pub(crate) lookup: &'static str,
    /// The source that decided.
    pub(crate) source: Option<&'static str>,
    /// The session's key, also when it does not live.
    pub(crate) key: Option<String>,
    /// The server that it is bound to.
    pub(crate) server: Option<String>,
    pub(crate) epoch: Option<u32>,
    /// The server that would get its next request; `null` when that is balanced or refused.
    pub(crate) chosen: Option<String>,
    /// What that means to the session, as in `homing_session_outcomes_total`.
    pub(crate) outcome: Option<&'static str>,
    /// Why it would not stay.
    pub(crate) reason: Option<&'static str>,
    pub(crate) steps: Vec<StepView>,
}

/// One step of an explanation.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct StepView {
    /// A source, `table`, `store`, `server`, `policy` or `choice`.
    pub(crate) subject: String,
    pub(crate) said: String,
}

/// A weight without slow start is written as it stands in the file.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn whole_number<S: Serializer>(weight: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most 65,535, and never negative")]
    let whole = *weight as u64;
    if weight.fract() == 0.0 { serializer.serialize_u64(whole) } else { serializer.serialize_f64(*weight) }
}
