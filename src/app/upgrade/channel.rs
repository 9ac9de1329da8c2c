//! The connection between the two processes: messages with their length before them, and descriptors.

use std::io::{self, Error, ErrorKind, Read, Write};
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::sockopt::get_socket_peercred;

use super::message::Message;
use crate::pool::descriptor_passing;

/// Larger than any message: handoff data is limited, and a configuration has not so many listeners.
const MAX_MESSAGE: usize = 16 << 20;
/// How long the other process may take to read.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// One end of the connection.
#[derive(Debug)]
pub(super) struct Channel {
    stream: UnixStream,
}

impl Channel {
    /// Refuses another user at the other end: what is said here are keys and sessions.
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        let (ours, _other) = UnixStream::pair()?;
        let own = get_socket_peercred(&ours)?.uid;
        let peer = get_socket_peercred(&stream)?.uid;
        if peer != own && !peer.is_root() {
            let uid = peer.as_raw();
            return Err(Error::new(
                ErrorKind::PermissionDenied,
                format!("the process there belongs to another user ({uid})"),
            ));
        }
        stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
        Ok(Self { stream })
    }

    /// The same connection, for another thread.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { stream: self.stream.try_clone()? })
    }

    /// Sends a message.
    pub(super) fn send(&mut self, message: &Message) -> io::Result<()> {
        let text = serde_json::to_vec(message)?;
        let length = u32::try_from(text.len()).map_err(Error::other)?;
        let mut bytes = Vec::with_capacity(4 + text.len());
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&text);
        self.stream.write_all(&bytes)
    }

    /// Waits for a message, without a limit if `timeout` is `None`.
    pub(super) fn receive(&mut self, timeout: Option<Duration>) -> io::Result<Message> {
        self.stream.set_read_timeout(timeout)?;
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let length = usize::try_from(u32::from_be_bytes(length)).map_err(Error::other)?;
        if length > MAX_MESSAGE {
            return Err(Error::new(ErrorKind::InvalidData, "the message is too large"));
        }
        let mut text = vec![0; length];
        self.stream.read_exact(&mut text)?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// Sends a descriptor.
    pub(super) fn send_descriptor(&self, descriptor: RawFd) -> io::Result<()> {
        descriptor_passing::send(&self.stream, descriptor)
    }

    /// Receives a descriptor.
    pub(super) fn receive_descriptor(&self) -> io::Result<OwnedFd> {
        descriptor_passing::receive(&self.stream)
    }

    /// Ends the connection for both directions and all clones.
    pub(super) fn close(&self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

/// Whether an error is a timeout of [`Channel::receive`].
pub(super) fn is_timeout(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Seek;
    use std::os::fd::AsRawFd;

    use super::*;

    fn pair() -> (Channel, Channel) {
        let (one, other) = UnixStream::pair().unwrap();
        (Channel::new(one).unwrap(), Channel::new(other).unwrap())
    }

    #[test]
    fn messages_and_more_than_32_descriptors_arrive_in_order() {
        let (mut old, mut new) = pair();
        let files: Vec<File> = (0..100_u8)
            .map(|n| {
                let mut file = tempfile::tempfile().unwrap();
                file.write_all(&[n]).unwrap();
                file
            })
            .collect();
        old.send(&Message::Go).unwrap();
        for file in &files {
            old.send_descriptor(file.as_raw_fd()).unwrap();
        }
        old.send(&Message::Failure("x".repeat(100_000))).unwrap();
        drop(files);
        drop(old);
        assert_eq!(new.receive(None).unwrap(), Message::Go);
        for n in 0..100_u8 {
            let mut file = File::from(new.receive_descriptor().unwrap());
            let mut byte = [0];
            file.rewind().unwrap();
            file.read_exact(&mut byte).unwrap();
            assert_eq!(byte, [n]);
        }
        assert_eq!(new.receive(None).unwrap(), Message::Failure("x".repeat(100_000)));
        assert_eq!(new.receive(None).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_message_where_a_descriptor_is_due_is_an_error() {
        let (mut old, new) = pair();
        old.send(&Message::Go).unwrap();
        assert_eq!(new.receive_descriptor().unwrap_err().kind(), ErrorKind::InvalidData);
    }

    #[test]
    fn a_silent_process_is_not_waited_for_without_end() {
        let (_old, mut new) = pair();
        assert!(is_timeout(&new.receive(Some(Duration::from_millis(20))).unwrap_err()));
    }
}
