//! dnsmasq as the name server of the zone `test`, whose records may change.

use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use super::process::{Process, program};
use crate::world::ports::Port;

/// A name server. It says that other names of its zone do not exist.
#[derive(Debug)]
pub(crate) struct NameServer {
    process: Process,
    address: SocketAddr,
    _port: Port,
}

impl NameServer {
    /// With these records, as dnsmasq's options have them: `host-record=app.test,127.0.0.2`. Their TTL is a second.
    #[track_caller]
    pub(crate) fn start(records: &[&str]) -> Self {
        let port = Port::reserve();
        let address = port.address();
        let server = Self { process: Process::new(format!("dnsmasq at {address}")), address, _port: port };
        server.serve(records);
        server
    }

    /// Where it is asked.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Other records from now on; it is away for a moment.
    #[track_caller]
    pub(crate) fn serve(&self, records: &[&str]) {
        self.process.kill();
        let mut command = Command::new(program("dnsmasq"));
        let (ip, port) = (self.address.ip(), self.address.port());
        command
            .args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--local=/test/"])
            .args(["--bind-interfaces", "--local-ttl=1", "--user=", "--group=", "--pid-file="])
            .args([format!("--listen-address={ip}"), format!("--port={port}")])
            .args(records.iter().map(|record| format!("--{record}")));
        self.process.spawn(command, || self.answers());
    }

    /// SIGKILL: questions are refused.
    pub(crate) fn kill(&self) {
        self.process.kill();
    }

    /// SIGSTOP: questions are not answered.
    pub(crate) fn freeze(&self) {
        self.process.freeze();
    }

    /// SIGCONT.
    pub(crate) fn thaw(&self) {
        self.process.thaw();
    }

    /// Whether it answers a question for `x.test`.
    fn answers(&self) -> bool {
        const QUESTION: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x01x\x04test\0\0\x01\0\x01";
        let asked = || {
            let socket = UdpSocket::bind((self.address.ip(), 0))?;
            socket.set_read_timeout(Some(Duration::from_millis(500)))?;
            socket.send_to(QUESTION, self.address)?;
            socket.recv(&mut [0; 512])
        };
        asked().is_ok()
    }
}
