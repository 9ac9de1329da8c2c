//! A reload on request: 200 with what has changed, or 422 with every problem.

use std::sync::Arc;

use http::StatusCode;
use tokio::sync::oneshot;

use crate::admin::access::Caller;
use crate::admin::problem::Problem;
use crate::app::reload_trigger::ReloadTrigger;
use crate::app::state::AppState;

use super::status::reload_view;
use super::view::ReloadView;

pub(crate) async fn reload(app: &Arc<AppState>, caller: &Caller) -> Result<ReloadView, Problem> {
    let unavailable = |detail| Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail);
    let reloads = app.reloads.get().ok_or_else(|| unavailable("the proxy is starting"))?;
    let (reply, report) = oneshot::channel();
    let trigger = ReloadTrigger::Operator { who: caller.name.clone(), reply };
    reloads.send(trigger).await.map_err(|_closed| unavailable("the proxy is stopping"))?;
    let report = report.await.map_err(|_dropped| unavailable("the proxy is stopping"))?;
    if report.problems.is_empty() {
        return Ok(reload_view(&report));
    }
    let detail = "the reload was refused; the configuration before stays in force";
    Err(Problem { problems: report.problems.clone(), ..Problem::unprocessable(detail) })
}
