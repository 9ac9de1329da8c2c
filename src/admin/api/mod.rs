//! The API: which resource answers which request.

mod events;
mod explain;
mod explained;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;
mod history;
mod openapi;
mod pace;
mod paging;
mod pools;
mod reload;
mod sessions;
mod status;
mod upgrade;
mod view;

use std::sync::Arc;

use http::{Method, StatusCode};
use serde::Serialize;

use crate::app::state::AppState;

use super::access::Caller;
use super::problem::Problem;
use super::readiness::Readiness;
use super::request::AdminRequest;

pub(crate) use self::events::{EventQuery, event_view, frame};
pub(crate) use self::explained::ExplainedSessions;

/// A response of the API.
pub(crate) enum ApiResponse {
    /// A document.
    Json(StatusCode, Vec<u8>),
    /// Done, and nothing to say.
    NoContent,
    /// The event list as it grows.
    EventStream(EventQuery),
}

/// What handlers work with.
pub(crate) struct Api<'a> {
    pub(crate) app: &'a Arc<AppState>,
    pub(crate) readiness: &'a Readiness,
    pub(crate) caller: &'a Caller,
    pub(crate) explained: &'a ExplainedSessions,
}

const GET: &str = "GET, HEAD";

impl Api<'_> {
    /// Answers a request for `/api/v1/…`, of which `segments` are the rest.
    pub(crate) async fn respond(&self, request: &AdminRequest, segments: &[&str]) -> Result<ApiResponse, Problem> {
        let app = self.app;
        let reads = matches!(request.method, Method::GET | Method::HEAD);
        match (segments, &request.method) {
            (["status"], _) if reads => json(&status::status(app, self.readiness, self.caller)),
            (["pools"], _) if reads => {
                let [limit, cursor] = request.parameters(["limit", "cursor"])?;
                json(&pools::list(app, &paging::Paging::of(limit.as_deref(), cursor.as_deref())?)?)
            }
            (["events"], _) if reads => {
                let query = EventQuery::of(request)?;
                if request.accepts("text/event-stream") {
                    return Ok(ApiResponse::EventStream(query));
                }
                json(&events::list(app, query).await)
            }
            (["history"], _) if reads => json(&history::list(app)),
            (["openapi.json"], _) if reads => json(&openapi::document()),
            (["sessions"], _) if reads => Ok(ApiResponse::Json(StatusCode::OK, sessions::list(app, request).await?)),
            (["sessions", pool, key], _) if reads => json(&sessions::get(app, self.explained, pool, key).await?),
            _ => self.change(request, segments).await,
        }
    }

    async fn change(&self, request: &AdminRequest, segments: &[&str]) -> Result<ApiResponse, Problem> {
        let (app, caller) = (self.app, self.caller);
        let method = &request.method;
        match segments {
            ["pools", pool, "servers", server] if *method == Method::PATCH => {
                json(&pools::patch(app, (pool, server), request.json()?, caller).await?)
            }
            ["pools", pool, "servers", server, "override"] if *method == Method::DELETE => {
                json(&pools::clear(app, (pool, server), caller).await?)
            }
            ["sessions", pool, key] if *method == Method::DELETE => {
                sessions::end(app, self.explained, (pool, key), caller).await?;
                Ok(ApiResponse::NoContent)
            }
            ["sessions", pool, key, "move"] if *method == Method::POST => {
                json(&sessions::relocate(app, self.explained, (pool, key), request.json()?, caller).await?)
            }
            ["explain"] if *method == Method::POST => {
                json(&explain::explain(app, self.explained, request.json()?).await?)
            }
            [what @ ("reload" | "upgrade")] if *method == Method::POST => self.renew(what).await,
            _ => Err(methods(segments).map_or_else(
                || {
                    Problem::not_found(format!(
                        "no resource at {:?}; GET /api/v1/openapi.json lists them",
                        request.path
                    ))
                },
                Problem::method_not_allowed,
            )),
        }
    }
}

impl Api<'_> {
    /// Another configuration, or another process.
    async fn renew(&self, what: &str) -> Result<ApiResponse, Problem> {
        if what == "reload" {
            json(&reload::reload(self.app, self.caller).await?)
        } else {
            json(&upgrade::upgrade(self.app, self.caller).await?)
        }
    }
}

/// The methods of a resource; `None` when there is no such resource.
fn methods(segments: &[&str]) -> Option<&'static str> {
    match segments {
        ["status" | "pools" | "events" | "history" | "openapi.json" | "sessions"] => Some(GET),
        ["sessions", _, _] => Some("GET, HEAD, DELETE"),
        ["pools", _, "servers", _] => Some("PATCH"),
        ["pools", _, "servers", _, "override"] => Some("DELETE"),
        ["sessions", _, _, "move"] | ["explain" | "reload" | "upgrade"] => Some("POST"),
        _ => None,
    }
}

fn json<T: Serialize>(value: &T) -> Result<ApiResponse, Problem> {
    let body = serde_json::to_vec(value).map_err(Problem::internal)?;
    Ok(ApiResponse::Json(StatusCode::OK, body))
}
