//! What one would write by hand to have Homing's cookie mode without Homing: a sticky cookie in plain text, the headers
//! that servers are told, timeouts, limits and metrics, by Pingora's public API as its guides show it. What this costs
//! above `floor.rs` is the price of these duties; what Homing costs above this is Homing.
//!
//! It does not seal its cookie, keeps no table of sessions, looks at no byte of a request that Pingora has taken, tries
//! no other server when one fails, and knows one pool.

#![allow(clippy::print_stderr, reason = "a program for the bench: it says on standard error why it does not start")]

mod start;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use http::{HeaderMap, HeaderName, HeaderValue, Version, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, OrErr, Result};
use pingora_proxy::{ProxyHttp, Session};
use prometheus::{
    Histogram, IntCounter, IntCounterVec, histogram_opts, register_histogram_vec, register_int_counter_vec,
};
use uuid::Uuid;

/// Before a server's name, in a cookie.
const COOKIE: &[u8] = b"SRV=";
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

// Homing's defaults, but for bodies, which it takes of any length. That there are at most 256 headers is Pingora's own
// limit, for both.
const MOST_HEADER_BYTES: usize = 64 * 1024;
const MOST_BODY_BYTES: u64 = 1 << 30;
const KEEPALIVE_SECONDS: u64 = 75;
const CLIENT: Duration = Duration::from_secs(60);
const DRAIN: Duration = Duration::from_secs(5);
const CONNECT: Duration = Duration::from_secs(2);
const SERVER: Duration = Duration::from_secs(60);
const IDLE: Duration = Duration::from_secs(30);

struct Sticky {
    balancer: start::Balancer,
    servers: Vec<Server>,
    by_name: HashMap<Vec<u8>, usize>,
    by_address: HashMap<SocketAddr, usize>,
    metrics: Metrics,
}

struct Server {
    peer: HttpPeer,
    set_cookie: HeaderValue,
}

/// One request, while it is under way.
struct Request {
    began: Instant,
    /// It has a cookie of ours, whether that names a server or not.
    has_cookie: bool,
    named: Option<usize>,
    chosen: Option<usize>,
}

impl Sticky {
    fn new(addresses: &[SocketAddr], balancer: start::Balancer) -> Result<Self> {
        let names: Vec<String> = (0..addresses.len()).map(|number| format!("s{number}")).collect();
        let servers: Result<Vec<Server>> =
            names.iter().zip(addresses).map(|(name, address)| Server::new(name, *address)).collect();
        Ok(Self {
            balancer,
            servers: servers?,
            by_name: names.into_iter().map(String::into_bytes).zip(0..).collect(),
            by_address: addresses.iter().copied().zip(0..).collect(),
            metrics: Metrics::new("app").or_err(ErrorType::InternalError, "metrics")?,
        })
    }
}

impl Server {
    fn new(name: &str, address: SocketAddr) -> Result<Self> {
        let mut peer = HttpPeer::new(address, false, String::new());
        peer.options.connection_timeout = Some(CONNECT);
        peer.options.total_connection_timeout = Some(CONNECT);
        peer.options.read_timeout = Some(SERVER);
        peer.options.write_timeout = Some(SERVER);
        peer.options.idle_timeout = Some(IDLE);
        let set_cookie = HeaderValue::from_str(&format!("SRV={name}; Path=/; HttpOnly; SameSite=Lax"))
            .or_err(ErrorType::InvalidHTTPHeader, "cookie")?;
        Ok(Self { peer, set_cookie })
    }
}

#[async_trait]
impl ProxyHttp for Sticky {
    type CTX = Request;

    fn new_ctx(&self) -> Request {
        Request { began: Instant::now(), has_cookie: false, named: None, chosen: None }
    }

    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    async fn request_filter(&self, session: &mut Session, request: &mut Request) -> Result<bool> {
        session.set_read_timeout(Some(CLIENT));
        session.set_write_timeout(Some(CLIENT));
        session.set_total_drain_timeout(Some(DRAIN));
        // None: the client wants to be gone after this answer.
        if session.get_keepalive().is_some() {
            session.set_keepalive(Some(KEEPALIVE_SECONDS));
        }
        let header = session.req_header();
        if let Err(status) = check(header) {
            session.respond_error(status).await?;
            return Ok(true);
        }
        for name in cookies(&header.headers).filter_map(|cookie| cookie.strip_prefix(COOKIE)) {
            request.has_cookie = true;
            request.named = request.named.or_else(|| self.by_name.get(name).copied());
        }
        Ok(false)
    }

    async fn upstream_peer(&self, _: &mut Session, request: &mut Request) -> Result<Box<HttpPeer>> {
        let chosen = match request.named {
            Some(named) => Some(named),
            None => self.balancer.next()?.addr.as_inet().and_then(|address| self.by_address.get(address).copied()),
        };
        request.chosen = chosen;
        let server = chosen.and_then(|chosen| self.servers.get(chosen));
        Ok(Box::new(server.ok_or_else(|| Error::new(ErrorType::ConnectNoRoute))?.peer.clone()))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        header: &mut RequestHeader,
        request: &mut Request,
    ) -> Result<()> {
        if request.has_cookie {
            take_off_cookie(header)?;
        }
        header.remove_header(&header::FORWARDED);
        header.remove_header(&X_REAL_IP);
        match session.client_addr().and_then(|address| address.as_inet()) {
            Some(client) => header.insert_header("X-Forwarded-For", client.ip().to_canonical().to_string())?,
            None => drop(header.remove_header("x-forwarded-for")),
        }
        let secure = session.digest().is_some_and(|digest| digest.ssl_digest.is_some());
        let proto = HeaderValue::from_static(if secure { "https" } else { "http" });
        header.insert_header("X-Forwarded-Proto", proto)?;
        match header.headers.get(header::HOST).cloned() {
            Some(host) => header.insert_header("X-Forwarded-Host", host)?,
            None => drop(header.remove_header("x-forwarded-host")),
        }
        let id = uuid::Builder::from_random_bytes(rand::random()).into_uuid();
        header.insert_header("X-Request-Id", id.hyphenated().encode_lower(&mut Uuid::encode_buffer()) as &str)
    }

    async fn response_filter(&self, _: &mut Session, answer: &mut ResponseHeader, request: &mut Request) -> Result<()> {
        if request.named.is_some() || answer.status.is_informational() {
            return Ok(());
        }
        let Some(server) = request.chosen.and_then(|chosen| self.servers.get(chosen)) else { return Ok(()) };
        answer.append_header("Set-Cookie", server.set_cookie.clone())?;
        // No shared cache hands this client's server on to others.
        answer.append_header("Cache-Control", HeaderValue::from_static("private"))?;
        Ok(())
    }

    async fn logging(&self, session: &mut Session, _: Option<&Error>, request: &mut Request) {
        let code = session.response_written().map_or(0, |answer| answer.status.as_u16());
        self.metrics.count(code, request.began.elapsed());
    }
}

/// What must be answered at once, with this status.
fn check(request: &RequestHeader) -> std::result::Result<(), u16> {
    let headers = &request.headers;
    let size: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if size > MOST_HEADER_BYTES {
        return Err(431);
    }
    if request.version == Version::HTTP_11 && !headers.contains_key(header::HOST) {
        return Err(400);
    }
    let Some(length) = headers.get(header::CONTENT_LENGTH) else { return Ok(()) };
    match length.to_str().ok().and_then(|length| length.parse::<u64>().ok()) {
        None => Err(400),
        Some(length) if length > MOST_BODY_BYTES => Err(413),
        Some(_) => Ok(()),
    }
}

/// `name=value`, each (RFC 6265, section 4.2.1).
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let fields = headers.get_all(header::COOKIE).into_iter();
    fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b';')).map(<[u8]>::trim_ascii)
}

fn take_off_cookie(request: &mut RequestHeader) -> Result<()> {
    let mut others = Vec::new();
    for cookie in cookies(&request.headers).filter(|cookie| !cookie.is_empty() && !cookie.starts_with(COOKIE)) {
        if !others.is_empty() {
            others.extend_from_slice(b"; ");
        }
        others.extend_from_slice(cookie);
    }
    if others.is_empty() {
        request.remove_header(&header::COOKIE);
        return Ok(());
    }
    request.insert_header("Cookie", others)
}

/// Requests by pool and code, and how long they took.
struct Metrics {
    pool: &'static str,
    requests: IntCounterVec,
    /// A code is looked up by name when it comes for the first time.
    codes: Vec<OnceLock<IntCounter>>,
    duration: Histogram,
}

impl Metrics {
    fn new(pool: &'static str) -> prometheus::Result<Self> {
        let buckets =
            vec![0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
        let requests = register_int_counter_vec!("requests_total", "Requests.", &["pool", "code"])?;
        let duration = histogram_opts!("request_duration_seconds", "How long requests took.", buckets);
        let duration = register_histogram_vec!(duration, &["pool"])?.with_label_values(&[pool]);
        Ok(Self { pool, requests, codes: (0..600).map(|_| OnceLock::new()).collect(), duration })
    }

    /// Code 0: the client was gone before an answer.
    fn count(&self, code: u16, took: Duration) {
        if let Some(counter) = self.codes.get(usize::from(code)) {
            counter.get_or_init(|| self.requests.with_label_values(&[self.pool, &code.to_string()])).inc();
        }
        self.duration.observe(took.as_secs_f64());
    }
}

fn main() -> ExitCode {
    start::run("sticky", Sticky::new)
}
