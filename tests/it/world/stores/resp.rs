//! A conversation in the protocol of Redis (RESP2), as bare as it can be, to look at what a server holds.

use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::world::PATIENCE;

/// An answer of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    Nil,
    Status(String),
    Error(String),
    Number(i64),
    Text(String),
    List(Vec<Self>),
}

impl Reply {
    /// The text of a status or a value.
    #[track_caller]
    pub(crate) fn text(self) -> String {
        match self {
            Self::Status(text) | Self::Text(text) => text,
            other => panic!("a text was expected: {other:?}"),
        }
    }

    #[track_caller]
    pub(crate) fn number(self) -> i64 {
        match self {
            Self::Number(number) => number,
            other => panic!("a number was expected: {other:?}"),
        }
    }

    #[track_caller]
    pub(crate) fn list(self) -> Vec<Self> {
        match self {
            Self::List(list) => list,
            other => panic!("a list was expected: {other:?}"),
        }
    }

    /// Asserts that the server said OK.
    #[track_caller]
    pub(crate) fn ok(self) {
        assert_eq!(self, Self::Status("OK".to_owned()));
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Conversation {
    reader: BufReader<TcpStream>,
}

impl Conversation {
    pub(crate) fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        let conversation = Self { reader: BufReader::new(stream) };
        conversation.set_patience(PATIENCE)?;
        Ok(conversation)
    }

    /// The longest that one read or write may block.
    pub(crate) fn set_patience(&self, patience: Duration) -> io::Result<()> {
        let stream = self.reader.get_ref();
        stream.set_read_timeout(Some(patience)).and_then(|()| stream.set_write_timeout(Some(patience)))
    }

    pub(crate) fn command(&mut self, words: &[&str]) -> io::Result<Reply> {
        self.send(words)?;
        self.receive()
    }

    pub(crate) fn send(&mut self, words: &[&str]) -> io::Result<()> {
        let mut bytes = format!("*{}\r\n", words.len());
        for word in words {
            bytes.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        self.reader.get_mut().write_all(bytes.as_bytes())
    }

    /// The next answer, or what a subscription brought. Bytes that are no UTF-8 are replaced.
    pub(crate) fn receive(&mut self) -> io::Result<Reply> {
        let line = self.line()?;
        let (kind, rest) = line.split_at_checked(1).ok_or_else(|| garbage(&line))?;
        let number = || rest.parse::<i64>().ok().ok_or_else(|| garbage(&line));
        Ok(match kind {
            "+" => Reply::Status(rest.to_owned()),
            "-" => Reply::Error(rest.to_owned()),
            ":" => Reply::Number(number()?),
            "$" => match usize::try_from(number()?) {
                Err(_) => Reply::Nil,
                Ok(length) => {
                    let mut bytes = vec![0; length + 2];
                    self.reader.read_exact(&mut bytes)?;
                    bytes.truncate(length);
                    Reply::Text(String::from_utf8_lossy(&bytes).into_owned())
                }
            },
            "*" => match number()? {
                ..0 => Reply::Nil,
                length => Reply::List((0..length).map(|_| self.receive()).collect::<io::Result<_>>()?),
            },
            _ => return Err(garbage(&line)),
        })
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        match line.strip_suffix("\r\n") {
            Some(line) => Ok(line.to_owned()),
            None => Err(ErrorKind::UnexpectedEof.into()),
        }
    }
}

fn garbage(line: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("no answer of Redis: {line:?}"))
}
