//! Entry by entry through the map, partition by partition. A cursor is the partition and the members' own pointers into it:
//! `17 2147483647:42`.

use super::cluster::{Call, Cluster};
use super::data;
use super::request::{self, FETCH_ENTRIES};
use super::response;
use crate::store::engine::{Name, Page, StoreError};

/// Limit of rounds for one page: where few names match, a page may have fewer values than requested.
const ROUNDS: usize = 64;
/// Entries that a member reads in one round.
const LOOKED_AT: std::ops::RangeInclusive<usize> = 100..=1000;
/// A partition's table grows by doubling, and each time there is one pointer more.
const MAX_POINTERS: usize = 64;

/// The position of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    partition: i32,
    pointers: Vec<(i32, i32)>,
}

impl Place {
    /// Of the members: the first pointer of a partition.
    fn begin(partition: i32) -> Self {
        Self { partition, pointers: vec![(i32::MAX, -1)] }
    }

    fn text(&self) -> String {
        let pointers: Vec<_> = self.pointers.iter().map(|(index, size)| format!("{index}:{size}")).collect();
        format!("{} {}", self.partition, pointers.join(","))
    }

    /// Parses [`Place::text`].
    fn read(text: &str) -> Option<Self> {
        let (partition, pointers) = text.split_once(' ')?;
        let pointer = |text: &str| {
            let (index, size) = text.split_once(':')?;
            Some((index.parse().ok()?, size.parse().ok()?))
        };
        let pointers: Vec<_> = pointers.split(',').take(MAX_POINTERS + 1).map(pointer).collect::<Option<_>>()?;
        let partition = partition.parse().ok().filter(|partition| *partition >= 0)?;
        (pointers.len() <= MAX_POINTERS).then_some(Self { partition, pointers })
    }

    /// The position after a response with these pointers; `None` = that was the last partition.
    fn after(&self, pointers: Vec<(i32, i32)>, partitions: i32) -> Option<Self> {
        let ended = pointers.last().is_none_or(|(index, _)| *index < 0) || pointers.len() > MAX_POINTERS;
        let next = if ended { Self::begin(self.partition + 1) } else { Self { pointers, ..self.clone() } };
        (next.partition < partitions).then_some(next)
    }
}

/// About `limit` values whose names begin with `prefix`.
pub(super) async fn list(
    cluster: &Cluster,
    prefix: &Name,
    cursor: Option<&str>,
    limit: usize,
) -> Result<Page, StoreError> {
    let unknown = || StoreError::Refused("a cursor that this store did not give".to_owned());
    let mut place = Some(match cursor {
        Some(text) => Place::read(text).ok_or_else(unknown)?,
        None => Place::begin(0),
    });
    let batch = i32::try_from(limit.clamp(*LOOKED_AT.start(), *LOOKED_AT.end())).unwrap_or(i32::MAX);
    let mut values = Vec::new();
    for _ in 0..ROUNDS {
        let Some(at) = place.take() else { break };
        let requests = vec![request::fetch_entries(&cluster.map, at.partition, &at.pointers, batch)];
        let answers = cluster.ask(Call { partition: at.partition, requests, kind: FETCH_ENTRIES }).await?;
        let fetched = response::fetched(answers.first().ok_or(StoreError::Timeout)?, FETCH_ENTRIES)?;
        let of_prefix = |name: &Name| name.as_str().starts_with(prefix.as_str());
        let found = fetched
            .entries
            .iter()
            .filter_map(|(key, value)| Some((data::name(key).filter(of_prefix)?, data::read_value(value).ok()?)));
        values.extend(found);
        place = at.after(fetched.pointers, cluster.partitions());
        if values.len() >= limit {
            break;
        }
    }
    Ok(Page { values, next: place.map(|place| place.text()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_went() {
        let place = Place { partition: 17, pointers: vec![(i32::MAX, -1), (42, 64)] };
        assert_eq!(Place::read(&place.text()), Some(place));
        for text in
            ["", "17", "17 ", "17 1", "17 1:", "x 1:2", "-1 1:2", "17 1:2,", &format!("1 {}", ["1:2"; 65].join(","))]
        {
            assert_eq!(Place::read(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_walk_goes_through_all_partitions() {
        let first = Place::begin(0);
        let further = first.after(vec![(7, 16)], 2).unwrap();
        assert_eq!(further, Place { partition: 0, pointers: vec![(7, 16)] });
        assert_eq!(further.after(vec![(-1, 16)], 2), Some(Place::begin(1)));
        assert_eq!(Place::begin(1).after(vec![(-1, 16)], 2), None);
    }
}
