//! The exporter of spans, as the configuration has it (`tracing.otlp`).

use std::sync::Arc;

use tokio::runtime::Handle;

use crate::config::{ClientTls, Otlp, ServerAddress, ServerTls, UpstreamProtocol};
use crate::pool::tls::{self, PoolTls, SystemAuthorities, TlsBuildError};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::{Collector, SpanExporter};

/// Starts the exporter, if spans are sent.
///
/// # Errors
/// When the collector needs TLS and this system trusts no authorities.
pub(super) fn start(
    otlp: Option<&Otlp>,
    node: &str,
    metrics: &Arc<Metrics>,
    executor: &Handle,
) -> Result<Option<SpanExporter>, TlsBuildError> {
    let Some(otlp) = otlp else { return Ok(None) };
    let client = ClientTls { authorities: None, server_name: None, certificate: None };
    let settings = ServerTls { verify: true, client };
    let build = || PoolTls::build(&settings, &SystemAuthorities::default(), None);
    let with_tls = otlp.tls.then(build).transpose()?;
    let collector = Collector {
        peer: tls::peer(&otlp.address, UpstreamProtocol::Http1, with_tls.as_deref()),
        name: match &otlp.address {
            ServerAddress::Name { host, port } => Some((host.clone(), *port)),
            ServerAddress::Ip(_) | ServerAddress::Unix(_) => None,
        },
        host: otlp.host.clone(),
        path: otlp.path.clone(),
    };
    Ok(Some(SpanExporter::start(collector, node, metrics, executor)))
}
