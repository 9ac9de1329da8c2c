//! What an error of redis-rs means: which [`StoreError`] it is, what can be tried instead, and whether the connection is
//! to be replaced.
//!
//! Error texts go to logs, so they carry the server's words only as far as these repeat nothing that we sent: an unknown
//! command is answered with its arguments, which are names and values.

use redis::{ErrorKind, RedisError};

use crate::store::engine::StoreError;

/// An operation that came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// For the caller.
    pub(super) error: StoreError,
    /// For us.
    pub(super) remedy: Remedy,
}

/// What may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Nothing that we could do.
    None,
    /// Another connection, perhaps to another server: this one broke, or its server cannot do a primary's work.
    Replace,
    /// An older form of the command: the server does not know this one.
    OlderForm,
    /// A way without this command: the user may not give it.
    OtherCommand,
    /// The script itself instead of its hash.
    WholeScript,
}

impl Failure {
    pub(super) const fn new(error: StoreError, remedy: Remedy) -> Self {
        Self { error, remedy }
    }

    /// What happened, for a sentence about the connection.
    pub(super) fn why(self) -> String {
        match self.error {
            StoreError::Unreachable(why) | StoreError::Refused(why) | StoreError::Unreadable(why) => why,
            StoreError::Timeout => "it did not answer in time".to_owned(),
            StoreError::Unsupported | StoreError::Suspended => self.error.to_string(),
        }
    }

    /// An answer of another shape than the command has.
    pub(super) fn odd_answer(command: &str) -> Self {
        Self::new(StoreError::Unreadable(format!("an answer to {command} that it cannot have")), Remedy::None)
    }

    /// Under one of our names is what nobody of ours wrote.
    pub(super) fn foreign_value() -> Self {
        Self::new(StoreError::Unreadable("a value of another form".to_owned()), Remedy::None)
    }
}

impl Failure {
    /// The same error where redis-rs follows a cluster's redirections: then one that is left over is no mistake of the
    /// configuration, but of nodes that do not agree yet.
    pub(super) fn in_cluster(error: RedisError) -> Self {
        if matches!(error.code(), Some("MOVED" | "ASK")) {
            let words = "the nodes of the cluster do not agree yet who has this name".to_owned();
            return Self::new(StoreError::Unreachable(words), Remedy::None);
        }
        error.into()
    }
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        match error.kind() {
            ErrorKind::Server(_) | ErrorKind::Extension => of_server(error.code().unwrap_or_default(), error.detail()),
            ErrorKind::Io if error.is_timeout() => Self::new(StoreError::Timeout, Remedy::None),
            ErrorKind::Io => {
                let remedy = if error.is_unrecoverable_error() { Remedy::Replace } else { Remedy::None };
                Self::new(StoreError::Unreachable(error.to_string()), remedy)
            }
            ErrorKind::AuthenticationFailed => {
                let words = error.detail().unwrap_or("it does not take this user and password");
                Self::new(StoreError::Refused(words.to_owned()), Remedy::Replace)
            }
            ErrorKind::ClusterConnectionNotFound => {
                Self::new(StoreError::Unreachable("no node of the cluster serves this name".to_owned()), Remedy::None)
            }
            ErrorKind::InvalidClientConfig => Self::new(StoreError::Refused(error.to_string()), Remedy::None),
            ErrorKind::Parse => {
                Self::new(StoreError::Unreadable("what came is none of Redis' protocol".to_owned()), Remedy::Replace)
            }
            // Its text may have the value in it.
            _ => Self::new(StoreError::Unreadable(format!("{:?}", error.kind())), Remedy::None),
        }
    }
}

/// By the first word of the server's answer.
fn of_server(code: &str, detail: Option<&str>) -> Failure {
    let detail = detail.unwrap_or_default();
    let words = || format!("{code} {}", harmless(code, detail)).trim_end().to_owned();
    match code {
        "READONLY" => Failure::new(StoreError::Refused(words()), Remedy::Replace),
        "LOADING" | "MASTERDOWN" => Failure::new(StoreError::Unreachable(words()), Remedy::Replace),
        "CLUSTERDOWN" | "TRYAGAIN" => Failure::new(StoreError::Unreachable(words()), Remedy::None),
        "MOVED" | "ASK" => {
            let words = "it is a node of a cluster: write `mode: cluster`".to_owned();
            Failure::new(StoreError::Refused(words), Remedy::None)
        }
        "WRONGTYPE" => Failure::new(StoreError::Unreadable(words()), Remedy::None),
        "NOSCRIPT" => Failure::new(StoreError::Refused(words()), Remedy::WholeScript),
        "NOPERM" => Failure::new(StoreError::Refused(words()), Remedy::OtherCommand),
        "ERR" if is_unknown_form(detail) => Failure::new(StoreError::Refused(words()), Remedy::OlderForm),
        _ => Failure::new(StoreError::Refused(words()), Remedy::None),
    }
}

/// How Redis, Valkey and those that are like them say that they know no such command or option.
fn is_unknown_form(detail: &str) -> bool {
    let detail = detail.to_ascii_lowercase();
    ["syntax error", "unknown command", "unknown subcommand", "unsupported option", "wrong number of arguments"]
        .iter()
        .any(|form| detail.starts_with(form))
}

/// A server's words without what we sent, which follows in quotation marks where it does, and without the place in a script.
fn harmless<'a>(code: &str, detail: &'a str) -> &'a str {
    let marks: &[&str] = if code == "ERR" { &[" '", " `", " \"", ", with args", " script: "] } else { &[" script: "] };
    let end = marks.iter().filter_map(|mark| detail.find(mark)).min().unwrap_or(detail.len());
    detail.get(..end.min(160)).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_words_say_what_may_help() {
        for (code, detail, label, remedy) in [
            ("READONLY", "You can't write against a read only replica.", "refused", Remedy::Replace),
            ("LOADING", "Redis is loading the dataset in memory", "unreachable", Remedy::Replace),
            ("MASTERDOWN", "Link with MASTER is down", "unreachable", Remedy::Replace),
            ("CLUSTERDOWN", "The cluster is down", "unreachable", Remedy::None),
            ("OOM", "command not allowed when used memory > 'maxmemory'.", "refused", Remedy::None),
            ("NOREPLICAS", "Not enough good replicas to write.", "refused", Remedy::None),
            ("MISCONF", "Errors writing to the AOF file", "refused", Remedy::None),
            ("NOAUTH", "Authentication required.", "refused", Remedy::None),
            ("NOPERM", "User u has no permissions to run the 'evalsha' command", "refused", Remedy::OtherCommand),
            ("NOSCRIPT", "No matching script.", "refused", Remedy::WholeScript),
            ("WRONGTYPE", "Operation against a key", "unreadable", Remedy::None),
            ("ERR", "syntax error", "refused", Remedy::OlderForm),
            ("ERR", "Unsupported option GT", "refused", Remedy::OlderForm),
            ("ERR", "wrong number of arguments for 'pexpire' command", "refused", Remedy::OlderForm),
            ("ERR", "value is not an integer or out of range", "refused", Remedy::None),
        ] {
            let failure = of_server(code, Some(detail));
            assert_eq!((failure.error.label(), failure.remedy), (label, remedy), "{code} {detail}: {failure:?}");
        }
    }

    #[test]
    fn what_we_sent_is_never_told() {
        let detail = "unknown command 'SET', with args beginning with: 'homing:shop:x' '1 0 secret' ";
        let StoreError::Refused(words) = of_server("ERR", Some(detail)).error else { panic!("refused") };
        assert_eq!(words, "ERR unknown command");
        let detail = "You can't write against a read only replica. script: 2960, on @user_script:11.";
        assert_eq!(harmless("READONLY", detail), "You can't write against a read only replica.");
        let detail = "this user has no permissions to run the 'evalsha' command";
        assert_eq!(harmless("NOPERM", detail), detail, "it names the command, and nothing that we sent");
        assert_eq!(harmless("ERR", &"ä".repeat(200)), "ä".repeat(80));
    }

    #[test]
    fn a_node_of_a_cluster_says_what_to_write() {
        let failure = of_server("MOVED", Some("3999 127.0.0.1:6381"));
        assert!(failure.error.to_string().contains("mode: cluster"), "{failure:?}");
    }
}
