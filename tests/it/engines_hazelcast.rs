//! The engine of Hazelcast against real members: alone and three together, while one is killed, frozen, started again empty, or
//! added.

use std::sync::Arc;
use std::time::Duration;

use homing::session::key::SessionKey;
use homing::store::engine::{Event, Kind, Name, StoreError, WriteResult};
use homing::store::hazelcast::HazelcastEngine;
use tokio::time::{sleep, timeout};

use crate::engine_contract::{holds, value};
use crate::engines::{CONNECT, Running};
use crate::world::apps::LONG;
use crate::world::stores::hazelcast::{settings, wall_clock};
use crate::world::stores::{HazelcastMember, JavaStore};

const MINUTE: Duration = Duration::from_secs(60);

fn running(members: &[&HazelcastMember]) -> Running {
    let settings = settings(members);
    Running::start(|runtime, told| {
        HazelcastEngine::start(&settings, CONNECT, runtime.handle(), wall_clock, told).unwrap()
    })
}

/// As many names as that every member owns some of them.
fn many() -> Vec<Name> {
    (0..100).map(|_| Name::new("many", SessionKey(uuid::Uuid::new_v4().as_u128()), Kind::Binding)).collect()
}

impl Running {
    /// Binds these names; how many could not be.
    fn unbound(&self, names: &[Name]) -> usize {
        self.run(async {
            let mut failed = 0;
            for name in names {
                failed += usize::from(self.engine.bind(name, &value(0, "a"), MINUTE).await != Ok(WriteResult::Stored));
            }
            failed
        })
    }

    /// Until all of these names can be read, and say what they are to say.
    #[track_caller]
    fn await_kept(&self, names: &[Name]) {
        let kept = self.run(async {
            let kept = async {
                loop {
                    let found = self.engine.lookup(names).await;
                    if found.is_ok_and(|found| found.iter().all(|one| *one == Some(value(0, "a")))) {
                        return;
                    }
                    sleep(Duration::from_millis(20)).await;
                }
            };
            timeout(LONG, kept).await
        });
        assert!(kept.is_ok(), "all are kept: {:?}", self.run(self.engine.lookup(names)));
    }
}

#[test]
fn one_member_satisfies_the_contract() {
    if !JavaStore::Hazelcast.is_here() {
        return;
    }
    let member = HazelcastMember::start();
    let running = running(&[&member]);
    let capabilities = running.engine.capabilities();
    assert_eq!(capabilities.server, "hazelcast 5.7.0", "{capabilities:?}");
    assert!(capabilities.announces && capabilities.list, "{capabilities:?}");
    running.satisfies_the_contract();
}

#[test]
fn three_members_keep_their_promises_while_one_is_killed_frozen_and_added() {
    if !JavaStore::Hazelcast.is_here() {
        return;
    }
    let [first, second, third] = HazelcastMember::cluster([true, true, true]);
    // Only one is named.
    let mut running = running(&[&second]);
    let before = many();
    assert_eq!(running.unbound(&before), 0);

    // Its partitions are the others' at once, since they have the copies.
    third.kill();
    running.await_event("the loss", |event| matches!(event, Event::Lost(_)));
    running.await_event("the cluster without it", |event| matches!(event, Event::Reconnected));
    running.await_kept(&before);
    running.run(holds(&running.engine));

    // It comes back empty, as a new member, and is given a share.
    third.start_again();
    running.await_kept(&before);

    // The one that tells of moves is frozen: what it owns is unreachable at once, and the rest is not.
    second.freeze();
    running.await_event("the loss", |event| matches!(event, Event::Lost(_)));
    let during = many();
    let unbound = running.unbound(&during);
    assert!(unbound > 0 && unbound < during.len(), "{unbound} of {} are the frozen member's", during.len());
    let (engine, gone) = (Arc::clone(&running.engine), StoreError::Unreachable(String::new()));
    let is_gone = |error: &StoreError| std::mem::discriminant(error) == std::mem::discriminant(&gone);
    assert!(running.run(engine.lookup(&before)).is_err_and(|error| is_gone(&error)), "some of them are its");
    assert_eq!(running.run(engine.ping()), Ok(()), "others answer");
    second.thaw();
    running.await_kept(&before);
    running.satisfies_the_contract();
    drop(first);
}

#[test]
fn a_member_that_is_added_takes_its_share_and_nothing_is_lost() {
    if !JavaStore::Hazelcast.is_here() {
        return;
    }
    let [first, second] = HazelcastMember::cluster([true, false]);
    let running = running(&[&first, &second]);
    let names = many();
    assert_eq!(running.unbound(&names), 0);
    second.start_again();
    running.await_kept(&names);
    // With a copy on the second, the first is not needed any more.
    eventually_balanced(&first);
    first.kill();
    running.await_kept(&names);
    running.satisfies_the_contract();
}

#[test]
fn a_member_that_is_not_reached_from_here_is_reached_through_another() {
    if !JavaStore::Hazelcast.is_here() {
        return;
    }
    let [first, second] = HazelcastMember::one_hidden();
    let running = running(&[&first]);
    let names = many();
    crate::world::eventually(LONG, "some of them are the second's", || running.unbound(&names) == 0);
    running.await_kept(&names);
    running.run(holds(&running.engine));
    second.kill();
    running.await_kept(&names);
}

/// Until no partition is on its way.
fn eventually_balanced(member: &HazelcastMember) {
    crate::world::eventually(LONG, "all partitions are where they belong", || {
        member.log().contains("All migration tasks have been completed")
    });
}

#[test]
fn a_member_alone_that_dies_is_missed_at_once_and_found_again_empty() {
    if !JavaStore::Hazelcast.is_here() {
        return;
    }
    let member = HazelcastMember::start();
    let mut running = running(&[&member]);
    let names = many();
    assert_eq!(running.unbound(&names), 0);
    member.kill();
    running.await_event("the loss", |event| matches!(event, Event::Lost(_)));
    assert!(matches!(running.run(running.engine.ping()), Err(StoreError::Unreachable(_))));
    assert!(matches!(running.run(running.bind_new_name()), Err(StoreError::Unreachable(_))));
    member.start_again();
    running.await_event("its return", |event| matches!(event, Event::Reconnected));
    running.await_writes();
    assert_eq!(running.run(running.engine.lookup(&names)), Ok(vec![None; names.len()]), "it forgot");
    running.satisfies_the_contract();
}

#[test]
fn a_frozen_member_is_noticed_without_a_request() {
    if !JavaStore::Hazelcast.is_here() {
        return;
    }
    let member = HazelcastMember::start();
    let mut running = running(&[&member]);
    let names = many();
    assert_eq!(running.unbound(&names), 0);
    member.freeze();
    running.await_event("the loss", |event| matches!(event, Event::Lost(_)));
    assert!(matches!(running.run(running.bind_new_name()), Err(StoreError::Unreachable(_))));
    member.thaw();
    running.await_event("its return", |event| matches!(event, Event::Reconnected));
    running.await_kept(&names);
    running.await_writes();
}
