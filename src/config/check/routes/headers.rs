//! Headers that a route asks for, and those that it changes.

use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue};

use crate::config::address;
use crate::config::check_context::NodeRef;
use crate::config::diagnostics::{Diagnostics, Location};
use crate::config::raw;
use crate::config::routes::RequestHeaders;
use crate::config::suggest;

/// They belong to a connection or say where a message ends (RFC 9110, section 7.6.1; RFC 9112, section 6): the proxy
/// writes them itself, and a wrong one would let two servers read one request differently.
const FRAMING: &[&str] = &[
    "connection",
    "content-length",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// The headers that a request must have.
pub(super) fn matched(
    written: &BTreeMap<String, String>,
    at: NodeRef<'_>,
    diagnostics: &mut Diagnostics,
) -> Vec<(HeaderName, HeaderValue)> {
    let headers = fields(written, at, diagnostics);
    for key in written.keys().filter(|key| key.eq_ignore_ascii_case("host")) {
        diagnostics.problem(
            at.key_location(key),
            "a host is not matched as a header",
            "write match: { hosts: [shop.example.org] }",
        );
    }
    headers
}

/// What is done to the headers of a request.
pub(super) fn changes(written: &raw::RequestHeaders, at: NodeRef<'_>, diagnostics: &mut Diagnostics) -> RequestHeaders {
    let set = fields(&written.set, at.key("set"), diagnostics);
    for key in written.set.keys() {
        may_change(key, at.key("set").key_location(key), diagnostics);
    }
    let mut remove: Vec<HeaderName> = Vec::new();
    for (index, key) in written.remove.iter().enumerate() {
        let location = at.key("remove").item(index).location;
        let Some(name) = name(key, location, diagnostics) else { continue };
        may_change(key, location, diagnostics);
        if name == http::header::HOST {
            diagnostics.problem(
                location,
                "a request without \"host\" is not HTTP/1.1",
                "set it instead, or leave it alone",
            );
        }
        if set.iter().any(|(set, _)| *set == name) {
            let message = format!("{} is both set and removed", suggest::quoted(key));
            diagnostics.problem(location, message, "to set it suffices: what the client sent is replaced");
        }
        if remove.contains(&name) {
            diagnostics.problem(location, format!("{} is removed twice", suggest::quoted(key)), "remove one of them");
        }
        remove.push(name);
    }
    if let Some((_, value)) = set.iter().find(|(name, _)| name == http::header::HOST) {
        host_value(value, at.key("set"), diagnostics);
    }
    RequestHeaders { set, remove }
}

fn host_value(value: &HeaderValue, at: NodeRef<'_>, diagnostics: &mut Diagnostics) {
    let text = value.to_str().unwrap_or_default();
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !text.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port_is_sound = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    if !port_is_sound || address::route_host(host).is_err() {
        let location = at.keys().find(|key| key.eq_ignore_ascii_case("host")).and_then(|key| at.key(key).location);
        diagnostics.problem(
            location,
            format!("{} is not a host", suggest::quoted(text)),
            "write a host name, with a port if it needs one: app.internal:8080",
        );
    }
}

fn may_change(key: &str, location: Option<Location>, diagnostics: &mut Diagnostics) {
    let name = key.to_ascii_lowercase();
    if FRAMING.contains(&name.as_str()) {
        let message = format!("header {} cannot be changed: the proxy writes it", suggest::quoted(key));
        diagnostics.problem(location, message, "remove it");
    } else if name.starts_with("homing-") {
        let message = format!("header {} cannot be changed: servers believe it from the proxy", suggest::quoted(key));
        diagnostics.problem(location, message, "use a name that does not begin with \"homing-\"");
    }
}

/// In the order of the alphabet.
fn fields(
    written: &BTreeMap<String, String>,
    at: NodeRef<'_>,
    diagnostics: &mut Diagnostics,
) -> Vec<(HeaderName, HeaderValue)> {
    let mut fields: Vec<(HeaderName, HeaderValue)> = Vec::new();
    for (key, value) in written {
        let Some(name) = name(key, at.key_location(key), diagnostics) else { continue };
        if fields.iter().any(|(other, _)| *other == name) {
            let message = format!("header {} is written twice: case makes no difference", suggest::quoted(key));
            diagnostics.problem(at.key_location(key), message, "remove one of them");
            continue;
        }
        match HeaderValue::from_str(value) {
            Ok(value) if address::is_header_text(value.to_str().unwrap_or_default()) => fields.push((name, value)),
            _ => {
                let message = format!("{} is not the value of a header", suggest::quoted(value));
                diagnostics.problem(
                    at.key(key).location,
                    message,
                    "use ASCII letters, digits, signs and blanks between them",
                );
            }
        }
    }
    fields.sort_by(|one, other| one.0.as_str().cmp(other.0.as_str()));
    fields
}

fn name(key: &str, location: Option<Location>, diagnostics: &mut Diagnostics) -> Option<HeaderName> {
    let name = HeaderName::try_from(key).ok();
    if name.is_none() {
        let message = format!("{} is not the name of a header", suggest::quoted(key));
        diagnostics.problem(location, message, "write a name like x-beta, without a colon");
    }
    name
}
