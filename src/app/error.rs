//! Why a process does not start.

/// Why a process did not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The system refused a port, a file or a thread.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A bug of the proxy.
    #[error("{0}")]
    Internal(String),
}

impl RunError {
    pub(super) fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::System { what, source }
    }

    pub(super) fn internal(error: impl std::fmt::Display) -> Self {
        Self::Internal(error.to_string())
    }
}
