//! One server of memcached, and a client as bare as it can be.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use super::process::{Process, program};
use crate::world::PATIENCE;
use crate::world::http1::percent_decode;
use crate::world::namespace::Namespace;
use crate::world::ports::Port;

/// A server. What the test itself asks of it takes a new connection each time.
#[derive(Debug)]
pub(crate) struct MemcachedServer {
    process: Process,
    /// The command line that runs it.
    line: Vec<String>,
    address: SocketAddr,
    /// Held as long as the server may be started again.
    _port: Port,
}

impl MemcachedServer {
    #[track_caller]
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// With more arguments, e.g. `-m 1` for the least memory.
    #[track_caller]
    pub(crate) fn with(arguments: &[&str]) -> Self {
        let port = Port::reserve();
        Self::at(port.address(), port, Vec::new(), arguments)
    }

    /// In a network of its own.
    #[track_caller]
    pub(crate) fn within(namespace: &Namespace) -> Self {
        let port = Port::reserve();
        let address = SocketAddr::new(namespace.address(), port.address().port());
        Self::at(address, port, namespace.runner(), &[])
    }

    #[track_caller]
    fn at(address: SocketAddr, port: Port, runner: Vec<String>, arguments: &[&str]) -> Self {
        let (ip, number) = (address.ip().to_string(), address.port().to_string());
        let program = program("memcached").display().to_string();
        // Run as root, it must be given a user; other users cannot choose one.
        let own = [&program, "-u", "root", "-l", &ip, "-p", &number, "-U", "0", "-m", "16", "-t", "1", "-v"];
        // A list of all keys would miss those that are moved from list to list meanwhile.
        let still = ["-o", "no_lru_maintainer,lru_crawler"];
        let line =
            runner.into_iter().chain(own.iter().chain(&still).chain(arguments).map(|&word| word.to_owned())).collect();
        let process = Process::new(format!("memcached at {address}"));
        let server = Self { process, line, address, _port: port };
        server.start_again();
        server
    }

    /// For `Conf::store`, with these servers.
    pub(crate) fn entry(servers: &[&Self]) -> String {
        Self::entry_at(&servers.iter().map(|server| server.address).collect::<Vec<_>>())
    }

    /// The same for a proxy that comes another way, e.g. over links.
    pub(crate) fn entry_at(addresses: &[SocketAddr]) -> String {
        let servers: Vec<_> = addresses.iter().map(|address| format!("\"{address}\"")).collect();
        format!("type: memcached, memcached: {{ servers: [{}] }}", servers.join(", "))
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
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
        self.process.spawn(command, || self.try_ask("version", &["VERSION "]).is_ok());
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

    /// What it said so far, in all its lives.
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    /// The value of a key, if it is there. Bytes that are no UTF-8 are replaced.
    #[track_caller]
    pub(crate) fn get(&self, key: &str) -> Option<String> {
        let mut lines = self.ask(&format!("get {key}"), &["END"]).into_iter();
        let found = lines.next().expect("an answer");
        (found != "END").then(|| lines.next().expect("the value"))
    }

    /// Keeps a value for so many seconds; 0 = for ever.
    #[track_caller]
    pub(crate) fn set(&self, key: &str, value: &str, seconds: u32) {
        self.ask(&format!("set {key} 0 {seconds} {}\r\n{value}", value.len()), &["STORED"]);
    }

    /// Whether the key was there.
    #[track_caller]
    pub(crate) fn delete(&self, key: &str) -> bool {
        self.ask(&format!("delete {key}"), &["DELETED", "NOT_FOUND"]) == ["DELETED"]
    }

    /// Forgets everything, and goes on.
    #[track_caller]
    pub(crate) fn flush(&self) {
        self.ask("flush_all", &["OK"]);
    }

    /// What is held, by name.
    #[track_caller]
    pub(crate) fn keys(&self) -> BTreeSet<String> {
        // `all` goes through the lists of what was used when, and misses what is moved among them.
        let lines = self.ask("lru_crawler metadump hash", &["END"]);
        let decoded = |key: &str| String::from_utf8_lossy(&percent_decode(key)).into_owned();
        let of_line = |line: &String| Some(decoded(line.strip_prefix("key=")?.split_once(' ')?.0));
        lines.iter().filter_map(of_line).collect()
    }

    /// Its counters, e.g. `cmd_get`, `cmd_set`, `cmd_touch`, `curr_connections`; text is left out.
    #[track_caller]
    pub(crate) fn stats(&self) -> BTreeMap<String, u64> {
        let lines = self.ask("stats", &["END"]);
        let of_line = |line: &String| {
            let (name, value) = line.strip_prefix("STAT ")?.split_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        lines.iter().filter_map(of_line).collect()
    }

    /// The lines of an answer that ends with a line that begins with one of these words, e.g. of `mn` with `MN`.
    #[track_caller]
    pub(crate) fn ask(&self, line: &str, ends: &[&str]) -> Vec<String> {
        self.try_ask(line, ends).unwrap_or_else(|e| panic!("no answer to {line:?}: {e}\n{}", self.log()))
    }

    pub(crate) fn try_ask(&self, line: &str, ends: &[&str]) -> io::Result<Vec<String>> {
        let mut stream = TcpStream::connect_timeout(&self.address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(format!("{line}\r\n").as_bytes())?;
        let mut reader = BufReader::new(stream);
        let mut lines = Vec::new();
        loop {
            let line = read_line(&mut reader)?;
            let value = line.strip_prefix("VALUE ").and_then(|rest| rest.rsplit(' ').next()?.parse::<usize>().ok());
            let last = ends.iter().any(|end| line.starts_with(end));
            let failed = ["ERROR", "CLIENT_ERROR", "SERVER_ERROR"].iter().any(|word| line.starts_with(word));
            lines.push(line);
            if let Some(length) = value {
                let mut bytes = vec![0; length + 2];
                reader.read_exact(&mut bytes)?;
                bytes.truncate(length);
                lines.push(String::from_utf8_lossy(&bytes).into_owned());
            } else if last {
                return Ok(lines);
            } else if failed {
                return Err(io::Error::other(lines.join("\n")));
            }
        }
    }
}

fn read_line(reader: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    match line.strip_suffix("\n") {
        Some(line) => Ok(line.trim_end_matches('\r').to_owned()),
        None => Err(ErrorKind::UnexpectedEof.into()),
    }
}
