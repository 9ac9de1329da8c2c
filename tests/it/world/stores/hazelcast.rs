//! Members of Hazelcast, alone or as a cluster. Members of one cluster find each other at ports that are reserved before the
//! first of them starts, so that one may be added later.

use std::fs;
use std::net::SocketAddr;

use super::java::JavaStore;
use super::process::Process;
use crate::world::ports::Port;

/// What the members call themselves.
const CLUSTER: &str = "dev";

/// A member.
#[derive(Debug)]
pub(crate) struct HazelcastMember {
    process: Process,
    address: SocketAddr,
    /// Held as long as the member may be started again.
    _port: Port,
}

impl HazelcastMember {
    /// One that is the whole cluster.
    #[track_caller]
    pub(crate) fn start() -> Self {
        let [member] = Self::cluster([true]);
        member
    }

    /// A cluster. Those with `true` run; the others may be started later.
    #[track_caller]
    pub(crate) fn cluster<const N: usize>(running: [bool; N]) -> [Self; N] {
        let members = [(); N].map(|()| {
            let port = Port::reserve();
            let address = port.address();
            Self { process: Process::new(format!("Hazelcast at {address}")), address, _port: port }
        });
        let addresses: Vec<_> = members.iter().map(|member| format!("\"{}\"", member.address)).collect();
        for (member, runs) in members.iter().zip(running) {
            fs::write(member.process.directory().join("hazelcast.yaml"), member.configuration(&addresses.join(", ")))
                .expect("its configuration");
            if runs {
                member.start_again();
            }
        }
        members
    }

    fn configuration(&self, members: &str) -> String {
        format!(
            "hazelcast:
  cluster-name: {CLUSTER}
  network:
    reuse-address: true
    port: {{ port: {}, auto-increment: false }}
    join:
      auto-detection: {{ enabled: false }}
      multicast: {{ enabled: false }}
      tcp-ip: {{ enabled: true, member-list: [{members}] }}
  properties:
    hazelcast.partition.count: 31
    hazelcast.max.no.heartbeat.seconds: 10
    hazelcast.heartbeat.interval.seconds: 1
    hazelcast.max.join.seconds: 5
",
            self.address.port()
        )
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// SIGKILL: connections are reset, the port refuses, what only it held is gone.
    pub(crate) fn kill(&self) {
        self.process.kill();
    }

    /// One that does not run starts, empty, and joins those that do.
    #[track_caller]
    pub(crate) fn start_again(&self) {
        let flags = [
            "-Xmx128m",
            "-Dhazelcast.config=hazelcast.yaml",
            "-Dhazelcast.phone.home.enabled=false",
            "-Dhazelcast.socket.bind.any=false",
            "-Dhazelcast.local.localAddress=127.0.0.1",
            "-Dhazelcast.logging.type=jdk",
        ];
        let command = JavaStore::Hazelcast.command(&flags, "com.hazelcast.core.server.HazelcastMemberStarter", &[]);
        let starts = || self.process.log().matches("is STARTED").count();
        let before = starts();
        self.process.spawn(command, || starts() > before);
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
}
