//! A client that speaks HTTP/2 without TLS, by prior knowledge.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::client::Response;
use super::http1::Head;
use super::net::{Address, PATIENCE};

/// A request over HTTP/2. `authority` goes into the pseudo-header.
#[derive(Debug, Clone)]
pub(crate) struct H2Request {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) authority: &'static str,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
}

impl H2Request {
    pub(crate) fn get(path: &str) -> Self {
        Self { method: "GET", path: path.to_owned(), authority: "example.test", headers: Vec::new(), body: Vec::new() }
    }

    pub(crate) fn post(path: &str, body: Vec<u8>) -> Self {
        Self { method: "POST", body, ..Self::get(path) }
    }

    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
}

async fn connect(address: SocketAddr) -> SendRequest<Bytes> {
    let stream = timeout(PATIENCE, TcpStream::connect(address)).await.expect("in time").expect("a connection");
    let (client, connection) = h2::client::handshake(stream).await.expect("an HTTP/2 handshake");
    tokio::spawn(connection);
    client
}

/// Sends all requests at once over one connection; answers in the order of the requests, or the error of each.
pub(crate) fn h2_try(address: &Address, requests: Vec<H2Request>) -> Vec<Result<Response, String>> {
    h2_try_for(PATIENCE, address, requests)
}

/// The same with more patience.
pub(crate) fn h2_try_for(
    patience: Duration,
    address: &Address,
    requests: Vec<H2Request>,
) -> Vec<Result<Response, String>> {
    let Address::Tcp(address) = *address else { panic!("h2c is tried over TCP") };
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async move {
        let client = connect(address).await;
        let mut tasks = JoinSet::new();
        let total = requests.len();
        for (index, request) in requests.into_iter().enumerate() {
            let client = client.clone();
            tasks.spawn(async move {
                let answer = timeout(patience, exchange(client, request)).await;
                (index, answer.unwrap_or_else(|_| Err("no answer in time".to_owned())))
            });
        }
        let mut answers: Vec<_> = (0..total).map(|_| Err("no answer".to_owned())).collect();
        while let Some(done) = tasks.join_next().await {
            let (index, answer) = done.expect("a task that does not panic");
            answers[index] = answer;
        }
        answers
    })
}

/// The same, when every request must be answered.
pub(crate) fn h2_all(address: &Address, requests: Vec<H2Request>) -> Vec<Response> {
    h2_try(address, requests).into_iter().map(|answer| answer.unwrap_or_else(|e| panic!("over h2c: {e}"))).collect()
}

/// One request.
pub(crate) fn h2(address: &Address, request: H2Request) -> Response {
    h2_all(address, vec![request]).remove(0)
}

/// One request after the other, over one connection.
pub(crate) fn h2_in_turn(address: &Address, requests: Vec<H2Request>) -> Vec<Response> {
    let Address::Tcp(address) = *address else { panic!("h2c is tried over TCP") };
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async move {
        let client = connect(address).await;
        let mut answers = Vec::new();
        for request in requests {
            let answer = timeout(PATIENCE, exchange(client.clone(), request)).await.expect("an answer in time");
            answers.push(answer.unwrap_or_else(|e| panic!("over h2c: {e}")));
        }
        answers
    })
}

/// A POST whose body comes in so many pieces with a pause before each, and does not end before its answer.
pub(crate) fn h2_dribble(address: &Address, path: &str, pieces: usize, pause: Duration) -> Result<Response, String> {
    let Address::Tcp(address) = *address else { panic!("h2c is tried over TCP") };
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async move {
        let mut client = connect(address).await.ready().await.map_err(|e| format!("not ready: {e}"))?;
        let message = http::Request::post(format!("http://example.test{path}")).body(()).expect("a request");
        let (mut answer, mut body) = client.send_request(message, false).map_err(|e| format!("not sent: {e}"))?;
        for _ in 0..pieces {
            tokio::select! {
                answer = &mut answer => {
                    let answer = answer.map_err(|e| format!("no answer: {e}"))?;
                    return Ok(Response { status: answer.status().as_u16(), ..Response::default() });
                }
                () = tokio::time::sleep(pause) => {}
            }
            body.send_data(Bytes::from_static(b"0123456789"), false).map_err(|e| format!("body not taken: {e}"))?;
        }
        body.send_data(Bytes::new(), true).map_err(|e| format!("body not taken: {e}"))?;
        let answer =
            timeout(PATIENCE, answer).await.map_err(|e| e.to_string())?.map_err(|e| format!("no answer: {e}"))?;
        Ok(Response { status: answer.status().as_u16(), ..Response::default() })
    })
}

/// One request whose stream is reset after `before`; its connection stays until after `then`.
pub(crate) fn h2_reset(address: &Address, request: H2Request, before: impl FnOnce(), then: impl FnOnce()) {
    let Address::Tcp(address) = *address else { panic!("h2c is tried over TCP") };
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let client = runtime.block_on(connect(address));
    let stream = runtime.spawn(exchange(client.clone(), request));
    before();
    stream.abort();
    then();
    drop(client);
}

pub(super) async fn exchange(client: SendRequest<Bytes>, request: H2Request) -> Result<Response, String> {
    let mut client = client.ready().await.map_err(|e| format!("the connection is not ready: {e}"))?;
    let mut builder =
        http::Request::builder().method(request.method).uri(format!("http://{}{}", request.authority, request.path));
    for (name, value) in &request.headers {
        builder = builder.header(*name, value);
    }
    let message = builder.body(()).map_err(|e| format!("no request: {e}"))?;
    let end = request.body.is_empty();
    let (answer, mut body) = client.send_request(message, end).map_err(|e| format!("not sent: {e}"))?;
    if !end {
        send_body(&mut body, request.body).await?;
    }
    let (parts, mut stream) = answer.await.map_err(|e| format!("no answer: {e}"))?.into_parts();
    let mut received = Vec::new();
    while let Some(piece) = stream.data().await {
        let piece = piece.map_err(|e| format!("the answer broke off: {e}"))?;
        let _ = stream.flow_control().release_capacity(piece.len());
        received.extend_from_slice(&piece);
    }
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let head = Head {
        first_line: format!("HTTP/2 {}", parts.status),
        headers: parts.headers.iter().map(|(n, v)| (n.as_str().to_owned(), text(v))).collect(),
    };
    Ok(Response { status: parts.status.as_u16(), head, body: received, informational: Vec::new() })
}

async fn send_body(stream: &mut h2::SendStream<Bytes>, body: Vec<u8>) -> Result<(), String> {
    let mut rest = Bytes::from(body);
    while !rest.is_empty() {
        stream.reserve_capacity(rest.len());
        let granted = std::future::poll_fn(|context| stream.poll_capacity(context)).await;
        let granted = granted.ok_or("the stream was closed")?.map_err(|e| format!("no room: {e}"))?;
        let piece = rest.split_to(granted.min(rest.len()));
        stream.send_data(piece, rest.is_empty()).map_err(|e| format!("body not taken: {e}"))?;
    }
    Ok(())
}
