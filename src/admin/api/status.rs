//! The process at a glance, and its last reload.

use std::sync::Arc;

use crate::admin::access::Caller;
use crate::admin::readiness::Readiness;
use crate::app::reload_trigger::ReloadReport;
use crate::app::runtime::Runtime;
use crate::app::state::AppState;
use crate::session::token::UnixMillis;

use super::view::{CertificateView, ConfigurationView, ReloadView, StatusView, StoreView, TableView};

pub(crate) fn status(app: &Arc<AppState>, readiness: &Readiness, caller: &Caller) -> StatusView {
    let runtime = app.current.load_full();
    let config = &runtime.config;
    let uptime = app.started.elapsed();
    let store = config.store.remote.as_ref();
    let shared = app.sessions.shared.as_ref();
    StatusView {
        version: env!("CARGO_PKG_VERSION"),
        node: config.proxy.node.clone(),
        started: app.started_at.into(),
        uptime_seconds: uptime.as_secs(),
        state: readiness.state(),
        configuration: configuration(&runtime),
        last_reload: app.last_reload.load().as_deref().map(reload_view),
        store: StoreView {
            r#type: store.map_or("memory", |remote| remote.engine.word()),
            up: shared.is_none_or(|shared| !shared.is_unavailable()),
        },
        table: TableView {
            entries: app.sessions.table.len(),
            capacity: app.sessions.table.capacity(),
            bytes: app.sessions.table.bytes(),
            handoff_bytes: app.sessions.data.bytes(),
        },
        certificates: certificates(app, &runtime),
        in_flight: app.in_flight.load(std::sync::atomic::Ordering::Relaxed),
        caller: caller.name.clone(),
        role: caller.role.into(),
    }
}

fn configuration(runtime: &Runtime) -> ConfigurationView {
    ConfigurationView {
        hash: runtime.config.hash.clone(),
        pools: runtime.config.pools.len(),
        servers: runtime.pools.iter().map(|pool| pool.pool.servers.len()).sum(),
        listeners: runtime.config.listeners.iter().map(|listener| listener.address.to_string()).collect(),
    }
}

/// Each once, though several listeners may use it.
fn certificates(app: &AppState, runtime: &Runtime) -> Vec<CertificateView> {
    let tls = runtime.config.listeners.iter().filter_map(|listener| listener.tls.as_ref());
    let ordered = app.acme.live.expiries(&runtime.config);
    let of_files = tls.flat_map(|tls| &tls.certificates).map(|one| (one.not_after, one.name()));
    let mut found: Vec<_> = of_files.chain(ordered.iter().map(|(host, end)| (*end, host.as_str()))).collect();
    found.sort_unstable();
    found.dedup();
    let view = |(not_after, name): (i64, &str)| CertificateView {
        name: name.to_owned(),
        expires: UnixMillis(u64::try_from(not_after).unwrap_or(0).saturating_mul(1000)).into(),
    };
    found.into_iter().map(view).collect()
}

pub(crate) fn reload_view(report: &ReloadReport) -> ReloadView {
    ReloadView {
        at: report.at.into(),
        who: report.who.clone(),
        result: if report.problems.is_empty() { "done" } else { "refused" },
        changes: report.changes.clone(),
        problems: report.problems.clone(),
    }
}
