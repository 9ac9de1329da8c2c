//! Nodes of Apache Ignite, alone or as a cluster, and a client as bare as it can be. Nodes of one cluster find each other at
//! ports that are reserved before the first of them starts, so that one may be added later.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;

use super::java::{JavaStore, START};
use super::process::{Process, program, stores};
use crate::world::PATIENCE;
use crate::world::namespace::Namespace;
use crate::world::ports::Port;
use crate::world::tls::Authority;

/// The cache of bindings; that of session data has `-data` after it.
const CACHE: &str = "homing";
/// A small node: words between `@` are replaced.
const CONFIGURATION: &str = include_str!("../../../stores/ignite.xml");
/// After so long the others give a silent node up.
const FAILURE_DETECTION_MILLIS: u32 = 3000;

/// What `ignite.sh` opens to it of Java's own modules.
const OPENED: &str = include_str!("../../../stores/ignite-opens.txt");

/// A node.
#[derive(Debug)]
pub(crate) struct IgniteNode {
    process: Process,
    /// Where clients connect.
    address: SocketAddr,
    /// Where the other nodes find it, and where they talk to it.
    discovery: SocketAddr,
    communication: SocketAddr,
    /// Runs it in a network of its own.
    runner: Vec<String>,
    /// Held as long as the node may be started again.
    _ports: [Port; 3],
}

/// What a node may have besides what all have.
#[derive(Debug, Default)]
pub(crate) struct Extras<'a> {
    /// Users must log in (`ignite` with password `ignite`); then what is kept is kept on disk as well.
    pub(crate) authentication: bool,
    /// Clients speak TLS, and show a certificate of this authority. The node's own is `server.pem` in its directory.
    pub(crate) clients_of: Option<&'a Authority>,
}

/// Of key stores that live as long as a test.
const PASSWORD: &str = "of-the-tests";

impl IgniteNode {
    /// One that is the whole cluster.
    #[track_caller]
    pub(crate) fn start() -> Self {
        Self::with(&Extras::default())
    }

    #[track_caller]
    pub(crate) fn with(extras: &Extras<'_>) -> Self {
        let node = Self::new(None);
        node.configure(std::slice::from_ref(&node), extras);
        node.start_again();
        if extras.authentication {
            node.activate();
        }
        node
    }

    /// A cluster that keeps things on disk waits for that when it starts for the first time.
    fn activate(&self) {
        const CHANGE_STATE: i16 = 5001;
        let mut client = BareClient::open(self.address, Some("ignite")).expect("a login");
        assert_eq!(client.ask(CHANGE_STATE, &[1]).expect("a response"), Ok(Vec::new()), "it is active");
    }

    /// In a network of its own.
    #[track_caller]
    pub(crate) fn within(namespace: &Namespace) -> Self {
        let node = Self::new(Some(namespace));
        node.configure(std::slice::from_ref(&node), &Extras::default());
        node.start_again();
        node
    }

    /// A cluster. Those with `true` run; the others may be started later.
    #[track_caller]
    pub(crate) fn cluster<const N: usize>(running: [bool; N]) -> [Self; N] {
        let nodes = [(); N].map(|()| Self::new(None));
        for node in &nodes {
            node.configure(&nodes, &Extras::default());
        }
        let mut begin = nodes.iter().zip(running).filter(|(_, runs)| *runs).map(|(node, _)| node);
        // The first makes the cluster, the others join it together.
        if let Some(first) = begin.next() {
            first.start_again();
        }
        thread::scope(|scope| begin.for_each(|node| drop(scope.spawn(|| node.start_again()))));
        nodes
    }

    fn new(namespace: Option<&Namespace>) -> Self {
        let ports = [(); 3].map(|()| Port::reserve());
        let at = |port: &Port| match namespace {
            Some(namespace) => SocketAddr::new(namespace.address(), port.address().port()),
            None => port.address(),
        };
        let [address, discovery, communication] = ports.each_ref().map(at);
        let process = Process::new(format!("Ignite at {address}"));
        let runner = namespace.map_or_else(Vec::new, Namespace::runner);
        Self { process, address, discovery, communication, runner, _ports: ports }
    }

    fn configure(&self, nodes: &[Self], extras: &Extras<'_>) {
        let discoveries: Vec<_> = nodes.iter().map(|node| format!("<value>{}</value>", node.discovery)).collect();
        let text = self.configuration(&discoveries.concat(), extras);
        fs::write(self.process.directory().join("node.xml"), text).expect("its configuration");
    }

    fn configuration(&self, discoveries: &str, extras: &Extras<'_>) -> String {
        let port = |address: SocketAddr| address.port().to_string();
        let client_port = extras.clients_of.map(|authority| self.tls(authority)).unwrap_or_default();
        [
            ("@ip@", self.address.ip().to_string()),
            ("@directory@", self.process.directory().display().to_string()),
            ("@client@", port(self.address)),
            ("@discovery@", port(self.discovery)),
            ("@communication@", port(self.communication)),
            ("@discoveries@", discoveries.to_owned()),
            ("@failure_detection_millis@", FAILURE_DETECTION_MILLIS.to_string()),
            ("@authentication@", extras.authentication.to_string()),
            ("@client_port@", client_port),
        ]
        .iter()
        .fold(CONFIGURATION.to_owned(), |text, (name, value)| text.replace(name, value))
    }

    /// Makes the key stores of the client port, and says in Spring's XML where they are.
    fn tls(&self, authority: &Authority) -> String {
        authority.write(self.directory(), "clients");
        let subject = ["-dname", "CN=a node of the tests", "-ext", "san=ip:127.0.0.1,dns:localhost"];
        let key = ["-genkeypair", "-alias", "server", "-keyalg", "EC", "-keystore", "server.p12"];
        self.keytool(&[&key[..], &subject].concat());
        self.keytool(&["-exportcert", "-rfc", "-alias", "server", "-keystore", "server.p12", "-file", "server.pem"]);
        self.keytool(&["-importcert", "-noprompt", "-keystore", "clients.p12", "-file", "clients.pem"]);
        let store = |name: &str, file: &str| {
            let path = self.directory().join(file);
            [("FilePath", path.display().to_string()), ("Password", PASSWORD.into()), ("Type", "PKCS12".into())]
                .map(|(part, value)| format!("<property name=\"{name}Store{part}\" value=\"{value}\"/>"))
                .concat()
        };
        format!(
            r#"<property name="sslEnabled" value="true"/>
    <property name="sslClientAuth" value="true"/>
    <property name="useIgniteSslContextFactory" value="false"/>
    <property name="sslContextFactory"><bean class="org.apache.ignite.ssl.SslContextFactory">
      {}{}
    </bean></property>"#,
            store("key", "server.p12"),
            store("trust", "clients.p12")
        )
    }

    /// Java's tool for key stores, which is in Java itself.
    fn keytool(&self, arguments: &[&str]) {
        let mut command = Command::new(fs::canonicalize(program("java")).expect("a link to java"));
        command.args(["-m", "java.base/sun.security.tools.keytool.Main"]).args(arguments);
        command.args(["-storetype", "PKCS12", "-storepass", PASSWORD]).current_dir(self.directory());
        let output = command.output().expect("java runs");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
    }

    /// For `Conf::store`, with these nodes.
    pub(crate) fn entry(nodes: &[&Self]) -> String {
        Self::entry_at(&nodes.iter().map(|node| node.address).collect::<Vec<_>>())
    }

    /// The same for a proxy that comes another way, e.g. over links.
    pub(crate) fn entry_at(addresses: &[SocketAddr]) -> String {
        let addresses: Vec<_> = addresses.iter().map(|address| format!("\"{address}\"")).collect();
        format!("type: ignite, ignite: {{ addresses: [{}] }}", addresses.join(", "))
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its own, for files.
    pub(crate) fn directory(&self) -> &Path {
        self.process.directory()
    }

    /// SIGKILL: connections are reset, the port refuses, what only it held is gone.
    pub(crate) fn kill(&self) {
        self.process.kill();
    }

    /// One that does not run starts, empty, and joins those that do.
    #[track_caller]
    pub(crate) fn start_again(&self) {
        let mut flags = vec![
            "-Xms64m".to_owned(),
            "-Xmx256m".to_owned(),
            "-Djava.net.preferIPv4Stack=true".to_owned(),
            "-DIGNITE_UPDATE_NOTIFIER=false".to_owned(),
            "-DIGNITE_PERFORMANCE_SUGGESTIONS_DISABLED=true".to_owned(),
            "-DIGNITE_NO_SHUTDOWN_HOOK=true".to_owned(),
        ];
        let opened = OPENED.lines().filter(|line| !line.starts_with('#'));
        flags.extend(opened.map(|package| format!("--add-opens={package}=ALL-UNNAMED")));
        let flags: Vec<_> = flags.iter().map(String::as_str).collect();
        let mut command =
            JavaStore::Ignite.command(&flags, "org.apache.ignite.startup.cmdline.CommandLineStartup", &self.runner);
        command.arg("node.xml");
        let starts = || self.process.log().matches("Ignite node started OK").count();
        let before = starts();
        self.process.spawn_within(START, command, || starts() > before);
        // The first of everything takes Java long: that is over when a test begins.
        self.make_any_cache();
    }

    /// Where it takes clients that show nothing and name no user.
    fn make_any_cache(&self) {
        const GET_OR_CREATE_WITH_NAME: i16 = 1052;
        let name = [&[9, 3, 0, 0, 0][..], b"any"].concat();
        if let Ok(mut client) = BareClient::open(self.address, None) {
            drop(client.ask(GET_OR_CREATE_WITH_NAME, &name));
        }
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

    /// What it said so far, in all its lives.
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    /// All that is kept, by cache and name as other stores have their prefix, without the life that each value ends with;
    /// session data as far as they are text.
    #[track_caller]
    pub(crate) fn all(&self) -> BTreeMap<String, String> {
        [CACHE.to_owned(), format!("{CACHE}-data")]
            .iter()
            .flat_map(|cache| self.scan(cache).unwrap_or_else(|e| panic!("no scan of {cache}: {e}\n{}", self.log())))
            .map(|(key, value)| {
                let value = value.rsplit_once(" ttl=").map_or_else(|| value.clone(), |(value, _)| value.to_owned());
                (format!("{CACHE}:{key}"), value)
            })
            .collect()
    }

    /// What pyignite prints: another client, by other people. The script finds the cache of bindings in `cache`.
    #[track_caller]
    pub(crate) fn python(&self, script: &str) -> String {
        let head = format!(
            "import pyignite\nclient = pyignite.Client()\nclient.connect('{}', {})\ncache = client.get_cache('{CACHE}')\n",
            self.address.ip(),
            self.address.port()
        );
        let python = stores().join("clients").join("bin").join("python");
        let output = Command::new(&python).arg("-c").arg(head + script).output().expect("python of the clients");
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{script}:\n{}", said(&output.stderr));
        said(&output.stdout).trim_end().to_owned()
    }

    /// Everything in a cache; nothing where there is no such cache.
    fn scan(&self, cache: &str) -> io::Result<Vec<(String, String)>> {
        const SCAN: i16 = 2000;
        const NO_SUCH_CACHE: i32 = 1000;
        let mut fields = cache_id(cache).to_le_bytes().to_vec();
        // No flags, no filter, a large page, all partitions of all nodes.
        fields.extend([0, 101]);
        fields.extend([100_000_i32.to_le_bytes(), (-1_i32).to_le_bytes()].concat());
        fields.push(0);
        let mut client = BareClient::open(self.address, None)?;
        match client.ask(SCAN, &fields)? {
            Ok(page) => Ok(entries(page.get(8..).unwrap_or_default())),
            Err(NO_SUCH_CACHE) => Ok(Vec::new()),
            Err(status) => Err(io::Error::other(format!("status {status}"))),
        }
    }
}

/// Java's hash of a name.
fn cache_id(name: &str) -> i32 {
    name.bytes().fold(0_i32, |hash, byte| hash.wrapping_mul(31).wrapping_add(i32::from(byte)))
}

/// Pairs of texts or arrays of bytes, after their count.
fn entries(mut bytes: &[u8]) -> Vec<(String, String)> {
    let number = |bytes: &mut &[u8]| {
        let (head, rest) = bytes.split_first_chunk().expect("a number");
        *bytes = rest;
        usize::try_from(i32::from_le_bytes(*head)).expect("a length")
    };
    let count = number(&mut bytes);
    let mut text = || {
        bytes = &bytes[1..];
        let length = number(&mut bytes);
        let (text, rest) = bytes.split_at(length);
        bytes = rest;
        String::from_utf8_lossy(text).into_owned()
    };
    (0..count).map(|_| (text(), text())).collect()
}

/// One request at a time.
struct BareClient(TcpStream);

impl BareClient {
    /// The user's password is the same word.
    fn open(address: SocketAddr, user: Option<&str>) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut client = Self(stream);
        // Version 1.7.0, a thin client, no features.
        let mut hello = vec![1, 1, 0, 7, 0, 0, 0, 2, 12, 0, 0, 0, 0];
        for word in user.iter().chain(&user) {
            hello.push(9);
            hello.extend(i32::try_from(word.len()).expect("a short word").to_le_bytes());
            hello.extend(word.as_bytes());
        }
        client.send(&hello)?;
        let accepted = client.receive()?.first() == Some(&1);
        if accepted { Ok(client) } else { Err(io::Error::other("it does not take this client")) }
    }

    /// The payload, or the status of a failure.
    fn ask(&mut self, operation: i16, fields: &[u8]) -> io::Result<Result<Vec<u8>, i32>> {
        self.send(&[&operation.to_le_bytes(), &1_i64.to_le_bytes()[..], fields].concat())?;
        let response = self.receive()?;
        let flags = response[8];
        // The version of the topology, when it has changed.
        let payload = &response[if flags & 2 == 0 { 10 } else { 22 }..];
        if flags & 1 == 0 {
            return Ok(Ok(payload.to_vec()));
        }
        Ok(Err(i32::from_le_bytes(*payload.first_chunk().expect("a status"))))
    }

    fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        let length = i32::try_from(frame.len()).expect("a short frame").to_le_bytes();
        self.0.write_all(&[&length, frame].concat())
    }

    fn receive(&mut self) -> io::Result<Vec<u8>> {
        let mut length = [0; 4];
        self.0.read_exact(&mut length)?;
        let mut frame = vec![0; usize::try_from(i32::from_le_bytes(length)).map_err(io::Error::other)?];
        self.0.read_exact(&mut frame)?;
        Ok(frame)
    }
}
