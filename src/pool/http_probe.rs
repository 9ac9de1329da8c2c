//! The HTTP probe of a health check: one request over a connection of its own.
//!
//! Not Pingora's `HttpHealthCheck`, which takes a 1xx for the response.

use http::{Uri, header};
use pingora::connectors::ConnectorOptions;
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::protocols::l4::socket::SocketAddr as PeerAddr;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};

use crate::config;

/// Loads no certificates: Pingora loads the system's for every connector, which takes tens of milliseconds, and ends the
/// process if there are none. Health checks speak no TLS.
pub const NO_CERTIFICATES: &str = "/dev/null";

/// Interim responses that are read; a server that sends more does not respond.
const MAX_INTERIM: usize = 16;

/// Asks one server for one path.
pub struct HttpProbe {
    connector: Connector,
    peer: HttpPeer,
    request: RequestHeader,
}

impl HttpProbe {
    /// Builds the probe of a server, in its protocol; `host` is the value of Host.
    pub fn new(
        check: &config::HealthCheck,
        protocol: config::UpstreamProtocol,
        host: &str,
        path: &str,
    ) -> Result<Self> {
        let mut options = ConnectorOptions::new(1);
        options.ca_file = Some(NO_CERTIFICATES.to_owned());
        // Each check sets the server's current address.
        let mut peer = HttpPeer::new(std::net::SocketAddr::from(([127, 0, 0, 1], 9)), false, String::new());
        peer.options.connection_timeout = Some(check.timeout);
        peer.options.read_timeout = Some(check.timeout);
        peer.options.write_timeout = Some(check.timeout);
        let mut request = RequestHeader::build("GET", path.as_bytes(), None)?;
        request.insert_header(header::USER_AGENT, concat!("homing/", env!("CARGO_PKG_VERSION")))?;
        if protocol == config::UpstreamProtocol::H2 {
            peer.options.set_http_version(2, 2);
            // HTTP/2 needs scheme and authority in the target; a checked path always parses.
            if let Ok(target) = format!("http://{host}{path}").parse::<Uri>() {
                request.set_uri(target);
            }
        } else {
            request.insert_header(header::HOST, host)?;
            request.insert_header(header::CONNECTION, "close")?;
        }
        Ok(Self { connector: Connector::new(Some(options)), peer, request })
    }

    /// Reads the whole response and returns its status; interim responses are skipped.
    pub async fn status(&self, address: PeerAddr) -> Result<u16> {
        let mut peer = self.peer.clone();
        peer._address = address;
        let (mut session, _) = self.connector.get_http_session(&peer).await?;
        session.set_write_timeout(peer.options.write_timeout);
        session.write_request_header(Box::new(self.request.clone())).await?;
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
