//! What becomes of the store and of the ways to it.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use homing::config::ServerState;
use homing::pool::condition::Health;
use parking_lot::Mutex;
use rand::Rng;
use rand::seq::SliceRandom;

use super::world::World;
use crate::engine::{Announcements, Answers, Faults};
use crate::request::Behaviour;

/// Each operation goes as it likes, the same for the same seed whatever the order in which names are asked for.
fn restless(seed: u64) -> Faults {
    let asked = Mutex::new(BTreeMap::<(&'static str, String), u64>::new());
    Box::new(move |operation, name| {
        let mut asked = asked.lock();
        let times = asked.entry((operation, name.to_owned())).or_default();
        *times += 1;
        let mut hash = DefaultHasher::new();
        (seed, operation, name, *times).hash(&mut hash);
        match hash.finish() % 100 {
            0..50 => Answers::AtOnce,
            50..70 => Answers::Late(Duration::from_millis(20)),
            // Done in time with a late reply; and done after all callers have given up.
            70..78 => Answers::Late(Duration::from_millis(80)),
            78..84 => Answers::Late(Duration::from_millis(600)),
            84..88 => Answers::Never,
            88..92 => Answers::NeverThoughDone,
            92..96 => Answers::Refuses,
            _ => Answers::Unreachable,
        }
    })
}

impl World {
    pub fn store_fails(&self) {
        let nodes = self.nodes.borrow().clone();
        let node = nodes.choose(&mut *self.random.borrow_mut()).expect("there are some");
        let all = self.ratio(1, 3);
        let what = self.draw(9);
        self.note(format!("store fault {what} for {}", if all { "all".into() } else { node.number.to_string() }));
        for node in nodes.iter().filter(|one| all || one.number == node.number) {
            match what {
                0 | 1 => node.link.breaks(),
                2 => node.link.answers(Answers::Never),
                3 => node.link.answers(Answers::NeverThoughDone),
                4 => node.link.answers(Answers::Refuses),
                5 | 6 => node.link.faults(Some(restless(self.random.borrow_mut().r#gen()))),
                7 => node.link.announcements(Announcements::Lost),
                _ => node.link.announcements(Announcements::HeldBack),
            }
        }
    }

    pub fn store_heals(&self) {
        let nodes = self.nodes.borrow().clone();
        let node = nodes.choose(&mut *self.random.borrow_mut()).expect("there are some");
        self.note(format!("the store is well for {}", node.number));
        self.link_heals(node.number);
    }

    pub fn link_heals(&self, at: usize) {
        let node = self.node(at);
        node.link.faults(None);
        node.link.announcements(Announcements::Delivered);
        node.link.reconnects();
        node.link.delivers();
    }

    pub fn store_is_emptied(&self) {
        // Some notice by their connection, others by nothing.
        let told = self.ratio(3, 4);
        self.note(format!("the store is emptied, told: {told}"));
        self.saw("the store was emptied");
        self.shared.forget_everything();
        self.ledger.borrow_mut().store_forgot(told);
        if told {
            for node in &*self.nodes.borrow() {
                node.link.breaks();
                node.link.reconnects();
            }
        }
    }

    pub fn server_changes(&self) {
        let name = self.any_server();
        let all = [Behaviour::Answers, Behaviour::Refuses, Behaviour::Refuses, Behaviour::BreaksOff];
        let behaviour = *all.choose(&mut *self.random.borrow_mut()).expect("there are some");
        self.note(format!("{name} {behaviour:?}"));
        self.truth.borrow_mut().insert(name, behaviour);
    }

    /// One proxy's checks of one server come to a verdict, mostly a true one.
    pub fn checks(&self) {
        let name = self.any_server();
        let at = self.draw_at(self.nodes.borrow().len());
        let lies = self.ratio(1, 4);
        let down = (self.behaviour(&name) == Behaviour::Refuses) != lies;
        self.note(format!("{at} finds {name} {}", if down { "down" } else { "up" }));
        self.node(at).check(&name, if down { Health::Down } else { Health::Up });
    }

    pub fn checks_all(&self) {
        self.note("all proxies check all servers");
        let names: Vec<_> = self.setup.borrow().servers.iter().map(|server| server.name.clone()).collect();
        for name in names {
            let verdict = if self.behaviour(&name) == Behaviour::Refuses { Health::Down } else { Health::Up };
            for node in &*self.nodes.borrow() {
                node.check(&name, verdict);
            }
        }
    }

    /// The operator drains a server or takes it back; the proxies hear of it one after the other.
    pub fn drains(&self) {
        let name = self.any_server();
        let drained = self.ratio(1, 2);
        self.note(format!("{name} drains: {drained}"));
        for server in self.setup.borrow_mut().servers.iter_mut().filter(|server| server.name == name) {
            server.state = if drained { ServerState::Drain } else { ServerState::Ready };
        }
        for node in &*self.nodes.borrow() {
            if self.ratio(2, 3) {
                node.reload(&self.setup.borrow());
            }
        }
    }

    pub fn any_server(&self) -> String {
        let setup = self.setup.borrow();
        setup.servers.choose(&mut *self.random.borrow_mut()).expect("there are some").name.clone()
    }
}
