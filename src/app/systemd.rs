//! Tells systemd how the process stands (`Type=notify`): a text to the socket in `NOTIFY_SOCKET`. Without that variable
//! nothing happens.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::{env, io};

/// The process serves. Its id is told too: after an upgrade it is another process.
pub(super) fn ready() {
    notify(&format!("READY=1\nMAINPID={}\nSTATUS=serving", std::process::id()));
}

/// The process stops, and no other one has taken over.
pub(super) fn stopping() {
    notify("STOPPING=1\nSTATUS=finishing requests");
}

/// The configuration is read again; [`reloaded`] follows.
pub(super) fn reloading() {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).map(std::time::Duration::from);
    if let Ok(now) = now {
        notify(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.as_micros()));
    }
}

/// The configuration has been read, whether it is in effect or refused.
pub(super) fn reloaded() {
    notify("READY=1");
}

/// Sends a text.
pub(super) fn notify(text: &str) {
    let Some(socket) = env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty()) else { return };
    if let Err(error) = send(&socket, text) {
        tracing::debug!(%error, "systemd cannot be notified");
    }
}

fn send(socket: &OsStr, text: &str) -> io::Result<()> {
    let sender = UnixDatagram::unbound()?;
    // A service manager that does not read must not stop the proxy.
    sender.set_nonblocking(true)?;
    sender.send_to_addr(text.as_bytes(), &address(socket)?).map(drop)
}

/// A path, or with `@` an abstract name.
fn address(socket: &OsStr) -> io::Result<SocketAddr> {
    match socket.as_bytes().split_first() {
        #[cfg(target_os = "linux")]
        Some((b'@', name)) => <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name),
        _ => SocketAddr::from_pathname(socket),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(listener: &UnixDatagram) -> String {
        let mut text = [0; 100];
        let length = listener.recv(&mut text).unwrap();
        String::from_utf8(text[..length].to_vec()).unwrap()
    }

    #[test]
    fn the_socket_is_a_path_or_an_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        send(path.as_os_str(), "READY=1").unwrap();
        assert_eq!(received(&listener), "READY=1");
        #[cfg(target_os = "linux")]
        {
            let name = format!("@homing-test-{}", std::process::id());
            let listener = UnixDatagram::bind_addr(&address(OsStr::new(&name)).unwrap()).unwrap();
            send(OsStr::new(&name), "STOPPING=1").unwrap();
            assert_eq!(received(&listener), "STOPPING=1");
        }
        send(OsStr::new("/no/such/socket"), "READY=1").unwrap_err();
    }
}
