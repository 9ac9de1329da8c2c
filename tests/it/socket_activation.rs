//! Sockets that a service manager opened: systemd's socket activation, with a shell in the place of systemd.

use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::Pid;
use rustix::process::geteuid;
use serde_json::Value;

use crate::world::client::get_with;
use crate::world::proxy::{binary, command};
use crate::world::{Address, Conf, Launch, PATIENCE, Proxy, Signal, Wire, World, eventually};

/// Passes standard input on as the first socket, as systemd does, and starts the rest of the command line in its own place.
const ACTIVATE: &str = "exec 3<&0 0</dev/null; LISTEN_PID=$$; export LISTEN_PID LISTEN_FDS; exec \"$@\"";

/// A listener on a port that only privileged processes may open; as another user than root, on any port.
fn privileged_listener() -> TcpListener {
    let ports = if geteuid().is_root() { 600..1024 } else { 0..1 };
    let listener = ports.rev().find_map(|port| TcpListener::bind(("127.0.0.1", port)).ok());
    listener.expect("a free port")
}

/// The command that starts a program without any right, whatever this process may do.
fn without_rights() -> Vec<String> {
    let drop = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all", "--no-new-privs", "--"];
    if geteuid().is_root() { drop.map(str::to_owned).to_vec() } else { Vec::new() }
}

struct Activated {
    world: World,
    launch: Launch,
    listener: Arc<TcpListener>,
}

impl Activated {
    /// A proxy of that configuration, whose listener is a socket of the test.
    fn start(conf: &Conf) -> Self {
        let listener = Arc::new(privileged_listener());
        let address = listener.local_addr().expect("an address").to_string();
        let text = conf.to_string().replace("{{proxy}}", &address);
        let mut world = World::builder(text).start_without_proxy();
        let launch = Self::launch(&mut world, &listener, "1");
        let proxy = Proxy::start(&launch, world.directory());
        world.set_proxy(proxy);
        Self { world, launch, listener }
    }

    fn launch(world: &mut World, listener: &Arc<TcpListener>, count: &str) -> Launch {
        let launch = world.environment.launch("");
        let shell = ["-c", ACTIVATE, "sh"].map(str::to_owned).into_iter();
        let config = launch.config.display().to_string();
        let program = [binary().display().to_string(), "run".to_owned(), "--config".to_owned(), config];
        Launch {
            address: listener.local_addr().expect("an address").into(),
            program: Some("/bin/sh".into()),
            arguments: Some(shell.chain(without_rights()).chain(program).collect()),
            environment: vec![("LISTEN_FDS".to_owned(), count.to_owned())],
            stdin: Some(Arc::clone(listener)),
            ..launch
        }
    }

    fn address(&self) -> Address {
        self.listener.local_addr().expect("an address").into()
    }
}

#[test]
fn a_process_without_rights_serves_a_port_that_the_service_manager_opened() {
    let activated = Activated::start(&Conf::servers("a"));
    get_with(&activated.address(), "/plain", &[]).expect(200);
    let log = activated.world.log();
    assert!(log.contains("the socket that the service manager opened"), "{log}");
    if !geteuid().is_root() {
        eprintln!("not as root: the port is not one below 1024");
        return;
    }
    // The same without the socket: it has no right to the port, even when that is free.
    let Activated { world, launch, listener } = activated;
    world.stop();
    drop(launch);
    drop(listener);
    let mut alone = without_rights().into_iter();
    let config = world.directory().join("homing.yaml");
    let output = Command::new(alone.next().expect("a program"))
        .args(alone)
        .arg(binary())
        .args(["run", "--config"])
        .arg(config)
        .output()
        .expect("setpriv");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("CAP_NET_BIND_SERVICE"), "{said}");
}

#[test]
fn clients_wait_while_a_proxy_on_a_socket_of_the_service_manager_restarts() {
    let mut activated = Activated::start(&Conf::servers("a"));
    activated.world.stop_proxy();
    // No process accepts it, and the system does not refuse it.
    let mut wire = Wire::connect(&activated.address());
    wire.send("GET /plain HTTP/1.1\r\nHost: x\r\n\r\n");
    let proxy = Proxy::start(&activated.launch, activated.world.directory());
    activated.world.set_proxy(proxy);
    wire.receive("GET").expect(200);
}

#[test]
fn an_upgrade_passes_the_service_managers_socket_on() {
    let conf = Conf::servers("a").top("proxy: { upgrade_socket: \"{{dir}}/upgrade.sock\", shutdown_grace: 10s }");
    let activated = Activated::start(&conf);
    let world = &activated.world;
    let admin = world.admin.to_string();
    let output = command().args(["upgrade", "--admin", &admin, "-o", "json"]).output().expect("the program runs");
    assert_eq!(output.status.code(), Some(0), "{output:?}\n{}", world.log());
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let pid = i32::try_from(report["pid"].as_i64().expect("a process id")).expect("a small one");
    let (status, _) = world.wait_for_exit(Duration::from_secs(30));
    assert_eq!(status.code(), Some(0), "{}", world.log());
    get_with(&activated.address(), "/plain", &[]).expect(200);
    // Only root may read the environment of a process that hides its memory.
    let variables = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let variables = String::from_utf8_lossy(&variables).into_owned();
    nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGTERM).expect("it runs");
    assert!(!variables.contains("LISTEN_"), "the sockets were the old process's: {variables}");
}

#[test]
fn a_socket_without_a_listener_is_reported_and_a_missing_one_ends_the_start() {
    let listener = Arc::new(privileged_listener());
    let mut world = World::builder(Conf::servers("a")).start_without_proxy();
    let launch = Activated::launch(&mut world, &listener, "1");
    let proxy = Proxy::start(&launch, world.directory());
    let address = listener.local_addr().expect("an address").to_string();
    assert!(proxy.log().contains(&address) && proxy.log().contains("no listener"), "{}", proxy.log());
    proxy.stop();

    let launch = Activated::launch(&mut world, &listener, "7");
    let proxy = Proxy::spawn(&launch, world.directory());
    let (status, _) = proxy.wait_for_exit(PATIENCE);
    assert_eq!(status.code(), Some(1));
    eventually(PATIENCE, "the reason", || proxy.log().contains("the sockets of the service manager: descriptor"));
}
