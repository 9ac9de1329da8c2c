//! A request to the admin listener as plain data.

use std::time::Duration;

use http::{HeaderMap, HeaderName, Method, StatusCode, header};
use pingora::protocols::http::ServerSession;
use serde::de::DeserializeOwned;

use super::problem::Problem;

/// Bytes of a body; no request of the API needs more.
const MAX_BODY: usize = 64 << 10;
/// For the whole body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct AdminRequest {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    /// The host that it asks, from the target or from `Host`.
    pub(crate) host: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl AdminRequest {
    /// The head, without the body.
    pub(crate) fn head(exchange: &ServerSession) -> Self {
        let request = exchange.req_header();
        let host = match request.uri.authority() {
            Some(authority) => authority.as_str(),
            None => request.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default(),
        };
        Self {
            method: request.method.clone(),
            path: request.uri.path().to_owned(),
            query: request.uri.query().unwrap_or_default().to_owned(),
            host: host.to_owned(),
            headers: request.headers.clone(),
            body: Vec::new(),
        }
    }

    /// Reads the body, as far as one is acceptable.
    pub(crate) async fn read_body(&mut self, exchange: &mut ServerSession) -> Result<(), Problem> {
        let timeout = || Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time");
        let read = async {
            while let Some(piece) =
                exchange.read_request_body().await.map_err(|_cut| Problem::bad_request("the body is cut off"))?
            {
                if self.body.len() + piece.len() > MAX_BODY {
                    return Err(Problem::new(
                        StatusCode::PAYLOAD_TOO_LARGE,
                        format!("a body has at most {MAX_BODY} bytes"),
                    ));
                }
                self.body.extend_from_slice(&piece);
            }
            Ok(())
        };
        tokio::time::timeout(BODY_TIMEOUT, read).await.map_err(|_elapsed| timeout())?
    }

    fn text(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The credentials: `Authorization: Bearer …`.
    pub(crate) fn bearer(&self) -> Option<&str> {
        let (scheme, token) = self.text(&header::AUTHORIZATION)?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    }

    /// A page of another site sent it: by what browsers say and pages cannot change.
    pub(crate) fn is_cross_site(&self) -> bool {
        let foreign = |origin: &str| {
            let authority = origin.split_once("://").map(|(_, authority)| authority);
            authority.is_none_or(|authority| !authority.eq_ignore_ascii_case(&self.host))
        };
        let site = self.text(&SEC_FETCH_SITE);
        self.headers.get(header::ORIGIN).is_some_and(|origin| origin.to_str().map_or(true, foreign))
            || site.is_some_and(|site| !matches!(site, "same-origin" | "none"))
    }

    /// Whether the client wants the type.
    pub(crate) fn accepts(&self, media_type: &str) -> bool {
        let accept = self.text(&header::ACCEPT).unwrap_or_default();
        accept.split(',').any(|range| range.split(';').next().is_some_and(|range| range.trim() == media_type))
    }

    /// A field as text.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body as JSON. Broken JSON is 400; what does not fit is 422.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        let media_type = self.text(&header::CONTENT_TYPE).and_then(|value| value.split(';').next()).unwrap_or_default();
        if !media_type.trim().eq_ignore_ascii_case("application/json") {
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send Content-Type: application/json"));
        }
        let value: serde_json::Value =
            serde_json::from_slice(&self.body).map_err(|error| Problem::bad_request(format!("no JSON: {error}")))?;
        serde_json::from_value(value).map_err(|error| Problem::unprocessable(error.to_string()))
    }

    /// The query, each parameter once and only those of these names.
    pub(crate) fn parameters<const N: usize>(&self, names: [&str; N]) -> Result<[Option<String>; N], Problem> {
        let mut found = [const { None }; N];
        for pair in self.query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let place = names.iter().position(|known| *known == name).and_then(|index| found.get_mut(index));
            let Some(place) = place else {
                let known = names.join(", ");
                return Err(Problem::bad_request(format!("unknown parameter {name:?}; there are {known}")));
            };
            if place.replace(decoded(value)?).is_some() {
                return Err(Problem::bad_request(format!("parameter {name:?} is there twice")));
            }
        }
        Ok(found.map(|value| value.filter(|value| !value.is_empty())))
    }

    /// The path's segments, decoded.
    pub(crate) fn segments(&self) -> Result<Vec<String>, Problem> {
        self.path.trim_start_matches('/').split('/').map(decoded).collect()
    }
}

fn decoded(text: &str) -> Result<String, Problem> {
    let invalid = || Problem::bad_request(format!("{text:?} is not percent-encoded UTF-8"));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
        match byte {
            b'%' => {
                let value = digit().zip(digit()).map(|(high, low)| high * 16 + low).ok_or_else(invalid)?;
                bytes.push(u8::try_from(value).map_err(|_large| invalid())?);
            }
            b'+' => bytes.push(b' '),
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).map_err(|_bytes| invalid())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(query: &str, headers: &[(&'static str, &'static str)]) -> AdminRequest {
        let headers = headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        AdminRequest {
            method: Method::POST,
            path: "/api/v1/sessions/a%20b/k".to_owned(),
            query: query.to_owned(),
            host: "localhost:9900".to_owned(),
            headers: headers.collect(),
            body: b"{\"a\": 1".to_vec(),
        }
    }

    #[test]
    fn pages_of_other_sites_are_told_from_ones_own() {
        for headers in [
            &[][..],
            &[("origin", "http://localhost:9900")],
            &[("sec-fetch-site", "same-origin")],
            &[("sec-fetch-site", "none")],
        ] {
            assert!(!request("", headers).is_cross_site(), "{headers:?}");
        }
        for headers in [
            [("origin", "http://evil.example")],
            [("origin", "null")],
            [("origin", "http://localhost:8080")],
            [("sec-fetch-site", "cross-site")],
            [("sec-fetch-site", "same-site")],
        ] {
            assert!(request("", &headers).is_cross_site(), "{headers:?}");
        }
    }

    #[test]
    fn parameters_are_decoded_and_none_is_unknown_or_there_twice() {
        let found = request("pool=a%2Bb&limit=", &[]).parameters(["limit", "pool"]).unwrap();
        assert_eq!(found, [None, Some("a+b".to_owned())]);
        for query in ["pol=a", "pool=a&pool=b", "pool=%zz", "pool=%ff"] {
            assert_eq!(request(query, &[]).parameters(["pool"]).unwrap_err().status, 400, "{query}");
        }
        assert_eq!(request("", &[]).segments().unwrap(), ["api", "v1", "sessions", "a b", "k"]);
    }

    #[test]
    fn a_body_is_json_and_says_so() {
        let json = |headers: &[(&'static str, &'static str)]| {
            request("", headers).json::<serde_json::Value>().unwrap_err().status
        };
        assert_eq!(json(&[]), 415);
        assert_eq!(json(&[("content-type", "text/plain")]), 415);
        assert_eq!(json(&[("content-type", "application/json; charset=utf-8")]), 400);
    }
}
