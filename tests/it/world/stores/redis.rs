//! One server of Redis or Valkey.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use super::process::{Process, program};
use super::resp::{Conversation, Reply};
use crate::world::namespace::Namespace;
use crate::world::ports::Port;
use crate::world::tls::Authority;

/// Whose program it is. Only Redis is sure to speak TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Redis,
    Valkey,
}

impl Kind {
    pub(crate) const BOTH: [Self; 2] = [Self::Redis, Self::Valkey];

    fn program(self) -> &'static str {
        match self {
            Self::Redis => "redis-server",
            Self::Valkey => "valkey-server",
        }
    }
}

/// A server. What the test itself asks of it takes a new connection each time.
#[derive(Debug)]
pub(crate) struct RedisServer {
    process: Process,
    /// The command line that runs it.
    line: Vec<String>,
    address: SocketAddr,
    tls: bool,
    /// What clients log in with: name and password.
    login: Option<(String, String)>,
    monitor: Monitor,
    /// Held as long as the server may be started again.
    _ports: Vec<Port>,
}

/// The test's own way in, always without TLS.
#[derive(Debug)]
struct Monitor {
    address: SocketAddr,
    login: Option<(String, String)>,
}

/// The configuration of a server.
#[derive(Debug)]
pub(crate) struct Setup<'a> {
    kind: Kind,
    role: Role,
    lines: Vec<String>,
    login: Option<(String, String)>,
    /// Whether the login is of a user with rules of its own.
    named: bool,
    authority: Option<&'a Authority>,
    namespace: Option<&'a Namespace>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Data,
    /// A node of a cluster listens to the others at its port + 10000.
    Node,
    Sentinel,
}

/// The user of the test's own connections when users have names.
const TESTER: (&str, &str) = ("tester", "who-may-do-all");

impl<'a> Setup<'a> {
    pub(super) fn new(kind: Kind, role: Role) -> Self {
        Self { kind, role, lines: Vec::new(), login: None, named: false, authority: None, namespace: None }
    }

    /// One more line of its configuration, e.g. `maxmemory-policy allkeys-lru`. Later lines win.
    pub(crate) fn line(mut self, line: &str) -> Self {
        self.lines.push(line.to_owned());
        self
    }

    /// The password of the user without a name.
    pub(crate) fn password(mut self, password: &str) -> Self {
        self.login = Some(("default".to_owned(), password.to_owned()));
        self.line(&format!("requirepass {password}"))
    }

    /// The only user for clients, and what it may, e.g. `~homing:* &homing:* +@all -@dangerous`.
    pub(crate) fn user(mut self, name: &str, password: &str, rules: &str) -> Self {
        self.login = Some((name.to_owned(), password.to_owned()));
        self.named = true;
        let (tester, secret) = TESTER;
        self.line("user default off")
            .line(&format!("user {tester} on >{secret} ~* &* +@all"))
            .line(&format!("user {name} on >{password} {rules}"))
    }

    /// Clients speak TLS, and find a certificate of this authority for `localhost` and 127.0.0.1. With the line
    /// `tls-auth-clients yes` they must show one of it too.
    pub(crate) fn tls(mut self, authority: &'a Authority) -> Self {
        self.authority = Some(authority);
        self
    }

    /// Runs in a network of its own.
    pub(crate) fn within(mut self, namespace: &'a Namespace) -> Self {
        self.namespace = Some(namespace);
        self
    }

    /// The server, which answers.
    #[track_caller]
    pub(crate) fn start(self) -> RedisServer {
        let (port, mut ports) = match self.role {
            Role::Node => {
                let (port, bus) = Port::reserve_with_bus();
                (port, vec![bus])
            }
            Role::Data | Role::Sentinel => (Port::reserve(), Vec::new()),
        };
        let at = |port: &Port| match self.namespace {
            Some(namespace) => SocketAddr::new(namespace.address(), port.address().port()),
            None => port.address(),
        };
        let (address, mut monitor) = (at(&port), at(&port));
        if self.authority.is_some() {
            let plain = Port::reserve();
            monitor = at(&plain);
            ports.push(plain);
        }
        ports.push(port);
        let program = program(self.kind.program()).display().to_string();
        let mut line = self.namespace.map_or_else(Vec::new, Namespace::runner);
        line.extend([program, "server.conf".to_owned()]);
        line.extend((self.role == Role::Sentinel).then(|| "--sentinel".to_owned()));
        let process = Process::new(format!("{:?} ({:?}) at {address}", self.kind, self.role));
        let directory = process.directory();
        fs::write(directory.join("server.conf"), self.configuration(address, monitor)).expect("its configuration");
        if let Some(authority) = self.authority {
            authority.issue(directory, "server", &["localhost", "127.0.0.1"]);
            authority.write(directory, "authority");
        }
        let (name, secret) = TESTER;
        let tester = self.named.then(|| (name.to_owned(), secret.to_owned()));
        let monitor = Monitor { address: monitor, login: tester.or_else(|| self.login.clone()) };
        let tls = self.authority.is_some();
        let server = RedisServer { process, line, address, tls, login: self.login, monitor, _ports: ports };
        server.start_again();
        server
    }

    fn configuration(&self, address: SocketAddr, monitor: SocketAddr) -> String {
        let mut text = format!("bind {}\nport {}\nprotected-mode no\nloglevel notice\n", address.ip(), monitor.port());
        if self.authority.is_some() {
            text.push_str(&format!("tls-port {}\ntls-auth-clients no\n", address.port()));
            text.push_str("tls-cert-file server.pem\ntls-key-file server.key\ntls-ca-cert-file authority.pem\n");
        }
        if self.role != Role::Sentinel {
            // A replica is given all at once instead of after five seconds, in which others might come.
            text.push_str(
                "save \"\"\nappendonly no\nmaxmemory 64mb\nrepl-diskless-sync yes\nrepl-diskless-sync-delay 0\n",
            );
        }
        if self.role == Role::Node {
            text.push_str(&format!("cluster-enabled yes\ncluster-announce-ip {}\n", address.ip()));
            text.push_str("cluster-config-file nodes.conf\ncluster-node-timeout 2000\n");
        }
        self.lines.iter().for_each(|line| text.push_str(&format!("{line}\n")));
        text
    }
}

impl RedisServer {
    #[track_caller]
    pub(crate) fn start(kind: Kind) -> Self {
        Self::setup(kind).start()
    }

    pub(crate) fn setup<'a>(kind: Kind) -> Setup<'a> {
        Setup::new(kind, Role::Data)
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// `redis://` or `rediss://`, with what a client logs in with.
    pub(crate) fn url(&self) -> String {
        self.url_at(self.address)
    }

    /// The same for a client that connects by another way, e.g. over a `Link`.
    pub(crate) fn url_at(&self, address: SocketAddr) -> String {
        let scheme = if self.tls { "rediss" } else { "redis" };
        let login = self.login.as_ref().map(|(name, password)| format!("{name}:{password}@"));
        format!("{scheme}://{}{address}", login.unwrap_or_default())
    }

    /// For `Conf::store`.
    pub(crate) fn entry(&self) -> String {
        self.entry_at(self.address)
    }

    /// The same for a proxy that comes another way, e.g. over a `Link`.
    pub(crate) fn entry_at(&self, address: SocketAddr) -> String {
        format!("type: redis, redis: {{ urls: [\"{}\"] }}", self.url_at(address))
    }

    /// SIGKILL: connections are reset, the port refuses, everything is forgotten.
    pub(crate) fn kill(&self) {
        self.process.kill();
    }

    /// A killed server runs again at its port, and is empty.
    #[track_caller]
    pub(crate) fn start_again(&self) {
        let mut line = self.line.iter();
        let mut command = Command::new(line.next().expect("a program"));
        command.args(line);
        self.process.spawn(command, || self.answers().unwrap_or(false));
    }

    /// Killed and started at once.
    #[track_caller]
    pub(crate) fn restart(&self) {
        self.kill();
        self.start_again();
    }

    /// SIGSTOP: connections stay and new ones are accepted, nothing is answered.
    #[track_caller]
    pub(crate) fn freeze(&self) {
        self.process.freeze();
    }

    /// Answers again, also what came in meanwhile.
    #[track_caller]
    pub(crate) fn thaw(&self) {
        self.process.thaw();
    }

    pub(crate) fn is_running(&self) -> bool {
        self.process.is_running()
    }

    /// What it said so far, in all its lives.
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    /// Forgets everything, and goes on.
    #[track_caller]
    pub(crate) fn flush(&self) {
        self.command(&["FLUSHALL"]).ok();
    }

    /// What it answers; an error is an answer too.
    #[track_caller]
    pub(crate) fn command(&self, words: &[&str]) -> Reply {
        self.try_command(words).unwrap_or_else(|e| panic!("no answer to {words:?}: {e}\n{}", self.log()))
    }

    pub(crate) fn try_command(&self, words: &[&str]) -> io::Result<Reply> {
        self.converse()?.command(words)
    }

    /// A connection that is logged in and may do everything, e.g. to subscribe.
    pub(crate) fn converse(&self) -> io::Result<Conversation> {
        let mut conversation = Conversation::open(self.monitor.address)?;
        if let Some((name, password)) = &self.monitor.login {
            match conversation.command(&["AUTH", name, password])? {
                Reply::Status(_) => {}
                refused => return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("{refused:?}"))),
            }
        }
        Ok(conversation)
    }

    /// What is held, by name.
    #[track_caller]
    pub(crate) fn keys(&self) -> BTreeSet<String> {
        self.command(&["KEYS", "*"]).list().into_iter().map(Reply::text).collect()
    }

    #[track_caller]
    pub(crate) fn value(&self, key: &str) -> Option<String> {
        match self.command(&["GET", key]) {
            Reply::Nil => None,
            value => Some(value.text()),
        }
    }

    /// How long a key still lives; `None` = it is not there, or lives for ever.
    #[track_caller]
    pub(crate) fn ttl(&self, key: &str) -> Option<Duration> {
        u64::try_from(self.command(&["PTTL", key]).number()).ok().map(Duration::from_millis)
    }

    /// How often each command was called, the test's own calls among them, by its name in small letters (`get`, `client|id`).
    #[track_caller]
    pub(crate) fn calls(&self) -> BTreeMap<String, u64> {
        let stats = self.command(&["INFO", "commandstats"]).text();
        let of_line = |line: &str| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
        };
        stats.lines().filter_map(of_line).collect()
    }

    /// How often this command was called.
    #[track_caller]
    pub(crate) fn calls_of(&self, command: &str) -> u64 {
        self.calls().get(command).copied().unwrap_or(0)
    }

    /// Counts from nought.
    #[track_caller]
    pub(crate) fn forget_calls(&self) {
        self.command(&["CONFIG", "RESETSTAT"]).ok();
    }

    /// A value of `INFO`, e.g. of `connected_clients`.
    #[track_caller]
    pub(crate) fn info(&self, name: &str) -> Option<String> {
        let info = self.command(&["INFO"]).text();
        info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::to_owned)
    }

    pub(super) fn login(&self) -> Option<&(String, String)> {
        self.login.as_ref()
    }

    fn answers(&self) -> io::Result<bool> {
        Ok(self.try_command(&["PING"])? == Reply::Status("PONG".to_owned()))
    }
}
