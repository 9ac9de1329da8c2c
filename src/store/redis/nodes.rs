//! How the nodes of a cluster see it, and which of them answer: each is asked every second by a connection of its own, as
//! redis-rs tells of no node by itself, and holds every request back while it looks for one.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use futures_util::future::join_all;
use redis::ConnectionInfo;
use redis::aio::MultiplexedConnection;
use redis::cluster_routing::Slot;

use super::cluster::{self, Node, Range};
use super::dial::Dial;
use super::failure::{Failure, Remedy};
use super::pulse::LIMIT;
use super::target;
use crate::store::engine::StoreError;

/// Connections to the nodes that answered.
#[derive(Default)]
pub(super) struct Nodes {
    doors: BTreeMap<Node, MultiplexedConnection>,
}

/// How most of those that answer see the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct View {
    /// Which node has which names.
    pub(super) ranges: Vec<Range>,
    /// Those of them that did not answer.
    pub(super) silent: BTreeSet<Node>,
}

impl Nodes {
    /// Asks all of them at once, for a second at most.
    ///
    /// # Errors
    /// When none answers.
    pub(super) async fn look(&mut self, dial: &Dial, known: Vec<ConnectionInfo>) -> Result<View, Failure> {
        let doors = &self.doors;
        let asked = known.iter().filter_map(|info| Some((target::node(info)?, info))).map(|(node, info)| async move {
            let door = doors.get(&node).cloned();
            let answer =
                dial.within("asking a node of the cluster", LIMIT, async { Ok(ask(dial, info, door, &node).await) });
            (node.clone(), answer.await.and_then(|answer| answer))
        });
        let answers = join_all(asked).await;
        self.doors.clear();
        let (mut views, mut silent) = (Vec::new(), BTreeSet::new());
        let mut first_failure = None;
        for (node, answer) in answers {
            match answer {
                Ok((door, ranges)) => {
                    self.doors.insert(node, door);
                    views.push(ranges);
                }
                Err(failure) => {
                    first_failure = first_failure.or(Some(failure));
                    silent.insert(node);
                }
            }
        }
        match (most_common(&views), first_failure) {
            (Some(ranges), _) => Ok(View::new(ranges, silent)),
            (None, Some(failure)) => Err(failure),
            (None, None) => Err(Failure::new(StoreError::Unreachable("no node is known".to_owned()), Remedy::None)),
        }
    }
}

async fn ask(
    dial: &Dial,
    info: &ConnectionInfo,
    door: Option<MultiplexedConnection>,
    node: &Node,
) -> Result<(MultiplexedConnection, Vec<Range>), Failure> {
    let mut door = match door {
        Some(door) => door,
        None => dial.bare(info).await?,
    };
    let answer = cluster::slots().query_async(&mut door).await?;
    Ok((door, cluster::ranges(&answer, &node.host)?))
}

impl View {
    /// Only a node that has names can be missed.
    fn new(ranges: Vec<Range>, mut silent: BTreeSet<Node>) -> Self {
        let owners = cluster::nodes(&ranges);
        silent.retain(|node| owners.contains(node));
        Self { ranges, silent }
    }

    /// The slots of those that do not answer.
    pub(super) fn silent_slots(&self) -> HashSet<Slot> {
        let ranges = self.ranges.iter().filter(|range| self.silent.contains(&range.primary));
        ranges.flat_map(|range| range.from..=range.to).filter_map(Slot::new).collect()
    }

    /// Names have another node than before, or one that did not answer does.
    pub(super) fn needs_new_connections(&self, before: &Self) -> bool {
        self.ranges != before.ranges || before.silent.iter().any(|node| !self.silent.contains(node))
    }
}

/// The first of those that most have.
fn most_common(views: &[Vec<Range>]) -> Option<Vec<Range>> {
    let count = |view: &Vec<Range>| views.iter().filter(|other| *other == view).count();
    let most = views.iter().map(count).max()?;
    views.iter().find(|view| count(view) == most).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(from: u16, to: u16, primary: &str) -> Range {
        Range { from, to, primary: Node::read(primary).unwrap() }
    }

    fn view(owners: [&str; 2], silent: &[&str]) -> View {
        let ranges = vec![range(0, 8191, owners[0]), range(8192, 16383, owners[1])];
        View::new(ranges, silent.iter().map(|node| Node::read(node).unwrap()).collect())
    }

    #[test]
    fn the_slots_of_a_silent_node_are_out_of_reach() {
        let silent = view(["a:1", "b:1"], &["b:1", "replica:1"]).silent_slots();
        assert_eq!(silent.len(), 8192);
        assert!(silent.contains(&Slot::new(8192).unwrap()) && !silent.contains(&Slot::new(8191).unwrap()));
        assert!(view(["a:1", "b:1"], &["replica:1"]).silent_slots().is_empty(), "it has no names");
    }

    #[test]
    fn new_connections_are_made_for_a_successor_and_for_one_that_is_back() {
        let whole = view(["a:1", "b:1"], &[]);
        let wounded = view(["a:1", "b:1"], &["b:1"]);
        let healed = view(["a:1", "c:1"], &["b:1"]);
        for (before, now, needed) in [
            (&whole, &whole, false),
            (&whole, &wounded, false),
            (&wounded, &wounded, false),
            (&wounded, &whole, true),
            (&wounded, &healed, true),
            (&healed, &healed, false),
        ] {
            assert_eq!(now.needs_new_connections(before), needed, "{before:?} then {now:?}");
        }
    }

    #[test]
    fn the_view_of_most_nodes_counts() {
        let (one, other) = (vec![range(0, 1, "a:1")], vec![range(0, 1, "b:1")]);
        assert_eq!(most_common(&[one.clone(), other.clone(), other.clone()]), Some(other));
        assert_eq!(most_common(std::slice::from_ref(&one)), Some(one));
        assert_eq!(most_common(&[]), None);
    }
}
