//! A small HTTP/1.1 client of the admin API.
//!
//! Pingora's own codec reads and writes the messages (chunks, lengths, limits of a head), so that there is no second one in the
//! tree. Its connector is not used: that would load the system's certificates for each command. A client crate without TLS
//! (ureq) speaks to unix sockets only through an interface that it does not keep stable. One request a connection is enough.

use std::fmt;
use std::io;
use std::time::Duration;

use http::{Method, StatusCode, header};
use pingora::http::RequestHeader;
use pingora::protocols::Stream;
use pingora::protocols::http::v1::client::HttpSession;
use pingora::protocols::l4::stream::Stream as Connection;
use serde_json::Value;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::address::AdminAddress;

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the proxy may be silent while a response is due.
pub(super) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);
/// More than a thousand servers or sessions take.
const MAX_BODY: usize = 64 * 1024 * 1024;

/// Why a request has no result.
#[derive(Debug)]
pub(super) enum ClientError {
    /// There is no proxy, or it went away.
    Unreachable(String),
    /// It responded with an error.
    Refused(Problem),
    /// It responded with something that is not the admin API's.
    Invalid(String),
}

/// An error response.
#[derive(Debug)]
pub(super) struct Problem {
    /// Its status.
    pub(super) status: StatusCode,
    /// What is wrong, in a line.
    pub(super) message: String,
    /// Each problem of a refused configuration.
    pub(super) problems: Vec<String>,
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) | Self::Invalid(why) => f.write_str(why),
            Self::Refused(problem) => f.write_str(&problem.message),
        }
    }
}

/// The admin API of one proxy.
pub(super) struct Client {
    address: AdminAddress,
    token: Option<String>,
    executor: tokio::runtime::Runtime,
}

impl Client {
    /// Without a connection yet.
    pub(super) fn new(address: AdminAddress, token: Option<String>) -> io::Result<Self> {
        let executor = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { address, token: token.filter(|token| !token.is_empty()), executor })
    }

    /// Runs a future on the client's thread.
    pub(super) fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.executor.block_on(future)
    }

    /// Reads a resource.
    pub(super) fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.send(&Method::GET, path, None)
    }

    /// Reads a resource that the proxy may hold back for so long.
    pub(super) fn get_waiting(&self, path: &str, wait: Duration) -> Result<Value, ClientError> {
        json(&self.block_on(self.request(&Method::GET, path, None, wait + RESPONSE_TIMEOUT))?)
    }

    /// Sends a change. An empty response is `null`.
    pub(super) fn send(&self, method: &Method, path: &str, body: Option<&Value>) -> Result<Value, ClientError> {
        json(&self.block_on(self.request(method, path, body, RESPONSE_TIMEOUT))?)
    }

    /// Sends a change without a body that takes the proxy so long.
    pub(super) fn send_waiting(&self, method: &Method, path: &str, patience: Duration) -> Result<Value, ClientError> {
        json(&self.block_on(self.request(method, path, None, patience))?)
    }

    /// Reads a text.
    pub(super) fn text(&self, path: &str) -> Result<String, ClientError> {
        let body = self.block_on(self.request(&Method::GET, path, None, RESPONSE_TIMEOUT))?;
        String::from_utf8(body).map_err(|error| ClientError::Invalid(format!("{path} is no text: {error}")))
    }

    async fn request(
        &self,
        method: &Method,
        path: &str,
        body: Option<&Value>,
        patience: Duration,
    ) -> Result<Vec<u8>, ClientError> {
        let body = body.map(|body| body.to_string().into_bytes());
        let head = self.head(method, path, body.as_deref()).map_err(|error| ClientError::Invalid(error.to_string()))?;
        let connection = timeout(CONNECT_TIMEOUT, connect(&self.address))
            .await
            .map_err(|_elapsed| self.unreachable(&"the connection takes too long"))?
            .map_err(|error| self.unreachable(&error))?;
        let mut session = HttpSession::new(connection);
        let (status, body) = timeout(patience, exchange(&mut session, head, body.as_deref()))
            .await
            .map_err(|_elapsed| self.unreachable(&"it does not respond"))?
            .map_err(|error| self.unreachable(&error))?;
        if status.is_success() { Ok(body) } else { Err(ClientError::Refused(Problem::read(status, &body))) }
    }

    fn head(&self, method: &Method, path: &str, body: Option<&[u8]>) -> pingora::Result<Box<RequestHeader>> {
        let mut head = Box::new(RequestHeader::build(method.clone(), path.as_bytes(), None)?);
        head.insert_header(header::HOST, self.address.host())?;
        head.insert_header(header::ACCEPT, "application/json, application/problem+json, text/plain")?;
        head.insert_header(header::CONNECTION, "close")?;
        if let Some(token) = &self.token {
            head.insert_header(header::AUTHORIZATION, format!("Bearer {token}"))?;
        }
        if let Some(body) = body {
            head.insert_header(header::CONTENT_TYPE, "application/json")?;
            head.insert_header(header::CONTENT_LENGTH, body.len())?;
        } else if method != Method::GET {
            head.insert_header(header::CONTENT_LENGTH, 0)?;
        }
        Ok(head)
    }

    fn unreachable(&self, why: &dyn fmt::Display) -> ClientError {
        ClientError::Unreachable(format!("no proxy can be reached at {}: {why}", self.address))
    }
}

async fn connect(address: &AdminAddress) -> io::Result<Stream> {
    Ok(match address {
        AdminAddress::Tcp(host, port) => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            stream.set_nodelay(true)?;
            Box::new(Connection::from(stream))
        }
        AdminAddress::Unix(path) => Box::new(Connection::from(UnixStream::connect(path).await?)),
    })
}

async fn exchange(
    session: &mut HttpSession,
    head: Box<RequestHeader>,
    body: Option<&[u8]>,
) -> pingora::Result<(StatusCode, Vec<u8>)> {
    session.write_request_header(head).await?;
    if let Some(body) = body {
        session.write_body(body).await?;
    }
    session.finish_body().await?;
    let mut status = StatusCode::CONTINUE;
    while status.is_informational() {
        session.read_response().await?;
        status = session.get_status().unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    }
    let mut received = Vec::new();
    while let Some(part) = session.read_body_bytes().await? {
        if received.len() + part.len() > MAX_BODY {
            return pingora::Error::e_explain(pingora::ErrorType::ReadError, "the response is too large");
        }
        received.extend_from_slice(&part);
    }
    Ok((status, received))
}

fn json(body: &[u8]) -> Result<Value, ClientError> {
    if body.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(body).map_err(|error| ClientError::Invalid(format!("the response is no JSON: {error}")))
}

impl Problem {
    /// From problem+json, else from the text.
    fn read(status: StatusCode, body: &[u8]) -> Self {
        let problem: Value = serde_json::from_slice(body).unwrap_or_default();
        let field = |name: &str| problem.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let text = String::from_utf8_lossy(body);
        let line = text.lines().next().map(str::trim).filter(|line| !line.is_empty() && problem.is_null());
        // A detail says it all: the title is the status in words.
        let message = field("detail").or_else(|| field("title")).or(line);
        let message = message.map_or_else(|| status.to_string(), str::to_owned);
        let message = match status {
            StatusCode::UNAUTHORIZED => format!("{message} (the token is read from HOMING_ADMIN_TOKEN)"),
            _ => message,
        };
        let text = |problem: &Value| problem.as_str().map_or_else(|| problem.to_string(), str::to_owned);
        let problems = problem.get("problems").and_then(Value::as_array).map(|all| all.iter().map(text).collect());
        Self { status, message, problems: problems.unwrap_or_default() }
    }
}

/// A name as one segment of a path, or as a value of a query.
pub(super) fn segment(name: &str) -> String {
    const KEPT: &percent_encoding::AsciiSet =
        &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    percent_encoding::utf8_percent_encode(name, KEPT).to_string()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use serde_json::json;

    use super::*;
    use crate::cli::admin::canned_server::CannedServer;

    fn client(address: &AdminAddress, token: Option<&str>) -> Client {
        Client::new(address.clone(), token.map(str::to_owned)).expect("a client")
    }

    #[test]
    fn a_response_with_a_length_is_read_and_the_request_is_complete() {
        let server = CannedServer::on_tcp(b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{\"items\": []}");
        let address = server.address.clone();
        let value =
            client(&address, Some("secret")).send(&Method::PATCH, "/api/v1/x", Some(&json!({ "state": "drain" })));
        assert_eq!(value.expect("a response"), json!({ "items": [] }));
        let request = server.request();
        assert!(request.starts_with("PATCH /api/v1/x HTTP/1.1\r\n"), "{request}");
        for part in [
            format!("host: {}\r\n", address.host()),
            "authorization: bearer secret\r\n".to_owned(),
            "content-type: application/json\r\n".to_owned(),
            "content-length: 17\r\n".to_owned(),
            "\r\n\r\n{\"state\":\"drain\"}".to_owned(),
        ] {
            assert!(request.to_ascii_lowercase().contains(&part), "{part:?} is missing in {request}");
        }
    }

    #[test]
    fn a_chunked_response_is_read() {
        let server = CannedServer::on_tcp(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"a\":\r\n2;x=y\r\n1}\r\n0\r\nT: 1\r\n\r\n",
        );
        let value = client(&server.address, None).get("/api/v1/status").expect("a response");
        assert_eq!(value, json!({ "a": 1 }));
        assert!(!server.request().to_ascii_lowercase().contains("authorization"), "no token was given");
    }

    #[test]
    fn a_response_that_ends_with_the_connection_is_read() {
        let server = CannedServer::on_tcp(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhoming_x 1\n");
        assert_eq!(client(&server.address, None).text("/metrics").expect("a text"), "homing_x 1\n");
    }

    #[test]
    fn a_response_without_a_body_is_null() {
        let server = CannedServer::on_tcp(b"HTTP/1.1 204 No Content\r\n\r\n");
        let value = client(&server.address, None).send(&Method::DELETE, "/api/v1/sessions/web/k", None);
        assert_eq!(value.expect("a response"), Value::Null);
        assert!(server.request().starts_with("DELETE /api/v1/sessions/web/k "));
    }

    #[test]
    fn a_unix_socket_is_asked() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("admin.sock");
        let server = CannedServer::on_unix(&path, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
        assert_eq!(client(&server.address, None).get("/api/v1/status").expect("a response"), json!({}));
        assert!(server.request().to_ascii_lowercase().contains("host: localhost\r\n"));
        std::fs::remove_file(&path).expect("a socket");
        let error = client(&AdminAddress::Unix(path), None).get("/").expect_err("there is no socket");
        assert!(matches!(error, ClientError::Unreachable(_)), "{error}");
    }

    #[test]
    fn a_refused_or_broken_connection_is_an_unreachable_proxy() {
        let port = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("an address").port();
        let refused = client(&AdminAddress::Tcp("127.0.0.1".to_owned(), port), None).get("/").expect_err("refused");
        assert!(matches!(&refused, ClientError::Unreachable(why) if why.contains("refused")), "{refused}");
        for broken in ["", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{}"] {
            let server = CannedServer::on_tcp(broken.as_bytes());
            let error = client(&server.address, None).get("/").expect_err("no response");
            assert!(matches!(&error, ClientError::Unreachable(_)), "{error}");
        }
    }

    #[test]
    fn a_problem_says_what_is_wrong() {
        let server = CannedServer::on_tcp(
            b"HTTP/1.1 422 Unprocessable Content\r\nContent-Type: application/problem+json\r\nContent-Length: 76\r\n\r\n\
              {\"title\":\"configuration refused\",\"detail\":\"2 problems\",\"problems\":[\"a\",\"b\"]}",
        );
        let ClientError::Refused(problem) = client(&server.address, None).get("/").expect_err("refused") else {
            panic!("the proxy responded");
        };
        assert_eq!(problem.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(problem.message, "2 problems");
        assert_eq!(problem.problems, ["a", "b"]);
        let text = Problem::read(StatusCode::NOT_FOUND, b"404 not found\n");
        assert_eq!((text.message.as_str(), text.problems.len()), ("404 not found", 0), "from an older proxy");
        let empty = Problem::read(StatusCode::UNAUTHORIZED, b"");
        assert!(empty.message.contains("401") && empty.message.contains("HOMING_ADMIN_TOKEN"), "{}", empty.message);
    }

    #[test]
    fn what_is_no_json_is_no_response_of_the_api() {
        let server = CannedServer::on_tcp(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>");
        let error = client(&server.address, None).get("/").expect_err("no JSON");
        assert!(matches!(error, ClientError::Invalid(_)), "{error}");
    }

    #[test]
    fn a_name_is_one_segment() {
        assert_eq!(segment("a/b c?ü-._~"), "a%2Fb%20c%3F%C3%BC-._~");
    }
}
