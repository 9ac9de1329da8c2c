//! When memory runs out.

use super::*;

/// So many sessions with so many bytes each, one a second.
fn filled(most: usize, sessions: u128, size: usize) -> World {
    let world = World::new(most, 1);
    for n in 0..sessions {
        let now = NOW.plus(Duration::from_secs(u64::try_from(n).unwrap()));
        assert!(world.keep(key(n), 0, &"x".repeat(size), now));
        assert!(world.data.bytes() <= most, "{} of {most}", world.data.bytes());
    }
    world
}

#[test]
fn whoever_was_idle_the_longest_makes_room() {
    let world = filled(100_000, 200, 1000);
    let kept = world.sessions();
    assert!((70..100).contains(&kept), "{kept}");
    assert_eq!(world.evicted.load(SeqCst), 200 - kept, "each is moved_header of");
    let there: Vec<u128> = (0..200).filter(|n| world.found(key(*n), 0).is_some()).collect();
    let last = 200 - u128::try_from(kept).unwrap();
    assert_eq!(there, (last..200).collect::<Vec<_>>(), "none came back, so the latest are there");
}

#[test]
fn a_session_that_comes_every_second_keeps_its_data() {
    let world = World::new(100_000, 1);
    world.table.assign(key(0), &world.shop, NOW);
    world.keep(key(0), 0, &"x".repeat(1000), NOW);
    for n in 1..500 {
        let now = NOW.plus(Duration::from_secs(u64::try_from(n).unwrap()));
        world.table.visit(&key(0), now);
        world.keep(key(n), 0, &"x".repeat(1000), now);
    }
    assert!(world.evicted.load(SeqCst) > 300);
    assert!(world.found(key(0), 0).is_some(), "although its data is the oldest of all");
}

#[test]
fn larger_data_of_one_session_takes_the_room_of_others() {
    let world = filled(100_000, 60, 1000);
    let now = NOW.plus(Duration::from_secs(100));
    assert!(world.keep(key(59), 0, &"x".repeat(50_000), now));
    assert!(world.data.bytes() <= 100_000);
    assert_eq!(world.found(key(59), 0).map(|data| data.len()), Some(50_000));
    assert!(world.evicted.load(SeqCst) > 0);
}

#[test]
fn what_would_not_fit_into_an_empty_store_is_not_kept() {
    let world = World::new(10_000, 1);
    world.keep(key(1), 0, &"x".repeat(20_000), NOW);
    assert_eq!((world.data.bytes(), world.evicted.load(SeqCst)), (0, 1));
}

#[test]
fn memory_of_the_connection_is_not_kept_with_it() {
    let headers = bytes::Bytes::from(vec![b'x'; 64 * 1024]);
    let world = World::new(1 << 20, 1);
    let value = HeaderValue::from_maybe_shared(headers.slice(..10)).unwrap();
    world.data.keep(&world.owner(key(1), 0), &value, &world.table, NOW);
    drop(value);
    assert!(headers.is_unique(), "a slice would keep the whole block alive");
}
