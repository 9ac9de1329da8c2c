//! What a request of the API is made of, without the state that it asks about.

use http::Method;

use super::events::EventQuery;
use super::paging::{Paging, cursor};
use super::{explain, methods, pools, sessions};
use crate::admin::request::AdminRequest;

/// A resource has methods, and those that are not listed are refused.
pub(in crate::admin) fn resource(request: &AdminRequest, segments: &[&str]) {
    let Some(methods) = methods(segments) else { return };
    assert!(methods.split(", ").all(|method| method.parse::<Method>().is_ok()), "{methods}");
    assert!(segments.len() <= 5, "{}", request.path);
}

/// Queries and bodies.
pub(in crate::admin) fn parts(request: &AdminRequest) {
    let refused = |status: u16| assert!(matches!(status, 400 | 415 | 422), "{status}");
    match request.parameters(["limit", "cursor", "pool", "server"]) {
        Ok([limit, after, ..]) => match Paging::of(limit.as_deref(), after.as_deref()) {
            Ok(paging) => {
                assert!((1..=1000).contains(&paging.limit), "{}", paging.limit);
                if let Some(last) = &paging.after {
                    assert_eq!(after.as_deref(), Some(&*cursor(last)), "two cursors of one place");
                    let _ = sessions::Position::parse(last);
                }
            }
            Err(problem) => refused(problem.status),
        },
        Err(problem) => refused(problem.status),
    }
    let _ = EventQuery::of(request).map_err(|problem| refused(problem.status));
    let _ = request.json::<pools::ServerPatch>().map_err(|problem| refused(problem.status));
    let _ = request.json::<sessions::MoveRequest>().map_err(|problem| refused(problem.status));
    let _ = request.json::<explain::ExplainRequest>().map_err(|problem| refused(problem.status));
}
