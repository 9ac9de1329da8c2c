//! How the bench's own proxies start: one command line, one allocator, one worker thread and one pool of idle
//! connections for all of them, as Homing has them.
//!
//! ```text
//! PROXY ADDRESS SERVER,SERVER,… IDLE_CONNECTIONS [CERTIFICATE KEY]
//! ```

use std::net::SocketAddr;
use std::process::ExitCode;

use pingora::lb::selection::RoundRobin;
use pingora::lb::{Backend, LoadBalancer};
use pingora::server::Server;
use pingora::server::configuration::ServerConf;
use pingora::{Error, ErrorType, Result};
use pingora_proxy::{ProxyHttp, http_proxy_service};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs the proxy that `made` makes of its servers, until it is told to end.
pub(crate) fn run<P>(name: &str, made: impl FnOnce(&[SocketAddr], Balancer) -> Result<P>) -> ExitCode
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match start(&arguments, made) {
        Ok(server) => server.run_forever(),
        Err(why) => {
            eprintln!("{name}: {why}\nusage: {name} ADDRESS SERVER,SERVER,… IDLE_CONNECTIONS [CERTIFICATE KEY]");
            ExitCode::FAILURE
        }
    }
}

fn start<P>(
    arguments: &[String],
    made: impl FnOnce(&[SocketAddr], Balancer) -> Result<P>,
) -> std::result::Result<Server, String>
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    let [address, servers, idle, tls @ ..] = arguments else { return Err("too few arguments".to_owned()) };
    let idle = idle.parse::<usize>().map_err(|error| format!("{idle}: {error}"))?;
    let wrong = |error: &dyn std::fmt::Display| format!("{servers}: {error}");
    let servers: Vec<SocketAddr> =
        servers.split(',').map(str::parse).collect::<std::result::Result<_, _>>().map_err(|error| wrong(&error))?;
    let balancer = LoadBalancer::try_from_iter(&servers[..]).map_err(|error| wrong(&error))?;
    let proxy = made(&servers, Balancer(balancer)).map_err(|error| error.to_string())?;
    let conf = ServerConf { threads: 1, upstream_keepalive_pool_size: idle, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, proxy);
    match tls {
        [] => service.add_tcp(address),
        [certificate, key] => {
            service.add_tls(address, certificate, key).map_err(|error| format!("{certificate}, {key}: {error}"))?;
        }
        _ => return Err("TLS takes a certificate and a key".to_owned()),
    }
    server.add_service(service);
    Ok(server)
}

/// Pingora's round robin.
pub(crate) struct Balancer(LoadBalancer<RoundRobin>);

impl Balancer {
    /// The next server in turn.
    pub(crate) fn next(&self) -> Result<Backend> {
        /// Pingora's loop for backends that fail their checks; here there are none.
        const MOST_STEPS: usize = 256;
        self.0.select(b"", MOST_STEPS).ok_or_else(|| Error::new(ErrorType::ConnectNoRoute))
    }
}
