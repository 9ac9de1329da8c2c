//! The engine of Ignite against real nodes: what it promises, alone and in a cluster, while nodes of the cluster die, hang,
//! come back empty and are added.

use std::sync::Arc;
use std::time::Duration;

use homing::config::Ignite;
use homing::store::engine::{Event, Kind, Name, StoreError, Value, Written};
use homing::store::ignite::IgniteEngine;
use tokio::time::{Instant, sleep};

use crate::engine_contract::{holds, name, value};
use crate::engines::{CONNECT, Running};
use crate::world::PATIENCE;
use crate::world::stores::{IgniteNode, JavaStore};

const MINUTE: Duration = Duration::from_secs(60);

fn settings(nodes: &[&IgniteNode]) -> Ignite {
    let addresses = nodes.iter().map(|node| node.address().to_string()).collect();
    Ignite { addresses, cache: "homing".to_owned(), login: None, tls: None }
}

fn running(nodes: &[&IgniteNode]) -> Running {
    let settings = settings(nodes);
    Running::start(|runtime, told| IgniteEngine::start(&settings, CONNECT, runtime.handle(), told).unwrap())
}

#[test]
fn a_node_keeps_its_promises() {
    if !JavaStore::Ignite.is_here() {
        return;
    }
    let node = IgniteNode::start();
    running(&[&node]).keeps_its_promises();
}

#[test]
fn three_nodes_keep_their_promises_before_and_after_one_dies_and_while_one_is_added() {
    if !JavaStore::Ignite.is_here() {
        return;
    }
    let [first, second, third] = IgniteNode::cluster([true, true, false]);
    let running = running(&[&first, &second, &third]);
    third.start_again();
    running.keeps_its_promises_again();
    second.kill();
    running.await_writes();
    running.keeps_its_promises_again();
}

impl Running {
    fn keeps_its_promises_again(&self) {
        self.run(holds(&self.engine));
    }
}
