//! A cluster of three masters, each with a third of the slots and without a replica.

use std::net::SocketAddr;

use super::redis::{Kind, RedisServer, Role, Setup};
use super::resp::Reply;
use crate::world::apps::LONG;
use crate::world::eventually;

const SLOTS: usize = 16384;
const NODES: usize = 3;

/// Its nodes have the numbers 0, 1 and 2.
#[derive(Debug)]
pub(crate) struct Cluster {
    nodes: Vec<RedisServer>,
}

impl Cluster {
    #[track_caller]
    pub(crate) fn start(kind: Kind) -> Self {
        Self::with(kind, |setup| setup)
    }

    /// With more said of every node, e.g. `|node| node.line("cluster-require-full-coverage no")`.
    #[track_caller]
    pub(crate) fn with<'a>(kind: Kind, adapt: impl Fn(Setup<'a>) -> Setup<'a>) -> Self {
        let nodes: Vec<_> = (0..NODES).map(|_| adapt(Setup::new(kind, Role::Node)).start()).collect();
        for (number, node) in nodes.iter().enumerate() {
            let slots: Vec<String> =
                (number * SLOTS / NODES..(number + 1) * SLOTS / NODES).map(|s| s.to_string()).collect();
            let words: Vec<_> = ["CLUSTER", "ADDSLOTS"].into_iter().chain(slots.iter().map(String::as_str)).collect();
            node.command(&words).ok();
            // Else all have epoch 0, and settle that among themselves, one after the other.
            node.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]).ok();
        }
        let cluster = Self { nodes };
        for other in &cluster.nodes[1..] {
            let (ip, port) = (other.address().ip().to_string(), other.address().port().to_string());
            cluster.nodes[0].command(&["CLUSTER", "MEET", &ip, &port]).ok();
        }
        cluster.wait_until_ok();
        cluster
    }

    /// Waits until every node that runs finds all slots served and knows all nodes.
    #[track_caller]
    pub(crate) fn wait_until_ok(&self) {
        eventually(LONG, "the cluster is ok on all nodes", || {
            self.nodes.iter().filter(|node| node.is_running()).all(|node| {
                let Ok(Reply::Text(info)) = node.try_command(&["CLUSTER", "INFO"]) else { return false };
                let says = |line: &str| info.lines().any(|l| l == line);
                says("cluster_state:ok") && says(&format!("cluster_known_nodes:{NODES}"))
            })
        });
    }

    pub(crate) fn node(&self, number: usize) -> &RedisServer {
        &self.nodes[number]
    }

    pub(crate) fn nodes(&self) -> &[RedisServer] {
        &self.nodes
    }

    /// For `Conf::store`, with the addresses of all nodes.
    pub(crate) fn entry(&self) -> String {
        let urls: Vec<_> = self.nodes.iter().map(|node| format!("\"{}\"", node.url())).collect();
        format!("type: redis, redis: {{ mode: cluster, urls: [{}] }}", urls.join(", "))
    }

    #[track_caller]
    pub(crate) fn slot_of(&self, key: &str) -> usize {
        let slot = self.any_node().command(&["CLUSTER", "KEYSLOT", key]).number();
        usize::try_from(slot).expect("a slot")
    }

    /// The index of the node that owns the key, according to a running node.
    #[track_caller]
    pub(crate) fn owner_of(&self, key: &str) -> usize {
        let slot = self.slot_of(key);
        let ranges = self.any_node().command(&["CLUSTER", "SLOTS"]).list();
        let port = ranges.into_iter().find_map(|range| {
            let mut range = range.list().into_iter();
            let mut bound = || usize::try_from(range.next().expect("a bound").number()).expect("a slot");
            let (first, last) = (bound(), bound());
            let address = range.next().expect("an address").list();
            (first..=last).contains(&slot).then(|| address[1].clone().number())
        });
        let port = port.unwrap_or_else(|| panic!("no node has slot {slot}"));
        let is_it = |node: &RedisServer| i64::from(node.address().port()) == port;
        self.nodes.iter().position(is_it).unwrap_or_else(|| panic!("no node of this cluster is at port {port}"))
    }

    /// Queries the node that owns the key.
    #[track_caller]
    pub(crate) fn command(&self, key: &str, words: &[&str]) -> Reply {
        self.nodes[self.owner_of(key)].command(words)
    }

    /// The keys of all nodes that run.
    #[track_caller]
    pub(crate) fn keys(&self) -> Vec<String> {
        self.nodes.iter().filter(|node| node.is_running()).flat_map(RedisServer::keys).collect()
    }

    /// Moves the key's slot, with all in it, to the node of that number, another than its owner. Until a client learns of it, it is told `MOVED`.
    #[track_caller]
    pub(crate) fn move_slot_of(&self, key: &str, to: usize) {
        self.begin_to_move_slot_of(key, to);
        self.end_moving_slot_of(key, to);
    }

    /// The key's slot is on its way, and all in it has arrived: its owner sends clients there with `ASK`.
    #[track_caller]
    pub(crate) fn begin_to_move_slot_of(&self, key: &str, to: usize) {
        let (slot, from, target) = (self.slot_of(key).to_string(), &self.nodes[self.owner_of(key)], &self.nodes[to]);
        target.command(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &id(from)]).ok();
        from.command(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &id(target)]).ok();
        let SocketAddr::V4(address) = target.address() else { panic!("the tests' clusters are on 127.0.0.1") };
        let (ip, port) = (address.ip().to_string(), address.port().to_string());
        let login = target.login();
        for held in from.command(&["CLUSTER", "GETKEYSINSLOT", &slot, "10000"]).list() {
            let held = held.text();
            let mut words = vec!["MIGRATE", &ip, &port, &held, "0", "5000"];
            if let Some((name, password)) = login {
                words.extend(["AUTH2", name, password]);
            }
            from.command(&words).ok();
        }
    }

    /// All nodes hear where the slot is.
    #[track_caller]
    pub(crate) fn end_moving_slot_of(&self, key: &str, to: usize) {
        let slot = self.slot_of(key).to_string();
        let target = id(&self.nodes[to]);
        // The new owner first, so that the slot always has an owner.
        let others = self.nodes.iter().enumerate().filter(|(number, _)| *number != to).map(|(_, node)| node);
        for node in [&self.nodes[to]].into_iter().chain(others) {
            node.command(&["CLUSTER", "SETSLOT", &slot, "NODE", &target]).ok();
        }
    }

    fn any_node(&self) -> &RedisServer {
        self.nodes.iter().find(|node| node.is_running()).expect("a node runs")
    }
}

fn id(node: &RedisServer) -> String {
    node.command(&["CLUSTER", "MYID"]).text()
}
