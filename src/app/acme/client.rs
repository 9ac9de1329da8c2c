//! The requests to an authority, by Pingora's connector, and what the authority says about its rate limits.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response, StatusCode, Uri, header};
use http_body_util::BodyExt;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use parking_lot::Mutex;
use pingora::connectors::ConnectorOptions;
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::protocols::http::client::HttpSession;
use pingora::protocols::l4::socket::SocketAddr as PeerAddr;
use pingora::upstreams::peer::HttpPeer;

use crate::config::address::server_address;
use crate::config::{Acme, ClientTls, ServerAddress, ServerTls, UpstreamProtocol};
use crate::pool::tls::{self, NO_CERTIFICATES, PoolTls, SystemAuthorities};
use crate::proxy::context::wall_clock;

/// For a request and its response.
const TIMEOUT: Duration = Duration::from_secs(30);
/// For a connection to one address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longer than any chain of certificates.
const MAX_RESPONSE: usize = 1024 * 1024;

/// What the authority has said when it was asked too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RateLimit {
    /// When it may be asked again, in seconds since 1970; `None`: it did not say.
    pub(super) until: Option<u64>,
    /// The request was about an order, not about the account or the directory.
    pub(super) is_of_order: bool,
}

/// A client of the authority. Clones share what the authority has said.
#[derive(Clone)]
pub(super) struct AuthorityClient(Arc<Inner>);

struct Inner {
    connector: Connector,
    tls: Arc<PoolTls>,
    limit: Mutex<Option<RateLimit>>,
}

impl AuthorityClient {
    pub(super) fn new(acme: &Acme) -> Result<Self, String> {
        let client = ClientTls { authorities: acme.authorities.clone(), server_name: None, certificate: None };
        let tls = PoolTls::build(&ServerTls { verify: true, client }, &SystemAuthorities::default(), None);
        let mut options = ConnectorOptions::new(1);
        options.ca_file = Some(NO_CERTIFICATES.to_owned());
        let connector = Connector::new(Some(options));
        Ok(Self(Arc::new(Inner { connector, tls: tls.map_err(|error| error.to_string())?, limit: Mutex::default() })))
    }

    /// What the authority has said since the last call.
    pub(super) fn take_rate_limit(&self) -> Option<RateLimit> {
        self.0.limit.lock().take()
    }
}

impl HttpClient for AuthorityClient {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            let answered = tokio::time::timeout(TIMEOUT, inner.send(request)).await;
            let response = answered.unwrap_or_else(|_| Err("no response in time".to_owned()));
            let (parts, body) = response.map_err(|why| Error::Other(why.into()))?.into_parts();
            Ok(BytesResponse { parts, body: Box::new(body) })
        })
    }
}

impl Inner {
    async fn send(&self, request: Request<BodyWrapper<Bytes>>) -> Result<Response<Bytes>, String> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
        let mut session = self.connect(&parts.uri).await?;
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let head = request_head(&parts, path, body.len());
        let response = exchange(&mut session, head.map_err(|error| error.to_string())?, body).await;
        session.shutdown().await;
        let response = response.map_err(|error| format!("{}: {error}", parts.uri))?;
        self.note(&response, parts.method == Method::POST);
        Ok(response)
    }

    /// 503 with a Retry-After says the same as 429.
    fn note(&self, response: &Response<Bytes>, is_of_order: bool) {
        let until = response.headers().get(header::RETRY_AFTER).and_then(|value| retry_after(value.to_str().ok()?));
        let limited = match response.status() {
            StatusCode::TOO_MANY_REQUESTS => true,
            StatusCode::SERVICE_UNAVAILABLE => until.is_some(),
            _ => false,
        };
        if limited {
            *self.limit.lock() = Some(RateLimit { until, is_of_order });
        }
    }

    /// A new connection for each request: there are a dozen in two months.
    async fn connect(&self, uri: &Uri) -> Result<HttpSession, String> {
        let (host, port) = (uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(443));
        if uri.scheme_str() != Some("https") {
            return Err(format!("{uri} is no https URL"));
        }
        let address = server_address(&format!("{host}:{port}")).map_err(|help| format!("{uri}: {help}"))?;
        let mut peer = tls::peer(&address, UpstreamProtocol::Http1, Some(&self.tls));
        peer.options.connection_timeout = Some(CONNECT_TIMEOUT);
        peer.options.total_connection_timeout = Some(CONNECT_TIMEOUT);
        let ServerAddress::Name { host, port } = &address else { return self.connect_to(&peer, host).await };
        let mut last = format!("{host} has no address");
        let found = tokio::net::lookup_host((host.as_str(), *port)).await;
        for address in found.map_err(|error| format!("{host}: {error}"))? {
            peer._address = PeerAddr::Inet(address);
            match self.connect_to(&peer, host).await {
                Ok(session) => return Ok(session),
                Err(why) => last = why,
            }
        }
        Err(last)
    }

    async fn connect_to(&self, peer: &HttpPeer, host: &str) -> Result<HttpSession, String> {
        let connected = self.connector.get_http_session(peer).await;
        connected.map(|(session, _)| session).map_err(|error| format!("{host}: {error}"))
    }
}

fn request_head(parts: &http::request::Parts, path: &str, length: usize) -> pingora::Result<RequestHeader> {
    let mut head = RequestHeader::build(parts.method.clone(), path.as_bytes(), None)?;
    let authority = parts.uri.authority().map_or("", http::uri::Authority::as_str);
    head.insert_header(header::HOST, authority)?;
    head.insert_header(header::USER_AGENT, concat!("homing/", env!("CARGO_PKG_VERSION"), " instant-acme"))?;
    if let Some(kind) = parts.headers.get(header::CONTENT_TYPE) {
        head.insert_header(header::CONTENT_TYPE, kind)?;
    }
    if parts.method == Method::POST {
        head.insert_header(header::CONTENT_LENGTH, length)?;
    }
    Ok(head)
}

async fn exchange(session: &mut HttpSession, head: RequestHeader, body: Bytes) -> pingora::Result<Response<Bytes>> {
    let has_body = !body.is_empty();
    session.write_request_header(Box::new(head)).await?;
    if has_body {
        session.write_request_body(body, true).await?;
    }
    session.finish_request_body().await?;
    session.read_response_header().await?;
    let mut response = Response::new(Bytes::new());
    if let Some(received) = session.response_header() {
        *response.status_mut() = received.status;
        response.headers_mut().clone_from(&received.headers);
    }
    let mut all = BytesMut::new();
    while let Some(piece) = session.read_response_body().await? {
        all.extend_from_slice(&piece);
        if all.len() > MAX_RESPONSE {
            return Err(pingora::Error::explain(pingora::ErrorType::InvalidHTTPHeader, "the response is too long"));
        }
    }
    *response.body_mut() = all.freeze();
    Ok(response)
}

/// In seconds, or a date.
fn retry_after(value: &str) -> Option<u64> {
    if let Ok(seconds) = value.trim().parse::<u64>() {
        return Some(wall_clock().as_secs().saturating_add(seconds));
    }
    let date = httpdate::parse_http_date(value.trim()).ok()?;
    date.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_in_both_forms() {
        let now = wall_clock().as_secs();
        assert!(retry_after(" 120 ").is_some_and(|until| (now + 120..now + 130).contains(&until)));
        assert_eq!(retry_after("Fri, 31 Dec 1999 23:59:59 GMT"), Some(946_684_799));
        assert_eq!(retry_after("soon"), None);
    }
}
