//! Authentication on a new connection to a member.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::net::TcpStream;

use super::frame::{Decoder, Message};
use super::request::{self, Credentials};
use super::response::{self, Identity};
use crate::store::connection::Dialer;
use crate::store::engine::StoreError;

/// Selects the client protocol, version 2.
const GREETING: &[u8] = b"CP2";

/// An authenticated connection.
pub(super) async fn dial(
    address: &str,
    credentials: &Credentials,
    patience: Duration,
) -> Result<(TcpStream, Identity), StoreError> {
    let label = label(address);
    let dialer = Dialer { label: &label, limit: patience };
    dialer.tcp(address, |stream| dialer.within("its first answer", introduce(dialer, stream, credentials))).await
}

/// The member sends nothing more until the next request.
async fn introduce(
    dialer: Dialer<'_>,
    mut stream: TcpStream,
    credentials: &Credentials,
) -> Result<(TcpStream, Identity), StoreError> {
    dialer.write(&mut stream, &[GREETING, &request::authenticate(credentials)].concat()).await?;
    let (mut incoming, mut decoder) = (BytesMut::new(), Decoder::default());
    let parse = |incoming: &mut BytesMut| {
        let sent = |malformed| dialer.unreachable(format_args!("it sent {malformed}; is it Hazelcast 5?"));
        decoder.take(incoming).map_err(sent)
    };
    let closed = "it closed the connection at once; is it Hazelcast 5?";
    let message: Message = dialer.read_message(&mut stream, &mut incoming, parse, closed).await?;
    if !incoming.is_empty() {
        return Err(dialer.unreachable("it says more than it was asked"));
    }
    let identity = response::identity(&message).map_err(|error| match error {
        StoreError::Refused(why) => dialer.refused(why),
        StoreError::Unreadable(why) => dialer.unreadable(why),
        other => dialer.unreachable(other.reason()),
    })?;
    Ok((stream, identity))
}

/// The member's name in logs.
pub(super) fn label(address: &str) -> Arc<str> {
    format!("Hazelcast at {address}").into()
}
