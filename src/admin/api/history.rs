//! The last hour.

use crate::app::state::AppState;
use crate::session::token::UnixMillis;
use crate::telemetry::history::Sample;

use super::view::{Page, SampleView};

pub(crate) fn list(app: &AppState) -> Page<SampleView, Option<String>> {
    Page { items: app.history.lock().samples().map(view).collect(), next: None }
}

fn view(sample: &Sample) -> SampleView {
    SampleView {
        at: UnixMillis(sample.at).into(),
        requests: sample.counts.requests,
        errors: sample.counts.errors,
        kept: sample.counts.kept,
        elsewhere: sample.counts.elsewhere,
        moves: sample.counts.moves,
        imbalance: sample.imbalance,
    }
}
