//! Which user is at the other end of a unix socket.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;

use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use rustix::net::sockopt::get_socket_peercred;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// The user id of the process that connected to that socket.
///
/// Pingora gives the socket's number only, and to make a handle of a number takes unsafe code. The kernel does it when the
/// number is sent through a socket.
pub(super) fn peer_uid(socket: RawFd) -> io::Result<u32> {
    let peer = get_socket_peercred(duplicate(socket)?)?;
    Ok(peer.uid.as_raw())
}

fn duplicate(socket: RawFd) -> io::Result<OwnedFd> {
    let (sender, receiver) = UnixDatagram::pair()?;
    // Both ends belong to this function, so nothing is waited for.
    let sockets = [socket];
    let rights = [ControlMessage::ScmRights(&sockets)];
    sendmsg::<UnixAddr>(sender.as_raw_fd(), &[IoSlice::new(b"-")], &rights, MsgFlags::empty(), None)?;
    let mut space = [0; rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(&receiver, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let received = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut sockets) => sockets.next(),
        _ => None,
    });
    received.ok_or_else(|| io::Error::other("the kernel passed no descriptor on"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_user_of_the_other_end_is_found_and_the_socket_stays_open() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let uid = std::fs::metadata("/proc/self").unwrap().uid();
        assert_eq!(peer_uid(ours.as_raw_fd()).unwrap(), uid);
        assert_eq!(peer_uid(ours.as_raw_fd()).unwrap(), uid, "it is still open");
        drop(theirs);
    }

    #[test]
    fn what_is_no_socket_is_an_error() {
        let file = std::fs::File::open("/dev/null").unwrap();
        peer_uid(file.as_raw_fd()).unwrap_err();
    }
}
