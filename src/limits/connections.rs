//! The open connections of a listener and of each of its clients, counted exactly.
//!
//! They are counted whether they are limited or not, so that a limit that a reload sets holds for what is open already.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::telemetry::metrics::Limit;

use super::client::ClientId;

/// Parts of the map, each with a lock of its own.
const PARTS: usize = 16;
/// A map with fewer places is left as it is.
const SMALL: usize = 64;

/// The open connections of one listener.
pub struct OpenConnections {
    all: AtomicU64,
    /// A client without a connection has no entry. Locked when a connection is opened and when it is closed.
    clients: [Mutex<HashMap<ClientId, u32>>; PARTS],
    keys: RandomState,
}

impl Default for OpenConnections {
    fn default() -> Self {
        Self { all: AtomicU64::new(0), clients: Default::default(), keys: RandomState::new() }
    }
}

/// Counts a connection until it is dropped.
pub struct OpenConnection {
    open: Arc<OpenConnections>,
    client: Option<ClientId>,
}

impl OpenConnections {
    /// Counts a connection, unless it is one too many.
    ///
    /// # Errors
    /// The limit.
    pub fn begin(self: &Arc<Self>, most: Option<u32>) -> Result<OpenConnection, Limit> {
        let one_more = |all| if most.is_some_and(|most| all >= u64::from(most)) { None } else { Some(all + 1) };
        // Relaxed: it is a count, and nothing is read by it.
        match self.all.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more) {
            Ok(_) => Ok(OpenConnection { open: Arc::clone(self), client: None }),
            Err(_) => Err(Limit::Connections),
        }
    }

    fn part(&self, client: ClientId) -> Option<&Mutex<HashMap<ClientId, u32>>> {
        let hash = usize::try_from(self.keys.hash_one(client) >> 32).unwrap_or_default();
        self.clients.get(hash % PARTS)
    }
}

impl OpenConnection {
    /// It is this client's: counts it there too, once, unless it is one too many.
    ///
    /// # Errors
    /// The limit.
    pub fn assign(&mut self, client: ClientId, most: Option<u32>) -> Result<(), Limit> {
        if self.client.is_some() {
            return Ok(());
        }
        let Some(part) = self.open.part(client) else { return Ok(()) };
        let mut part = part.lock();
        let open = part.get(&client).copied().unwrap_or(0);
        if most.is_some_and(|most| open >= most) {
            return Err(Limit::ConnectionsPerClient);
        }
        part.insert(client, open + 1);
        drop(part);
        self.client = Some(client);
        Ok(())
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.open.all.fetch_sub(1, Ordering::Relaxed);
        let Some(client) = self.client else { return };
        let Some(part) = self.open.part(client) else { return };
        let mut part = part.lock();
        if let Entry::Occupied(mut open) = part.entry(client) {
            *open.get_mut() -= 1;
            if *open.get() == 0 {
                open.remove();
            }
        }
        if part.capacity() > SMALL && part.len() < part.capacity() / 8 {
            part.shrink_to(SMALL);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn client(number: u32) -> ClientId {
        ClientId::of(std::net::Ipv4Addr::from(number).into())
    }

    #[test]
    fn exactly_the_limit_is_open_and_a_closed_connection_makes_room() {
        let open = Arc::new(OpenConnections::default());
        let first = open.begin(Some(2)).unwrap();
        let _second = open.begin(Some(2)).unwrap();
        assert_eq!(open.begin(Some(2)).err(), Some(Limit::Connections));
        assert!(open.begin(Some(3)).is_ok(), "what is refused is not counted");
        drop(first);
        assert!(open.begin(Some(2)).is_ok());
    }

    #[test]
    fn memory_is_that_of_the_open_connections() {
        let open = Arc::new(OpenConnections::default());
        let mut all: Vec<_> = (0..100_000)
            .map(|number| {
                let mut one = open.begin(None).unwrap();
                one.assign(client(number), Some(1)).unwrap();
                one
            })
            .collect();
        all.truncate(10);
        let places: usize = open.clients.iter().map(|part| part.lock().capacity()).sum();
        assert!(places < PARTS * 4 * SMALL, "{places} places for 10 clients");
        drop(all);
        assert!(open.clients.iter().all(|part| part.lock().is_empty()));
    }

    proptest! {
        #[test]
        fn each_client_has_at_most_its_limit_whatever_comes_and_goes(
            steps in prop::collection::vec((0u32..4, any::<bool>(), any::<prop::sample::Index>()), 1..200),
        ) {
            let open = Arc::new(OpenConnections::default());
            let mut model: Vec<(u32, OpenConnection)> = Vec::new();
            for (number, opens, which) in steps {
                if opens {
                    let mut one = open.begin(None).unwrap();
                    let has = model.iter().filter(|(owner, _)| *owner == number).count();
                    prop_assert_eq!(one.assign(client(number), Some(3)).is_ok(), has < 3);
                    if has < 3 {
                        model.push((number, one));
                    }
                } else if !model.is_empty() {
                    model.swap_remove(which.index(model.len()));
                }
                prop_assert_eq!(open.all.load(Ordering::Relaxed), model.len() as u64);
            }
        }
    }
}
