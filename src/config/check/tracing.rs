//! The check of distributed tracing: the collector's address.

use url::Url;

use crate::config::address::{self, ServerAddress};
use crate::config::check_context::NodeRef;
use crate::config::diagnostics::Diagnostics;
use crate::config::raw;
use crate::config::suggest;
use crate::config::tracing::{Otlp, Tracing};

/// What OTLP over HTTP appends to the endpoint.
const TRACES: &str = "/v1/traces";
const HELP: &str = "write the base address of the collector, like http://127.0.0.1:4318; /v1/traces is appended";

pub(super) fn tracing(tracing: &raw::Tracing, at: NodeRef<'_>, diagnostics: &mut Diagnostics) -> Tracing {
    let propagates = tracing.propagate == raw::Propagate::W3c;
    let Some(otlp) = &tracing.otlp else { return Tracing { propagates, otlp: None } };
    if !propagates {
        let message = "\"tracing.otlp\" needs \"tracing.propagate: w3c\"";
        let help = "write propagate: w3c, so that spans of servers belong to those of the proxy, or otlp: null";
        diagnostics.problem(at.key("otlp").location, message, help);
    }
    let endpoint = endpoint(&otlp.endpoint).map_err(|why| {
        let message = format!("\"tracing.otlp.endpoint\" {why}: {}", suggest::quoted(&otlp.endpoint));
        diagnostics.problem(at.key("otlp").key("endpoint").location, message, HELP);
    });
    Tracing { propagates, otlp: endpoint.ok().map(|endpoint| Otlp { sample: otlp.sample, ..endpoint }) }
}

fn endpoint(text: &str) -> Result<Otlp, &'static str> {
    let url = Url::parse(text).map_err(|_error| "is not a URL")?;
    let tls = match url.scheme() {
        "http" => false,
        "https" => true,
        _ => return Err("is neither http:// nor https://"),
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err("has a user, which is not supported");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("has a query or a fragment");
    }
    let host = url.host_str().ok_or("has no host")?;
    let port = url.port_or_known_default().filter(|port| *port != 0).ok_or("has no valid port")?;
    let address = address::server_address(&format!("{host}:{port}")).map_err(|_help| "has no valid host")?;
    if let ServerAddress::Ip(address) = &address
        && address.ip().is_unspecified()
    {
        return Err("leads to no host");
    }
    let written = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let path = format!("{}{TRACES}", url.path().trim_end_matches('/'));
    Ok(Otlp { address, host: written, tls, path, sample: 1.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_the_base_of_the_path_of_traces() {
        for (text, address, host, path) in [
            ("http://127.0.0.1:4318", "127.0.0.1:4318", "127.0.0.1:4318", "/v1/traces"),
            ("https://otel.example.org/", "otel.example.org:443", "otel.example.org", "/v1/traces"),
            ("http://[::1]:4318/tenant/a/", "[::1]:4318", "[::1]:4318", "/tenant/a/v1/traces"),
        ] {
            let read = endpoint(text).unwrap();
            assert_eq!((read.address.to_string().as_str(), &*read.host, &*read.path), (address, host, path), "{text}");
            assert_eq!(read.tls, text.starts_with("https"));
        }
    }
}
