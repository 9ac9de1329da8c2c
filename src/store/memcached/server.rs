//! One server: a task keeps a connection to it, and everybody else asks on that or hears at once that there is none.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::timeout;

use super::answer::{self, Answer};
use super::batch::GREETING;
use super::connection::{self, Connection};
use crate::store::engine::{Event, OnEvent, StoreError};

/// A server, as requests see it.
pub(super) struct Server {
    /// `host:port` or `/path`.
    address: Box<str>,
    /// How it is spoken of.
    label: Arc<str>,
    state: ArcSwap<Result<Connection, StoreError>>,
    version: ArcSwapOption<String>,
}

/// The first pause before it is looked for again, and the longest; doubled each time.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// The first version with meta commands.
const OLDEST: (u32, u32) = (1, 6);

impl Server {
    /// One that nobody has looked for yet.
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

    /// Its connection, or why there is none.
    pub(super) fn connection(&self) -> Result<Connection, StoreError> {
        Result::clone(&self.state.load())
    }

    /// What it said it was, when it last said so.
    pub(super) fn version(&self) -> Option<Arc<String>> {
        self.version.load_full()
    }

    /// Keeps a connection, for as long as it is let live.
    pub(super) async fn supervise(self: Arc<Self>, connect_timeout: Duration, on_event: OnEvent) {
        let mut pause = SHORTEST_PAUSE;
        // Whether it has been told that the server is lost: it is told once.
        let mut told = false;
        loop {
            let lost = match self.dial(connect_timeout).await {
                Ok((stream, version)) => {
                    self.version.store(Some(Arc::new(version)));
                    told = false;
                    let broken = self.serve(stream, &on_event).await;
                    if broken.proven {
                        pause = SHORTEST_PAUSE;
                    }
                    StoreError::Unreachable(broken.reason)
                }
                Err(error) => error,
            };
            self.state.store(Arc::new(Err(lost.clone())));
            if !std::mem::replace(&mut told, true) {
                on_event(Event::Lost(reason(lost)));
            }
            // Half of it is chance, so that all proxies do not come at once.
            let chance: f64 = rand::random();
            tokio::time::sleep(pause.mul_f64(0.5 + chance / 2.0)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn serve(&self, stream: Stream, on_event: &OnEvent) -> connection::Broken {
        let (connection, requests) = Connection::new(Arc::clone(&self.label));
        self.state.store(Arc::new(Ok(connection)));
        on_event(Event::Reconnected);
        connection::drive(stream, requests, &self.label).await
    }

    /// A connection to a server that knows what we say, and its version. A name is resolved anew each time, and its
    /// addresses are tried one after the other.
    async fn dial(&self, patience: Duration) -> Result<(Stream, String), StoreError> {
        let mut last = StoreError::Unreachable(format!("{}: its name has no address", self.label));
        for place in self.targets(patience).await.map_err(|error| self.unreachable(&error))? {
            match self.meet(&place, patience).await {
                Ok(met) => return Ok(met),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn meet(&self, place: &Target, patience: Duration) -> Result<(Stream, String), StoreError> {
        let late = |what| StoreError::Unreachable(format!("{}: {what} took longer than {patience:?}", self.label));
        let stream = timeout(patience, place.connect()).await.map_err(|_elapsed| late("connecting"))?;
        let mut stream = stream.map_err(|error| self.unreachable(&error))?;
        let version =
            timeout(patience, self.greet(&mut stream)).await.map_err(|_elapsed| late("its first answer"))??;
        Ok((stream, version))
    }

    /// The first words: its version, when it is one that knows meta commands.
    async fn greet(&self, stream: &mut Stream) -> Result<String, StoreError> {
        stream.write_all(GREETING).await.map_err(|error| self.unreachable(&error))?;
        let mut incoming = BytesMut::new();
        // A server that has no room for us now says so and closes, so it is asked again later like one that is away.
        let version = told_version(self.next(stream, &mut incoming).await?)
            .map_err(|reason| StoreError::Unreachable(format!("{}: {reason}", self.label)))?;
        let noop = self.next(stream, &mut incoming).await?;
        if !incoming.is_empty() {
            return Err(StoreError::Unreadable(format!("{}: it answered more than what was asked", self.label)));
        }
        judge(version, &noop).map_err(|reason| StoreError::Refused(format!("{}: {reason}", self.label)))
    }

    async fn next(&self, stream: &mut Stream, incoming: &mut BytesMut) -> Result<Answer, StoreError> {
        loop {
            match answer::take(incoming) {
                Ok(Some(answer)) => return Ok(answer),
                Ok(None) => {}
                Err(malformed) => {
                    return Err(StoreError::Unreadable(format!("{}: it answered {malformed}", self.label)));
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

    async fn targets(&self, patience: Duration) -> io::Result<Vec<Target>> {
        if self.address.starts_with('/') {
            return Ok(vec![Target::Path(self.address.clone())]);
        }
        let found = timeout(patience, lookup_host(&*self.address)).await.map_err(|_elapsed| {
            io::Error::new(io::ErrorKind::TimedOut, format!("finding its address took longer than {patience:?}"))
        })??;
        Ok(found.map(Target::Address).collect())
    }
}

/// It names the server itself.
fn reason(lost: StoreError) -> String {
    match lost {
        StoreError::Unreachable(reason) | StoreError::Refused(reason) | StoreError::Unreadable(reason) => reason,
        other => other.to_string(),
    }
}

/// Where a server may be.
enum Target {
    Address(SocketAddr),
    Path(Box<str>),
}

/// TCP or a unix socket.
trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}
type Stream = Box<dyn Duplex>;

impl Target {
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

fn told_version(answer: Answer) -> Result<String, String> {
    match answer {
        Answer::Version(version) => Ok(version.into()),
        Answer::Failed(words) | Answer::NotUnderstood(words) => Err(format!("it says: {words}")),
        _ => Err("it does not say its version".to_owned()),
    }
}

/// Whether a server of that version, and with that answer to `mn`, can be used. What a version says is believed where it
/// can be read; a build of its own name is used when it knows `mn`.
fn judge(version: String, noop: &Answer) -> Result<String, String> {
    let old = read_version(&version).is_some_and(|version| version < OLDEST);
    if old || *noop != Answer::Noop {
        return Err(format!("version {version} does not know meta commands; use memcached 1.6 or newer"));
    }
    Ok(version)
}

/// `1.6.18` and the like.
fn read_version(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_server_with_meta_commands_is_used() {
        let greets = |version: &str, noop| judge(version.to_owned(), &noop);
        let misunderstood = || Answer::NotUnderstood("ERROR".into());
        for version in ["1.6.18", "1.6.0", "1.10.2", "2.0.0", "UNKNOWN", "1.6.38-3-gabc"] {
            assert_eq!(greets(version, Answer::Noop), Ok(version.to_owned()));
        }
        let refusal = "version 1.5.22 does not know meta commands; use memcached 1.6 or newer";
        assert_eq!(greets("1.5.22", Answer::Noop).unwrap_err(), refusal);
        assert_eq!(greets("1.5.22", misunderstood()).unwrap_err(), refusal);
        for version in ["1.4.39", "0.5", "UNKNOWN", "1.6.18"] {
            let refusal = greets(version, misunderstood()).unwrap_err();
            assert!(refusal.contains("use memcached 1.6 or newer"), "{version}: {refusal}");
        }
    }

    #[test]
    fn a_server_that_will_not_have_us_is_quoted() {
        for (line, said) in [
            (&b"ERROR Too many open connections\r\n"[..], "it says: ERROR Too many open connections"),
            (b"CLIENT_ERROR unauthenticated\r\n", "it says: unauthenticated"),
            (b"EN\r\n", "it does not say its version"),
        ] {
            let answer = answer::take(&mut BytesMut::from(line)).unwrap().unwrap();
            assert_eq!(told_version(answer).unwrap_err(), said);
        }
    }
}
