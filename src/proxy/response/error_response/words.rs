//! What happened, in the words of who asked: one sentence for each reason, and what to do about it where there is
//! something.

use http::StatusCode;

use crate::persistence::Outcome;
use crate::proxy::context::RequestContext;

/// The session's server cannot serve, and the pool wants its sessions nowhere else.
const REFUSED: &str = "The server of your session is not available. Your next request starts a new session.";

/// The name of a status; of one without a name, that of its class.
pub(super) fn title(status: StatusCode) -> &'static str {
    let class = if status.is_client_error() { "Client Error" } else { "Server Error" };
    status.canonical_reason().unwrap_or(class)
}

/// Why this answer is given.
pub(super) fn sentence(ctx: &RequestContext, status: StatusCode) -> &'static str {
    if ctx.session.outcome == Some(Outcome::Refused) {
        return REFUSED;
    }
    let why = ctx.refusal.map(|refusal| refusal.why);
    why.and_then(of_reason).unwrap_or_else(|| of_status(status))
}

/// The words of `Refusal::why`.
fn of_reason(why: &str) -> Option<&'static str> {
    Some(match why {
        "malformed" => "The request is not valid HTTP, or not clear about where it ends.",
        "header_too_large" => "The headers of the request are too large.",
        "body_too_large" => "The body of the request is too large.",
        "header_timeout" => "The headers of the request took too long.",
        "no_route" => "There is nothing at this address.",
        "method" => "This method is not allowed here.",
        "protocol" => "This version of HTTP is not spoken here.",
        // These two are told on the connection, if at all; here for whoever counts them.
        "proxy_header" => "A PROXY header was sent by somebody who may not, or was not valid.",
        "tls_handshake" => "No TLS connection came about.",
        "forged_token" => "The request carries a session that is not genuine. Try again without it.",
        "store_unavailable" => "Nobody can tell now which server has your session. Try again in a moment.",
        "no_server" => "No server can take the request now. Try again in a moment.",
        "connect_failure" | "attempts_exhausted" => "No server could be reached. Try again in a moment.",
        "broke_off" => "The server of your session broke off before it answered.",
        _ => return None,
    })
}

fn of_status(status: StatusCode) -> &'static str {
    match status.as_u16() {
        408 => "The request took too long to arrive.",
        413 => "The body of the request is too large.",
        502 => "The server broke off before it answered, or its answer was not valid HTTP.",
        503 => "No server can take the request now. Try again in a moment.",
        504 => "The server did not answer in time.",
        400..=499 => "The request could not be understood.",
        _ => "The request could not be served.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::REJECTIONS;

    #[test]
    fn every_rejection_has_a_sentence() {
        assert!(!REJECTIONS.is_empty());
        for why in REJECTIONS {
            assert!(of_reason(why).is_some(), "{why}");
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
