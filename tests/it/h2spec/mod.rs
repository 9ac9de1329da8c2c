//! The cases of h2spec 2.6 (github.com/summerwind/h2spec), a suite for RFC 7540 and 7541, under its numbers and titles.
//!
//! The proxy passes all of them. In some it names another error than the RFC does when it closes the connection, which h2spec
//! does not look at: the table says so, and a test fails when that changes.

mod generic;
mod hpack;
mod http2_flow;
mod http2_frames;
mod http2_messages;
mod http2_streams;
mod peer;

use std::collections::BTreeSet;
use std::thread;

use crate::world::frames::code;
use crate::world::tls::{Authority, Client};
use crate::world::{Conf, Wire, World};

use peer::{Outcome, Peer, Want};

/// Cases are played by so many at once.
const PLAYERS: usize = 8;

/// A case of h2spec.
struct Case {
    /// Its number, e.g. `http2/6.5.3/2`.
    number: &'static str,
    title: &'static str,
    /// What must come of it.
    want: Want,
    /// What the client sends, and what it waits for in between.
    play: fn(&mut Peer),
    /// The client sends the preface itself.
    without_preface: bool,
    /// It passes, since the connection is closed, but with `PROTOCOL_ERROR` instead of the code that the RFC names.
    with_protocol_error: bool,
}

const fn case(number: &'static str, title: &'static str, want: Want, play: fn(&mut Peer)) -> Case {
    Case { number, title, want, play, without_preface: false, with_protocol_error: false }
}

impl Case {
    const fn without_preface(self) -> Self {
        Self { without_preface: true, ..self }
    }

    const fn with_protocol_error(self) -> Self {
        Self { with_protocol_error: true, ..self }
    }

    /// What is wrong with how it ended; `None`: it ended as the table says.
    fn fault(&self, wire: Wire) -> Option<String> {
        let mut peer = Peer::new(wire);
        if !self.without_preface {
            peer.begin();
        }
        (self.play)(&mut peer);
        let outcome = match peer.wait(self.want) {
            Outcome::Passed if !self.with_protocol_error => return None,
            Outcome::OtherCode(code::PROTOCOL_ERROR) if self.with_protocol_error => return None,
            Outcome::Passed => "it passes, with the code of the RFC".to_owned(),
            Outcome::OtherCode(other) => format!("it passes, but with GOAWAY {}", code::name(other)),
            Outcome::Failed => "it fails".to_owned(),
        };
        Some(format!("{} {}: {outcome} ({})", self.number, self.title, peer.seen()))
    }
}

/// All of them, in the order of the suite.
fn cases() -> Vec<&'static Case> {
    let files = [
        generic::CASES,
        generic::HPACK,
        hpack::CASES,
        http2_frames::FORMAT,
        http2_streams::CASES,
        http2_frames::DEFINITIONS,
        http2_flow::CASES,
        http2_messages::CASES,
    ];
    files.iter().copied().flatten().collect()
}

/// Plays the cases, and says which ended otherwise than the table says.
fn play(cases: &[&Case], connect: impl Fn() -> Wire + Sync) {
    let connect = &connect;
    let faults: Vec<String> = thread::scope(|scope| {
        let players: Vec<_> = (0..PLAYERS)
            .map(|player| {
                let part = cases.iter().skip(player).step_by(PLAYERS);
                scope.spawn(move || part.filter_map(|case| case.fault(connect())).collect::<Vec<_>>())
            })
            .collect();
        players.into_iter().flat_map(|player| player.join().expect("a player")).collect()
    });
    assert!(faults.is_empty(), "{} of {} cases:\n{}", faults.len(), cases.len(), faults.join("\n"));
}

#[test]
fn the_table_has_every_case_of_h2spec() {
    let cases = cases();
    let numbers: BTreeSet<&str> = cases.iter().map(|case| case.number).collect();
    assert_eq!(numbers.len(), cases.len(), "a number stands twice");
    // One of them only with h2spec's --strict.
    assert_eq!(cases.len(), 146 + 1);
    // docs/security.md says so.
    assert_eq!(cases.iter().filter(|case| case.with_protocol_error).count(), 21);
}

#[test]
fn the_cases_of_h2spec_pass() {
    let world = World::start(Conf::servers("a"));
    play(&cases(), || world.wire());
    assert_eq!(world.browser().server(), "a", "the proxy lives on");
    world.expect_metric("homing_panics_total", &[], 0.0);
}

#[test]
fn the_cases_of_h2spec_pass_over_tls() {
    let authority = Authority::new();
    let host = "shop.example.org";
    let conf = Conf::servers("a").listener("tls: { certificates: [{ cert: a.pem, key: a.key }] }");
    let world =
        World::builder(conf).before(|environment| drop(authority.issue(environment.directory(), "a", &[host]))).start();
    play(&cases(), || Client::new(&authority).protocols(&["h2"]).connect(&world.address, host));
    world.expect_metric("homing_panics_total", &[], 0.0);
}
