//! Pingora's servers: one for clients, one for the admin listeners, so that probes and metrics answer until the end of a
//! graceful stop.

use std::io::{Error, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use pingora::apps::HttpServerOptions;

use pingora::listeners::{L4BufferSettings, ListenerConfig};
use pingora::server::configuration::ServerConf;
use pingora::server::{RunArgs, Server, ShutdownSignalWatch};
use pingora::services::listening::Service;
use pingora_proxy::http_proxy;

use crate::admin::{AdminEndpoint, Readiness};
use crate::config::{self, Config, ListenAddress, Listener};
use crate::pool::tls::NO_CERTIFICATES;
use crate::proxy::EdgeProxy;
use crate::proxy::connection::{ConnectionApp, ListenerConnections, RequestApp};
use crate::proxy::fast_path::{BATCHES_FROM, FastPath};
use crate::telemetry::metrics::Metrics;

use super::error::RunError;
use super::process::{ADMIN_NICENESS, lower_priority};
use super::signals::StopSwitch;
use super::sockets::{Sockets, addresses, socket_name};
use super::state::AppState;

/// Pingora limits retries too; `retries.attempts` is reached long before this.
const MAX_RETRIES: usize = 32;
/// How long a listener may take to open.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the connections that tested that may take to close. Clients may have connected meanwhile, and theirs stay open.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(200);

/// Opens the sockets that are not open yet; those of files are only checked, and opened by Pingora. Pingora only ends a thread when
/// it cannot listen; here the error names the key.
pub(super) fn open_sockets(config: &Config, sockets: &Sockets) -> Result<(), RunError> {
    let listeners = config.listeners.iter().map(|listener| ("listeners", &listener.address));
    let admin = config.admin.iter().map(|admin| ("admin.address", &admin.address));
    let metrics = config.metrics.iter().map(|metrics| ("metrics.address", &metrics.address));
    for (key, address) in listeners.chain(admin).chain(metrics).filter(|(_, address)| !sockets.has(address)) {
        let what = format!("{key}: cannot listen on {address}");
        match address {
            ListenAddress::Tcp(address) => {
                let advised = |error| RunError::system(what)(with_advice(error, address.port()));
                sockets.open(*address).map_err(advised)?;
            }
            ListenAddress::Unix(path) => {
                // A socket that accepts connections is in use; one that does not was left by an earlier process.
                if UnixStream::connect(path).is_ok() {
                    let in_use = Error::from(ErrorKind::AddrInUse);
                    return Err(RunError::system(what)(in_use));
                }
                let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                if let Some(directory) = directory {
                    std::fs::metadata(directory).map_err(RunError::system(what))?;
                }
            }
        }
    }
    Ok(())
}

/// The ports that only a privileged process may listen on, by default.
const PRIVILEGED_PORTS: std::ops::Range<u16> = 1..1024;

/// The error of a bind, with what to do about it where that is known.
fn with_advice(error: Error, port: u16) -> Error {
    if error.kind() != ErrorKind::PermissionDenied || !PRIVILEGED_PORTS.contains(&port) {
        return error;
    }
    let advice = format!(
        "{error}: ports below 1024 need the capability CAP_NET_BIND_SERVICE; give it with \
         AmbientCapabilities=CAP_NET_BIND_SERVICE in the systemd unit, or with \"setcap cap_net_bind_service=+ep\" on the \
         program, or lower the sysctl net.ipv4.ip_unprivileged_port_start to {port}, or let systemd open the port (homing.socket), or \
         listen on a port from 1024 on"
    );
    Error::new(ErrorKind::PermissionDenied, advice)
}

/// Waits until every listener accepts connections.
pub(super) fn await_listeners(config: &Config, metrics: &Metrics) -> Result<(), RunError> {
    let deadline = Instant::now() + OPEN_TIMEOUT;
    for listener in &config.listeners {
        while !accepts_connections(&listener.address) {
            if Instant::now() >= deadline {
                return Err(RunError::Internal(format!("listener {} did not open", listener.address)));
            }
            thread::park_timeout(Duration::from_millis(5));
        }
    }
    // These connections must not take the places of clients.
    let closed = Instant::now() + CLOSE_TIMEOUT;
    let open = |listener: &Listener| metrics.client_connections(&listener.address.to_string()).count() > 0;
    while config.listeners.iter().any(open) && Instant::now() < closed {
        thread::park_timeout(Duration::from_millis(1));
    }
    Ok(())
}

fn accepts_connections(address: &ListenAddress) -> bool {
    match address {
        ListenAddress::Tcp(address) => {
            let mut target = *address;
            if address.ip().is_unspecified() {
                let loopback: SocketAddr = if address.is_ipv4() {
                    ([127, 0, 0, 1], address.port()).into()
                } else {
                    (std::net::Ipv6Addr::LOCALHOST, address.port()).into()
                };
                target = loopback;
            }
            TcpStream::connect_timeout(&target, Duration::from_secs(1)).is_ok()
        }
        ListenAddress::Unix(path) => UnixStream::connect(path).is_ok(),
    }
}

/// Unix sockets outlive their process unless they are removed.
pub(super) fn remove_sockets(config: &Config) {
    for address in addresses(config) {
        if let ListenAddress::Unix(path) = address {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Removes the files of unix sockets that no process listens on any more. Other names are left out.
pub(super) fn remove_socket_files(names: &[String]) {
    for name in names.iter().filter(|name| name.starts_with('/')) {
        let _ = std::fs::remove_file(name);
    }
}

/// Starts the listeners for clients.
pub(super) fn start_proxy(
    config: &Config,
    app: &Arc<AppState>,
    stop: &StopSwitch,
    sockets: &Sockets,
) -> Result<(), RunError> {
    let threads = match config.proxy.threads {
        Some(threads) => threads,
        None => thread::available_parallelism().map_or(1, usize::from),
    };
    let conf = ServerConf {
        threads,
        max_retries: MAX_RETRIES,
        // Each pool has authorities of its own, and a machine without certificates is no reason not to start.
        ca_file: Some(NO_CERTIFICATES.to_owned()),
        upstream_keepalive_pool_size: config.proxy.upstream_idle_connections,
        // Pingora sleeps its grace in full; the process ends as soon as all is done, and this is only the upper bound.
        grace_period_seconds: Some(config.proxy.shutdown_grace.as_secs() + 60),
        graceful_shutdown_timeout_seconds: Some(1),
        ..ServerConf::default()
    };
    let mut server = server(conf);
    let keepalive = config.listeners.iter().map(|listener| listener.timeouts.keepalive).max();
    let mut options = HttpServerOptions::default();
    options.h2c = config.listeners.iter().any(|listener| listener.http2 && listener.tls.is_none());
    options.h2_idle_timeout = keepalive;
    // Pingora would refuse CONNECT in its own words; it is refused with other methods.
    options.allow_connect_method_proxying = true;
    let edge = EdgeProxy { app: Arc::clone(app) };
    let mut proxy = http_proxy(&server.configuration, edge);
    // Pingora reads them from the proxy too, for the protocols that it may tunnel.
    proxy.server_options = Some(options.clone());
    let fast_path = FastPath {
        app: Arc::clone(app),
        enabled: config.proxy.fast_path == config::FastPath::Auto,
        max_idle: config.proxy.upstream_idle_connections.saturating_mul(threads),
        batches_from: BATCHES_FROM.saturating_mul(threads),
    };
    let requests =
        Arc::new(RequestApp { proxy: Arc::new(proxy), options, fast_path, closing_idle: stop.for_idle_connections() });
    let gauges = config.listeners.iter().map(|one| app.metrics.client_connections(&one.address.to_string()));
    let open = gauges.map(ListenerConnections::new).collect();
    let connections = ConnectionApp { requests, app: Arc::clone(app), open };
    let mut service = Service::new("clients".to_owned(), connections);
    for listener in &config.listeners {
        // Client connections have buffers of their own, which take no memory while they are idle.
        listen(&mut service, &listener.address, L4BufferSettings::unbuffered());
    }
    server.add_service(sockets.attach(service));
    run(server, "clients", || {}, stop.for_listeners())
}

/// Starts the admin listeners: `admin` and `metrics`.
pub(super) fn start_admin(
    config: &Config,
    readiness: &Arc<Readiness>,
    stop: &StopSwitch,
    sockets: &Sockets,
) -> Result<(), RunError> {
    let admin = config.admin.iter().map(|admin| (&admin.address, AdminEndpoint::admin(admin, readiness)));
    let metrics = config.metrics.iter();
    let metrics = metrics.map(|metrics| (&metrics.address, AdminEndpoint::metrics(&metrics.path, readiness)));
    let mut server = server(ServerConf { threads: 1, ..ServerConf::default() });
    let mut any = false;
    for (address, endpoint) in admin.chain(metrics) {
        let mut service = Service::new(format!("admin {address}"), endpoint);
        listen(&mut service, address, L4BufferSettings::default());
        server.add_service(sockets.attach(service));
        any = true;
    }
    if any { run(server, "admin", || lower_priority(ADMIN_NICENESS), stop.for_admin()) } else { Ok(()) }
}

fn server(conf: ServerConf) -> Server {
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    server
}

fn listen<A>(service: &mut Service<A>, address: &ListenAddress, buffers: L4BufferSettings) {
    let name = socket_name(address);
    let endpoint = match address {
        // Open already.
        ListenAddress::Tcp(_) => ListenerConfig::tcp(name),
        ListenAddress::Unix(_) => ListenerConfig::uds(name),
    };
    service.add_listener(endpoint.l4_buffer(buffers));
}

/// `prepare`: done first, on the thread that starts the server's.
fn run(
    server: Server,
    name: &str,
    prepare: fn(),
    signal: impl ShutdownSignalWatch + Send + 'static,
) -> Result<(), RunError> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            prepare();
            server.run(RunArgs { shutdown_signal: Box::new(signal) });
        })
        .map(drop)
        .map_err(RunError::system(format!("the thread of the {name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_80_without_the_right_says_what_to_do() {
        let denied = || Error::from(ErrorKind::PermissionDenied);
        let advised = with_advice(denied(), 80).to_string();
        assert!(advised.contains("CAP_NET_BIND_SERVICE") && advised.contains("setcap"), "{advised}");
        assert!(!with_advice(denied(), 8080).to_string().contains("setcap"), "another cause");
        assert!(!with_advice(ErrorKind::AddrInUse.into(), 80).to_string().contains("setcap"), "another cause");
    }
}
