//! A client of a real application as a process: led by JSON lines, it says as JSON lines what happens to it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Instant;

use serde_json::Value;

use super::super::guard;
use super::{LONG, Program};

/// A running client.
#[derive(Debug)]
pub(crate) struct Driver {
    child: Child,
    stdin: ChildStdin,
    events: Receiver<Value>,
    /// Everything it said so far, in order.
    said: Vec<Value>,
}

impl Driver {
    /// Starts the application's client with these arguments. What it writes on stderr goes to the test's.
    pub(crate) fn start(program: Program, arguments: &[&str]) -> Self {
        let mut command = program.client();
        let mut child = command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("the client does not start: {e}: {command:?}"));
        guard::watch(&child);
        let stdin = child.stdin.take().expect("its stdin");
        let lines = BufReader::new(child.stdout.take().expect("its stdout")).lines();
        let (sender, events) = mpsc::channel();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if sender.send(event).is_err() {
                    break;
                }
            }
        });
        Self { child, stdin, events, said: Vec::new() }
    }

    /// Tells it to do something.
    #[track_caller]
    pub(crate) fn tell(&mut self, command: &Value) {
        writeln!(self.stdin, "{command}").unwrap_or_else(|e| panic!("the client has ended ({e}): {:?}", self.said));
    }

    /// The next event of that name; others before it are passed over.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, name: &str) -> Value {
        self.wait_for_one_of(&[name])
    }

    /// The next event of one of these names.
    #[track_caller]
    pub(crate) fn wait_for_one_of(&mut self, names: &[&str]) -> Value {
        let deadline = Instant::now() + LONG;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(event) = self.events.recv_timeout(left) else {
                panic!("the client did not say {names:?} within {LONG:?}, only:\n{}", self.transcript());
            };
            self.said.push(event.clone());
            let name = event["event"].as_str().unwrap_or_default();
            if names.contains(&name) {
                return event;
            }
            assert!(name != "failed", "the client failed instead of saying {names:?}: {event}");
        }
    }

    /// Tells it to do something and waits for what comes of it.
    #[track_caller]
    pub(crate) fn ask(&mut self, command: &Value, name: &str) -> Value {
        self.tell(command);
        self.wait_for(name)
    }

    /// How often it has said that so far.
    pub(crate) fn times(&mut self, name: &str) -> usize {
        self.said.extend(self.events.try_iter());
        self.said.iter().filter(|event| event["event"] == name).count()
    }

    fn transcript(&self) -> String {
        let lines: Vec<_> = self.said.iter().map(Value::to_string).collect();
        lines.join("\n")
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        guard::release(&self.child);
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("---- what the client said ----\n{}\n----", self.transcript());
        }
    }
}
