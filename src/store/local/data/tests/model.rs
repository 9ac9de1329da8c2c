//! Any order of events, held against a plain map.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Event {
    Keep { session: u8, epoch: u32, size: usize },
    Moved { session: u8, from: u32, failed: bool },
    Delivered { session: u8, epoch: u32 },
    Forget { session: u8 },
    Rename { session: u8, to: u8 },
}

fn event() -> impl Strategy<Value = Event> {
    let (session, epoch) = (0..6_u8, 0..4_u32);
    prop_oneof![
        4 => (session.clone(), epoch.clone(), 1..200_usize)
            .prop_map(|(session, epoch, size)| Event::Keep { session, epoch, size }),
        4 => (session.clone(), epoch.clone(), any::<bool>())
            .prop_map(|(session, from, failed)| Event::Moved { session, from, failed }),
        2 => (session.clone(), epoch).prop_map(|(session, epoch)| Event::Delivered { session, epoch }),
        1 => session.clone().prop_map(|session| Event::Forget { session }),
        1 => (session.clone(), session).prop_map(|(session, to)| Event::Rename { session, to }),
    ]
}

/// Epoch, size of the data, and whether an answer is waited for.
#[derive(Debug, Clone, Copy, PartialEq)]
struct TableEntry {
    epoch: u32,
    size: Option<usize>,
    pending: bool,
}

fn applied(model: &mut HashMap<u8, TableEntry>, event: &Event) {
    match *event {
        Event::Keep { session, epoch, size } => {
            let former = model.get(&session).copied();
            if former.is_none_or(|known| known.epoch <= epoch) {
                let pending = former.is_some_and(|known| known.epoch == epoch && known.pending);
                model.insert(session, TableEntry { epoch, size: Some(size), pending });
            }
        }
        Event::Moved { session, from, failed } => {
            let to = from + 1;
            let former = model.get(&session).copied();
            match former {
                Some(known) if known.epoch > to || (known.epoch == to && failed) => {}
                _ => {
                    let size = former.filter(|known| known.epoch == from || known.epoch == to);
                    let known = TableEntry { epoch: to, size: size.and_then(|known| known.size), pending: failed };
                    model.insert(session, known);
                }
            }
        }
        Event::Delivered { session, epoch } => {
            if let Some(known) = model.get_mut(&session).filter(|known| known.epoch == epoch) {
                known.pending = false;
            }
        }
        Event::Forget { session } => drop(model.remove(&session)),
        Event::Rename { session, to } => {
            if let Some(known) = model.remove(&session) {
                model.entry(to).or_insert(known);
            }
        }
    }
    model.retain(|_, known| known.size.is_some() || known.pending);
}

fn apply(world: &World, event: &Event) {
    let key = |session: u8| key(u128::from(session) + 1);
    match *event {
        Event::Keep { session, epoch, size } => drop(world.keep(key(session), epoch, &"x".repeat(size), NOW)),
        Event::Moved { session, from, failed } => world.record_move(key(session), from, failed.then_some("moved")),
        Event::Delivered { session, epoch } => world.data.mark_delivered(&key(session), epoch),
        Event::Forget { session } => world.data.forget(&key(session)),
        Event::Rename { session, to } => world.data.rename(&key(session), key(to)),
    }
}

proptest! {
    #[test]
    fn whatever_happens_it_knows_what_a_plain_map_knows(events in prop::collection::vec(event(), 1..80)) {
        let (world, mut model) = (World::new(1 << 20, 2), HashMap::new());
        for event in &events {
            apply(&world, event);
            applied(&mut model, event);
            for session in 0..6_u8 {
                for epoch in 0..6 {
                    let known = model.get(&session).filter(|known| known.epoch == epoch);
                    let key = key(u128::from(session) + 1);
                    let found = world.found(key, epoch).map(|data| data.len());
                    let right = model.get(&session).filter(|known| known.epoch >= epoch);
                    prop_assert_eq!(found, right.and_then(|known| known.size), "{:?} {:?}", event, session);
                    let pending = world.pending(key, epoch).is_some();
                    prop_assert_eq!(pending, known.is_some_and(|known| known.pending), "{:?} {:?}", event, session);
                }
            }
            prop_assert_eq!(world.sessions(), model.len());
        }
        (1..=6).for_each(|n| world.data.forget(&key(n)));
        prop_assert_eq!((world.data.bytes(), world.data.pending.load(Relaxed)), (0, 0));
    }

    #[test]
    fn whatever_happens_it_takes_no_more_memory_than_it_may(events in prop::collection::vec(event(), 1..200)) {
        let world = World::new(1000, 1);
        for event in &events {
            apply(&world, event);
            prop_assert!(world.data.bytes() <= 1000, "{} after {:?}", world.data.bytes(), event);
        }
    }
}
