//! One promise a test.

use std::thread;

use super::*;

const ALICE: SessionKey = SessionKey(7 << 100 | 7);
const MOVED: &str = "from=a; reason=down; epoch=1";

#[test]
fn the_last_that_was_handed_over_is_what_is_found() {
    let world = World::new(1 << 20, 4);
    assert_eq!(world.found(ALICE, 0), None);
    assert!(world.keep(ALICE, 0, "cart=1", NOW));
    assert!(world.keep(ALICE, 0, "cart=2", NOW));
    assert_eq!(world.found(ALICE, 0).as_deref(), Some("cart=2"));
    world.data.forget(&ALICE);
    assert_eq!((world.found(ALICE, 0), world.data.bytes()), (None, 0));
}

#[test]
fn data_of_an_earlier_epoch_is_given_to_no_server() {
    let world = World::new(1 << 20, 4);
    world.keep(ALICE, 0, "cart=1", NOW);
    assert_eq!(
        world.found(ALICE, 1),
        None,
        "another proxy has moved the session since, and later data is unknown here"
    );
    world.record_move(ALICE, 1, None);
    assert_eq!((world.found(ALICE, 2), world.data.bytes()), (None, 0), "nor is it kept any longer");
}

#[test]
fn a_request_that_began_before_a_sister_moved_the_session_is_given_it_too() {
    let world = World::new(1 << 20, 4);
    world.keep(ALICE, 0, "cart=1", NOW);
    world.record_move(ALICE, 0, Some(MOVED));
    assert_eq!(world.found(ALICE, 0).as_deref(), Some("cart=1"));
}

#[test]
fn a_server_that_the_session_has_left_is_not_heard_any_more() {
    let world = World::new(1 << 20, 4);
    world.keep(ALICE, 0, "cart=1", NOW);
    world.record_move(ALICE, 0, None);
    assert!(world.keep(ALICE, 1, "cart=2", NOW));
    assert!(!world.keep(ALICE, 0, "late", NOW));
    assert_eq!(world.found(ALICE, 1).as_deref(), Some("cart=2"));
}

#[test]
fn data_goes_with_every_move() {
    let world = World::new(1 << 20, 4);
    world.keep(ALICE, 0, "cart=1", NOW);
    for epoch in 0..5 {
        world.record_move(ALICE, epoch, None);
        assert_eq!(world.found(ALICE, epoch + 1).as_deref(), Some("cart=1"));
        assert_eq!(world.pending(ALICE, epoch + 1), None);
    }
}

#[test]
fn a_new_server_is_told_until_it_has_answered() {
    let world = World::new(1 << 20, 4);
    world.keep(ALICE, 0, "cart=1", NOW);
    world.record_move(ALICE, 0, Some(MOVED));
    for _ in 0..3 {
        assert_eq!(world.pending(ALICE, 1), Some((MOVED.to_owned(), Some("cart=1".to_owned()))));
    }
    assert_eq!(world.pending(ALICE, 2), None, "moved on by another proxy");
    world.data.mark_delivered(&ALICE, 1);
    assert_eq!(world.pending(ALICE, 1), None);
    assert_eq!(world.found(ALICE, 1).as_deref(), Some("cart=1"), "for the next move");
}

#[test]
fn a_session_without_data_is_announced_too() {
    let world = World::new(1 << 20, 4);
    world.record_move(ALICE, 0, Some(MOVED));
    assert_eq!(world.pending(ALICE, 1), Some((MOVED.to_owned(), None)));
    world.data.mark_delivered(&ALICE, 1);
    assert_eq!((world.pending(ALICE, 1), world.data.bytes()), (None, 0));
}

#[test]
fn of_parallel_requests_that_move_a_session_one_good_answer_is_enough() {
    let world = World::new(1 << 20, 4);
    world.keep(ALICE, 0, "cart=1", NOW);
    world.record_move(ALICE, 0, Some(MOVED));
    world.record_move(ALICE, 0, None);
    assert_eq!(world.pending(ALICE, 1), None);
    world.record_move(ALICE, 0, Some(MOVED));
    assert_eq!(world.pending(ALICE, 1), None, "and a bad one after it changes nothing");
    assert_eq!(world.found(ALICE, 1).as_deref(), Some("cart=1"));
}

#[test]
fn what_follows_to_another_session_does_not_replace_what_is_there() {
    let world = World::new(1 << 20, 4);
    let given = || HandoffPayload { moved_header: Some(value(MOVED)), data: Some(value("old")) };
    world.data.transfer(&world.owner(ALICE, 0), given(), &world.table, NOW);
    assert_eq!(world.pending(ALICE, 0), Some((MOVED.to_owned(), Some("old".to_owned()))));
    world.data.mark_delivered(&ALICE, 0);
    world.keep(ALICE, 0, "new", NOW);
    world.data.transfer(&world.owner(ALICE, 0), given(), &world.table, NOW);
    assert_eq!((world.found(ALICE, 0).as_deref(), world.pending(ALICE, 0)), (Some("new"), None));
}

#[test]
fn data_goes_on_under_another_key() {
    let world = World::new(1 << 20, 4);
    world.keep(ALICE, 3, "cart=1", NOW);
    world.data.rename(&ALICE, key(8));
    assert_eq!((world.found(ALICE, 3), world.found(key(8), 3).as_deref()), (None, Some("cart=1")));
    world.data.rename(&key(99), key(8));
    assert_eq!(world.found(key(8), 3).as_deref(), Some("cart=1"), "an empty change is no change");
}

#[test]
fn data_ends_with_its_session() {
    let world = World::new(1 << 20, 4);
    let later = |seconds| NOW.plus(Duration::from_secs(seconds));
    world.table.assign(ALICE, &world.shop, NOW);
    world.keep(ALICE, 0, "cart=1", NOW);
    world.keep(key(8), 0, "came only once", NOW);
    assert_eq!(world.sweep(later(59)), 0);
    world.table.visit(&ALICE, later(59));
    assert_eq!(world.sweep(later(62)), 1, "the one that stayed away");
    assert_eq!((world.found(ALICE, 0).as_deref(), world.found(key(8), 0)), (Some("cart=1"), None));
    for minute in 1..10 {
        world.table.visit(&ALICE, later(59 + minute * 50));
        world.sweep(later(59 + minute * 50));
    }
    assert!(world.found(ALICE, 0).is_some(), "visits leave no trace here, but the table knows");
    world.table.visit(&ALICE, later(599));
    assert_eq!(world.sweep(later(601)), 1, "the longest that a session may last");
    assert_eq!(world.data.bytes(), 0);
}

#[test]
fn a_pool_that_hands_nothing_over_any_more_is_forgotten() {
    let world = World::new(1 << 20, 4);
    let chat = world.table.target("chat", "");
    for n in 0..20 {
        world.keep(key(n), 0, "shop", NOW);
        let owner = Owner { pool: chat.index(), ..world.owner(key(100 + n), 0) };
        world.data.keep(&owner, &value("chat"), &world.table, NOW);
    }
    world.data.forget_pool(chat.index());
    assert!((0..20).all(|n| world.found(key(n), 0).is_some() && world.found(key(100 + n), 0).is_none()));
}

#[test]
fn data_is_not_printed() {
    let world = World::new(1 << 20, 4);
    world.keep(ALICE, 0, "login=alice", NOW);
    let given = HandoffPayload { moved_header: None, data: world.data.find(&ALICE, 0) };
    let printed = format!("{:?} {given:?} {:?}", world.data, world.owner(ALICE, 0));
    assert!(!printed.contains("alice") && printed.contains("Sensitive"), "{printed}");
}

#[test]
fn many_threads_leave_nothing_behind() {
    let world = World::new(1 << 20, 8);
    thread::scope(|scope| {
        for thread in 0..4 {
            let world = &world;
            scope.spawn(move || {
                for n in 0..2000_u128 {
                    let key = key((n + thread) % 50);
                    world.keep(key, 0, "some data of a session", NOW);
                    world.record_move(key, 0, Some(MOVED));
                    world.data.mark_delivered(&key, 1);
                    world.data.forget(&key);
                }
            });
        }
    });
    (0..50).for_each(|n| world.data.forget(&key(n)));
    assert_eq!((world.data.bytes(), world.data.pending.load(Relaxed), world.sessions()), (0, 0, 0));
}
