//! Which user is at the other end of a unix socket.

use std::io;
use std::os::fd::RawFd;

use rustix::net::sockopt::get_socket_peercred;

use crate::pool::descriptor_passing::duplicate;

/// The user id of the process that connected to that socket.
///
/// Pingora gives the socket's number only.
pub(super) fn peer_uid(socket: RawFd) -> io::Result<u32> {
    let peer = get_socket_peercred(duplicate(socket)?)?;
    Ok(peer.uid.as_raw())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
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
