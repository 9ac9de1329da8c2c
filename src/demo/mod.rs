//! `homing demo`: small stateful sample servers to see the proxy work on.
//!
//! By default three, each a shop that keeps its carts in its own memory: the kind of application that Homing is for. The caller runs
//! the proxy on [`Demo::config_file`] and shows [`Demo::banner`]. [`ExampleDemo`] does the same with programs in other languages. Imports nothing of ours and knows the proxy only by
//! its configuration file and its headers.

mod banner;
mod carts;
mod examples;
mod fleet;
mod message;
mod serve;
mod shop;
mod visitors;

use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use tokio::runtime::Runtime;
use uuid::Uuid;

use fleet::{Fleet, SampleServer};

pub use self::banner::{DEFAULT_ADMIN, DEFAULT_LISTEN};
pub use self::examples::{Example, ExampleDemo};

/// Ports of the sample servers, where they are free.
pub const DEFAULT_PORTS: [u16; 3] = [9001, 9002, 9003];
/// Names of trees, and colours near their wood.
const NAMES: [(&str, &str); 3] = [("amber", "#d97706"), ("birch", "#0f8a6d"), ("cedar", "#b4304f")];

/// The running sample servers. They end when this is dropped.
pub struct Demo {
    fleet: Arc<Fleet>,
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
    /// Holds only the two files below.
    folder: PathBuf,
    config_file: PathBuf,
    /// The secret that seals this demo's tokens, where `homing explain` finds it too.
    secret_file: PathBuf,
    notices: Vec<String>,
}

/// Starts the sample servers, on the given ports or, where one is taken, on a free one.
///
/// # Errors
/// When the loopback address has no free port, or the system no thread.
pub fn start(ports: [u16; 3]) -> io::Result<Demo> {
    let mut notices = Vec::new();
    let mut servers = Vec::new();
    let mut listeners = Vec::new();
    for ((name, colour), port) in NAMES.into_iter().zip(ports) {
        let wanted = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listener = match TcpListener::bind(wanted) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?,
            other => other?,
        };
        let address = listener.local_addr()?;
        if port != 0 && address != wanted {
            notices.push(format!("{wanted} is taken, so {name} listens on {address}"));
        }
        servers.push(SampleServer::new(name, colour, address));
        listeners.push(listener);
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("demo").enable_all().build()?;
    let fleet = Arc::new(Fleet { servers });
    {
        let _context = runtime.enter();
        for (index, listener) in listeners.into_iter().enumerate() {
            serve::serve(&fleet, index, listener)?;
        }
    }
    let folder = std::env::temp_dir().join(format!("homing-demo-{}", Uuid::new_v4().simple()));
    Ok(Demo {
        fleet,
        runtime: Some(runtime),
        config_file: folder.join("homing.yaml"),
        secret_file: folder.join("key"),
        folder,
        notices,
    })
}

/// The preferred address if it is free, else a free port of the same host.
///
/// # Errors
/// When the address is not `IP:port`, or cannot be listened on for another reason than being taken.
pub fn free_address(preferred: &str) -> io::Result<String> {
    let address: SocketAddr = preferred.parse().map_err(|error| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("{preferred} is not IP:port ({error})"))
    })?;
    match TcpListener::bind(address) {
        Ok(_listener) => Ok(preferred.to_owned()),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            Ok(TcpListener::bind((address.ip(), 0))?.local_addr()?.to_string())
        }
        Err(error) => Err(error),
    }
}

impl Demo {
    /// Name and address of each sample server.
    pub fn servers(&self) -> Vec<(&'static str, SocketAddr)> {
        self.fleet.servers.iter().map(|server| (server.name, server.address)).collect()
    }

    /// The configuration that the proxy runs with. It names the file of the secret, which [`Demo::config_file`] writes.
    pub fn config_yaml(&self, listen: &str, admin: &str) -> String {
        let mut yaml = format!(
            "# Written by `homing demo`. Change it while the demo runs: it is read again when saved.\n\
             version: 1\n\
             listeners:\n  - address: \"{listen}\"\n\
             pools:\n  shop:\n    servers:\n"
        );
        for server in &self.fleet.servers {
            // Writing to a String does not fail.
            let _ = writeln!(yaml, "      - {{ name: {}, address: \"{}\" }}", server.name, server.address);
        }
        let _ = write!(
            yaml,
            "    health_check: {{ type: http, path: /healthz, interval: 1s, timeout: 500ms, rise: 1, fall: 2 }}\n\
             \x20   persistence: {{ handoff: {{ enabled: true }} }}\n\
             keys:\n  - {{ id: demo, secret: \"${{file:{}}}\" }}\n\
             admin: {{ address: \"{admin}\" }}\n",
            self.secret_file.display()
        );
        yaml
    }

    /// Writes [`Demo::config_yaml`] and a new secret to files that only this user can read, in a separate folder (the proxy
    /// watches the folder), and returns the configuration's path. All is removed with the demo.
    ///
    /// # Errors
    /// When the files cannot be written, or exist already.
    pub fn config_file(&self, listen: &str, admin: &str) -> io::Result<&Path> {
        let mut folder = fs::DirBuilder::new();
        let mut file = fs::OpenOptions::new();
        file.write(true).create_new(true);
        #[cfg(unix)]
        {
            std::os::unix::fs::DirBuilderExt::mode(&mut folder, 0o700);
            std::os::unix::fs::OpenOptionsExt::mode(&mut file, 0o600);
        }
        folder.create(&self.folder)?;
        let secret = format!("{}{}\n", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        file.open(&self.secret_file)?.write_all(secret.as_bytes())?;
        file.open(&self.config_file)?.write_all(self.config_yaml(listen, admin).as_bytes())?;
        Ok(&self.config_file)
    }

    /// A little load on the proxy, so that its dashboard has something to show.
    pub fn begin_visits(&self, listen: &str) {
        let Some(runtime) = &self.runtime else { return };
        for number in 0..visitors::VISITORS {
            runtime.spawn(visitors::visit(listen.to_owned(), number));
        }
    }

    /// The text for the terminal: where everything is, and what to try.
    pub fn banner(&self, listen: &str, admin: &str) -> String {
        banner::banner(&self.fleet, &self.config_file, &self.notices, listen, admin)
    }

    /// Runs a line typed in the terminal, which stops or starts a server by number or name; returns the text to show.
    pub fn command(&self, line: &str) -> String {
        let word = line.trim();
        let chosen = self.fleet.servers.iter().enumerate().find(|(index, server)| {
            server.name.eq_ignore_ascii_case(word) || word.parse() == Ok(index.saturating_add(1))
        });
        let mut text = match chosen {
            Some((index, server)) if server.is_up() => {
                self.stop(index);
                format!("{} is stopped: it refuses connections, and its carts are lost.\n", server.name)
            }
            Some((index, server)) => match self.start(index) {
                Ok(()) => format!("{} runs again, with an empty memory.\n", server.name),
                Err(error) => format!("{} cannot start on {}: {error}.\n", server.name, server.address),
            },
            None if word.is_empty() => String::new(),
            None => "Type 1, 2 or 3 and Enter.\n".to_owned(),
        };
        for (number, server) in (1..).zip(&self.fleet.servers) {
            let state = if server.is_up() { "runs" } else { "is stopped" };
            let (name, requests, carts) = (server.name, server.request_count(), server.cart_count());
            let _ = writeln!(text, "  {number}  {name:<6} {state}; requests: {requests}, carts: {carts}");
        }
        text
    }

    /// Runs the lines of standard input as commands, on a separate thread, until its end. `show` prints their results.
    ///
    /// # Errors
    /// When the system has no thread.
    pub fn read_commands(self: &Arc<Self>, show: impl Fn(&str) + Send + 'static) -> io::Result<()> {
        // Weak: a thread that waits for a key must not keep the demo alive.
        let demo = Arc::downgrade(self);
        let read = move || {
            for line in io::stdin().lock().lines() {
                let (Ok(line), Some(demo)) = (line, demo.upgrade()) else {
                    return;
                };
                show(&demo.command(&line));
            }
        };
        std::thread::Builder::new().name("demo-keys".to_owned()).spawn(read).map(drop)
    }

    fn start(&self, index: usize) -> io::Result<()> {
        let _context = self.runtime.as_ref().map(Runtime::enter);
        serve::start(&self.fleet, index)
    }

    fn stop(&self, index: usize) {
        let Some(runtime) = &self.runtime else { return };
        let fleet = Arc::clone(&self.fleet);
        let (done, wait) = mpsc::channel();
        runtime.spawn(async move {
            if let Some(server) = fleet.servers.get(index) {
                server.stop().await;
            }
            let _ = done.send(());
        });
        // An error means that the task is gone, and the runtime with it.
        let _ = wait.recv();
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Not `drop(runtime)`, which waits and may not be done inside another runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        // They were perhaps never written. Only these two: a file that an editor left in the folder stays.
        let _ = fs::remove_file(&self.secret_file);
        let _ = fs::remove_file(&self.config_file);
        let _ = fs::remove_dir(&self.folder);
    }
}

#[cfg(test)]
mod tests;
