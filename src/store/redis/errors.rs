//! Errors of redis-rs: the [`StoreError`] that each becomes, and whether another command or another connection helps.
//!
//! Error texts go to logs, so a server's message is cut before it repeats what was sent: the error for an unknown command
//! quotes its arguments, which are names and values.

use redis::{ErrorKind, RedisError};

use crate::store::engine::StoreError;

/// A failed operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// For the caller.
    pub(super) error: StoreError,
    /// For this engine.
    pub(super) remedy: Remedy,
}

/// What may make the operation succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Nothing here.
    None,
    /// A new connection, possibly to another server: this one broke, or its server cannot act as primary.
    Reconnect,
    /// An older form of the command: the server does not know this one.
    OlderForm,
    /// A way without this command: the user has no permission for it.
    OtherCommand,
    /// `EVAL` instead of `EVALSHA`.
    SendScript,
}

impl Failure {
    pub(super) const fn new(error: StoreError, remedy: Remedy) -> Self {
        Self { error, remedy }
    }

    pub(super) fn unreachable(reason: impl Into<String>, remedy: Remedy) -> Self {
        Self::new(StoreError::Unreachable(reason.into()), remedy)
    }

    /// The reason without the prefix of [`StoreError`], for a sentence about the connection.
    pub(super) fn reason(self) -> String {
        match self.error {
            StoreError::Timeout => "no response in time".to_owned(),
            error => error.reason(),
        }
    }

    /// A response of another type than the command has.
    pub(super) fn unexpected_response(command: &str) -> Self {
        Self::new(StoreError::Unreadable(format!("unexpected response to {command}")), Remedy::None)
    }

    /// A value under one of our names that is not in our format.
    pub(super) fn foreign_value() -> Self {
        Self::new(StoreError::Unreadable("a value in another format".to_owned()), Remedy::None)
    }

    /// The same with the server's address before the reason.
    pub(super) fn at(self, address: &str) -> Self {
        let error = match self.error {
            StoreError::Unreachable(reason) => StoreError::Unreachable(format!("{address}: {reason}")),
            StoreError::Refused(reason) => StoreError::Refused(format!("{address}: {reason}")),
            StoreError::Unreadable(reason) => StoreError::Unreadable(format!("{address}: {reason}")),
            StoreError::Timeout => StoreError::Unreachable(format!("{address}: no response in time")),
            other => other,
        };
        Self { error, ..self }
    }

    /// An error of a cluster connection. redis-rs follows redirections by itself, so one that is left over means that the
    /// nodes do not agree yet, not that `mode` is wrong.
    pub(super) fn in_cluster(error: RedisError) -> Self {
        if matches!(error.code(), Some("MOVED" | "ASK")) {
            return Self::unreachable(
                "the nodes of the cluster do not agree yet on the owner of this slot",
                Remedy::None,
            );
        }
        error.into()
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        match error.kind() {
            ErrorKind::Server(_) | ErrorKind::Extension => {
                server_error(error.code().unwrap_or_default(), error.detail().unwrap_or_default())
            }
            ErrorKind::Io if error.is_timeout() => Self::new(StoreError::Timeout, Remedy::None),
            ErrorKind::Io => {
                let remedy = if error.is_unrecoverable_error() { Remedy::Reconnect } else { Remedy::None };
                Self::unreachable(error.to_string(), remedy)
            }
            ErrorKind::AuthenticationFailed => {
                let message = error.detail().unwrap_or("the server rejected the user or password");
                Self::new(StoreError::Refused(message.to_owned()), Remedy::Reconnect)
            }
            ErrorKind::ClusterConnectionNotFound => {
                Self::unreachable("no node of the cluster serves this slot", Remedy::None)
            }
            ErrorKind::InvalidClientConfig => Self::new(StoreError::Refused(error.to_string()), Remedy::None),
            ErrorKind::Parse => {
                Self::new(StoreError::Unreadable("the response is not Redis protocol".to_owned()), Remedy::Reconnect)
            }
            // The error's text may contain the value.
            _ => Self::new(StoreError::Unreadable(format!("{:?}", error.kind())), Remedy::None),
        }
    }
}

/// By the first word of the server's error response.
fn server_error(code: &str, detail: &str) -> Failure {
    let message = format!("{code} {}", redacted(code, detail)).trim_end().to_owned();
    match code {
        "READONLY" => Failure::new(StoreError::Refused(message), Remedy::Reconnect),
        "LOADING" | "MASTERDOWN" => Failure::unreachable(message, Remedy::Reconnect),
        "CLUSTERDOWN" | "TRYAGAIN" => Failure::unreachable(message, Remedy::None),
        "MOVED" | "ASK" => {
            let message = "it is a node of a cluster: write `mode: cluster`".to_owned();
            Failure::new(StoreError::Refused(message), Remedy::None)
        }
        "WRONGTYPE" => Failure::new(StoreError::Unreadable(message), Remedy::None),
        "NOSCRIPT" => Failure::new(StoreError::Refused(message), Remedy::SendScript),
        "NOPERM" => Failure::new(StoreError::Refused(message), Remedy::OtherCommand),
        "ERR" if is_unknown_form(detail) => Failure::new(StoreError::Refused(message), Remedy::OlderForm),
        _ => Failure::new(StoreError::Refused(message), Remedy::None),
    }
}

/// Whether Redis, Valkey or a compatible server rejects the command or an option as unknown.
fn is_unknown_form(detail: &str) -> bool {
    let detail = detail.to_ascii_lowercase();
    ["syntax error", "unknown command", "unknown subcommand", "unsupported option", "wrong number of arguments"]
        .iter()
        .any(|form| detail.starts_with(form))
}

/// A server's message without what was sent, which follows in quotation marks, and without the position in a script.
fn redacted<'a>(code: &str, detail: &'a str) -> &'a str {
    let marks: &[&str] = if code == "ERR" { &[" '", " `", " \"", ", with args", " script: "] } else { &[" script: "] };
    let end = marks.iter().filter_map(|mark| detail.find(mark)).min().unwrap_or(detail.len());
    detail.get(..end.min(160)).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_error_code_decides_the_remedy() {
        for (code, detail, label, remedy) in [
            ("READONLY", "You can't write against a read only replica.", "refused", Remedy::Reconnect),
            ("LOADING", "Redis is loading the dataset in memory", "unreachable", Remedy::Reconnect),
            ("MASTERDOWN", "Link with MASTER is down", "unreachable", Remedy::Reconnect),
            ("CLUSTERDOWN", "The cluster is down", "unreachable", Remedy::None),
            ("OOM", "command not allowed when used memory > 'maxmemory'.", "refused", Remedy::None),
            ("NOREPLICAS", "Not enough good replicas to write.", "refused", Remedy::None),
            ("MISCONF", "Errors writing to the AOF file", "refused", Remedy::None),
            ("NOAUTH", "Authentication required.", "refused", Remedy::None),
            ("NOPERM", "User u has no permissions to run the 'evalsha' command", "refused", Remedy::OtherCommand),
            ("NOSCRIPT", "No matching script.", "refused", Remedy::SendScript),
            ("WRONGTYPE", "Operation against a key", "unreadable", Remedy::None),
            ("ERR", "syntax error", "refused", Remedy::OlderForm),
            ("ERR", "Unsupported option GT", "refused", Remedy::OlderForm),
            ("ERR", "wrong number of arguments for 'pexpire' command", "refused", Remedy::OlderForm),
            ("ERR", "value is not an integer or out of range", "refused", Remedy::None),
        ] {
            let failure = server_error(code, detail);
            assert_eq!((failure.error.label(), failure.remedy), (label, remedy), "{code} {detail}: {failure:?}");
        }
    }

    #[test]
    fn what_was_sent_never_stands_in_an_error() {
        let detail = "unknown command 'SET', with args beginning with: 'homing:shop:x' '1 0 secret' ";
        let StoreError::Refused(message) = server_error("ERR", detail).error else { panic!("refused") };
        assert_eq!(message, "ERR unknown command");
        let detail = "You can't write against a read only replica. script: 2960, on @user_script:11.";
        assert_eq!(redacted("READONLY", detail), "You can't write against a read only replica.");
        let detail = "this user has no permissions to run the 'evalsha' command";
        assert_eq!(redacted("NOPERM", detail), detail, "it names the command, and nothing that was sent");
        assert_eq!(redacted("ERR", &"ä".repeat(200)), "ä".repeat(80));
    }

    #[test]
    fn a_node_of_a_cluster_says_what_to_write() {
        let failure = server_error("MOVED", "3999 127.0.0.1:6381");
        assert!(failure.error.to_string().contains("mode: cluster"), "{failure:?}");
    }
}
