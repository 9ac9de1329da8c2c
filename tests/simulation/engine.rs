//! A store that proxies share, in memory and by the book of the trait, with everything that can go wrong between the two.
//!
//! Used by the simulation and by the unit tests of the guard before a store. Time is tokio's, so that tests may stop it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::homing::store::engine::{Capabilities, Engine, Event, Kind, Name, Page, StoreError, Value, WriteResult};

/// What the proxies share.
#[derive(Default)]
pub struct Shared {
    kept: Mutex<BTreeMap<String, Kept>>,
    links: Mutex<Vec<Arc<Link>>>,
    /// How many partitions there are, where a command reads names of one only.
    partitions: Option<u32>,
}

struct Kept {
    value: Value,
    until: Instant,
}

/// What comes of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answers {
    AtOnce,
    /// Replies after this long; done after half of it, whether a caller still waits or not.
    Late(Duration),
    /// And nothing is done.
    Never,
    /// But it is done.
    NeverThoughDone,
    Refuses,
    Unreachable,
}

/// What becomes of announcements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Announcements {
    Delivered,
    Lost,
    HeldBack,
}

/// How an operation on a name goes.
pub type Faults = Box<dyn Fn(&'static str, &str) -> Answers + Send + Sync>;

/// One proxy's way to it.
pub struct Link {
    shared: Arc<Shared>,
    announces: bool,
    /// How it is while nothing random is asked for.
    state: Mutex<State>,
    events: UnboundedSender<Event>,
}

struct State {
    answers: Answers,
    faults: Option<Faults>,
    announcements: Announcements,
    held_back: Vec<(Name, Value)>,
    asked: Vec<(&'static str, usize)>,
}

impl Shared {
    /// A command reads names of one of so many partitions.
    pub fn with_partitions(count: u32) -> Arc<Self> {
        Arc::new(Self { partitions: Some(count), ..Self::default() })
    }

    /// Another proxy comes. `announces`: this kind of store tells of moves.
    pub fn link(self: &Arc<Self>, announces: bool) -> (Arc<Link>, UnboundedReceiver<Event>) {
        let (events, heard) = unbounded_channel();
        let state = State {
            answers: Answers::AtOnce,
            faults: None,
            announcements: Announcements::Delivered,
            held_back: Vec::new(),
            asked: Vec::new(),
        };
        let link = Arc::new(Link { shared: Arc::clone(self), announces, state: Mutex::new(state), events });
        self.links.lock().push(Arc::clone(&link));
        (link, heard)
    }

    /// A proxy that has stopped hears nothing any more.
    pub fn unlink(&self, link: &Arc<Link>) {
        self.links.lock().retain(|one| !Arc::ptr_eq(one, link));
    }

    /// Everything is gone, without an announcement; see [`Link::reconnects`].
    pub fn forget_everything(&self) {
        self.kept.lock().clear();
    }

    pub fn get(&self, name: &Name) -> Option<Value> {
        let kept = self.kept.lock();
        kept.get(name.as_str()).filter(|kept| kept.until > Instant::now()).map(|kept| kept.value.clone())
    }

    /// How long it is still kept.
    pub fn left(&self, name: &Name) -> Option<Duration> {
        let kept = self.kept.lock();
        kept.get(name.as_str()).and_then(|kept| kept.until.checked_duration_since(Instant::now()))
    }

    pub fn put(&self, name: &Name, value: Value, ttl: Duration) {
        self.kept.lock().insert(name.as_str().to_owned(), Kept { value, until: Instant::now() + ttl });
    }

    fn bind(&self, name: &Name, value: Value, ttl: Duration) -> WriteResult {
        if let Some(theirs) = self.get(name) {
            return WriteResult::Conflict(theirs);
        }
        self.put(name, value, ttl);
        WriteResult::Stored
    }

    fn rebind(&self, name: &Name, value: &Value, ttl: Duration) -> WriteResult {
        let kind = name.kind();
        if let Some(kept) = self.get(name)
            && kept != *value
            && !value.supersedes(&kept, kind)
        {
            return WriteResult::Conflict(kept);
        }
        self.put(name, value.clone(), ttl);
        if kind == Kind::Binding {
            for link in &*self.links.lock() {
                link.announced(name.clone(), value.clone());
            }
        }
        WriteResult::Stored
    }

    fn touch(&self, touches: &[(Name, Duration)]) {
        let now = Instant::now();
        let mut all = self.kept.lock();
        for (name, ttl) in touches {
            if let Some(kept) = all.get_mut(name.as_str()).filter(|kept| kept.until > now) {
                kept.until = kept.until.max(now + *ttl);
            }
        }
    }
}

impl Link {
    /// From now on.
    pub fn answers(&self, answers: Answers) {
        self.state.lock().answers = answers;
    }

    pub fn announcements(&self, announcements: Announcements) {
        self.state.lock().announcements = announcements;
    }

    /// Each operation as this says; `None` = as [`answers`](Self::answers) says.
    pub fn faults(&self, faults: Option<Faults>) {
        self.state.lock().faults = faults;
    }

    /// What was held back arrives.
    pub fn delivers(&self) {
        let held = std::mem::take(&mut self.state.lock().held_back);
        for (name, value) in held {
            self.tell(Event::Announced(name, value));
        }
    }

    /// The connection is there again.
    pub fn reconnects(&self) {
        self.answers(Answers::AtOnce);
        self.tell(Event::Reconnected);
    }

    /// It broke.
    pub fn breaks(&self) {
        self.answers(Answers::Unreachable);
        self.tell(Event::Lost("the cable was cut".into()));
    }

    /// The operations since the last call, each with its number of keys.
    pub fn asked(&self) -> Vec<(&'static str, usize)> {
        std::mem::take(&mut self.state.lock().asked)
    }

    fn announced(&self, name: Name, value: Value) {
        let mut state = self.state.lock();
        let cut = state.answers == Answers::Unreachable;
        match state.announcements {
            Announcements::Delivered if self.announces && !cut => {
                drop(state);
                self.tell(Event::Announced(name, value));
            }
            Announcements::HeldBack => state.held_back.push((name, value)),
            _ => {}
        }
    }

    fn tell(&self, event: Event) {
        // A proxy that has stopped hears nothing.
        let _ = self.events.send(event);
    }

    async fn does<T: Send + 'static>(
        &self,
        operation: &'static str,
        name: &str,
        names: usize,
        effect: impl FnOnce(&Shared) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let answers = {
            let mut state = self.state.lock();
            state.asked.push((operation, names));
            match (&state.faults, state.answers) {
                (Some(faults), Answers::AtOnce) => faults(operation, name),
                (_, answers) => answers,
            }
        };
        let shared = Arc::clone(&self.shared);
        match answers {
            Answers::AtOnce => Ok(effect(&shared)),
            Answers::Late(by) => {
                let (tell, told) = oneshot::channel();
                tokio::spawn(async move {
                    sleep(by / 2).await;
                    let done = effect(&shared);
                    sleep(by / 2).await;
                    let _ = tell.send(done);
                });
                told.await.or(Err(StoreError::Timeout))
            }
            Answers::Never => std::future::pending().await,
            Answers::NeverThoughDone => {
                effect(&shared);
                std::future::pending().await
            }
            Answers::Refuses => Err(StoreError::Refused("READONLY".into())),
            Answers::Unreachable => Err(StoreError::Unreachable("the cable was cut".into())),
        }
    }
}

#[async_trait]
impl Engine for Link {
    fn capabilities(&self) -> Capabilities {
        Capabilities { server: "memory".into(), compare_and_set: "lock", announces: self.announces, list: true }
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.does("ping", "", 0, |_| ()).await
    }

    async fn lookup(&self, names: &[Name]) -> Result<Vec<Option<Value>>, StoreError> {
        let all = names.to_vec();
        let first = names.first().map_or("", Name::as_str);
        let partitions: BTreeSet<u32> = names.iter().filter_map(|name| self.partition(name)).collect();
        if !partitions.is_empty() {
            self.state.lock().asked.push(("lookup command", partitions.len()));
        }
        self.does("lookup", first, names.len(), move |shared| all.iter().map(|name| shared.get(name)).collect()).await
    }

    async fn bind(&self, name: &Name, value: &Value, ttl: Duration) -> Result<WriteResult, StoreError> {
        let (its, value) = (name.clone(), value.clone());
        self.does("bind", name.as_str(), 1, move |shared| shared.bind(&its, value, ttl)).await
    }

    async fn rebind(&self, name: &Name, value: &Value, ttl: Duration) -> Result<WriteResult, StoreError> {
        let (its, value) = (name.clone(), value.clone());
        self.does("rebind", name.as_str(), 1, move |shared| shared.rebind(&its, &value, ttl)).await
    }

    async fn touch(&self, touches: &[(Name, Duration)]) -> Result<(), StoreError> {
        let all = touches.to_vec();
        self.does("touch", "", touches.len(), move |shared| shared.touch(&all)).await
    }

    async fn forget(&self, names: &[Name]) -> Result<(), StoreError> {
        let all = names.to_vec();
        let first = names.first().map_or("", Name::as_str);
        let effect =
            move |shared: &Shared| shared.kept.lock().retain(|name, _| all.iter().all(|one| one.as_str() != name));
        self.does("forget", first, names.len(), effect).await
    }

    async fn list(&self, prefix: &Name, _: Option<&str>, _: usize) -> Result<Page, StoreError> {
        let prefix = prefix.as_str().to_owned();
        let effect = move |shared: &Shared| {
            let kept = shared.kept.lock();
            let ours = kept.iter().filter(|(name, kept)| name.starts_with(&prefix) && kept.until > Instant::now());
            ours.map(|(name, kept)| (Name::from_stored(name), kept.value.clone())).collect()
        };
        Ok(Page { values: self.does("list", "", 0, effect).await?, next: None })
    }

    fn partition(&self, name: &Name) -> Option<u32> {
        let count = self.shared.partitions?;
        Some(name.as_str().bytes().map(u32::from).sum::<u32>() % count)
    }
}
