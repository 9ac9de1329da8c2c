//! The contract of store engines, as checks that run against each of them, with real servers started by the caller.

use std::sync::Arc;
use std::time::Duration;

use homing::session::key::SessionKey;
use homing::store::engine::{Engine, Event, Kind, Name, Value, WriteResult};
use tokio::sync::mpsc::UnboundedReceiver;

/// Longer than any check.
const LONG: Duration = Duration::from_secs(60);

/// All of them. The engine's store may hold other names; pools that begin with `contract-` are ours.
pub(crate) async fn holds(engine: &Arc<dyn Engine>) {
    engine.ping().await.expect("the store answers");
    the_first_writer_wins(engine).await;
    the_higher_epoch_wins(engine).await;
    of_two_bindings_of_one_epoch_the_first_stays(engine).await;
    of_two_data_of_one_epoch_the_last_stays(engine).await;
    many_names_are_told_in_their_order(engine).await;
    a_life_is_never_shortened(engine).await;
    what_is_not_renewed_ends(engine).await;
    what_is_forgotten_is_free_again(engine).await;
    of_a_hundred_writers_at_once_one_wins(engine).await;
    of_a_hundred_moves_at_once_the_highest_wins(engine).await;
    everything_is_listed_page_by_page(engine).await;
}

/// A name that no other check has.
pub(crate) fn name(kind: Kind) -> Name {
    Name::new("contract-one", SessionKey(uuid::Uuid::new_v4().as_u128()), kind)
}

/// A value of a binding.
pub(crate) fn value(epoch: u32, server: &str) -> Value {
    Value::new(epoch, format!("{server} 1764000000000 edge-1").as_bytes())
}

async fn kept(engine: &Arc<dyn Engine>, name: &Name) -> Option<Value> {
    let mut found = engine.lookup(std::slice::from_ref(name)).await.expect("lookup");
    assert_eq!(found.len(), 1, "one name, one answer");
    found.remove(0)
}

async fn the_first_writer_wins(engine: &Arc<dyn Engine>) {
    let (name, first, second) = (name(Kind::Binding), value(0, "a"), value(0, "b"));
    assert_eq!(kept(engine, &name).await, None, "it was not written yet");
    assert_eq!(engine.bind(&name, &first, LONG).await, Ok(WriteResult::Stored));
    assert_eq!(engine.bind(&name, &second, LONG).await, Ok(WriteResult::Conflict(first.clone())));
    assert_eq!(engine.bind(&name, &first, LONG).await, Ok(WriteResult::Stored), "a retry of one's own write");
    assert_eq!(kept(engine, &name).await, Some(first));
}

async fn the_higher_epoch_wins(engine: &Arc<dyn Engine>) {
    let name = name(Kind::Binding);
    assert_eq!(engine.rebind(&name, &value(1, "a"), LONG).await, Ok(WriteResult::Stored), "nothing stood");
    assert_eq!(engine.rebind(&name, &value(3, "b"), LONG).await, Ok(WriteResult::Stored), "1 < 3");
    assert_eq!(engine.rebind(&name, &value(2, "c"), LONG).await, Ok(WriteResult::Conflict(value(3, "b"))), "2 < 3");
    assert_eq!(engine.rebind(&name, &value(11, "d"), LONG).await, Ok(WriteResult::Stored), "3 < 11, as numbers");
    assert_eq!(engine.rebind(&name, &value(u32::MAX, "e"), LONG).await, Ok(WriteResult::Stored), "the highest");
    assert_eq!(kept(engine, &name).await, Some(value(u32::MAX, "e")));
}

async fn of_two_bindings_of_one_epoch_the_first_stays(engine: &Arc<dyn Engine>) {
    let name = name(Kind::Binding);
    assert_eq!(engine.rebind(&name, &value(2, "a"), LONG).await, Ok(WriteResult::Stored));
    assert_eq!(engine.rebind(&name, &value(2, "b"), LONG).await, Ok(WriteResult::Conflict(value(2, "a"))));
    assert_eq!(engine.rebind(&name, &value(2, "a"), LONG).await, Ok(WriteResult::Stored), "a retry of one's own write");
}

async fn of_two_data_of_one_epoch_the_last_stays(engine: &Arc<dyn Engine>) {
    let name = name(Kind::Data);
    let data = |epoch, byte: u8| Value::new(epoch, &[byte, b'\r', b'\n', 0, 0xff, b' ', byte]);
    assert_eq!(engine.rebind(&name, &data(2, b'a'), LONG).await, Ok(WriteResult::Stored));
    assert_eq!(engine.rebind(&name, &data(2, b'b'), LONG).await, Ok(WriteResult::Stored));
    assert_eq!(engine.rebind(&name, &data(1, b'c'), LONG).await, Ok(WriteResult::Conflict(data(2, b'b'))));
    assert_eq!(kept(engine, &name).await, Some(data(2, b'b')), "any bytes come back as they went");
    let large = Value::new(3, &vec![b'x'; 64 * 1024]);
    assert_eq!(engine.rebind(&name, &large, LONG).await, Ok(WriteResult::Stored), "64 KiB");
    assert_eq!(kept(engine, &name).await, Some(large));
}

async fn many_names_are_told_in_their_order(engine: &Arc<dyn Engine>) {
    let names: Vec<Name> = (0..50).map(|_| name(Kind::Binding)).collect();
    for (at, name) in names.iter().enumerate().filter(|(at, _)| at % 3 != 0) {
        engine.bind(name, &value(u32::try_from(at).unwrap(), "a"), LONG).await.expect("bind");
    }
    let found = engine.lookup(&names).await.expect("lookup");
    let epochs: Vec<_> = found.iter().map(|value| value.as_ref().map(Value::epoch)).collect();
    let expected: Vec<_> = (0..50).map(|at| (at % 3 != 0).then_some(at)).collect();
    assert_eq!(epochs, expected);
    assert_eq!(engine.lookup(&[]).await, Ok(vec![]));
}

/// Waits, up to a deadline, until nothing is kept under that name; how long that took.
async fn end_of(engine: &Arc<dyn Engine>, name: &Name) -> Duration {
    let begun = std::time::Instant::now();
    while kept(engine, name).await.is_some() {
        assert!(begun.elapsed() < Duration::from_secs(10), "it is still kept");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    begun.elapsed()
}

async fn a_life_is_never_shortened(engine: &Arc<dyn Engine>) {
    let (long, longer) = (name(Kind::Binding), name(Kind::Binding));
    let short = Duration::from_secs(2);
    engine.bind(&long, &value(0, "a"), LONG).await.expect("bind");
    engine.bind(&longer, &value(0, "a"), short).await.expect("bind");
    let gone = name(Kind::Binding);
    let touches = [(long.clone(), Duration::from_secs(1)), (longer.clone(), LONG), (gone.clone(), LONG)];
    engine.touch(&touches).await.expect("touch");
    let canary = name(Kind::Binding);
    engine.bind(&canary, &value(0, "a"), short + Duration::from_secs(1)).await.expect("bind");
    end_of(engine, &canary).await;
    assert!(kept(engine, &long).await.is_some(), "a touch with a shorter life changes nothing");
    assert!(kept(engine, &longer).await.is_some(), "a touch with a longer life renews");
    assert!(kept(engine, &gone).await.is_none(), "a touch makes nothing");
    engine.touch(&[]).await.expect("no touches");
}

async fn what_is_not_renewed_ends(engine: &Arc<dyn Engine>) {
    for life in [Duration::from_secs(1), Duration::from_secs(2)] {
        let name = name(Kind::Binding);
        engine.rebind(&name, &value(5, "a"), life).await.expect("rebind");
        let lasted = end_of(engine, &name).await;
        assert!(lasted + Duration::from_millis(200) >= life, "{lasted:?} is less than {life:?}");
        assert_eq!(engine.bind(&name, &value(0, "b"), LONG).await, Ok(WriteResult::Stored), "the name is free again");
    }
}

async fn what_is_forgotten_is_free_again(engine: &Arc<dyn Engine>) {
    let names = [name(Kind::Binding), name(Kind::Data)];
    for name in &names {
        engine.rebind(name, &value(4, "a"), LONG).await.expect("rebind");
    }
    engine.forget(&names).await.expect("forget");
    engine.forget(&names).await.expect("what is not there can be forgotten");
    assert_eq!(engine.lookup(&names).await, Ok(vec![None, None]));
    assert_eq!(engine.bind(&names[0], &value(0, "b"), LONG).await, Ok(WriteResult::Stored));
}

async fn of_a_hundred_writers_at_once_one_wins(engine: &Arc<dyn Engine>) {
    let name = name(Kind::Binding);
    let writers = (0..100).map(|writer| {
        let (engine, name) = (Arc::clone(engine), name.clone());
        tokio::spawn(async move {
            let ours = value(0, &format!("s{writer}"));
            (ours.clone(), engine.bind(&name, &ours, LONG).await.expect("bind"))
        })
    });
    let mut winners = vec![];
    let mut adopted = vec![];
    for writer in writers.collect::<Vec<_>>() {
        match writer.await.expect("a writer") {
            (ours, WriteResult::Stored) => winners.push(ours),
            (_, WriteResult::Conflict(theirs)) => adopted.push(theirs),
        }
    }
    assert_eq!((winners.len(), adopted.len()), (1, 99), "one writer wins");
    assert!(adopted.iter().all(|theirs| *theirs == winners[0]), "and all others are told of it");
}

async fn of_a_hundred_moves_at_once_the_highest_wins(engine: &Arc<dyn Engine>) {
    let name = name(Kind::Binding);
    let moves = (1..=100).map(|epoch| {
        let (engine, name) = (Arc::clone(engine), name.clone());
        tokio::spawn(async move { engine.rebind(&name, &value(epoch, &format!("s{epoch}")), LONG).await })
    });
    for moved in moves.collect::<Vec<_>>() {
        let _either = moved.await.expect("a move").expect("rebind");
    }
    assert_eq!(kept(engine, &name).await, Some(value(100, "s100")));
}

async fn everything_is_listed_page_by_page(engine: &Arc<dyn Engine>) {
    if !engine.capabilities().list {
        return;
    }
    let pool = format!("contract-{}", uuid::Uuid::new_v4().simple());
    for key in 0..250 {
        let name = Name::new(&pool, SessionKey(key), Kind::Binding);
        engine.bind(&name, &value(u32::try_from(key).unwrap(), "a"), LONG).await.expect("bind");
    }
    let (mut seen, mut cursor, mut pages) = (std::collections::BTreeSet::new(), None, 0);
    loop {
        let page = engine.list(&Name::of_pool(&pool), cursor.as_deref(), 20).await.expect("list");
        for (name, value) in page.values {
            let (of, key, kind) = name.parts().expect("one of ours");
            assert_eq!((of, kind, u128::from(value.epoch())), (pool.as_str(), Kind::Binding, key.0));
            seen.insert(key.0);
        }
        pages += 1;
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen.len(), 250, "in {pages} pages");
    assert!(engine.list(&Name::of_pool(&pool), Some("nonsense"), 20).await.is_err(), "an invented cursor");
}

/// What one proxy keeps, the other hears: bindings that were kept, and nothing else. `heard` has the events of an engine
/// on the same store that stands already.
pub(crate) async fn announces_moves(engine: &Arc<dyn Engine>, heard: &mut UnboundedReceiver<Event>) {
    let (binding, data, last) = (name(Kind::Binding), name(Kind::Data), name(Kind::Binding));
    assert_eq!(engine.bind(&binding, &value(0, "a"), LONG).await, Ok(WriteResult::Stored), "a bind is not announced");
    assert_eq!(engine.rebind(&binding, &value(2, "b"), LONG).await, Ok(WriteResult::Stored));
    assert_eq!(engine.rebind(&binding, &value(1, "c"), LONG).await, Ok(WriteResult::Conflict(value(2, "b"))));
    assert_eq!(engine.rebind(&data, &Value::new(1, b"cart"), LONG).await, Ok(WriteResult::Stored));
    assert_eq!(engine.rebind(&last, &value(1, "z"), LONG).await, Ok(WriteResult::Stored));
    let expected = [(binding.clone(), value(2, "b")), (last.clone(), value(1, "z"))];
    let mut told = vec![];
    // The nodes of a cluster may overtake each other.
    while !expected.iter().all(|one| told.contains(one)) {
        let event = tokio::time::timeout(Duration::from_secs(10), heard.recv()).await;
        if let Event::Announced(name, value) = event.expect("an announcement").expect("the engine lives") {
            told.push((name, value));
        }
    }
    told.retain(|(name, _)| [&binding, &data, &last].contains(&name));
    assert_eq!(told.len(), expected.len(), "nothing is told twice, of data, or of a move that lost: {told:?}");
}
