//! Probes and metrics for the operator:
//!
//! | path | response |
//! |---|---|
//! | `GET /healthz` | 200 as long as the process answers |
//! | `GET /readyz` | 200 when it serves clients; 503 while it starts and from the moment it stops |
//! | `GET /metrics` | Prometheus text |
//!
//! `admin` answers only requests for a host of `admin.allowed_hosts`, so that a web page cannot reach it through a name that
//! the page's owner controls (DNS rebinding); others get 421. `metrics`, a separate listener for Prometheus, answers its one
//! path for any host.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use http::{Method, Response, StatusCode, header};
use pingora::apps::http_app::ServeHttp;
use pingora::protocols::http::ServerSession;

use crate::app::state::AppState;
use crate::routing::host_name;

/// Whether the process is ready for requests.
pub struct Readiness {
    /// The listeners accept connections and every server has been checked once.
    pub started: AtomicBool,
    /// Knows when the process stops.
    pub app: Arc<AppState>,
}

impl Readiness {
    fn status(&self) -> Result<&'static str, &'static str> {
        if self.app.is_draining() {
            Err("draining\n")
        } else if self.started.load(Ordering::Acquire) {
            Ok("ready\n")
        } else {
            Err("starting\n")
        }
    }
}

/// One admin listener: its paths, and the hosts that it answers for.
pub struct AdminEndpoint {
    /// For `/readyz`.
    pub readiness: Arc<Readiness>,
    /// `None` = any host.
    pub allowed_hosts: Option<Vec<String>>,
    /// Has `/healthz` and `/readyz`.
    pub probes: bool,
    /// The path of the metrics.
    pub metrics_path: String,
}

const TEXT: &str = "text/plain; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

#[async_trait]
impl ServeHttp for AdminEndpoint {
    async fn response(&self, exchange: &mut ServerSession) -> Response<Vec<u8>> {
        let request = exchange.req_header();
        let host = match request.uri.authority() {
            Some(authority) => authority.as_str(),
            None => request.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default(),
        };
        let mut response = self.respond(&request.method, host, request.uri.path());
        if request.method == Method::HEAD {
            response.body_mut().clear();
        }
        response
    }
}

impl AdminEndpoint {
    fn respond(&self, method: &Method, host: &str, path: &str) -> Response<Vec<u8>> {
        if !self.allows(host) {
            return text(StatusCode::MISDIRECTED_REQUEST, "421 host not in admin.allowed_hosts\n");
        }
        if method != Method::GET && method != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "405 only GET and HEAD\n");
        }
        match path {
            "/healthz" if self.probes => text(StatusCode::OK, "ok\n"),
            "/readyz" if self.probes => match self.readiness.status() {
                Ok(status) => text(StatusCode::OK, status),
                Err(status) => text(StatusCode::SERVICE_UNAVAILABLE, status),
            },
            path if path == self.metrics_path => match self.readiness.app.render_metrics() {
                Ok(metrics) => response(StatusCode::OK, PROMETHEUS, metrics),
                Err(error) => {
                    tracing::error!(%error, "metrics cannot be encoded");
                    text(StatusCode::INTERNAL_SERVER_ERROR, "500 metrics cannot be encoded\n")
                }
            },
            _ => text(StatusCode::NOT_FOUND, "404 not found\n"),
        }
    }

    fn allows(&self, host: &str) -> bool {
        let Some(allowed) = &self.allowed_hosts else { return true };
        let name = host_name(host);
        allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(name))
    }
}

fn text(status: StatusCode, body: &str) -> Response<Vec<u8>> {
    response(status, TEXT, body.as_bytes().to_vec())
}

fn response(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Response<Vec<u8>> {
    let length = body.len();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    headers.insert(header::CONTENT_LENGTH, header::HeaderValue::from(length));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    headers.insert("x-content-type-options", header::HeaderValue::from_static("nosniff"));
    response
}
