//! The floor that Homing stands on: the least that a proxy made of Pingora can do. Round robin over fixed servers, no
//! filter, no module, no log, one worker thread. Same build profile, allocator, features and pool of idle connections as
//! `homing`, so that what Homing costs above it is Homing.
//!
//! ```text
//! floor ADDRESS SERVER,SERVER,… IDLE_CONNECTIONS [CERTIFICATE KEY]
//! ```

#![allow(clippy::print_stderr, reason = "a program for the bench: it says on standard error why it does not start")]

use std::process::ExitCode;

use async_trait::async_trait;
use pingora::lb::LoadBalancer;
use pingora::lb::selection::RoundRobin;
use pingora::modules::http::HttpModules;
use pingora::server::Server;
use pingora::server::configuration::ServerConf;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Pingora's loop for backends that fail their checks; here there are none.
const MOST_STEPS: usize = 256;

struct Floor(LoadBalancer<RoundRobin>);

#[async_trait]
impl ProxyHttp for Floor {
    type CTX = ();

    fn new_ctx(&self) {}

    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> Result<Box<HttpPeer>> {
        let server = self.0.select(b"", MOST_STEPS).ok_or_else(|| Error::new(ErrorType::ConnectNoRoute))?;
        Ok(Box::new(HttpPeer::new(server, false, String::new())))
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match start(&arguments) {
        Ok(server) => server.run_forever(),
        Err(why) => {
            eprintln!("floor: {why}\nusage: floor ADDRESS SERVER,SERVER,… IDLE_CONNECTIONS [CERTIFICATE KEY]");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: &[String]) -> std::result::Result<Server, String> {
    let [address, servers, idle, tls @ ..] = arguments else { return Err("too few arguments".to_owned()) };
    let idle = idle.parse::<usize>().map_err(|error| format!("{idle}: {error}"))?;
    let balancer = LoadBalancer::try_from_iter(servers.split(',')).map_err(|error| format!("{servers}: {error}"))?;
    let conf = ServerConf { threads: 1, upstream_keepalive_pool_size: idle, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, Floor(balancer));
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
