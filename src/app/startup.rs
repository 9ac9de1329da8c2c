//! The state of a new process, from its first configuration.

use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;
use rand::RngCore;
use tokio::runtime::Handle;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::config::Config;
use crate::persistence::Sessions;
use crate::proxy::context::wall_clock;
use crate::session::token::keyring::Keyring;
use crate::store::EndReason;
use crate::store::engine::Event;
use crate::store::local::data::{self, SessionData};
use crate::store::local::first_requests::FirstRequests;
use crate::store::local::open_requests::OpenRequests;
use crate::store::local::table::Table;
use crate::store::shared::StoreContext;
use crate::store::targets::Target;
use crate::telemetry::metrics::Metrics;

use super::acme::live::LiveCertificates;
use super::acme::state::AcmeState;
use super::apply::{open_access_log, set_limits};
use super::build::{BuildContext, build};
use super::certificates::report_certificates;
use super::drains;
use super::error::RunError;
use super::overrides::Overrides;
use super::removed_servers;
use super::shared_store;
use super::span_exporter;
use super::state::AppState;

/// Builds the state. The events are the shared store's, for the background. `executor` runs the store's engine.
/// `generated_secret` is that of the process that this one takes over from.
pub(super) fn build_state(
    config: Config,
    executor: &Handle,
    generated_secret: Option<[u8; 32]>,
) -> Result<(Arc<AppState>, Option<UnboundedReceiver<Event>>), RunError> {
    let metrics = Arc::new(Metrics::new().map_err(RunError::internal)?);
    metrics.started_as(&config.proxy.node);
    let on_end = {
        let metrics = Arc::clone(&metrics);
        Box::new(move |target: &Target, reason: EndReason| metrics.session_ended(target.pool(), reason as usize))
    };
    let table = Arc::new(Table::new(config.store.max_sessions, wall_clock(), on_end));
    let on_evicted = {
        let metrics = Arc::clone(&metrics);
        Box::new(move |target: &Target| metrics.handoff_evicted(target.pool()))
    };
    let data = Arc::new(SessionData::new(data::MAX_BYTES, wall_clock(), on_evicted));
    let context = StoreContext { table: Arc::clone(&table), data: Arc::clone(&data), metrics: Arc::clone(&metrics) };
    let remote = config.store.remote.as_ref();
    let shared = remote.map(|remote| shared_store::start(remote, &config.proxy, context, executor)).transpose()?;
    let (shared, events) = shared.map(|started| (started.store, started.events)).unzip();
    let generated_secret = generated_secret.unwrap_or_else(random_secret);
    let generated_keys = Keyring::random(generated_secret).map_err(RunError::internal)?;
    let access_log = open_access_log(&config.log.access)?;
    let otlp = config.tracing.otlp.as_ref();
    let span_exporter =
        span_exporter::start(otlp, &config.proxy.node, &metrics, executor).map_err(RunError::internal)?;
    let acme = Arc::<LiveCertificates>::default();
    let context =
        BuildContext { table: &table, metrics: &metrics, generated_keys: &generated_keys, acme: &acme, previous: None };
    let overrides = Overrides::load(&config);
    let removed = overrides.removed_servers();
    let config = removed_servers::restore(config, &removed, wall_clock());
    let runtime = build(config, &context).map_err(RunError::internal)?;
    set_limits(&table, &runtime);
    overrides.restore(&runtime);
    removed_servers::resume(&runtime, &removed, wall_clock());
    drains::observe(&runtime, wall_clock());
    overrides.update_file(&runtime);
    metrics.config_accepted(&runtime.config.hash, true);
    report_certificates(&metrics, &acme, None, &runtime.config);
    let app = Arc::new(AppState {
        current: ArcSwap::from_pointee(runtime),
        sessions: Sessions { table, data, shared, first_requests: FirstRequests::new(), open: OpenRequests::new() },
        metrics,
        access_log: ArcSwapOption::from_pointee(access_log),
        span_exporter: ArcSwapOption::from_pointee(span_exporter),
        generated_keys,
        generated_secret,
        draining: AtomicBool::new(false),
        started: Instant::now(),
        started_at: wall_clock(),
        table_restored: AtomicBool::new(false),
        table_age_before: OnceLock::new(),
        acme: AcmeState::new(acme),
        overrides,
        in_flight: AtomicUsize::new(0),
        last_reload: ArcSwapOption::empty(),
        reloads: OnceLock::new(),
        upgrades: OnceLock::new(),
        history: Mutex::default(),
        clock: wall_clock,
    });
    Ok((app, events))
}

fn random_secret() -> [u8; 32] {
    let mut secret = [0; 32];
    rand::thread_rng().fill_bytes(&mut secret);
    secret
}
