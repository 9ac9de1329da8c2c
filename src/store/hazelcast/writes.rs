//! Bind, rebind and touch by atomic operations of Hazelcast's map.
//!
//! `replaceIfSame` resets the time to live of an entry to that of the map's configuration, by default none. So `setTtl` is sent
//! right after it in the same write; the partition processes both in order. If the owner fails between the two, the caller gets an
//! error and repeats the write, which finds its own value and sets the time to live. If the proxy is killed as well, [`touch`] sets
//! it when the session is used again. For a session that is never used again, `time-to-live-seconds` of the map is the safety net.

use std::time::Duration;

use super::cluster::{Call, Cluster};
use super::data;
use super::frame::Message;
use super::request::{self, ENTRY_VIEW, PUT_IF_ABSENT, REPLACE_IF_SAME, SET_TTL};
use super::response::{self, Life};
use crate::session::token::UnixMillis;
use crate::store::engine::{Name, StoreError, Value, WriteResult};

/// How often a write is tried against concurrent writes of the same name.
const MAX_ATTEMPTS: usize = 256;

/// An entry of the map.
struct Entry<'a> {
    map: &'a str,
    partition: i32,
    key: Vec<u8>,
}

impl<'a> Entry<'a> {
    fn new(cluster: &'a Cluster, name: &Name) -> Self {
        let key = data::key(name);
        Self { map: &cluster.map, partition: data::partition(&key, cluster.partitions()), key }
    }

    fn put_if_absent(&self, value: &[u8], ttl: Duration) -> Call {
        let request = request::put_if_absent(self.map, self.partition, &self.key, value, millis(ttl));
        self.call(PUT_IF_ABSENT, vec![request])
    }

    fn replace(&self, kept: &[u8], value: &[u8], ttl: Duration) -> Call {
        let replace = request::replace_if_same(self.map, self.partition, &self.key, kept, value);
        self.call(REPLACE_IF_SAME, vec![replace, self.life(ttl)])
    }

    fn set_ttl(&self, ttl: Duration) -> Call {
        self.call(SET_TTL, vec![self.life(ttl)])
    }

    fn view(&self) -> Call {
        self.call(ENTRY_VIEW, vec![request::entry_view(self.map, self.partition, &self.key)])
    }

    fn life(&self, ttl: Duration) -> Vec<u8> {
        request::set_ttl(self.map, self.partition, &self.key, millis(ttl))
    }

    fn call(&self, kind: u32, requests: Vec<Vec<u8>>) -> Call {
        Call { partition: self.partition, requests, kind }
    }
}

/// Members count lives in whole seconds, from a second that has begun already, and in 32 bits: the life is longer by up to two
/// seconds, never shorter.
fn millis(ttl: Duration) -> i64 {
    let seconds = ttl.as_secs().saturating_add(u64::from(ttl.subsec_nanos() > 0)).saturating_add(1);
    i64::from(i32::try_from(seconds).unwrap_or(i32::MAX)) * 1000
}

fn first(answers: &[Message]) -> Result<&Message, StoreError> {
    answers.first().ok_or(StoreError::Timeout)
}

/// One round trip for the winner and for the others.
pub(super) async fn bind(
    cluster: &Cluster,
    name: &Name,
    value: &Value,
    ttl: Duration,
) -> Result<WriteResult, StoreError> {
    let entry = Entry::new(cluster, name);
    Ok(match put(cluster, &entry, &data::value(value), ttl).await? {
        None => WriteResult::Stored,
        Some((kept, _)) if kept == *value => WriteResult::Stored,
        Some((kept, _)) => WriteResult::Conflict(kept),
    })
}

/// One round trip where nothing is kept, else two: `putIfAbsent` also returns the value that is kept, which is then replaced if it
/// is still the same.
pub(super) async fn rebind(
    cluster: &Cluster,
    name: &Name,
    value: &Value,
    ttl: Duration,
) -> Result<WriteResult, StoreError> {
    let (entry, ours) = (Entry::new(cluster, name), data::value(value));
    for _ in 0..MAX_ATTEMPTS {
        let Some((kept, text)) = put(cluster, &entry, &ours, ttl).await? else { return Ok(WriteResult::Stored) };
        if kept == *value {
            // A retry of the same write, which may have lost its time to live.
            let answers = cluster.ask(entry.set_ttl(ttl)).await?;
            response::boolean(first(&answers)?, SET_TTL)?;
            return Ok(WriteResult::Stored);
        }
        if !value.supersedes(&kept, name.kind()) {
            return Ok(WriteResult::Conflict(kept));
        }
        // If another writer was faster, this sets the time to live of its value: both are of one session, and nearly equal.
        let answers = cluster.ask(entry.replace(&text, &ours, ttl)).await?;
        let replaced = response::boolean(first(&answers)?, REPLACE_IF_SAME)?;
        response::boolean(answers.get(1).ok_or(StoreError::Timeout)?, SET_TTL)?;
        if replaced {
            return Ok(WriteResult::Stored);
        }
    }
    Err(StoreError::Refused(format!("others wrote the same name {MAX_ATTEMPTS} times meanwhile")))
}

/// The existing value, parsed and as bytes.
async fn put(
    cluster: &Cluster,
    entry: &Entry<'_>,
    value: &[u8],
    ttl: Duration,
) -> Result<Option<(Value, Vec<u8>)>, StoreError> {
    let answers = cluster.ask(entry.put_if_absent(value, ttl)).await?;
    let kept = response::nullable(first(&answers)?, PUT_IF_ABSENT)?;
    kept.map(|kept| Ok((data::read_value(kept)?, kept.to_vec()))).transpose()
}

/// Two round trips for the batch: the lives of all entries, then those that must be extended, if any.
pub(super) async fn touch(
    cluster: &Cluster,
    touches: &[(Name, Duration)],
    now: impl Fn() -> UnixMillis,
) -> Result<(), StoreError> {
    let entries: Vec<_> = touches.iter().map(|(name, ttl)| (Entry::new(cluster, name), *ttl)).collect();
    let lives = cluster.ask_all(entries.iter().map(|(entry, _)| entry.view()).collect()).await;
    let (mut longer, mut first_error) = (Vec::new(), None);
    for ((entry, ttl), answers) in entries.iter().zip(lives) {
        let life = answers.and_then(|answers| Ok(response::life(first(&answers)?, ENTRY_VIEW)?));
        match life {
            Ok(Some(life)) if is_short(life, *ttl, now()) => longer.push(entry.set_ttl(*ttl)),
            Ok(_) => {}
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    for answers in cluster.ask_all(longer).await {
        if let Err(error) = answers.and_then(|answers| Ok(response::boolean(first(&answers)?, SET_TTL)?)) {
            first_error = first_error.or(Some(error));
        }
    }
    first_error.map_or(Ok(()), Err)
}

/// Whether the entry would end before `ttl` from now. If its own time to live is shorter, it does, whatever the clocks are; otherwise
/// the clocks of member and proxy are compared. An entry without end is an interrupted write.
fn is_short(life: Life, ttl: Duration, now: UnixMillis) -> bool {
    let ttl = millis(ttl);
    let endless = life.ttl == i64::MAX || life.ttl <= 0;
    let ends = i64::try_from(now.0).map_or(i64::MAX, |now| now.saturating_add(ttl));
    endless || life.ttl <= ttl || life.ends < ends
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_never_shorter_than_it_was_asked_for() {
        for (ttl, ms) in [(0, 1_000), (1, 2_000), (999, 2_000), (1_000, 2_000), (1_001, 3_000), (60_000, 61_000)] {
            assert_eq!(millis(Duration::from_millis(ttl)), ms, "{ttl}");
        }
        assert_eq!(millis(Duration::MAX), i64::from(i32::MAX) * 1000);
    }

    #[test]
    fn only_a_life_that_is_too_short_is_set() {
        let now = UnixMillis(1_000_000);
        let life = |ttl, ends| Life { ends, ttl };
        for (life, short) in [
            (life(61_000, 1_030_000), true),
            (life(61_000, 1_061_000), true),
            (life(120_000, 1_100_000), false),
            (life(120_000, 1_040_000), true),
            (life(i64::MAX, i64::MAX), true),
        ] {
            assert_eq!(is_short(life, Duration::from_secs(60), now), short, "{life:?}");
        }
    }
}
