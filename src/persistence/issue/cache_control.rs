//! A response that carries a token must not be kept by a shared cache.

use http::{HeaderName, HeaderValue, header};

use crate::message::{ResponseEdits, ResponseView, WrittenName};
use crate::persistence::pool::PoolPersistence;

static CACHE_CONTROL: WrittenName = WrittenName::new("Cache-Control", "cache-control");

/// As the pool is configured.
pub(super) fn keep_private(response: &ResponseView<'_>, persistence: &PoolPersistence, edits: &mut ResponseEdits<'_>) {
    if let Some(cache_control) = &persistence.cache_control {
        keep_from_shared_caches(response, cache_control, edits);
    }
}

/// Adds `cache_control` unless a shared cache must not keep the response anyway, and removes what says the opposite.
pub(super) fn keep_from_shared_caches(
    response: &ResponseView<'_>,
    cache_control: &HeaderValue,
    edits: &mut ResponseEdits<'_>,
) {
    // Hardly any response has such a field.
    if response.fields.any_name(is_targeted) {
        let targeted = response.fields.iter().filter(|(name, _)| is_targeted(name));
        edits.remove.extend(targeted.filter_map(|(name, _)| HeaderName::from_bytes(name.as_bytes()).ok()));
    }
    let (mut private, mut opposed) = (false, false);
    for value in response.fields.all(&header::CACHE_CONTROL) {
        for directive in directives(value) {
            private |= directive.eq_ignore_ascii_case(b"private") || directive.eq_ignore_ascii_case(b"no-store");
            opposed |= addresses_shared_caches(directive);
        }
    }
    if opposed {
        let all = response.fields.all(&header::CACHE_CONTROL).flat_map(directives);
        let mut kept: Vec<_> = all.filter(|one| !one.is_empty() && !addresses_shared_caches(one)).collect();
        kept.push(cache_control.as_bytes());
        // Made of what were headers' values before, so it is one.
        if let Ok(joined) = HeaderValue::from_bytes(&kept.join(&b", "[..])) {
            edits.set.push((&CACHE_CONTROL, joined));
        }
    } else if !private {
        edits.append.push((&CACHE_CONTROL, cache_control.clone()));
    }
}

fn directives(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// Shared caches that know such a field go by it and ignore Cache-Control (RFC 9213, section 2.2; before that, the "Edge
/// Architecture Specification").
fn is_targeted(name: &str) -> bool {
    let ends = |end: &str| {
        let start = name.len().checked_sub(end.len());
        start.and_then(|start| name.get(start..)).is_some_and(|tail| tail.eq_ignore_ascii_case(end))
    };
    // Few names are that long.
    name.len() >= "surrogate-control".len()
        && (ends("cdn-cache-control") || name.eq_ignore_ascii_case("surrogate-control"))
}

/// `public` and `s-maxage` (RFC 9111, section 5.2.2) invite shared caches to keep a response.
fn addresses_shared_caches(directive: &[u8]) -> bool {
    let starts = |word: &[u8]| directive.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    directive.eq_ignore_ascii_case(b"public") || starts(b"s-maxage=")
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};

    use super::*;
    use crate::message::Fields;

    /// Removed names, and what Cache-Control is set to, or given besides.
    fn edited(fields: &[(&'static str, &'static str)]) -> (Vec<String>, Option<String>, Option<String>) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let response = ResponseView { status: StatusCode::OK, fields: Fields::Map(&headers) };
        let mut edits = ResponseEdits::default();
        keep_from_shared_caches(&response, &HeaderValue::from_static("private"), &mut edits);
        let text = |fields: &[(&WrittenName, HeaderValue)]| {
            assert!(fields.len() <= 1 && fields.iter().all(|(name, _)| name.name == header::CACHE_CONTROL));
            fields.first().map(|(_, value)| value.to_str().unwrap().to_owned())
        };
        let removed = edits.remove.iter().map(ToString::to_string).collect();
        (removed, text(&edits.set), text(&edits.append))
    }

    /// What Cache-Control is given besides.
    fn private() -> String {
        "private".to_owned()
    }

    #[test]
    fn a_response_without_a_word_on_caching_becomes_private() {
        assert_eq!(edited(&[]), (vec![], None, Some(private())));
        assert_eq!(edited(&[("cache-control", "max-age=60")]), (vec![], None, Some(private())));
    }

    #[test]
    fn a_response_that_is_private_already_stays_as_it_is() {
        assert_eq!(edited(&[("cache-control", "no-store, max-age=0")]), (vec![], None, None));
        assert_eq!(edited(&[("cache-control", "Private")]), (vec![], None, None));
    }

    #[test]
    fn what_invites_shared_caches_is_replaced() {
        let set = Some("max-age=60, private".to_owned());
        assert_eq!(edited(&[("cache-control", "public, max-age=60, s-maxage=5")]), (vec![], set, None));
        let targeted = edited(&[("cdn-cache-control", "max-age=5"), ("surrogate-control", "max-age=5")]);
        assert_eq!(targeted, (vec!["cdn-cache-control".into(), "surrogate-control".into()], None, Some(private())));
    }
}
