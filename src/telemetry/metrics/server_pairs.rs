//! Which pairs of servers have a series of their own in `homing_server_moves_total`. A pool of N servers has N · (N − 1) pairs, more
//! than Prometheus should be given when N is large.

use std::collections::{HashMap, HashSet};

use parking_lot::Mutex;

/// Pairs of one pool that have a series of their own: all pairs of 32 servers.
const MAX_PAIRS: usize = 1000;
/// Label `to` of further pairs: one more series for each server that loses sessions.
pub(super) const OTHER_SERVER: &str = "other";

/// The servers that sessions moved to, by the server that they came from.
type Pairs = HashMap<Box<str>, HashSet<Box<str>>>;

/// The pairs of all pools, in the order in which they came. Locked for each move, and for the removal of what is gone.
#[derive(Default)]
pub(super) struct ServerPairs(Mutex<HashMap<Box<str>, (usize, Pairs)>>);

impl ServerPairs {
    /// The labels by which a move is counted.
    pub(super) fn limit<'a>(&self, pool: &str, [from, to]: [&'a str; 2]) -> [&'a str; 2] {
        let mut pools = self.0.lock();
        if !pools.contains_key(pool) {
            pools.insert(pool.into(), (0, Pairs::new()));
        }
        let Some((count, pairs)) = pools.get_mut(pool) else { return [from, to] };
        if pairs.get(from).is_some_and(|known| known.contains(to)) {
            return [from, to];
        }
        if *count >= MAX_PAIRS {
            return [from, OTHER_SERVER];
        }
        *count += 1;
        pairs.entry(from.into()).or_default().insert(to.into());
        [from, to]
    }

    /// Forgets pairs of which one is gone.
    pub(super) fn retain(&self, has_server: impl Fn(&str, &str) -> bool) {
        self.0.lock().retain(|pool, (count, pairs)| {
            pairs.retain(|from, known| {
                known.retain(|to| has_server(pool, to));
                has_server(pool, from) && !known.is_empty()
            });
            *count = pairs.values().map(HashSet::len).sum();
            *count > 0
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_above_the_limit_are_counted_as_other_until_there_is_room_again() {
        let pairs = ServerPairs::default();
        let names: Vec<String> = (0..100).map(|n| format!("s{n}")).collect();
        let all = || names.iter().flat_map(|from| names.iter().map(move |to| [from.as_str(), to.as_str()]));
        let shown: HashSet<_> = all().map(|pair| pairs.limit("web", pair)).collect();
        assert_eq!(shown.iter().filter(|[_, to]| *to != OTHER_SERVER).count(), MAX_PAIRS);
        assert_eq!(shown.iter().filter(|[_, to]| *to == OTHER_SERVER).count(), 90, "s0 to s9 have all their pairs");
        assert_eq!(pairs.limit("web", ["s0", "s99"]), ["s0", "s99"], "a pair keeps its series");
        assert_eq!(pairs.limit("api", ["s99", "s1"]), ["s99", "s1"], "another pool has room");
        pairs.retain(|_, server| server != "s0");
        assert_eq!(pairs.limit("web", ["s99", "s1"]), ["s99", "s1"], "series of s0 are gone");
        assert_eq!(pairs.limit("web", ["s1", "s99"]), ["s1", "s99"]);
    }
}
