//! Descriptors through a unix socket (`SCM_RIGHTS`). Received ones are not passed on to programs that this process starts.

use std::io::{self, Error, ErrorKind, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// A second descriptor of the same file. To make a handle of a number takes unsafe code; the kernel does it when the number is sent
/// through a socket.
pub(crate) fn duplicate(descriptor: RawFd) -> io::Result<OwnedFd> {
    // Both ends belong to this function, so nothing is waited for.
    let (sender, receiver) = UnixStream::pair()?;
    send(&sender, descriptor)?;
    receive(&receiver)
}

/// Sends a descriptor, with a byte of its own: however many there are, none is cut off.
pub(crate) fn send(stream: &UnixStream, descriptor: RawFd) -> io::Result<()> {
    let descriptors = [descriptor];
    let rights = [ControlMessage::ScmRights(&descriptors)];
    sendmsg::<UnixAddr>(stream.as_raw_fd(), &[IoSlice::new(b"d")], &rights, MsgFlags::empty(), None)?;
    Ok(())
}

/// Receives a descriptor.
pub(crate) fn receive(stream: &UnixStream) -> io::Result<OwnedFd> {
    let mut space = [0; rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let received = recvmsg(stream, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    if received.bytes == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    let descriptor = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    descriptor.ok_or_else(|| Error::new(ErrorKind::InvalidData, "a descriptor is missing"))
}
