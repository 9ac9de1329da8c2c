//! New processes that are broken in all kinds of ways, at every step of a takeover: clients notice nothing, and the process that
//! serves goes on.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::upgrade::{assert_ends_well, both, replace, run_upgrade, socket, upgrade, with_program};
use crate::world::app::answers::saying;
use crate::world::client::get_with;
use crate::world::proxy::binary;
use crate::world::traffic::under_traffic;
use crate::world::{Address, PATIENCE, QUICK_CHECK, Signal, World, eventually};

const MOVES: &str = "homing_session_moves_total";

/// A script in the place of the program; `$REAL` is the program.
fn script(text: &str) -> impl FnOnce(&Path) {
    let text = format!("#!/bin/sh\nREAL={}\n{text}\n", binary().display());
    move |aside: &Path| {
        fs::write(aside, text).expect("a script");
        fs::set_permissions(aside, fs::Permissions::from_mode(0o755)).expect("an executable file");
    }
}

/// Runs `homing upgrade` with each script, under traffic.
fn assert_nothing_is_noticed(world: &World, program: &Path, cases: &[(&str, &str)]) {
    let address = world.address.clone();
    under_traffic(&address, |traffic| {
        traffic.await_requests(20);
        for (text, why) in cases {
            replace(program, script(text));
            let output = run_upgrade(world);
            assert_eq!(output.status.code(), Some(1), "{text}: {output:?}");
            let message = String::from_utf8_lossy(&output.stderr);
            assert!(message.contains(why), "{text}: {why}: {message}");
            traffic.await_requests(50);
        }
    });
    assert!(world.is_running());
    assert_eq!(world.metric(MOVES, &[]), 0.0);
}

#[test]
fn no_client_notices_a_new_program_that_ends_before_it_serves() {
    // Forty more sockets, so that a process can have room for some of them only; and a server that does not answer the first
    // check, so that a process takes its time between the sockets and "ready".
    let unix: Vec<_> = (0..40).map(|n| format!("  - {{ address: \"unix:{{{{dir}}}}/l{n}.sock\" }}\n")).collect();
    let unix = unix.concat();
    let check = QUICK_CHECK.replace("timeout: 250ms", "timeout: 3s").replace("interval: 250ms", "interval: 3s");
    let conf = both("a b c d").server("d", "weight: 0").pool(&check).to_string().replacen(
        "listeners:\n",
        &format!("listeners:\n{unix}"),
        1,
    );
    let (world, program) = with_program(conf);
    let ready = |then: &str| {
        format!(
            "[ \"$1\" = check ] && exec \"$REAL\" \"$@\"\nlog=$(mktemp)\n\"$REAL\" \"$@\" 2>\"$log\" & pid=$!\n\
             until grep -q 'taking over' \"$log\"; do sleep 0.01; done\n{then}\nwait $pid\nexit $?"
        )
    };
    let cases = [
        ("exit 1".to_owned(), "check\" ended with exit status: 1"),
        ("[ \"$1\" = check ] && { echo 'error: bad' >&2; exit 78; }\nexec \"$REAL\" \"$@\"".to_owned(), "error: bad"),
        ("[ \"$1\" = check ] && exit 0\nexit 3".to_owned(), "exit status: 3"),
        // Half of the sockets.
        (
            "[ \"$1\" = check ] && exec \"$REAL\" \"$@\"\nulimit -n 36\nexec \"$REAL\" \"$@\"".to_owned(),
            "the new process",
        ),
        // All of them, but none for the sessions or for what it opens itself.
        (
            "[ \"$1\" = check ] && exec \"$REAL\" \"$@\"\nulimit -n 46\nexec \"$REAL\" \"$@\"".to_owned(),
            "the new process",
        ),
        (ready("kill -KILL $pid"), "the new process ended"),
        (ready("kill -STOP $pid; sleep 2; kill -KILL $pid"), "the new process ended"),
    ];
    world.app("d").freeze();
    let cases: Vec<_> = cases.iter().map(|(text, why)| (text.as_str(), *why)).collect();
    assert_nothing_is_noticed(&world, &program, &cases);
}

#[test]
fn no_client_notices_a_new_program_that_starts_and_does_nothing() {
    let (world, program) = with_program(both("a b c"));
    let hangs = "[ \"$1\" = check ] && exit 0\nexec sleep 1000";
    assert_nothing_is_noticed(&world, &program, &[(hangs, "does not listen on")]);
}

/// The test in the place of the new process: it speaks the protocol of an upgrade as far as it is told.
struct Successor {
    listener: UnixListener,
}

impl Successor {
    fn listen(world: &World) -> Self {
        // Left by the one before.
        let _ = fs::remove_file(socket(world));
        Self { listener: UnixListener::bind(socket(world)).expect("the upgrade socket") }
    }

    /// The connection of the process that serves, and how many sockets it announces.
    fn accept(&self) -> (Channel, usize) {
        let (stream, _) = self.listener.accept().expect("the process that serves");
        stream.set_read_timeout(Some(2 * PATIENCE)).expect("a timeout");
        let mut channel = Channel(stream);
        let hello = channel.receive();
        let sockets = hello["hello"]["listeners"].as_array().expect("listeners").len();
        (channel, sockets)
    }
}

struct Channel(UnixStream);

impl Channel {
    fn receive(&mut self) -> Value {
        let mut length = [0; 4];
        self.0.read_exact(&mut length).expect("a message");
        let mut text = vec![0; usize::try_from(u32::from_be_bytes(length)).expect("a length")];
        self.0.read_exact(&mut text).expect("the whole message");
        serde_json::from_slice(&text).expect("JSON")
    }

    /// Takes descriptors, and closes them.
    fn take_descriptors(&mut self, count: usize) {
        self.0.read_exact(&mut vec![0; count]).expect("a byte with each descriptor");
    }

    fn send(&mut self, message: &Value) {
        let text = message.to_string();
        let length = u32::try_from(text.len()).expect("a short message").to_be_bytes();
        self.0.write_all(&[&length, text.as_bytes()].concat()).expect("the process that serves takes it");
    }

    fn say_ready(&mut self) {
        self.send(&json!({ "ready": { "pid": 1, "version": "9.9.9" } }));
    }

    /// Confirms changes of sessions until it may accept connections.
    fn await_go(&mut self) {
        loop {
            match self.receive() {
                message if message == "go" => return,
                message if message == "ping" => self.send(&json!("pong")),
                _ => {}
            }
        }
    }
}

/// A takeover that ends at this step: with the number of sockets, the address of the proxy, and how long a hundred sessions take
/// to begin there.
type Step = fn(Channel, usize, (&Address, Duration));

const STEPS: [(&str, Step); 7] = [
    ("dies before the sockets", |_channel, _, _| {}),
    ("dies with half of the sockets", |mut channel, sockets, _| channel.take_descriptors(sockets / 2)),
    ("dies with all sockets", |mut channel, sockets, _| channel.take_descriptors(sockets + 1)),
    ("says that it cannot start", |mut channel, sockets, _| {
        channel.take_descriptors(sockets + 1);
        channel.send(&json!({ "failure": "on purpose" }));
    }),
    ("dies when it is ready", |mut channel, sockets, _| {
        channel.take_descriptors(sockets + 1);
        channel.say_ready();
    }),
    ("is ready and says nothing more", |mut channel, sockets, (address, usual)| {
        channel.take_descriptors(sockets + 1);
        channel.say_ready();
        assert_sessions_begin(address, usual);
    }),
    ("may serve, and says nothing more", |mut channel, sockets, (address, usual)| {
        channel.take_descriptors(sockets + 1);
        channel.say_ready();
        channel.await_go();
        assert_sessions_begin(address, usual);
    }),
];

/// Sessions go on beginning: a request or two wait for a process that does not confirm its session, and no more.
fn assert_sessions_begin(address: &Address, usual: Duration) {
    let silent = begin_sessions(address);
    assert!(silent < 3 * usual + Duration::from_secs(3), "100 sessions took {silent:?}, and {usual:?} before");
}

/// How long a hundred sessions take to begin.
fn begin_sessions(address: &Address) -> Duration {
    let start = Instant::now();
    for n in 0..100 {
        get_with(address, &saying(200, &[&format!("Set-Cookie: SID=of-a-hundred-{n}; Path=/")]), &[]).expect(200);
    }
    start.elapsed()
}

#[test]
fn no_client_notices_a_new_process_that_dies_or_falls_silent_at_any_step() {
    let mut world = World::start(both("a b c"));
    let address = world.address.clone();
    let old = under_traffic(&address, |traffic| {
        traffic.await_requests(20);
        let usual = begin_sessions(&address);
        for (number, (what, step)) in STEPS.iter().enumerate() {
            let successor = Successor::listen(&world);
            world.signal(Signal::SIGQUIT);
            let (channel, sockets) = successor.accept();
            assert_eq!(sockets, 2, "{what}");
            step(channel, sockets, (&address, usual));
            eventually(PATIENCE, what, || world.log().matches("this process serves on").count() == number + 1);
            traffic.await_requests(50);
        }
        // And one that works.
        let _ = fs::remove_file(socket(&world));
        let old = upgrade(&mut world);
        traffic.await_requests(50);
        old
    });
    assert_eq!(world.metric(MOVES, &[]), 0.0);
    assert_ends_well(&old, Duration::from_secs(20));
}
