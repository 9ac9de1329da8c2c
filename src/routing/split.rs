//! Selecting one of several pools for a session: by weight, and always the same for the same point.
//!
//! Weighted rendezvous hashing (Thaler and Ravishankar 1998; weights as in Schindelhauer and Schomaker 2005, `-w / ln u`):
//! each pool computes a number from the point and its own *name*, and the lowest wins. So all proxies agree, and a changed
//! weight moves only the points that the pool gains or loses. The numbers are exponentially distributed: without the
//! first pool, the order of the others again follows their weights.

use smallvec::SmallVec;

use crate::config;

/// A split, prepared.
#[derive(Debug)]
pub struct Split {
    shares: Box<[Share]>,
}

#[derive(Debug)]
struct Share {
    pool: usize,
    weight: u16,
    /// Hash of the pool's name.
    seed: u64,
}

impl Split {
    /// The shares of a checked configuration; `pools` are the names of all pools, by index.
    pub(super) fn new(shares: &[config::Share], pools: &[&str]) -> Self {
        let shares = shares.iter().filter_map(|share| {
            // A checked configuration names existing pools only.
            let pool = pools.iter().position(|pool| *pool == share.pool)?;
            Some(Share { pool, weight: share.weight, seed: seed(&share.pool) })
        });
        Self { shares: shares.collect() }
    }

    /// The pool of a new session. `point` is random for a client without any id, and the hash of its id for one that has
    /// one, so that parallel requests agree.
    pub fn pick(&self, point: u64) -> usize {
        let times = self.shares.iter().filter_map(|share| Some((share.time(point)?, share)));
        // Not all weights are 0.
        times.min_by(|one, other| one.0.total_cmp(&other.0)).map_or(0, |(_, share)| share.pool)
    }

    /// The pools that serve the session when `not` cannot, the best first; never one of weight 0.
    pub fn others(&self, not: usize, point: u64) -> impl Iterator<Item = usize> + use<> {
        let mut times: SmallVec<[(f64, usize); 8]> = self
            .shares
            .iter()
            .filter(|share| share.pool != not)
            .filter_map(|share| Some((share.time(point)?, share.pool)))
            .collect();
        times.sort_by(|one, other| one.0.total_cmp(&other.0));
        times.into_iter().map(|(_, pool)| pool)
    }

    /// All its pools in the order of the file. Those of weight 0 too: they keep their sessions.
    pub fn pools(&self) -> impl Iterator<Item = usize> + '_ {
        self.shares.iter().map(|share| share.pool)
    }
}

impl Share {
    /// Its number for a point; the lowest wins. `None` with weight 0.
    fn time(&self, point: u64) -> Option<f64> {
        (self.weight > 0).then(|| -unit(mix(point ^ self.seed)).ln() / f64::from(self.weight))
    }
}

/// The same on every proxy and in every version of the program.
fn seed(name: &str) -> u64 {
    let digest = ring::digest::digest(&ring::digest::SHA256, name.as_bytes());
    digest.as_ref().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// The finalizer of `SplitMix64` (Steele, Lea and Flood 2014; Stafford's mix 13): every bit of the input changes every bit of the output.
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Uniform between 0 and 1, both excluded.
fn unit(bits: u64) -> f64 {
    // 52 bits and a half are exact in a double.
    #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
    let whole = (bits >> 12) as f64;
    (whole + 0.5) / 4_503_599_627_370_496.0
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const NAMES: [&str; 6] = ["v1", "v2", "v3", "blue", "green", "canary"];
    const POINTS: u64 = 20_000;

    fn split(weights: &[u16]) -> Split {
        let shares: Vec<config::Share> = NAMES
            .iter()
            .zip(weights)
            .map(|(pool, weight)| config::Share { pool: (*pool).into(), weight: *weight })
            .collect();
        Split::new(&shares, &NAMES)
    }

    fn points() -> impl Iterator<Item = u64> {
        (0..POINTS).map(|n| mix(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    /// Five standard deviations of a binomial share, and a little.
    fn is_near(count: u64, of: u64, weight: u16, sum: u32) -> bool {
        let (count, of) = (f64::from(u32::try_from(count).unwrap()), f64::from(u32::try_from(of).unwrap()));
        let share = f64::from(weight) / f64::from(sum);
        (count - of * share).abs() <= 5.0 * (of * share * (1.0 - share)).sqrt() + 1.0
    }

    fn weights() -> impl Strategy<Value = Vec<u16>> {
        prop::collection::vec(prop_oneof![Just(0u16), 1u16..10, any::<u16>()], 1..=NAMES.len())
            .prop_filter("not all 0", |weights| weights.iter().any(|weight| *weight > 0))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn pools_take_their_shares_and_one_of_weight_0_nothing(weights in weights()) {
            let split = split(&weights);
            let mut counts: HashMap<usize, u64> = HashMap::new();
            points().for_each(|point| *counts.entry(split.pick(point)).or_default() += 1);
            let sum = weights.iter().copied().map(u32::from).sum();
            for (pool, weight) in weights.iter().enumerate() {
                let count = counts.get(&pool).copied().unwrap_or(0);
                prop_assert!(is_near(count, POINTS, *weight, sum), "{weights:?}: {counts:?}");
                prop_assert!(*weight > 0 || count == 0, "{weights:?}: {counts:?}");
            }
        }

        #[test]
        fn a_weight_that_changes_moves_only_what_its_pool_gains_or_loses(
            weights in weights(), changed in any::<prop::sample::Index>(), weight: u16,
        ) {
            let changed = changed.index(weights.len());
            let mut after = weights.clone();
            after[changed] = weight;
            prop_assume!(after.iter().any(|weight| *weight > 0));
            let (before, now) = (split(&weights), split(&after));
            for point in points().take(2000) {
                let (from, to) = (before.pick(point), now.pick(point));
                if from != to {
                    let grew = weight > weights[changed];
                    prop_assert_eq!(if grew { to } else { from }, changed, "{:?} {:?}", weights, after);
                }
            }
        }

        #[test]
        fn the_others_are_all_the_others_once_and_in_the_order_of_a_split_without_the_first(
            weights in weights(), point: u64,
        ) {
            let whole = split(&weights);
            let first = whole.pick(point);
            let others: Vec<usize> = whole.others(first, point).collect();
            let mut without = weights.clone();
            let mut expected = Vec::new();
            let mut next = first;
            loop {
                without[next] = 0;
                if without.iter().all(|weight| *weight == 0) { break; }
                next = split(&without).pick(point);
                expected.push(next);
            }
            prop_assert_eq!(others, expected);
        }

        #[test]
        fn the_order_in_the_file_means_nothing(weights in weights(), point: u64) {
            let shares: Vec<config::Share> = NAMES
                .iter().zip(&weights).map(|(pool, weight)| config::Share { pool: (*pool).into(), weight: *weight }).collect();
            let turned: Vec<config::Share> = shares.iter().rev().cloned().collect();
            prop_assert_eq!(Split::new(&shares, &NAMES).pick(point), Split::new(&turned, &NAMES).pick(point));
        }
    }

    #[test]
    fn when_a_pool_cannot_its_sessions_go_to_the_others_by_weight() {
        let split = split(&[50, 30, 20, 0]);
        let mut counts: HashMap<usize, u64> = HashMap::new();
        let homeless: Vec<u64> = points().filter(|point| split.pick(*point) == 0).collect();
        for point in &homeless {
            *counts.entry(split.others(0, *point).next().unwrap()).or_default() += 1;
        }
        let of = homeless.len() as u64;
        assert!(is_near(counts[&1], of, 30, 50) && is_near(counts[&2], of, 20, 50), "{counts:?} of {of}");
        assert_eq!(split.pools().collect::<Vec<_>>(), [0, 1, 2, 3]);
    }
}
