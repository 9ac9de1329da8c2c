//! The response of a route that redirects.

use bytes::Bytes;
use http::{HeaderValue, header};
use smallvec::SmallVec;

use crate::message::{OwnResponse, RequestView};
use crate::routing::Redirect;

/// The redirect of a request; `None` when its host must not be echoed. `secure`: the client came by TLS.
pub(crate) fn redirect_response(to: &Redirect, request: &RequestView<'_>, secure: bool) -> Option<OwnResponse> {
    let location = to.location(request.host(), request.path(), request.query(), secure)?;
    let mut fields = SmallVec::new();
    fields.push((header::LOCATION, location));
    fields.push((header::CONTENT_LENGTH, HeaderValue::from_static("0")));
    Some(OwnResponse { status: to.status, fields, body: Bytes::new() })
}

#[cfg(test)]
mod tests {
    use http::{Method, StatusCode, Version};

    use super::*;
    use crate::config::{Config, ProcessEnvironment};
    use crate::message::Fields;
    use crate::routing::{RouteInput, RouteTarget, Router};

    const CONFIG: &str = "
version: 1
listeners: [{ address: 127.0.0.1:8080 }]
routes: [{ name: https, redirect: { scheme: https, status: 301 } }]
pools: { web: { servers: [{ name: a, address: 127.0.0.1:9001 }] } }
";

    fn respond(target: &str, host: &str) -> Option<OwnResponse> {
        let config = Config::parse("test", CONFIG, &ProcessEnvironment).unwrap().config;
        let router = Router::build(&config.routes, &["web"]);
        let field = [httparse::Header { name: "Host", value: host.as_bytes() }];
        let request = RequestView::http1(&Method::GET, target.as_bytes(), Version::HTTP_11, Fields::Parsed(&field));
        let input = RouteInput { host: host.as_bytes(), path: request.path(), fields: request.fields, secure: false };
        let RouteTarget::Redirect(to) = &router.find(input).unwrap().target else { panic!("a redirect") };
        redirect_response(to, &request, false)
    }

    #[test]
    fn a_redirect_has_status_location_and_no_body() {
        let response = respond("/cart?id=1", "a.example:8080").unwrap();
        assert_eq!((response.status, response.body.len()), (StatusCode::MOVED_PERMANENTLY, 0));
        let fields: Vec<_> = response.fields.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        assert_eq!(fields, [("location", &b"https://a.example/cart?id=1"[..]), ("content-length", b"0")]);
    }

    #[test]
    fn a_host_that_is_none_gets_no_redirect() {
        assert!(respond("/", "a@b.example").is_none());
    }
}
