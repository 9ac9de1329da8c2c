//! How a command of the admin API's client fails, and with which exit code.

use std::io;
use std::process::ExitCode;

use crate::cli::output::{FAILED, INVALID_CONFIG, failure, print_message, usage};

use super::client::ClientError;

/// The proxy's admin address does not answer: `EX_UNAVAILABLE` of sysexits.h.
const UNREACHABLE: u8 = 69;

/// Why a command failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// A request failed.
    Client(ClientError),
    /// The command line is wrong.
    Usage(String),
    /// Anything else that went wrong.
    Failed(String),
    /// The proxy refused the configuration file, with all problems.
    InvalidConfig(String),
    /// Standard output was closed by its reader (`| head`), which wants no more.
    OutputClosed,
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl Failure {
    /// Prints the message.
    pub(super) fn report(&self) -> ExitCode {
        match self {
            Self::Client(error) => {
                failure(&error.to_string());
                ExitCode::from(Self::code(error))
            }
            Self::Usage(message) => usage(message),
            Self::Failed(message) => failure(message),
            Self::InvalidConfig(problems) => {
                print_message(problems);
                ExitCode::from(INVALID_CONFIG)
            }
            Self::OutputClosed => ExitCode::SUCCESS,
        }
    }

    fn code(error: &ClientError) -> u8 {
        match error {
            ClientError::Unreachable(_) => UNREACHABLE,
            ClientError::Refused(_) | ClientError::Invalid(_) => FAILED,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreachable_proxy_has_an_exit_code_of_its_own() {
        assert_eq!(Failure::code(&ClientError::Unreachable(String::new())), 69);
        assert_eq!(Failure::code(&ClientError::Invalid(String::new())), 1);
    }
}
