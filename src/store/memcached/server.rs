//! One server: a task keeps a connection to it; requests use that, or fail at once when there is none.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::BytesMut;
use tokio::net::UnixStream;

use super::connection::{Connection, MetaCodec};
use super::request::GREETING;
use super::response::{self, Response};
use crate::store::connection::{Backoff, ConnectionEnd, Dialer, Stream, drive};
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
        let mut backoff = Backoff::new();
        // The loss is reported once.
        let mut reported = false;
        loop {
            let lost = match self.connect(connect_timeout).await {
                Ok((stream, version)) => {
                    self.version.store(Some(Arc::new(version)));
                    reported = false;
                    let end = self.serve(stream, &on_event).await;
                    if end.proven {
                        backoff.reset();
                    }
                    StoreError::Unreachable(end.reason)
                }
                Err(error) => error,
            };
            self.state.store(Arc::new(Err(lost.clone())));
            if !std::mem::replace(&mut reported, true) {
                on_event(Event::Lost(lost.reason()));
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }

    async fn serve(&self, stream: Stream, on_event: &OnEvent) -> ConnectionEnd {
        let (connection, requests) = Connection::new(Arc::clone(&self.label));
        self.state.store(Arc::new(Ok(connection)));
        on_event(Event::Reconnected);
        drive(stream, requests, MetaCodec::default(), &self.label).await
    }

    /// Connects to a server that knows meta commands.
    async fn connect(&self, limit: Duration) -> Result<(Stream, String), StoreError> {
        let dialer = Dialer { label: &self.label, limit };
        if self.address.starts_with('/') {
            let stream = dialer.io("connecting", UnixStream::connect(&*self.address)).await?;
            return greet(dialer, Box::new(stream)).await;
        }
        dialer.tcp(&self.address, |stream| greet(dialer, Box::new(stream))).await
    }
}

/// Reads the version, and checks that the server knows meta commands.
async fn greet(dialer: Dialer<'_>, mut stream: Stream) -> Result<(Stream, String), StoreError> {
    let version = async {
        dialer.write(&mut stream, GREETING).await?;
        let mut incoming = BytesMut::new();
        // A server with too many connections responds with an error and closes: it is retried like one that is down.
        let version = parse_version_response(next(dialer, &mut stream, &mut incoming).await?)
            .map_err(|reason| dialer.unreachable(reason))?;
        let noop = next(dialer, &mut stream, &mut incoming).await?;
        if !incoming.is_empty() {
            return Err(dialer.unreadable("response without a request"));
        }
        check_version(version, &noop).map_err(|reason| dialer.refused(reason))
    };
    let version = dialer.within("its first answer", version).await?;
    Ok((stream, version))
}

async fn next(dialer: Dialer<'_>, stream: &mut Stream, incoming: &mut BytesMut) -> Result<Response, StoreError> {
    let parse = |incoming: &mut BytesMut| {
        response::parse(incoming).map_err(|malformed| dialer.unreadable(format_args!("invalid response: {malformed}")))
    };
    dialer.read_message(stream, incoming, parse, "it closed the connection").await
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
