//! Matching responses to requests, against servers that split, garble, stop or answer too much.

use bytes::BytesMut;
use futures_util::FutureExt;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;

use super::connection::{Connection, MetaCodec};
use super::request::{Batch, Prefix};
use super::response::Response;
use super::writes::value_of;
use crate::store::connection::{ConnectionEnd, drive};
use crate::store::engine::{Name, StoreError, Value};

fn prefix() -> Prefix {
    Prefix::new("t").unwrap()
}

/// A connection with its task, and the server's end of the line.
fn line() -> (Connection, JoinHandle<ConnectionEnd>, DuplexStream) {
    let (client, server) = tokio::io::duplex(512);
    let (connection, requests) = Connection::new("memcached at x:1".into());
    (connection, tokio::spawn(drive(client, requests, MetaCodec::default(), "memcached at x:1")), server)
}

async fn find(connection: &Connection, name: &str) -> Result<Vec<Response>, StoreError> {
    let prefix = prefix();
    let mut batch = Batch::new(&prefix);
    batch.find(&Name::from_stored(name))?;
    connection.send(batch).await
}

/// Lines as the task writes them.
async fn heard(server: &mut DuplexStream, lines: usize) -> Vec<String> {
    let mut bytes = BytesMut::new();
    while bytes[..].split(|byte| *byte == b'\n').count() <= lines {
        assert_ne!(server.read_buf(&mut bytes).await.unwrap(), 0, "the connection ended: {bytes:?}");
    }
    String::from_utf8(bytes.to_vec()).unwrap().lines().map(str::to_owned).collect()
}

/// Answers every `mg` with a value that holds the name, in pieces of odd sizes.
async fn mirror(mut server: DuplexStream) {
    let mut bytes = BytesMut::new();
    let mut cut = 0;
    while server.read_buf(&mut bytes).await.unwrap_or(0) > 0 {
        let mut answers = Vec::new();
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8(bytes.split_to(end + 1).to_vec()).unwrap();
            match line.split_whitespace().nth(1) {
                Some(name) => {
                    let text = Value::new(1, name.as_bytes());
                    let text = text.text();
                    answers.extend_from_slice(format!("VA {}\r\n", text.len()).as_bytes());
                    answers.extend_from_slice(text);
                    answers.extend_from_slice(b"\r\n");
                }
                None => answers.extend_from_slice(b"MN\r\n"),
            }
        }
        let mut rest = &answers[..];
        while !rest.is_empty() {
            cut = cut % 23 + 1;
            let (piece, more) = rest.split_at(cut.min(rest.len()));
            if server.write_all(piece).await.is_err() {
                return;
            }
            rest = more;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// `Some(n)` = the request is dropped when it has been polled n times.
    #[test]
    fn a_dropped_request_leaves_every_response_with_its_request(patience: Vec<Option<u8>>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (connection, task, server) = line();
            let mirror = tokio::spawn(mirror(server));
            let asked = patience.iter().enumerate().map(|(n, patience)| {
                let connection = connection.clone();
                async move {
                    let name = format!("name-{n}");
                    let mut answer = Box::pin(find(&connection, &name));
                    let answers = match patience {
                        Some(polls) => {
                            for _ in 0..*polls {
                                if answer.as_mut().now_or_never().is_some() { break; }
                                tokio::task::yield_now().await;
                            }
                            return;
                        }
                        None => answer.await.unwrap(),
                    };
                    let (value, _) = value_of(answers.into_iter().next()).unwrap().unwrap();
                    assert_eq!(value.rest(), format!("t:{name}").as_bytes());
                }
            });
            futures_util::future::join_all(asked).await;
            drop(connection);
            task.await.unwrap();
            mirror.await.unwrap();
        });
    }
}

#[tokio::test]
async fn an_invalid_response_ends_the_connection() {
    for (answer, reason) in [
        ("hello\r\n", "invalid response: a line with an unknown response code"),
        ("MN\r\n", "unexpected response"),
        ("ERROR\r\n", "it rejected a command: ERROR"),
    ] {
        let (connection, task, mut server) = line();
        let (first, second, ()) = tokio::join!(find(&connection, "a"), find(&connection, "b"), async {
            heard(&mut server, 2).await;
            server.write_all(answer.as_bytes()).await.unwrap();
        });
        let reason = format!("memcached at x:1: {reason}");
        assert_eq!(first, Err(StoreError::Unreadable(reason.clone())), "the request of that response");
        assert_eq!(second, Err(StoreError::Unreachable(reason.clone())), "the request after it");
        let late = find(&connection, "c").await.unwrap_err();
        assert!(matches!(late, StoreError::Unreachable(_)), "{late}");
        let end = task.await.unwrap();
        assert!(end.reason == reason && !end.proven, "{end:?}");
    }
}

#[tokio::test]
async fn an_unsolicited_response_ends_the_connection() {
    let (_connection, task, mut server) = line();
    server.write_all(b"EN\r\n").await.unwrap();
    assert_eq!(task.await.unwrap().reason, "memcached at x:1: response without a request");
}
