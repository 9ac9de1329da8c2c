//! The client of a request, as the connection and trusted proxies report it.

use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderValue;
use smallvec::SmallVec;

use super::client_certificate::ClientCertificate;

/// The client of a request.
#[derive(Debug, Clone, Default)]
pub struct Client {
    /// The address of the connection's other end; `None` over a unix socket.
    pub peer: Option<IpAddr>,
    /// The peer's address as a header value, where the connection keeps it written out.
    pub peer_text: Option<HeaderValue>,
    /// The client's own address.
    pub address: Option<IpAddr>,
    /// The peer is a trusted proxy: its forwarded headers are believed.
    pub peer_trusted: bool,
    /// The client came by TLS.
    pub secure: bool,
    /// What trusted proxies said in `Forwarded`; boxed, since it is rare.
    pub forwarded: Option<Box<ForwardedChain>>,
    /// The certificate that the connection's other end has presented here.
    pub certificate: Option<Arc<ClientCertificate>>,
}

/// What `Forwarded` says, for the X-Forwarded headers.
#[derive(Debug, Clone)]
pub struct ForwardedChain {
    /// The client, then the proxies after it, without the peer.
    pub addresses: SmallVec<[IpAddr; 4]>,
    /// The host that the client asked for.
    pub host: Option<HeaderValue>,
}

/// Whether a request may carry header fields that servers accept from this proxy only.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct ReservedNames {
    /// Fields that are removed from every request.
    pub always: bool,
    /// Fields that are removed unless the peer is trusted.
    pub unless_trusted: bool,
    /// `Connection` names fields beside the usual options: a server would not get them.
    pub nominated: bool,
    /// A `tracestate`, which is removed with a `traceparent` that is not valid.
    pub tracestate: bool,
}
