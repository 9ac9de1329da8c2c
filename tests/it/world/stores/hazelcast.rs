//! Members of Hazelcast, alone or as a cluster. Members of one cluster find each other at ports that are reserved before the
//! first of them starts, so that one may be added later.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use homing::session::token::UnixMillis;
use homing::store::engine::{Engine as _, Name};
use homing::store::hazelcast::HazelcastEngine;
use homing::store::hazelcast::settings::HazelcastSettings;
use tokio::runtime;
use tokio::time::{sleep, timeout};

use super::java::{JavaStore, START};
use super::process::{Process, stores};
use crate::world::PATIENCE;
use crate::world::namespace::Namespace;
use crate::world::ports::Port;

/// What the members call themselves.
const CLUSTER: &str = "dev";
/// The map that proxies keep bindings in when nothing else is said.
const MAP: &str = "homing";

/// To these members.
pub(crate) fn settings(members: &[&HazelcastMember]) -> HazelcastSettings {
    let members = members.iter().map(|member| member.address.to_string()).collect();
    HazelcastSettings { members, cluster_name: CLUSTER.to_owned(), map: MAP.to_owned() }
}

/// For the engine.
pub(crate) fn wall_clock() -> UnixMillis {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970").as_millis();
    UnixMillis(u64::try_from(now).expect("a time before the end of days"))
}

/// A member.
#[derive(Debug)]
pub(crate) struct HazelcastMember {
    process: Process,
    address: SocketAddr,
    /// What stands before the command line that runs it.
    runner: Vec<String>,
    /// Held as long as the member may be started again.
    ports: Vec<Port>,
}

impl HazelcastMember {
    /// One that is the whole cluster.
    #[track_caller]
    pub(crate) fn start() -> Self {
        let [member] = Self::cluster([true]);
        member
    }

    /// In a network of its own.
    #[track_caller]
    pub(crate) fn within(namespace: &Namespace) -> Self {
        let mut member = Self::reserve();
        member.address.set_ip(namespace.address());
        member.runner = namespace.runner();
        member.configure(&member.network(&[member.address]));
        member.start_again();
        member
    }

    fn reserve() -> Self {
        let port = Port::reserve();
        let address = port.address();
        Self {
            process: Process::new(format!("Hazelcast at {address}")),
            address,
            runner: Vec::new(),
            ports: vec![port],
        }
    }

    /// A cluster. Those with `true` run; the others may be started later.
    #[track_caller]
    pub(crate) fn cluster<const N: usize>(running: [bool; N]) -> [Self; N] {
        let members = [(); N].map(|()| Self::reserve());
        let addresses = members.each_ref().map(|member| member.address);
        for (member, runs) in members.iter().zip(running) {
            member.configure(&member.network(&addresses));
            if runs {
                member.start_again();
            }
        }
        members
    }

    /// Two members, of which the second tells clients an address where nothing listens.
    #[track_caller]
    pub(crate) fn one_hidden() -> [Self; 2] {
        let mut members = [(); 2].map(|()| Self::reserve());
        let ports = [(); 3].map(|()| Port::reserve());
        let [first, second, nowhere] = ports.each_ref().map(Port::address);
        let join = Self::join(&[first, second]);
        for (member, (of_members, told)) in members.iter().zip([(first, members[0].address), (second, nowhere)]) {
            member.configure(&format!(
                "  advanced-network:
    enabled: true
{join}
    member-server-socket-endpoint-config:
      reuse-address: true
      port: {{ port: {}, auto-increment: false }}
    client-server-socket-endpoint-config:
      reuse-address: true
      port: {{ port: {}, auto-increment: false }}
      public-address: \"{told}\"
",
                of_members.port(),
                member.address.port()
            ));
            member.start_again();
        }
        members[0].ports.extend(ports);
        members
    }

    /// Of one port for all, where it finds these members.
    fn network(&self, members: &[SocketAddr]) -> String {
        let (port, join) = (self.address.port(), Self::join(members));
        format!("  network:\n    reuse-address: true\n    port: {{ port: {port}, auto-increment: false }}\n{join}\n")
    }

    fn join(members: &[SocketAddr]) -> String {
        let members: Vec<_> = members.iter().map(|member| format!("\"{member}\"")).collect();
        format!(
            "    join:
      auto-detection: {{ enabled: false }}
      multicast: {{ enabled: false }}
      tcp-ip: {{ enabled: true, member-list: [{}] }}",
            members.join(", ")
        )
    }

    fn configure(&self, network: &str) {
        let text = format!(
            "hazelcast:
  cluster-name: {CLUSTER}
{network}
  map:
    netted: {{ time-to-live-seconds: 3 }}
  properties:
    hazelcast.partition.count: 31
    hazelcast.max.no.heartbeat.seconds: 10
    hazelcast.heartbeat.interval.seconds: 1
    hazelcast.max.join.seconds: 5
"
        );
        fs::write(self.process.directory().join("hazelcast.yaml"), text).expect("its configuration");
    }

    /// For `Conf::store`, with these members.
    pub(crate) fn entry(members: &[&Self]) -> String {
        Self::entry_at(&members.iter().map(|member| member.address).collect::<Vec<_>>())
    }

    /// The same for a proxy that comes another way, e.g. over links.
    pub(crate) fn entry_at(addresses: &[SocketAddr]) -> String {
        let members: Vec<_> = addresses.iter().map(|address| format!("\"{address}\"")).collect();
        format!("type: hazelcast, hazelcast: {{ members: [{}] }}", members.join(", "))
    }

    /// All that is kept, by name, with the map's before it.
    #[track_caller]
    pub(crate) fn all(&self) -> BTreeMap<String, String> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let settings = settings(&[self]);
        let engine = HazelcastEngine::start(&settings, PATIENCE, runtime.handle(), wall_clock, Arc::new(drop));
        let engine = engine.expect("it has a member");
        let pages = async {
            while engine.ping().await.is_err() {
                sleep(Duration::from_millis(5)).await;
            }
            let (mut all, mut cursor) = (BTreeMap::new(), None);
            loop {
                let page = engine.list(&Name::from_stored(""), cursor.as_deref(), 1000).await.expect("a page");
                for (name, value) in page.values {
                    let text = String::from_utf8_lossy(value.text()).into_owned();
                    all.insert(format!("{MAP}:{}", name.as_str()), text);
                }
                cursor = page.next;
                if cursor.is_none() {
                    return all;
                }
            }
        };
        runtime.block_on(async { timeout(PATIENCE, pages).await }).expect("it tells all that it keeps")
    }

    /// What hazelcast-python-client says: `tests/stores/hazelcast_tool.py`.
    #[track_caller]
    pub(crate) fn ask_tool(&self, map: &str, words: &[&str]) -> String {
        let tool = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stores/hazelcast_tool.py");
        let mut command = Command::new(stores().join("clients/bin/python"));
        let output = command.args([tool, &self.address.to_string(), map]).args(words).output().expect("python runs");
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
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
            &format!("-Dhazelcast.local.localAddress={}", self.address.ip()),
            "-Dhazelcast.logging.type=jdk",
        ];
        let command =
            JavaStore::Hazelcast.command(&flags, "com.hazelcast.core.server.HazelcastMemberStarter", &self.runner);
        let starts = || self.process.log().matches("is STARTED").count();
        let before = starts();
        self.process.spawn_within(START, command, || starts() > before);
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
