//! A network of its own for a program (Linux, as root): a network namespace with a pair of virtual Ethernet ends, of which
//! the inner one can be taken down. Unlike on a held [`Link`](super::link::Link), even a new connection is not accepted
//! meanwhile: nothing answers the SYN. It goes away with the process that holds it, and that with the test.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Child, Command, Stdio};

use super::{PATIENCE, eventually, guard};

/// A namespace. Servers within are reached at its address.
#[derive(Debug)]
pub(crate) struct Namespace {
    /// Reads from a pipe that we hold, and so ends with us.
    holder: Child,
    address: IpAddr,
}

impl Namespace {
    /// A new one, or why there is none: not Linux, not root, no iproute2, or no right to.
    pub(crate) fn create() -> Result<Self, String> {
        let mut unshare = Command::new("unshare");
        unshare.args(["--net", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let holder = unshare.spawn().map_err(|e| format!("unshare: {e}"))?;
        guard::watch(&holder);
        // Of 198.18.0.0/15, which is for tests of networks (RFC 2544): four addresses for each process id.
        let [_, _, high, low] = (holder.id() << 2).to_be_bytes();
        let second = 18 + u8::try_from(holder.id() >> 14 & 1).unwrap_or(0);
        let at = |last: u8| Ipv4Addr::new(198, second, high, low + last);
        let (outside, inside) = (at(1), at(2));
        let mut namespace = Self { holder, address: inside.into() };
        namespace.wait_until_apart()?;
        let (near, far, holder) = (namespace.end("a"), namespace.end("b"), namespace.holder.id().to_string());
        run(&[], &["link", "add", &near, "type", "veth", "peer", "name", &far, "netns", &holder])?;
        run(&[], &["address", "add", &format!("{outside}/30"), "dev", &near])?;
        run(&[], &["link", "set", &near, "up"])?;
        let within = namespace.runner();
        run(&within, &["address", "add", &format!("{inside}/30"), "dev", &far])?;
        run(&within, &["link", "set", "lo", "up"])?;
        run(&within, &["link", "set", &far, "up"])?;
        Ok(namespace)
    }

    /// Where its servers listen.
    pub(crate) fn address(&self) -> IpAddr {
        self.address
    }

    /// What stands before a command line that is to run within.
    pub(crate) fn runner(&self) -> Vec<String> {
        vec!["nsenter".to_owned(), format!("--net=/proc/{}/ns/net", self.holder.id()), "--".to_owned()]
    }

    /// No packet comes in or goes out any more.
    #[track_caller]
    pub(crate) fn partition(&self) {
        run(&self.runner(), &["link", "set", &self.end("b"), "down"]).expect("its end goes down");
    }

    /// Packets pass again; TCP sends again what it had not delivered.
    #[track_caller]
    pub(crate) fn heal(&self) {
        run(&self.runner(), &["link", "set", &self.end("b"), "up"]).expect("its end goes up");
    }

    fn end(&self, which: &str) -> String {
        format!("hmg{}{which}", self.holder.id())
    }

    fn wait_until_apart(&mut self) -> Result<(), String> {
        let of = |process: &str| fs::read_link(format!("/proc/{process}/ns/net"));
        let (ours, id) = (of("self").map_err(|e| format!("no network namespaces: {e}"))?, self.holder.id().to_string());
        let mut ended = None;
        eventually(PATIENCE, "a namespace", || {
            ended = self.holder.try_wait().expect("the holder's state");
            ended.is_some() || of(&id).is_ok_and(|its| its != ours)
        });
        ended.map_or(Ok(()), |status| Err(format!("unshare --net: {status}; is it root?")))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        guard::release(&self.holder);
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Runs `ip`.
fn run(runner: &[String], words: &[&str]) -> Result<(), String> {
    let mut line = runner.iter().map(String::as_str).chain(["ip"]).chain(words.iter().copied());
    let mut command = Command::new(line.next().unwrap_or("ip"));
    let output = command.args(line).output().map_err(|e| format!("{command:?}: {e}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {}", said.trim())) }
}
