//! An upgrade on request: 200 when the new process serves, or why it does not and this one serves on.

use std::sync::Arc;

use http::StatusCode;
use tokio::sync::oneshot;

use crate::admin::access::Caller;
use crate::admin::problem::Problem;
use crate::app::state::AppState;
use crate::app::upgrade_trigger::{UpgradeError, UpgradeTrigger};

use super::view::UpgradeView;

pub(crate) async fn upgrade(app: &Arc<AppState>, caller: &Caller) -> Result<UpgradeView, Problem> {
    let unavailable = |detail| Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail);
    let upgrades = app.upgrades.get().ok_or_else(|| unavailable("the proxy is starting"))?;
    let (reply, report) = oneshot::channel();
    let trigger = UpgradeTrigger::Operator { who: caller.name.clone(), reply };
    upgrades.send(trigger).await.map_err(|_closed| unavailable("the proxy is stopping"))?;
    let report = report.await.map_err(|_dropped| unavailable("the proxy is stopping"))?;
    let report = report.map_err(|error| match error {
        UpgradeError::Unavailable(why) => Problem::new(StatusCode::CONFLICT, why),
        UpgradeError::Failed(_) | UpgradeError::NotWaiting(_) => Problem::unprocessable(error.to_string()),
    })?;
    Ok(UpgradeView { pid: report.pid, version: report.version })
}
