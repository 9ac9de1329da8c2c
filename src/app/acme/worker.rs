//! The background task that keeps every host of `tls.acme` in a certificate: one order at a time.

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::app::certificates::{record_failure, record_issued, show_expiries};
use crate::app::runtime::Runtime;
use crate::app::state::AppState;
use crate::config::{Acme, Config};
use crate::proxy::context::wall_clock;
use crate::telemetry::metrics::AcmeResult;

use super::authority::Authority;
use super::certificate::IssuedCertificate;
use super::client::RateLimit;
use super::order::{OrderContext, OrderError};
use super::plan::HostPlan;
use super::shared::SharedNotes;
use super::storage::Storage;

/// The clock may be set meanwhile.
const LONGEST_PAUSE: f64 = 30.0;
const SHORTEST_PAUSE: f64 = 0.2;
/// Another process, or another proxy, orders for the host.
const BUSY_PAUSE: f64 = 2.0;
/// While the shared store does not answer, nothing is ordered: another proxy may.
const STORE_PAUSE: f64 = 5.0;
/// Of all steps of an order. Shorter than the lock of the shared store lasts.
const ORDER_TIMEOUT: Duration = Duration::from_secs(200);
/// When the authority did not say when it may be asked again.
const RATE_LIMIT_PAUSE: u64 = 60 * 60;

/// What became of an order.
enum Outcome {
    Issued(IssuedCertificate),
    /// Another process or proxy has ordered meanwhile.
    Found(IssuedCertificate, Origin),
    Busy,
    StoreUnavailable,
    Limited(u64),
    Failed(OrderError),
}

/// Where a certificate came from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Disk,
    Elsewhere,
}

/// Certificates that are on disk are shown before the first handshake, and those of hosts that a reload has added.
pub(in crate::app) fn load(app: &AppState, config: &Config) {
    for (acme, host) in hosts(config) {
        if app.acme.live.find(&acme.directory, host).is_none()
            && let Some(stored) = Storage::of(acme).certificate(host)
        {
            app.acme.live.show(&acme.directory, host, &Arc::new(stored));
        }
    }
    show_expiries(&app.metrics, &app.acme.live, config);
    app.acme.wake.notify_one();
}

/// Runs until the process stops or has handed over.
pub(in crate::app) async fn run(app: Arc<AppState>) {
    let mut worker = Worker { app: Arc::clone(&app), plans: HashMap::new(), authorities: HashMap::new() };
    while !app.is_draining() {
        let pause = worker.pass().await;
        tokio::select! {
            () = sleep(pause) => {}
            () = app.acme.wake.notified() => {}
        }
    }
}

/// Each host once, though several listeners may name it.
fn hosts(config: &Config) -> Vec<(&Acme, &str)> {
    let tls = config.listeners.iter().filter_map(|listener| listener.tls.as_ref());
    let all = tls.filter_map(|tls| tls.acme.as_ref());
    let mut found: Vec<(&Acme, &str)> = Vec::new();
    for (acme, host) in all.flat_map(|acme| acme.hosts.iter().map(move |host| (acme, host.as_str()))) {
        if !found.iter().any(|(other, known)| other.directory == acme.directory && *known == host) {
            found.push((acme, host));
        }
    }
    found
}

fn now() -> f64 {
    Duration::from_millis(wall_clock().0).as_secs_f64()
}

struct Worker {
    app: Arc<AppState>,
    /// By directory and host.
    plans: HashMap<(String, String), HostPlan>,
    /// By directory: accounts that were opened. One that fails is opened again.
    authorities: HashMap<String, (Acme, Authority)>,
}

impl Worker {
    /// Does for each host what is to be done now. Returns the pause until the next pass.
    async fn pass(&mut self) -> Duration {
        let runtime = self.app.current.load_full();
        let hosts = hosts(&runtime.config);
        let metrics = &self.app.metrics.acme;
        self.plans.retain(|(directory, host), _| {
            let kept = hosts.iter().any(|(acme, one)| acme.directory == *directory && one == host);
            if !kept {
                metrics.end(host);
            }
            kept
        });
        for (_, host) in &hosts {
            metrics.begin(host);
        }
        let mut next = now() + LONGEST_PAUSE;
        for (acme, host) in hosts {
            if self.app.is_draining() {
                break;
            }
            next = next.min(self.visit(&runtime, acme, host).await);
        }
        Duration::from_secs_f64((next - now()).clamp(SHORTEST_PAUSE, LONGEST_PAUSE))
    }

    /// Returns when the host is to be visited next.
    async fn visit(&mut self, runtime: &Runtime, acme: &Acme, host: &str) -> f64 {
        let store = self.app.sessions.shared.clone();
        let notes = store.as_ref().map(|store| SharedNotes::new(store, &runtime.config, &acme.directory));
        let key = (acme.directory.clone(), host.to_owned());
        let mut plan = self.plans.remove(&key).unwrap_or_else(|| HostPlan::new(acme));
        plan.update(acme, self.app.acme.live.find(&acme.directory, host), now(), rand::random());
        if let Some(notes) = &notes
            && plan.looks(now())
            && let Ok(Some(found)) = notes.certificate(host).await
        {
            self.take_newer(acme, host, found, &mut plan).await;
        }
        if plan.asks(now()) {
            self.ask_for_window(acme, host, notes.as_ref(), &mut plan).await;
        }
        if plan.may_order(now()) {
            let outcome = self.order(acme, host, notes.as_ref(), &plan).await;
            self.conclude(acme, host, outcome, notes.as_ref(), &mut plan).await;
        }
        plan.update(acme, self.app.acme.live.find(&acme.directory, host), now(), rand::random());
        let next = plan.next(notes.is_some(), now());
        self.plans.insert(key, plan);
        next
    }

    /// Shows a certificate of another proxy, unless the own one is as new.
    async fn take_newer(&self, acme: &Acme, host: &str, found: IssuedCertificate, plan: &mut HostPlan) {
        if plan.certificate().is_none_or(|own| found.is_newer_than(own)) {
            tracing::info!(host, "a certificate that another proxy has ordered was found in the shared store");
            self.show(acme, host, found, Origin::Elsewhere).await;
            plan.update(acme, self.app.acme.live.find(&acme.directory, host), now(), rand::random());
        }
    }

    /// What the authority says about its rate limits is noted here too.
    async fn ask_for_window(&mut self, acme: &Acme, host: &str, notes: Option<&SharedNotes<'_>>, plan: &mut HostPlan) {
        let Some(identifier) = plan.certificate().and_then(|one| one.identifier.clone()) else { return };
        let (app, storage) = (Arc::clone(&self.app), Storage::of(acme));
        let mut window = None;
        if storage.rate_limits().until(host) <= wall_clock().as_secs() {
            let limit = match self.open(acme, &storage, notes).await {
                Ok(authority) => {
                    window = authority.renewal_window(&identifier).await;
                    authority.take_rate_limit()
                }
                Err((_why, limit)) => limit,
            };
            note_limit(&app, host, &storage, notes, limit).await;
        }
        plan.set_window(window, now(), rand::random());
    }

    /// The authority, with the account.
    async fn open(
        &mut self,
        acme: &Acme,
        storage: &Storage,
        notes: Option<&SharedNotes<'_>>,
    ) -> Result<&Authority, (OrderError, Option<RateLimit>)> {
        let known = self.authorities.get(&acme.directory);
        let same =
            |of: &Acme| of.contact == acme.contact && of.authorities == acme.authorities && of.storage == acme.storage;
        if !known.is_some_and(|(of, _)| same(of)) {
            storage.prepare().map_err(|why| (OrderError::Unreachable(why), None))?;
            let opened = Authority::open(acme, storage, notes).await?;
            self.authorities.insert(acme.directory.clone(), (acme.clone(), opened));
        }
        match self.authorities.get(&acme.directory) {
            Some((_, authority)) => Ok(authority),
            None => Err((OrderError::Unreachable("no account".to_owned()), None)),
        }
    }

    async fn order(&mut self, acme: &Acme, host: &str, notes: Option<&SharedNotes<'_>>, plan: &HostPlan) -> Outcome {
        let storage = Storage::of(acme);
        if let Err(why) = storage.prepare() {
            return Outcome::Failed(OrderError::Unreachable(format!(
                "nothing is ordered that cannot be stored: {why}"
            )));
        }
        let _lock: File = match storage.lock() {
            Ok(Some(lock)) => lock,
            Ok(None) => return Outcome::Busy,
            Err(why) => return Outcome::Failed(OrderError::Unreachable(why)),
        };
        let is_newer = |found: &IssuedCertificate| plan.certificate().is_none_or(|own| found.is_newer_than(own));
        if let Some(stored) = storage.certificate(host).filter(&is_newer) {
            return Outcome::Found(stored, Origin::Disk);
        }
        let Some(notes) = notes else { return self.order_locked(acme, host, &storage, None, plan).await };
        match notes.lock(host).await {
            Ok(true) => {}
            Ok(false) => return Outcome::Busy,
            Err(_unavailable) => return Outcome::StoreUnavailable,
        }
        // Another proxy may have been done just before.
        let outcome = match notes.certificate(host).await {
            Ok(Some(found)) if is_newer(&found) => Outcome::Found(found, Origin::Elsewhere),
            Ok(_) => self.order_locked(acme, host, &storage, Some(notes), plan).await,
            Err(_unavailable) => Outcome::StoreUnavailable,
        };
        if let Outcome::Issued(issued) = &outcome
            && notes.put_certificate(host, issued, wall_clock().as_secs()).await.is_err()
        {
            tracing::warn!(
                host,
                "the certificate is not in the shared store, which does not answer; other proxies order their own"
            );
        }
        notes.unlock(host).await;
        outcome
    }

    async fn order_locked(
        &mut self,
        acme: &Acme,
        host: &str,
        storage: &Storage,
        notes: Option<&SharedNotes<'_>>,
        plan: &HostPlan,
    ) -> Outcome {
        let seconds = wall_clock().as_secs();
        let mut until = storage.rate_limits().until(host);
        if let Some(notes) = notes {
            let (Ok(of_host), Ok(of_all)) = (notes.limited_until(host).await, notes.limited_until("").await) else {
                return Outcome::StoreUnavailable;
            };
            until = until.max(of_host).max(of_all);
        }
        if until > seconds {
            return Outcome::Limited(until);
        }
        let app = Arc::clone(&self.app);
        let authority = match self.open(acme, storage, notes).await {
            Ok(authority) => authority,
            Err((why, limit)) => {
                return note_limit(&app, host, storage, notes, limit).await.unwrap_or(Outcome::Failed(why));
            }
        };
        let replaces = plan.certificate().and_then(|certificate| certificate.identifier.as_ref());
        let challenges = &app.acme.challenges;
        let order = OrderContext { account: &authority.account, kind: acme.challenge, challenges, notes, replaces };
        tracing::info!(host, directory = acme.directory, "ordering a certificate");
        let result = timeout(ORDER_TIMEOUT, order.run(host)).await;
        match result.unwrap_or_else(|_| Err(OrderError::Unreachable("the order took too long".to_owned()))) {
            Ok(issued) => Outcome::Issued(issued),
            Err(why) => {
                let limit = authority.take_rate_limit();
                note_limit(&app, host, storage, notes, limit).await.unwrap_or(Outcome::Failed(why))
            }
        }
    }

    async fn conclude(
        &mut self,
        acme: &Acme,
        host: &str,
        outcome: Outcome,
        notes: Option<&SharedNotes<'_>>,
        plan: &mut HostPlan,
    ) {
        match outcome {
            Outcome::Issued(issued) => {
                self.app.metrics.acme.count(host, AcmeResult::Success);
                self.show(acme, host, issued, Origin::Elsewhere).await;
            }
            Outcome::Found(found, origin) => self.show(acme, host, found, origin).await,
            Outcome::Busy => plan.wait(now() + BUSY_PAUSE),
            Outcome::StoreUnavailable => plan.wait(now() + STORE_PAUSE),
            Outcome::Limited(until) => {
                let pause = Duration::from_secs(until.saturating_sub(wall_clock().as_secs()));
                let wait = humantime::format_duration(pause);
                tracing::warn!(host, directory = acme.directory, %wait, "the certificate authority limits the rate of orders");
                plan.wait(Duration::from_secs(until).as_secs_f64());
            }
            Outcome::Failed(why) => self.note_failure(acme, host, why, notes, plan).await,
        }
    }

    async fn note_failure(
        &mut self,
        acme: &Acme,
        host: &str,
        why: OrderError,
        notes: Option<&SharedNotes<'_>>,
        plan: &mut HostPlan,
    ) {
        self.app.metrics.acme.count(host, AcmeResult::Failure);
        self.authorities.remove(&acme.directory);
        if let OrderError::NoAccount(_) = &why {
            Storage::of(acme).forget_account();
            if let Some(notes) = notes {
                // What cannot be removed is found again by the next order.
                let _ = notes.forget_account().await;
            }
        }
        let (why, pause) = match why {
            OrderError::Refused(why) => (why, plan.refused(now(), rand::random())),
            OrderError::Unreachable(why) | OrderError::NoAccount(why) => (why, plan.unreachable(now(), rand::random())),
        };
        let retry_in = humantime::format_duration(Duration::from_secs(pause.as_secs()));
        tracing::warn!(host, directory = acme.directory, why, %retry_in, "no certificate was issued");
        record_failure(host, &why);
    }

    /// On disk first, so that a restart orders nothing; then on the wire.
    async fn show(&self, acme: &Acme, host: &str, certificate: IssuedCertificate, origin: Origin) {
        let (storage, certificate) = (Storage::of(acme), Arc::new(certificate));
        if origin == Origin::Elsewhere {
            let (name, of_file) = (host.to_owned(), Arc::clone(&certificate));
            // A disk may take long: not on the thread that checks servers.
            let write = move || storage.prepare().and_then(|()| storage.write_certificate(&name, &of_file));
            let written = tokio::task::spawn_blocking(write).await;
            if let Ok(Err(why)) = written {
                tracing::error!(
                    host,
                    why,
                    "the certificate is shown but not stored; a restart would order another one"
                );
            }
        }
        let before = self.app.acme.live.find(&acme.directory, host);
        self.app.acme.live.show(&acme.directory, host, &certificate);
        record_issued(host, before.map(|before| before.not_after), certificate.not_after);
        show_expiries(&self.app.metrics, &self.app.acme.live, &self.app.current.load().config);
    }
}

/// Keeps what the authority has said about its rate limits, for later starts and for the other proxies. `None`: nothing.
async fn note_limit(
    app: &AppState,
    host: &str,
    storage: &Storage,
    notes: Option<&SharedNotes<'_>>,
    limit: Option<RateLimit>,
) -> Option<Outcome> {
    let limit = limit?;
    let seconds = wall_clock().as_secs();
    let until = limit.until.unwrap_or_else(|| seconds.saturating_add(RATE_LIMIT_PAUSE));
    let mut limits = storage.rate_limits();
    limits.note(limit.is_of_order.then_some(host), until, seconds);
    if let Err(why) = storage.write_rate_limits(&limits) {
        tracing::error!(
            why,
            "the rate limit of the certificate authority is not stored; a restart would not respect it"
        );
    }
    if let Some(notes) = notes {
        let subject = if limits.all >= until { "" } else { host };
        // The one on disk is respected in any case.
        let _ = notes.limit(subject, until, seconds).await;
    }
    app.metrics.acme.count(host, AcmeResult::RateLimited);
    Some(Outcome::Limited(until))
}
