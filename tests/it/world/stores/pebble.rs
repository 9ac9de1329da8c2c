//! Pebble, a certificate authority for tests: it speaks ACME, looks at challenges, and forgets all when it ends.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use super::name_server::NameServer;
use super::process::{Process, program};
use crate::world::ports::Port;
use crate::world::tls::Authority;
use crate::world::{Address, tls};

/// The authority's process. It finds hosts of the zone `test` at 127.0.0.1.
#[derive(Debug)]
pub(crate) struct Pebble {
    process: Process,
    /// Where ACME is spoken, with TLS.
    pub(crate) address: SocketAddr,
    /// Where it tells its own certificate.
    pub(crate) management: SocketAddr,
    names: NameServer,
    _ports: [Port; 2],
}

impl Pebble {
    /// It looks at http-01 at the first port and at tls-alpn-01 at the second; its certificates are valid for so many seconds.
    /// `signer` has signed the certificate that it shows itself. `external`: it wants accounts to be bound to this one, a name
    /// and its key.
    #[track_caller]
    pub(crate) fn start(ports: (u16, u16), seconds: u64, signer: &Authority, external: Option<(&str, &str)>) -> Self {
        let own = [Port::reserve(), Port::reserve()];
        let [address, management] = [own[0].address(), own[1].address()];
        let process = Process::new(format!("pebble at {address}"));
        signer.issue(process.directory(), "own", &["localhost", "127.0.0.1"]);
        let configuration = serde_json::json!({ "pebble": {
            "listenAddress": address.to_string(),
            "managementListenAddress": management.to_string(),
            "certificate": "own.pem",
            "privateKey": "own.key",
            "httpPort": ports.0,
            "tlsPort": ports.1,
            "certificateValidityPeriod": seconds,
            "externalAccountBindingRequired": external.is_some(),
            "externalAccountMACKeys": external.into_iter().collect::<BTreeMap<_, _>>(),
        } });
        fs::write(process.directory().join("pebble.json"), configuration.to_string()).expect("a file for pebble");
        let names = NameServer::start(&["address=/test/127.0.0.1"]);
        let pebble = Self { process, address, management, names, _ports: own };
        pebble.run(signer);
        pebble
    }

    /// Starts it, without accounts.
    #[track_caller]
    pub(crate) fn run(&self, signer: &Authority) {
        let mut command = Command::new(program("pebble"));
        command.args(["-config", "pebble.json", "-dnsserver", &self.names.address().to_string()]);
        let quick = [("PEBBLE_VA_NOSLEEP", "1"), ("PEBBLE_WFE_NONCEREJECT", "0"), ("PEBBLE_AUTHZREUSE", "0")];
        command.envs(quick);
        let client = tls::Client::new(signer);
        self.process.spawn(command, || client.try_connect(&Address::Tcp(self.address), "localhost").is_ok());
    }

    /// SIGKILL.
    pub(crate) fn kill(&self) {
        self.process.kill();
    }
}
