//! The floor that Homing stands on: the least that a proxy made of Pingora can do. Round robin over fixed servers, no
//! filter, no module, no log, one worker thread. Same build profile, allocator, features and pool of idle connections as
//! `homing`, so that what Homing costs above it is Homing and what Homing does; `sticky.rs` tells the two apart.

#![allow(clippy::print_stderr, reason = "a program for the bench: it says on standard error why it does not start")]

mod start;

use std::process::ExitCode;

use async_trait::async_trait;
use pingora::Result;
use pingora::modules::http::HttpModules;
use pingora::upstreams::peer::HttpPeer;
use pingora_proxy::{ProxyHttp, Session};

struct Floor(start::Balancer);

#[async_trait]
impl ProxyHttp for Floor {
    type CTX = ();

    fn new_ctx(&self) {}

    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.0.next()?, false, String::new())))
    }
}

fn main() -> ExitCode {
    start::run("floor", |_, balancer| Ok(Floor(balancer)))
}
