//! The sentence of an error page: what happened, and what the user can do where there is something.

use http::StatusCode;

use crate::persistence::Outcome;

/// The session's server cannot serve, and the pool refuses to move its sessions.
const REFUSED: &str = "The server of your session is not available. Your next request starts a new session.";

/// The name of a status; of one without a name, that of its class.
pub(super) fn title(status: StatusCode) -> &'static str {
    let class = if status.is_client_error() { "Client Error" } else { "Server Error" };
    status.canonical_reason().unwrap_or(class)
}

/// Why the request got this response. `reason`: the label of a `Refusal`.
pub(super) fn sentence(status: StatusCode, outcome: Option<Outcome>, reason: Option<&str>) -> &'static str {
    if outcome == Some(Outcome::Refused) {
        return REFUSED;
    }
    reason.and_then(of_reason).unwrap_or_else(|| of_status(status))
}

fn of_reason(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "malformed" => "The request is not valid HTTP, or the length of its body is ambiguous.",
        "header_too_large" => "The request headers are too large.",
        "body_too_large" => "The request body is too large.",
        "header_timeout" => "The request headers took too long to arrive.",
        "body_timeout" => "The request body took too long to arrive.",
        "no_route" => "No route matches this request.",
        "method" => "This method is not allowed.",
        "protocol" => "HTTP version not supported.",
        // These three have no response; every rejection has a sentence.
        "streams" => "The connection has too many unfinished requests.",
        "proxy_header" => "The PROXY header is not valid, or its sender is not trusted.",
        "tls_handshake" => "The TLS handshake failed.",
        "forged_token" => "The session token is not valid. Try again without it.",
        "store_unavailable" => "The session store is not available. Try again in a moment.",
        "descriptors" | "local_resources" => "The proxy is overloaded. Try again in a moment.",
        "max_uri_length" => "The address of this request is too long.",
        "max_headers" => "The request has too many headers.",
        "requests_per_second" => "Too many requests. Try again in a moment.",
        "new_sessions_per_second" => "Too many new sessions. Try again in a moment.",
        "min_body_rate" => "The request body arrived too slowly.",
        "no_server" => "No server is available. Try again in a moment.",
        "connect_failure" | "attempts_exhausted" => "No server could be reached. Try again in a moment.",
        "queue_timeout" | "queue_full" => "The server is busy. Try again in a moment.",
        "tls_failure" => "No secure connection to a server could be established.",
        "broke_off" => "The server of your session closed the connection before it responded.",
        _ => return None,
    })
}

fn of_status(status: StatusCode) -> &'static str {
    match status.as_u16() {
        408 => "The request took too long to arrive.",
        413 => "The request body is too large.",
        502 => "The server closed the connection before it responded, or its response is not valid HTTP.",
        503 => "No server is available. Try again in a moment.",
        504 => "The server did not respond in time.",
        400..=499 => "The request could not be processed.",
        _ => "The request failed.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::REJECTIONS;

    #[test]
    fn every_rejection_has_a_sentence() {
        assert!(!REJECTIONS.is_empty());
        for reason in REJECTIONS {
            assert!(of_reason(reason).is_some(), "{reason}");
        }
    }

    #[test]
    fn every_status_that_can_be_configured_has_a_title() {
        for (code, name) in
            [(404, "Not Found"), (503, "Service Unavailable"), (499, "Client Error"), (599, "Server Error")]
        {
            assert_eq!(title(StatusCode::from_u16(code).unwrap()), name);
        }
        for code in 400..=599 {
            let status = StatusCode::from_u16(code).unwrap();
            assert!(!title(status).is_empty() && of_status(status).ends_with('.'), "{code}");
        }
    }
}
