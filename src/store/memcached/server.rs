//! One server: a task keeps a connection to it; requests use that, or fail at once when there is none.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::timeout;

use super::connection::{self, Connection};
use super::request::GREETING;
use super::response::{self, Response};
use crate::store::engine::{Event, OnEvent, StoreError};

/// A configured server.
pub(super) struct Server {
    /// `host:port` or `/path`.
    address: Box<str>,
    /// For logs and errors.
    label: Arc<str>,
    state: ArcSwap<Result<Connection, StoreError>>,
    version: ArcSwapOption<String>,
}

/// The first and the longest pause before another attempt to connect; it doubles each time.
const MIN_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(2);
/// The first version with meta commands.
const MIN_VERSION: (u32, u32) = (1, 6);

impl Server {
    /// Not connected yet.
    pub(super) fn new(address: &str) -> Self {
        let label: Arc<str> = format!("memcached at {address}").into();
        let unknown = StoreError::Unreachable(format!("{label}: not connected yet"));
        Self {
            address: address.into(),
            label,
            state: ArcSwap::from_pointee(Err(unknown)),
            version: ArcSwapOption::empty(),
        }
    }

    /// The connection, or the reason why there is none.
    pub(super) fn connection(&self) -> Result<Connection, StoreError> {
        Result::clone(&self.state.load())
    }

    /// The version at the last connection.
    pub(super) fn version(&self) -> Option<Arc<String>> {
        self.version.load_full()
    }

    /// Keeps a connection. Runs until the task is aborted.
    pub(super) async fn supervise(self: Arc<Self>, connect_timeout: Duration, on_event: OnEvent) {
        let mut pause = MIN_PAUSE;
        // The loss is reported once.
        let mut reported = false;
        loop {
            let lost = match self.connect(connect_timeout).await {
                Ok((stream, version)) => {
                    self.version.store(Some(Arc::new(version)));
                    reported = false;
                    let end = self.serve(stream, &on_event).await;
                    if end.proven {
                        pause = MIN_PAUSE;
                    }
                    StoreError::Unreachable(end.reason)
                }
                Err(error) => error,
            };
            self.state.store(Arc::new(Err(lost.clone())));
            if !std::mem::replace(&mut reported, true) {
                on_event(Event::Lost(lost.reason()));
            }
            // Half of the pause is random, so that proxies do not reconnect all at once.
            let chance: f64 = rand::random();
            tokio::time::sleep(pause.mul_f64(0.5 + chance / 2.0)).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    async fn serve(&self, stream: Stream, on_event: &OnEvent) -> connection::ConnectionEnd {
        let (connection, requests) = Connection::new(Arc::clone(&self.label));
        self.state.store(Arc::new(Ok(connection)));
        on_event(Event::Reconnected);
        connection::drive(stream, requests, &self.label).await
    }

    /// Connects to a server that knows meta commands. The name is resolved each time, and its addresses are tried in order.
    async fn connect(&self, limit: Duration) -> Result<(Stream, String), StoreError> {
        let mut last = StoreError::Unreachable(format!("{}: its name has no address", self.label));
        for endpoint in self.endpoints(limit).await.map_err(|error| self.unreachable(&error))? {
            match self.connect_to(&endpoint, limit).await {
                Ok(connected) => return Ok(connected),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn connect_to(&self, endpoint: &Endpoint, limit: Duration) -> Result<(Stream, String), StoreError> {
        let late = |what| StoreError::Unreachable(format!("{}: {what} took longer than {limit:?}", self.label));
        let stream = timeout(limit, endpoint.connect()).await.map_err(|_elapsed| late("connecting"))?;
        let mut stream = stream.map_err(|error| self.unreachable(&error))?;
        let version = timeout(limit, self.greet(&mut stream)).await.map_err(|_elapsed| late("its first answer"))??;
        Ok((stream, version))
    }

    /// Reads the version, and checks that the server knows meta commands.
    async fn greet(&self, stream: &mut Stream) -> Result<String, StoreError> {
        stream.write_all(GREETING).await.map_err(|error| self.unreachable(&error))?;
        let mut incoming = BytesMut::new();
        // A server with too many connections responds with an error and closes: it is retried like one that is down.
        let version = parse_version_response(self.next(stream, &mut incoming).await?)
            .map_err(|reason| StoreError::Unreachable(format!("{}: {reason}", self.label)))?;
        let noop = self.next(stream, &mut incoming).await?;
        if !incoming.is_empty() {
            return Err(StoreError::Unreadable(format!("{}: response without a request", self.label)));
        }
        check_version(version, &noop).map_err(|reason| StoreError::Refused(format!("{}: {reason}", self.label)))
    }

    async fn next(&self, stream: &mut Stream, incoming: &mut BytesMut) -> Result<Response, StoreError> {
        loop {
            match response::parse(incoming) {
                Ok(Some(answer)) => return Ok(answer),
                Ok(None) => {}
                Err(malformed) => {
                    return Err(StoreError::Unreadable(format!("{}: invalid response: {malformed}", self.label)));
                }
            }
            if stream.read_buf(incoming).await.map_err(|error| self.unreachable(&error))? == 0 {
                return Err(StoreError::Unreachable(format!("{}: it closed the connection", self.label)));
            }
        }
    }

    fn unreachable(&self, error: &io::Error) -> StoreError {
        StoreError::Unreachable(format!("{}: {error}", self.label))
    }

    async fn endpoints(&self, limit: Duration) -> io::Result<Vec<Endpoint>> {
        if self.address.starts_with('/') {
            return Ok(vec![Endpoint::Path(self.address.clone())]);
        }
        let found = timeout(limit, lookup_host(&*self.address)).await.map_err(|_elapsed| {
            io::Error::new(io::ErrorKind::TimedOut, format!("finding its address took longer than {limit:?}"))
        })??;
        Ok(found.map(Endpoint::Address).collect())
    }
}

/// A resolved address.
enum Endpoint {
    Address(SocketAddr),
    Path(Box<str>),
}

/// TCP or a unix socket.
trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}
type Stream = Box<dyn Duplex>;

impl Endpoint {
    async fn connect(&self) -> io::Result<Stream> {
        match self {
            Self::Address(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
            Self::Path(path) => Ok(Box::new(UnixStream::connect(&**path).await?)),
        }
    }
}

fn parse_version_response(answer: Response) -> Result<String, String> {
    match answer {
        Response::Version(version) => Ok(version.into()),
        Response::ServerError(words) | Response::ClientError(words) => Err(format!("it responded: {words}")),
        _ => Err("it reports no version".to_owned()),
    }
}

/// Whether the server can be used: by its version where that can be parsed, and by its response to `mn`.
fn check_version(version: String, noop: &Response) -> Result<String, String> {
    let old = parse_version(&version).is_some_and(|version| version < MIN_VERSION);
    if old || *noop != Response::Noop {
        return Err(format!("version {version} does not know meta commands; use memcached 1.6 or newer"));
    }
    Ok(version)
}

/// `1.6.18` and the like.
fn parse_version(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_server_with_meta_commands_is_used() {
        let greets = |version: &str, noop| check_version(version.to_owned(), &noop);
        let misunderstood = || Response::ClientError("ERROR".into());
        for version in ["1.6.18", "1.6.0", "1.10.2", "2.0.0", "UNKNOWN", "1.6.38-3-gabc"] {
            assert_eq!(greets(version, Response::Noop), Ok(version.to_owned()));
        }
        let refusal = "version 1.5.22 does not know meta commands; use memcached 1.6 or newer";
        assert_eq!(greets("1.5.22", Response::Noop).unwrap_err(), refusal);
        assert_eq!(greets("1.5.22", misunderstood()).unwrap_err(), refusal);
        for version in ["1.4.39", "0.5", "UNKNOWN", "1.6.18"] {
            let refusal = greets(version, misunderstood()).unwrap_err();
            assert!(refusal.contains("use memcached 1.6 or newer"), "{version}: {refusal}");
        }
    }

    #[test]
    fn the_error_of_a_server_that_refuses_connections_is_reported() {
        for (line, said) in [
            (&b"ERROR Too many open connections\r\n"[..], "it responded: ERROR Too many open connections"),
            (b"CLIENT_ERROR unauthenticated\r\n", "it responded: unauthenticated"),
            (b"EN\r\n", "it reports no version"),
        ] {
            let answer = response::parse(&mut BytesMut::from(line)).unwrap().unwrap();
            assert_eq!(parse_version_response(answer).unwrap_err(), said);
        }
    }
}
