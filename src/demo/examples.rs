//! Demos whose sample servers are programs in the languages that such applications are written in: `examples/bank` (Python)
//! and `examples/workspace` (Node). They are written to a folder of their own and run as processes.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use uuid::Uuid;

/// A sample server that has ended starts again after this time, with an empty memory.
const RESTART_AFTER: Duration = Duration::from_secs(10);
/// Between two looks at the processes.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// An application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Example {
    /// A bank transfer of several steps.
    Bank,
    /// A workspace of two tenants in two versions.
    Workspace,
}

/// What an example is made of.
struct Parts {
    interpreter: &'static str,
    hint: &'static str,
    script: (&'static str, &'static str),
    page: &'static str,
    /// Name and pool.
    servers: &'static [(&'static str, &'static str)],
    /// With `@NAME@` for a server's address, `@LISTEN@`, `@ADMIN@` and `@FOLDER@`.
    config: &'static str,
    /// Where to look.
    hosts: &'static [&'static str],
}

const BANK: Parts = Parts {
    interpreter: "python3",
    hint: "the bank is written in Python: install python3, 3.9 or newer",
    script: ("server.py", include_str!("../../examples/bank/server.py")),
    page: include_str!("../../examples/bank/page.html"),
    servers: &[("amber", "bank"), ("birch", "bank"), ("cedar", "bank")],
    config: include_str!("../../examples/bank/homing.yaml"),
    hosts: &["127.0.0.1"],
};

const WORKSPACE: Parts = Parts {
    interpreter: "node",
    hint: "the workspace is written for Node: install node, 18 or newer",
    script: ("server.js", include_str!("../../examples/workspace/server.js")),
    page: include_str!("../../examples/workspace/page.html"),
    servers: &[("amber", "v1"), ("birch", "v1"), ("cedar", "v2"), ("dogwood", "v2")],
    config: include_str!("../../examples/workspace/homing.yaml"),
    hosts: &["acme.localhost", "globex.localhost"],
};

/// The running sample servers of an example. They end when this is dropped.
pub struct ExampleDemo {
    parts: &'static Parts,
    folder: PathBuf,
    config_file: PathBuf,
    listen: String,
    admin: String,
    servers: Vec<SampleProcess>,
}

struct SampleProcess {
    name: &'static str,
    pool: &'static str,
    address: String,
    state: Mutex<State>,
}

enum State {
    Runs(Child),
    EndedAt(Instant),
}

impl ExampleDemo {
    /// Writes the example's files and starts its servers.
    ///
    /// # Errors
    /// When a file cannot be written, or the interpreter is not installed.
    pub fn start(example: Example, listen: &str, admin: &str) -> io::Result<Self> {
        let parts = match example {
            Example::Bank => &BANK,
            Example::Workspace => &WORKSPACE,
        };
        let folder = std::env::temp_dir().join(format!("homing-demo-{}", Uuid::new_v4().simple()));
        let mut new = fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut new, 0o700);
        new.create(&folder)?;
        let mut demo = Self {
            parts,
            config_file: folder.join("homing.yaml"),
            folder,
            listen: listen.to_owned(),
            admin: admin.to_owned(),
            servers: Vec::new(),
        };
        fs::write(demo.folder.join(parts.script.0), parts.script.1)?;
        fs::write(demo.folder.join("page.html"), parts.page)?;
        for (name, pool) in parts.servers {
            let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.to_string();
            let server = SampleProcess { name, pool, address, state: Mutex::new(State::EndedAt(Instant::now())) };
            *server.state.lock() = State::Runs(demo.spawn(&server)?);
            demo.servers.push(server);
        }
        let key = demo.folder.join("key");
        fs::write(&key, format!("{}{}\n", Uuid::new_v4().simple(), Uuid::new_v4().simple()))?;
        fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        fs::write(&demo.config_file, demo.config_yaml())?;
        Ok(demo)
    }

    /// The configuration that the proxy runs with.
    pub fn config_file(&self) -> &Path {
        &self.config_file
    }

    fn config_yaml(&self) -> String {
        let own =
            self.servers.iter().map(|server| (format!("@{}@", server.name.to_uppercase()), server.address.as_str()));
        let folder = self.folder.to_string_lossy();
        let ends = [("@LISTEN@", &*self.listen), ("@ADMIN@", &*self.admin), ("@FOLDER@", &*folder)];
        let ends = ends.map(|(word, value)| (word.to_owned(), value));
        own.chain(ends).fold(self.parts.config.to_owned(), |text, (word, value)| text.replace(&word, value))
    }

    fn spawn(&self, server: &SampleProcess) -> io::Result<Child> {
        let port = server.address.rsplit(':').next().unwrap_or_default();
        let mut command = Command::new(self.parts.interpreter);
        command.arg(self.folder.join(self.parts.script.0)).arg(server.name).arg(port).arg(&self.folder);
        command.arg(&self.admin).arg(server.pool);
        // It ends with its input, so that it does not outlive a demo that was killed.
        command.stdin(Stdio::piped());
        command.spawn().map_err(|error| io::Error::new(error.kind(), format!("{} ({error})", self.parts.hint)))
    }

    /// The text for the terminal.
    pub fn banner(&self) -> String {
        let mut text = String::from(
            "\nHoming demo: sample servers that keep sessions in their own memory, one proxy before them.\n\n",
        );
        let port = self.listen.rsplit(':').next().unwrap_or_default();
        // Writing to a String does not fail.
        for (number, server) in (1..).zip(&self.servers) {
            let _ = writeln!(text, "  {number}  {:<8} http://{}", server.name, server.address);
        }
        for host in self.parts.hosts {
            let _ = writeln!(
                text,
                "     proxy    http://{host}:{port}/    <- open this in a browser; the page says what to try"
            );
        }
        let _ = writeln!(text, "     admin    http://{}    the dashboard", self.admin);
        let _ =
            writeln!(text, "     file     {}    (change it: it is read again when saved)", self.config_file.display());
        text.push_str(
            "\nHere: a number and Enter kills a server, which starts again after ten seconds; Ctrl-C ends the demo.\n",
        );
        text
    }

    /// Starts servers again that have ended, and kills those whose number is typed, on separate threads.
    ///
    /// # Errors
    /// When the system has no thread.
    pub fn watch(self: &Arc<Self>, show: impl Fn(&str) + Send + 'static) -> io::Result<()> {
        // Weak: a thread that waits must not keep the demo alive.
        let demo = Arc::downgrade(self);
        let look = move || {
            while let Some(demo) = demo.upgrade() {
                demo.restart_ended();
                drop(demo);
                thread::park_timeout(LOOK_EVERY);
            }
        };
        thread::Builder::new().name("demo-servers".to_owned()).spawn(look)?;
        let demo = Arc::downgrade(self);
        let read = move || {
            for line in io::stdin().lock().lines() {
                let (Ok(line), Some(demo)) = (line, demo.upgrade()) else { return };
                show(&demo.command(&line));
            }
        };
        thread::Builder::new().name("demo-keys".to_owned()).spawn(read).map(drop)
    }

    fn restart_ended(&self) {
        for server in &self.servers {
            let mut state = server.state.lock();
            let next = match &mut *state {
                State::Runs(child) => {
                    child.try_wait().is_ok_and(|ended| ended.is_some()).then(|| State::EndedAt(Instant::now()))
                }
                State::EndedAt(at) => (at.elapsed() >= RESTART_AFTER)
                    .then(|| self.spawn(server).map_or_else(|_| State::EndedAt(Instant::now()), State::Runs)),
            };
            if let Some(next) = next {
                *state = next;
            }
        }
    }

    fn command(&self, line: &str) -> String {
        let chosen = (1..).zip(&self.servers).find(|(number, _)| line.trim().parse() == Ok::<usize, _>(*number));
        let Some((_, server)) = chosen else { return "Type the number of a server and Enter.\n".to_owned() };
        match &mut *server.state.lock() {
            State::Runs(child) => match child.kill() {
                Ok(()) => format!("{} is killed; it starts again after ten seconds.\n", server.name),
                Err(error) => format!("{} cannot be killed: {error}.\n", server.name),
            },
            State::EndedAt(_) => format!("{} starts again within ten seconds.\n", server.name),
        }
    }
}

impl Drop for ExampleDemo {
    fn drop(&mut self) {
        for server in &self.servers {
            if let State::Runs(child) = &mut *server.state.lock() {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        // A folder of our own, with a random name.
        let _ = fs::remove_dir_all(&self.folder);
    }
}
