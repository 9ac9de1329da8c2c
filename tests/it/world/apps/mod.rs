//! Real applications as processes: three nodes of one, each with its sessions in its own memory, killed and started
//! again on the same port, and gone when the test is.

pub(crate) mod chromium;
pub(crate) mod driver;
pub(crate) mod page;
mod program;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use super::client::Wire;
use super::net::Address;
use super::ports::Port;
use super::{Conf, eventually, guard};
pub(crate) use driver::Driver;
pub(crate) use program::{CHROMIUM, GRPC, MCP, OTLP, Program, SOCKET_IO, WSGI};

/// A machine with two cores starts many processes at once when all tests run.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// The nodes of one application, by name.
#[derive(Debug)]
pub(crate) struct Nodes {
    nodes: BTreeMap<String, Node>,
    _directory: TempDir,
}

#[derive(Debug)]
struct Node {
    name: String,
    port: Port,
    log: PathBuf,
    program: Program,
    child: Mutex<Option<Child>>,
}

impl Nodes {
    /// Starts a node of each name and waits until all answer.
    pub(crate) fn start(program: Program, names: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("homing-apps-").tempdir().expect("a directory for the nodes");
        let node = |name: &str| Node {
            name: name.to_owned(),
            port: Port::reserve(),
            log: directory.path().join(format!("{name}.log")),
            program,
            child: Mutex::default(),
        };
        let nodes: BTreeMap<_, _> = names.split_whitespace().map(|name| (name.to_owned(), node(name))).collect();
        nodes.values().for_each(Node::spawn);
        nodes.values().for_each(Node::wait_until_it_answers);
        Self { nodes, _directory: directory }
    }

    /// A configuration whose pool has exactly these servers.
    pub(crate) fn conf(&self) -> Conf {
        let names: Vec<_> = self.nodes.keys().map(String::as_str).collect();
        let conf = Conf::servers(&names.join(" "));
        self.nodes.values().fold(conf, |conf, node| conf.address(&node.name, &node.port.address().to_string()))
    }

    /// SIGKILL: connections are reset, the port refuses, sessions are gone.
    pub(crate) fn kill(&self, name: &str) {
        self.node(name).kill();
    }

    /// A new process on the same port; it knows no session.
    pub(crate) fn start_again(&self, name: &str) {
        let node = self.node(name);
        node.spawn();
        node.wait_until_it_answers();
    }

    /// Where a node listens.
    pub(crate) fn address(&self, name: &str) -> Address {
        self.node(name).port.address().into()
    }

    fn node(&self, name: &str) -> &Node {
        self.nodes.get(name).unwrap_or_else(|| panic!("there is no node {name}"))
    }
}

impl Node {
    fn spawn(&self) {
        let log = File::options().create(true).append(true).open(&self.log).expect("a file for the node's log");
        let mut command = self.program.server();
        let child = command
            .args([&self.name, &self.port.address().port().to_string()])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the same file"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|e| panic!("node {} does not start: {e}: {command:?}", self.name));
        guard::watch(&child);
        *self.child() = Some(child);
    }

    #[track_caller]
    fn wait_until_it_answers(&self) {
        eventually(LONG, &format!("node {} answers", self.name), || {
            let ended = self.child().as_mut().expect("it was started").try_wait().expect("its state");
            assert!(ended.is_none(), "node {} ended at its start: {ended:?}\n{}", self.name, self.log());
            self.answers().unwrap_or(false)
        });
    }

    fn answers(&self) -> std::io::Result<bool> {
        let mut wire = Wire::try_connect(&Address::from(self.port.address()))?;
        if !self.program.speaks_http1() {
            return Ok(true);
        }
        wire.try_send("GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        Ok(wire.try_receive("GET")?.status == 200)
    }

    fn kill(&self) {
        let child = self.child().take();
        if let Some(mut child) = child {
            guard::release(&child);
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    fn child(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        let log = self.log();
        if thread::panicking() && !log.is_empty() {
            eprintln!("---- log of node {} ----\n{log}----", self.name);
        }
    }
}
