//! A request that names a session, made from what an operator has of it: its name stands where a pool's sources read it.

use http::header::{InvalidHeaderName, InvalidHeaderValue};
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::{Carriers, SourceSettings};
use crate::config::cookie::Cookie;

/// What an operator has of a session.
#[derive(Debug, Clone, Copy, Default)]
pub struct SessionName<'a> {
    /// A Cookie field, as a client sends it.
    pub cookies: Option<&'a str>,
    /// A token.
    pub token: Option<&'a str>,
    /// An id of the application, or `NAME=ID` as copied from a browser.
    pub id: Option<&'a str>,
}

/// The name has characters that no request can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it has characters that no request can carry")]
pub struct Unwritable;

impl From<InvalidHeaderName> for Unwritable {
    fn from(_: InvalidHeaderName) -> Self {
        Self
    }
}

impl From<InvalidHeaderValue> for Unwritable {
    fn from(_: InvalidHeaderValue) -> Self {
        Self
    }
}

/// The fields and the target of such a request, to a pool with these sources and this cookie.
///
/// # Errors
/// When the name cannot stand in a request.
pub fn request_naming(
    name: SessionName<'_>,
    sources: &[SourceSettings],
    cookie: &Cookie,
) -> Result<(HeaderMap, String), Unwritable> {
    let (mut fields, mut target) = (HeaderMap::new(), "/".to_owned());
    let mut cookies: Vec<String> = name.cookies.iter().map(|cookies| (*cookies).to_owned()).collect();
    for source in sources.iter().filter(|source| source.identifies_client()) {
        let carriers = source.carriers(cookie);
        let value = if source.reads_token() { name.token } else { name.id.map(|id| value_in(id, &carriers)) };
        let Some(value) = value else { continue };
        match carriers {
            Carriers { cookie: Some(cookie), .. } => cookies.push(format!("{cookie}={value}")),
            Carriers { header: Some(header), .. } => {
                fields.insert(HeaderName::from_bytes(header.as_bytes())?, HeaderValue::from_str(value)?);
            }
            Carriers { query: Some(query), .. } => {
                let separator = if target.contains('?') { '&' } else { '?' };
                target.push_str(&format!("{separator}{query}={value}"));
            }
            _ => {}
        }
    }
    if !cookies.is_empty() {
        fields.insert(header::COOKIE, HeaderValue::from_str(&cookies.join("; "))?);
    }
    Ok((fields, target))
}

/// The id itself, or a whole `name=value; …` as copied from a browser.
fn value_in<'a>(text: &'a str, carriers: &Carriers<'_>) -> &'a str {
    let names = [carriers.cookie, carriers.header, carriers.query];
    let named = |name: &str| text.strip_prefix(name)?.strip_prefix('=');
    let value = names.into_iter().flatten().find_map(named);
    value.map_or(text, |value| value.split_once(';').map_or(value, |(value, _)| value)).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_taken_as_it_is_or_from_a_pasted_cookie() {
        let carriers = Carriers { cookie: Some("JSESSIONID"), header: None, query: Some("sid") };
        for (pasted, id) in [
            ("0AB3.app1", "0AB3.app1"),
            ("YWJj==", "YWJj=="),
            ("JSESSIONID=0AB3; Path=/", "0AB3"),
            ("sid=0AB3=", "0AB3="),
            ("other=0AB3", "other=0AB3"),
        ] {
            assert_eq!(value_in(pasted, &carriers), id);
        }
    }
}
