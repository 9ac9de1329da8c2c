//! A response of the proxy itself, in place of a server's.

/// A request that the proxy refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Status of the response.
    pub status: u16,
    /// The reason, a label: it selects the sentence of the error page, and the access log shows it.
    pub why: &'static str,
    /// The client's token is of no use any more: its cookie is deleted.
    pub clear_token: bool,
    /// Seconds for `Retry-After`; 0 = as is usual for the status.
    pub retry_after: u16,
}

impl Refusal {
    /// With a status and a reason.
    pub const fn new(status: u16, why: &'static str) -> Self {
        Self { status, why, clear_token: false, retry_after: 0 }
    }

    /// The same with `Retry-After`.
    #[must_use]
    pub const fn after(self, seconds: u16) -> Self {
        Self { retry_after: seconds, ..self }
    }
}
