//! The operator's door. In this version:
//!
//! | path | answer |
//! |---|---|
//! | `GET /healthz` | 200 as long as the process answers |
//! | `GET /readyz` | 200 when it serves clients; 503 while it starts and from the moment it stops |
//! | `GET /metrics` | Prometheus text |
//!
//! Only requests for a host of `admin.allowed_hosts` are answered, so that a web page cannot reach the door through a
//! name that it controls (DNS rebinding); others get 421. The door of its own for Prometheus (`metrics`) answers its one
//! path to everybody.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use http::{Method, Response, StatusCode, header};
use pingora::apps::http_app::ServeHttp;
use pingora::protocols::http::ServerSession;

use crate::app::state::AppState;
use crate::routing::host_name;

/// What the process is ready for.
pub struct Readiness {
    /// Listeners are open and every server has had a first verdict.
    pub started: AtomicBool,
    /// What outlives every request; knows when the process stops.
    pub app: Arc<AppState>,
}

impl Readiness {
    fn word(&self) -> Result<&'static str, &'static str> {
        if self.app.is_draining() {
            Err("draining\n")
        } else if self.started.load(Ordering::Acquire) {
            Ok("ready\n")
        } else {
            Err("starting\n")
        }
    }
}

/// One door: which paths it has and whom it answers.
pub struct Door {
    /// Probes.
    pub readiness: Arc<Readiness>,
    /// Host names answered; `None` = all.
    pub allowed_hosts: Option<Vec<String>>,
    /// `/healthz` and `/readyz` are here.
    pub probes: bool,
    /// Where the metrics are.
    pub metrics_path: String,
}

const TEXT: &str = "text/plain; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

#[async_trait]
impl ServeHttp for Door {
    async fn response(&self, exchange: &mut ServerSession) -> Response<Vec<u8>> {
        let request = exchange.req_header();
        let host = match request.uri.authority() {
            Some(authority) => authority.as_str(),
            None => request.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default(),
        };
        let mut answer = self.answer(&request.method, host, request.uri.path());
        if request.method == Method::HEAD {
            answer.body_mut().clear();
        }
        answer
    }
}

impl Door {
    fn answer(&self, method: &Method, host: &str, path: &str) -> Response<Vec<u8>> {
        if !self.answers(host) {
            return text(StatusCode::MISDIRECTED_REQUEST, "421 this host is not in admin.allowed_hosts\n");
        }
        if method != Method::GET && method != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "405 GET or HEAD\n");
        }
        match path {
            "/healthz" if self.probes => text(StatusCode::OK, "ok\n"),
            "/readyz" if self.probes => match self.readiness.word() {
                Ok(word) => text(StatusCode::OK, word),
                Err(word) => text(StatusCode::SERVICE_UNAVAILABLE, word),
            },
            path if path == self.metrics_path => match self.readiness.app.render_metrics() {
                Ok(metrics) => response(StatusCode::OK, PROMETHEUS, metrics),
                Err(error) => {
                    tracing::error!(%error, "metrics could not be written");
                    text(StatusCode::INTERNAL_SERVER_ERROR, "500 metrics could not be written\n")
                }
            },
            _ => text(StatusCode::NOT_FOUND, "404 there is nothing here\n"),
        }
    }

    fn answers(&self, host: &str) -> bool {
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
