//! The HTTP probe of a health check: one request over a connection of its own.
//!
//! Not Pingora's `HttpHealthCheck`, which takes a 1xx for the response.

use std::sync::{Arc, LazyLock};

use http::{Uri, header};
use pingora::connectors::ConnectorOptions;
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::protocols::http::client::HttpSession;
use pingora::protocols::l4::socket::SocketAddr as PeerAddr;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};

use super::tls::NO_CERTIFICATES;
use super::tls_failure::NO_HTTP2;

/// Interim responses that are read; a server that sends more does not respond.
const MAX_INTERIM: usize = 16;

/// Of all servers that are asked without TLS by HTTP/1.1, which leaves nothing behind in it. The others have one each: kept
/// connections and TLS sessions of one server must not serve another, and end with it.
static PLAIN: LazyLock<Arc<Connector>> = LazyLock::new(|| Arc::new(connector()));

fn connector() -> Connector {
    let mut options = ConnectorOptions::new(1);
    options.ca_file = Some(NO_CERTIFICATES.to_owned());
    Connector::new(Some(options))
}

/// Asks one server for one path.
pub struct HttpProbe {
    connector: Arc<Connector>,
    peer: HttpPeer,
    path: String,
    /// The value of Host.
    host: String,
}

impl HttpProbe {
    /// Builds the probe of a server; `host` is the value of Host. Each check sets the server's current address.
    pub fn new(peer: HttpPeer, host: &str, path: &str) -> Self {
        let is_plain = !peer.is_tls() && peer.options.alpn.get_max_http_version() == 1;
        let connector = if is_plain { Arc::clone(&PLAIN) } else { Arc::new(connector()) };
        Self { connector, peer, path: path.to_owned(), host: host.to_owned() }
    }

    /// In the protocol of the connection, which ALPN may have decided.
    fn request(&self, h2: bool) -> Result<RequestHeader> {
        let mut request = RequestHeader::build("GET", self.path.as_bytes(), None)?;
        request.insert_header(header::USER_AGENT, concat!("homing/", env!("CARGO_PKG_VERSION")))?;
        if h2 {
            let scheme = if self.peer.is_tls() { "https" } else { "http" };
            // HTTP/2 needs scheme and authority in the target; a checked path always parses.
            if let Ok(target) = format!("{scheme}://{}{}", self.host, self.path).parse::<Uri>() {
                request.set_uri(target);
            }
        } else {
            request.insert_header(header::HOST, self.host.as_str())?;
            request.insert_header(header::CONNECTION, "close")?;
        }
        Ok(request)
    }

    /// Reads the whole response and returns its status; interim responses are skipped.
    pub async fn status(&self, address: PeerAddr) -> Result<u16> {
        let mut peer = self.peer.clone();
        peer._address = address;
        let (mut session, _) = self.connector.get_http_session(&peer).await?;
        let h2 = matches!(session, HttpSession::H2(_));
        if !h2 && peer.options.alpn.get_min_http_version() == 2 {
            return Error::e_explain(NO_HTTP2, "the server does not agree to HTTP/2");
        }
        session.set_write_timeout(peer.options.write_timeout);
        session.write_request_header(Box::new(self.request(h2)?)).await?;
        session.finish_request_body().await?;
        session.set_read_timeout(peer.options.read_timeout);
        for _ in 0..=MAX_INTERIM {
            session.read_response_header().await?;
            let status = session.response_header().map(|response| response.status);
            if let Some(status) = status.filter(|status| !status.is_informational()) {
                while session.read_response_body().await?.is_some() {}
                return Ok(status.as_u16());
            }
        }
        Error::e_explain(ErrorType::InvalidHTTPHeader, "no final response to a health check")
    }
}
