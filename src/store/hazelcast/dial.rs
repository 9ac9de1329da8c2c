//! Connecting to a member: name resolution, TCP, authentication.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::frame::{Decoder, Message, is_whole};
use super::request::{self, Credentials};
use super::response::{self, Identity};
use crate::store::engine::StoreError;

/// Selects the client protocol, version 2.
const GREETING: &[u8] = b"CP2";

/// An authenticated connection. Names are resolved each time, and their addresses tried in turn.
pub(super) async fn dial(
    address: &str,
    credentials: &Credentials,
    patience: Duration,
) -> Result<(TcpStream, Identity), StoreError> {
    let label = label(address);
    let unreachable = |error: &io::Error| StoreError::Unreachable(format!("{label}: {error}"));
    let late = |what| StoreError::Unreachable(format!("{label}: {what} took longer than {patience:?}"));
    let found = timeout(patience, lookup_host(address)).await.map_err(|_elapsed| late("finding its address"))?;
    let mut last = StoreError::Unreachable(format!("{label}: its name has no address"));
    for place in found.map_err(|error| unreachable(&error))? {
        let stream = match timeout(patience, TcpStream::connect(place)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                last = unreachable(&error);
                continue;
            }
            Err(_elapsed) => {
                last = late("connecting");
                continue;
            }
        };
        let asked = timeout(patience, introduce(stream, credentials));
        return match asked.await.map_err(|_elapsed| late("its first answer"))? {
            Ok((stream, message)) => {
                let identity = response::identity(&message).map_err(|error| named(&label, error))?;
                Ok((stream, identity))
            }
            Err(error) => Err(unreachable(&error)),
        };
    }
    Err(last)
}

fn named(label: &str, error: StoreError) -> StoreError {
    let named = |words| format!("{label}: {words}");
    match error {
        StoreError::Refused(words) => StoreError::Refused(named(words)),
        StoreError::Unreadable(words) => StoreError::Unreadable(named(words)),
        other => StoreError::Unreachable(named(reason(other))),
    }
}

/// Authentication. The member sends nothing more until the next request.
async fn introduce(mut stream: TcpStream, credentials: &Credentials) -> io::Result<(TcpStream, Message)> {
    stream.set_nodelay(true)?;
    stream.write_all(&[GREETING, &request::authenticate(credentials)].concat()).await?;
    let (mut incoming, mut decoder) = (BytesMut::new(), Decoder::default());
    let odd = |words: String| io::Error::new(io::ErrorKind::InvalidData, words);
    loop {
        match decoder.take(&mut incoming) {
            Ok(Some(message)) if is_whole(&incoming) => return Ok((stream, message)),
            Ok(None) => {}
            Ok(Some(_)) => return Err(odd("it says more than it was asked".to_owned())),
            Err(malformed) => return Err(odd(format!("it answers {malformed}; is it Hazelcast 5?"))),
        }
        if stream.read_buf(&mut incoming).await? == 0 {
            return Err(odd("it closed the connection at once; is it Hazelcast 5?".to_owned()));
        }
    }
}

/// The member's name in logs.
pub(super) fn label(address: &str) -> Arc<str> {
    format!("Hazelcast at {address}").into()
}

/// The reason without the kind of error; it names the member.
pub(super) fn reason(lost: StoreError) -> String {
    match lost {
        StoreError::Unreachable(reason) | StoreError::Refused(reason) | StoreError::Unreadable(reason) => reason,
        other => other.to_string(),
    }
}
