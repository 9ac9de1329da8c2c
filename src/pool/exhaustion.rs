//! Local resources that run out while a connection is opened: no fault of the server that was to be reached.

use std::error::Error as StdError;
use std::io;

use nix::errno::Errno;
use pingora::Error;

use crate::telemetry::log_limit::LogLimit;
use crate::telemetry::metrics::LocalResource;

/// The resource that a failed connection was short of; `None`: the failure has another cause.
///
/// A missing local port (`EADDRNOTAVAIL`) has no fault of the server either: all ports towards its address are in use.
pub fn exhausted(error: &(dyn StdError + 'static)) -> Option<LocalResource> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        cause = match error.downcast_ref::<io::Error>() {
            Some(system) => match system.raw_os_error() {
                Some(errno) => return resource_of(Errno::from_raw(errno)),
                None => system.get_ref().map(|inner| inner as _),
            },
            None => error.source(),
        };
    }
    None
}

/// The same for an error of Pingora, which keeps its own chain of causes.
pub fn exhausted_in(error: &Error) -> Option<LocalResource> {
    exhausted(error.root_cause())
}

fn resource_of(errno: Errno) -> Option<LocalResource> {
    Some(match errno {
        Errno::EMFILE => LocalResource::Descriptors,
        Errno::ENFILE => LocalResource::SystemDescriptors,
        Errno::ENOBUFS => LocalResource::Buffers,
        Errno::EADDRNOTAVAIL => LocalResource::Ports,
        Errno::ENOMEM => LocalResource::Memory,
        _ => return None,
    })
}

/// All requests fail at once when a resource runs out.
static LOG: LogLimit = LogLimit::new(1, 10);

/// Logs what could not be done for lack of a resource: one line in ten seconds for the whole process.
pub fn warn(resource: LocalResource, message: &'static str, second: u64) {
    if let Some(suppressed) = LOG.admit(second) {
        let (resource, help) = (resource.label(), help(resource));
        tracing::warn!(resource, help, suppressed, "{message}");
    }
}

/// What an operator can do.
fn help(resource: LocalResource) -> &'static str {
    match resource {
        LocalResource::Descriptors => "raise the limit of open files of this process (LimitNOFILE, ulimit -n)",
        LocalResource::SystemDescriptors => "raise the sysctl fs.file-max",
        LocalResource::Buffers | LocalResource::Memory => "the machine is short of memory",
        LocalResource::Ports => {
            "all local ports towards this server are in use: widen the sysctl net.ipv4.ip_local_port_range, or raise \
             proxy.upstream_idle_connections so that connections are reused"
        }
    }
}

#[cfg(test)]
mod tests {
    use pingora::ErrorType::{ConnectError, InternalError, SocketError};
    use strum::VariantNames;

    use super::*;

    const ERRNOS: [(Errno, LocalResource); 5] = [
        (Errno::EMFILE, LocalResource::Descriptors),
        (Errno::ENFILE, LocalResource::SystemDescriptors),
        (Errno::ENOBUFS, LocalResource::Buffers),
        (Errno::EADDRNOTAVAIL, LocalResource::Ports),
        (Errno::ENOMEM, LocalResource::Memory),
    ];

    fn system(errno: Errno) -> io::Error {
        io::Error::from_raw_os_error(errno as i32)
    }

    #[test]
    fn every_resource_is_found_at_any_depth() {
        assert_eq!(ERRNOS.len(), LocalResource::VARIANTS.len());
        for (errno, resource) in ERRNOS {
            assert_eq!(exhausted(&system(errno)), Some(resource));
            let inner = Error::because(SocketError, "failed to create socket", system(errno));
            assert_eq!(exhausted_in(&inner), Some(resource));
            let outer = Error::because(InternalError, "Fail to connect", inner);
            assert_eq!(exhausted_in(&outer), Some(resource), "{outer}");
            let wrapped = io::Error::other(system(errno));
            assert_eq!(exhausted(&wrapped), Some(resource), "an error within an error");
        }
    }

    #[test]
    fn what_the_server_does_is_no_lack_of_a_resource() {
        for errno in [Errno::ECONNREFUSED, Errno::ETIMEDOUT, Errno::EHOSTUNREACH, Errno::ECONNRESET, Errno::EACCES] {
            assert_eq!(exhausted_in(&Error::because(ConnectError, "connecting", system(errno))), None, "{errno}");
        }
        assert_eq!(exhausted_in(&Error::new(ConnectError)), None);
        assert_eq!(exhausted(&io::Error::from(io::ErrorKind::AddrNotAvailable)), None, "not from the system");
    }
}
