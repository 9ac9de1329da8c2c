//! The adapter between Pingora's heads and plain data: views of heads, and edits applied to them.

use std::borrow::Cow;

use http::uri::PathAndQuery;
use http::{Uri, header};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};

use crate::message::{CookieEdit, EditValue, Fields, RequestEdits, RequestView, ResponseEdits, ResponseView};

use super::header_case;

/// A request head of Pingora, to read.
pub(crate) fn view(request: &RequestHeader) -> RequestView<'_> {
    RequestView::parsed(
        &request.method,
        &request.uri,
        request.raw_path(),
        request.version,
        Fields::Map(&request.headers),
    )
}

/// A response head of Pingora, to read.
pub(crate) fn response_view(response: &ResponseHeader) -> ResponseView<'_> {
    ResponseView { status: response.status, fields: Fields::Map(&response.headers) }
}

/// Applies edits to a request. `lower`: names are forwarded in lower case.
pub(crate) fn apply_to_request<V: EditValue>(
    edits: &mut RequestEdits<'_, V>,
    request: &mut RequestHeader,
    lower: bool,
) -> Result<()> {
    let RequestEdits { target, remove, cookie, set } = edits;
    if let Some(target) = target {
        set_target(request, target)?;
    }
    for name in &*remove {
        request.remove_header(name);
    }
    // Before the fields that are set: a decision that sets Cookie itself comes after this one.
    match std::mem::take(cookie) {
        CookieEdit::Keep => {}
        CookieEdit::Remove => {
            request.remove_header(&header::COOKIE);
        }
        CookieEdit::Set(value) => request.insert_header("Cookie", value)?,
    }
    let is_empty = set.is_empty();
    let set = set.drain(..).filter_map(|(name, value)| Some((name, value.into_header_value()?)));
    if lower {
        header_case::lower_request(request, set)
    } else if !is_empty {
        header_case::set(request, set)
    } else {
        Ok(())
    }
}

/// Applies edits to a response.
pub(crate) fn apply_to_response(edits: &mut ResponseEdits<'_>, response: &mut ResponseHeader) -> Result<()> {
    let ResponseEdits { remove, set, append } = edits;
    for name in &*remove {
        response.remove_header(name);
    }
    if !response.has_case() {
        // Pingora's own methods would parse each name from text.
        return header_case::with_response_parts(response, |parts| {
            for (name, value) in set.drain(..) {
                parts.headers.insert(name.name.clone(), value);
            }
            for (name, value) in append.drain(..) {
                parts.headers.append(name.name.clone(), value);
            }
        });
    }
    for (name, value) in set.drain(..) {
        match name.written {
            Cow::Borrowed(written) => response.insert_header(written, value)?,
            Cow::Owned(ref written) => response.insert_header(written.clone(), value)?,
        }
    }
    for (name, value) in append.drain(..) {
        match name.written {
            Cow::Borrowed(written) => response.append_header(written, value)?,
            Cow::Owned(ref written) => response.append_header(written.clone(), value)?,
        };
    }
    Ok(())
}

/// HTTP/2 has the authority in the target, and that stays.
fn set_target(request: &mut RequestHeader, target: &str) -> Result<()> {
    if request.uri.authority().is_none() {
        return request.set_raw_path(target.as_bytes());
    }
    let mut parts = request.uri.clone().into_parts();
    parts.path_and_query = PathAndQuery::try_from(target).ok();
    if let Ok(uri) = Uri::from_parts(parts) {
        request.set_uri(uri);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;
    use crate::message::WrittenName;

    const NAMES: [&str; 4] = ["X-One", "X-Two", "Accept", "Cookie"];

    fn name() -> impl Strategy<Value = &'static str> {
        prop::sample::select(NAMES.to_vec())
    }

    fn fields() -> impl Strategy<Value = Vec<(&'static str, String)>> {
        prop::collection::vec((name(), "[a-z]{1,4}"), 0..6)
    }

    fn edited(
        sent: &[(&'static str, String)],
        remove: &[&'static str],
        set: &[(&'static str, String)],
        cookie: &CookieEdit,
        (target, lower): (&str, bool),
    ) -> RequestHeader {
        let mut request = RequestHeader::build("GET", target.as_bytes(), None).unwrap();
        for (name, value) in sent {
            request.append_header(*name, value.as_str()).unwrap();
        }
        let names: Vec<_> = set.iter().map(|(name, _)| WrittenName::of(&name.parse().unwrap())).collect();
        let mut edits = RequestEdits { cookie: cookie.clone(), ..RequestEdits::default() };
        for name in remove {
            edits.remove(name.parse().unwrap());
        }
        for (name, (_, value)) in names.iter().zip(set) {
            edits.set(name, HeaderValue::from_str(value).unwrap());
        }
        apply_to_request(&mut edits, &mut request, lower).unwrap();
        request
    }

    proptest! {
        #[test]
        fn edits_change_what_they_name_and_nothing_else(
            sent in fields(),
            remove in prop::collection::vec(name(), 0..3),
            set in fields(),
            cookie in prop_oneof![
                Just(CookieEdit::Keep),
                Just(CookieEdit::Remove),
                Just(CookieEdit::Set(HeaderValue::from_static("a=1"))),
            ],
            target in prop::sample::select(vec!["/x?y=z", "http://a.example/x"]),
            lower: bool,
        ) {
            let request = edited(&sent, &remove, &set, &cookie, (target, lower));
            let mut expected: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for (name, value) in &sent {
                expected.entry(name.to_lowercase()).or_default().push(value.clone());
            }
            for name in &remove {
                expected.remove(&name.to_lowercase());
            }
            match &cookie {
                CookieEdit::Keep => {}
                CookieEdit::Remove => drop(expected.remove("cookie")),
                CookieEdit::Set(_) => drop(expected.insert("cookie".to_owned(), vec!["a=1".to_owned()])),
            }
            for (name, value) in &set {
                expected.insert(name.to_lowercase(), vec![value.clone()]);
            }
            for name in NAMES.map(|name| HeaderName::from_bytes(name.as_bytes()).unwrap()) {
                let values = request.headers.get_all(&name).iter().map(|value| value.to_str().unwrap().to_owned());
                let expected = expected.remove(name.as_str()).unwrap_or_default();
                prop_assert_eq!(values.collect::<Vec<_>>(), expected, "{}", name);
            }
            prop_assert_eq!(request.raw_path(), target.as_bytes());
        }
    }

    proptest! {
        #[test]
        fn a_response_is_edited_alike_whether_the_case_of_names_is_kept_or_not(
            sent in fields(),
            remove in prop::collection::vec(name(), 0..3),
            set in fields(),
            append in fields(),
            usual: bool,
        ) {
            let edited = |mut response: ResponseHeader| {
                if !usual {
                    response.set_reason_phrase(Some("Fine")).unwrap();
                }
                for (name, value) in &sent {
                    response.append_header(*name, value.as_str()).unwrap();
                }
                let written = |fields: &[(&str, String)]| -> Vec<_> {
                    fields.iter().map(|(name, _)| WrittenName::of(&name.parse().unwrap())).collect()
                };
                let (set_names, append_names) = (written(&set), written(&append));
                let value = |(_, value): &(&str, String)| HeaderValue::from_str(value).unwrap();
                let mut edits = ResponseEdits {
                    remove: remove.iter().map(|name| name.parse().unwrap()).collect(),
                    set: set_names.iter().zip(set.iter().map(value)).collect(),
                    append: append_names.iter().zip(append.iter().map(value)).collect(),
                };
                apply_to_response(&mut edits, &mut response).unwrap();
                let phrase = response.get_reason_phrase().map(str::to_owned);
                (response.headers.clone(), phrase)
            };
            let with_case = edited(ResponseHeader::build(200, None).unwrap());
            let without = edited(ResponseHeader::build_no_case(200, None).unwrap());
            prop_assert_eq!(with_case, without);
        }
    }

    #[test]
    fn a_rewritten_target_keeps_the_authority_of_http2() {
        let mut request = RequestHeader::build("GET", b"/x;sid=1", None).unwrap();
        request.set_uri(Uri::from_static("https://a.example/x;sid=1"));
        let mut edits: RequestEdits<'_> = RequestEdits { target: Some("/x".to_owned()), ..RequestEdits::default() };
        apply_to_request(&mut edits, &mut request, true).unwrap();
        assert_eq!(request.uri, "https://a.example/x");
    }
}
