//! What a browser's cookie jar makes of the `Set-Cookie` fields of a response (RFC 6265, section 5.3). A cookie is name,
//! domain *and* path: of several fields with the same three the last stands, and a field for another path neither replaces
//! nor expires the cookie that the request carried.

use smallvec::SmallVec;

use super::scope::RequestUri;
use super::upstream_set_cookie::UpstreamSetCookie;
use crate::session::token::UnixMillis;

/// What becomes of one cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CookieChange<'a> {
    /// Its value, without quotes.
    pub value: &'a [u8],
    /// It is deleted.
    pub expires: bool,
    /// Its path is one of the request's: it may be the cookie that the request carried, and further requests like it carry
    /// it.
    pub covers_request: bool,
    domain: Option<&'a [u8]>,
    path: &'a [u8],
}

/// What becomes of the cookies of one name.
pub type CookieChanges<'a> = SmallVec<[CookieChange<'a>; 1]>;

/// What the client's jar makes of these fields, in their order. Allocates nothing with one field of that name.
pub fn changes<'a>(
    fields: impl Iterator<Item = &'a [u8]>,
    name: &[u8],
    uri: &RequestUri<'a>,
    now: UnixMillis,
) -> CookieChanges<'a> {
    let mut changes = CookieChanges::new();
    for set in fields.filter_map(|field| UpstreamSetCookie::named(field, name)) {
        let Some(change) = change(&set, uri, now) else { continue };
        changes.retain(|former| !is_same_cookie(former, &change));
        changes.push(change);
    }
    changes
}

/// `None` when the browser ignores the field.
fn change<'a>(set: &UpstreamSetCookie<'a>, uri: &RequestUri<'a>, now: UnixMillis) -> Option<CookieChange<'a>> {
    let attributes = set.attributes(now);
    if attributes.domain.is_some_and(|domain| !uri.is_in_domain(domain)) {
        return None;
    }
    let path = attributes.path.unwrap_or_else(|| uri.default_path());
    Some(CookieChange {
        value: set.value(),
        expires: attributes.expires,
        // A cookie without a path belongs to its request by definition, even where the request's path is no path.
        covers_request: attributes.path.is_none() || uri.is_under(path),
        domain: attributes.domain,
        path,
    })
}

/// Without a domain a cookie is only the host's, which differs from that of a domain of the same name.
fn is_same_cookie(one: &CookieChange<'_>, other: &CookieChange<'_>) -> bool {
    let same_domain = match (one.domain, other.domain) {
        (Some(one), Some(other)) => one.eq_ignore_ascii_case(other),
        (one, other) => one.is_none() && other.is_none(),
    };
    same_domain && one.path == other.path
}

/// The change by which the client's next request like this one names its session: of several that it carries, the one
/// with the longest path is sent first.
#[must_use]
pub fn carried<'c, 'a>(changes: &'c CookieChanges<'a>) -> Option<&'c CookieChange<'a>> {
    changes.iter().filter(|change| change.covers_request && !change.expires).max_by_key(|change| change.path.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

    /// Value, whether it is deleted, and whether it covers the request.
    fn stored(host: &str, path: &str, fields: &[&str]) -> Vec<(String, bool, bool)> {
        let uri = RequestUri::new(host, path);
        let fields = fields.iter().map(|field| field.as_bytes());
        let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
        changes(fields, b"SID", &uri, NOW)
            .iter()
            .map(|change| (text(change.value), change.expires, change.covers_request))
            .collect()
    }

    fn one(value: &str, expires: bool, covers: bool) -> Vec<(String, bool, bool)> {
        vec![(value.to_owned(), expires, covers)]
    }

    #[test]
    fn a_cookie_of_another_path_is_another_cookie() {
        assert_eq!(stored("h", "/x", &["SID=; Path=/old; Max-Age=0"]), one("", true, false));
        assert_eq!(stored("h", "/old/x", &["SID=; Path=/old; Max-Age=0"]), one("", true, true));
        assert_eq!(stored("h", "/older", &["SID=; Path=/old; Max-Age=0"]), one("", true, false));
        assert_eq!(stored("h", "/x", &["SID=; Path=/; Max-Age=0"]), one("", true, true));
        assert_eq!(stored("h", "/x", &["SID=; Path=/old; Path=/; Max-Age=0"]), one("", true, true));
        assert_eq!(stored("h", "/a/b", &["SID=; Max-Age=0"]), one("", true, true), "default path /a");
        assert_eq!(stored("h", "/a/b", &["SID=; Path=old; Max-Age=0"]), one("", true, true), "no path, so the default");
    }

    #[test]
    fn a_cookie_of_another_domain_is_ignored() {
        for ignored in ["example.com", "a.shop.example.org", "hop.example.org"] {
            assert_eq!(stored("shop.example.org", "/", &[&format!("SID=x; Domain={ignored}")]), [], "{ignored}");
        }
        for kept in ["shop.example.org", ".example.org", "EXAMPLE.org", ""] {
            assert_eq!(stored("shop.example.org:80", "/", &[&format!("SID=x; Domain={kept}")]), one("x", false, true));
        }
    }

    #[test]
    fn of_several_fields_for_one_cookie_the_last_stands() {
        assert_eq!(stored("h", "/", &["SID=x; Path=/", "SID=; Path=/; Max-Age=0"]), one("", true, true));
        assert_eq!(stored("h", "/", &["SID=; Path=/; Max-Age=0", "SID=y; Path=/"]), one("y", false, true));
        assert_eq!(stored("h", "/a/b", &["SID=x; Path=/a", "SID=y"]), one("y", false, true));
        let two = stored("h", "/", &["SID=x; Max-Age=0; Path=/old", "SID=y"]);
        assert_eq!(two, [one("x", true, false), one("y", false, true)].concat());
        let two = stored("h.org", "/", &["SID=x; Domain=h.org", "SID=; Max-Age=0"]);
        assert_eq!(two, [one("x", false, true), one("", true, true)].concat(), "of the domain, and of the host alone");
    }

    #[test]
    fn of_several_cookies_the_longest_path_is_sent_first() {
        let fields =
            ["SID=deep; Path=/a/b", "SID=root; Path=/", "SID=gone; Path=/a/b/c; Max-Age=0", "SID=no; Path=/z/z/z/z"];
        let changes = changes(fields.iter().map(|one| one.as_bytes()), b"SID", &RequestUri::new("h", "/a/b/c"), NOW);
        assert_eq!(carried(&changes).unwrap().value, b"deep");
    }

    proptest! {
        #[test]
        fn any_fields_are_judged_without_a_panic(
            fields in prop::collection::vec("SID=[a-z]{0,3}(; ?(Path|Domain|Max-Age|Expires|path|x)(=[-/.a-z0-9: ]{0,12})?){0,4}", 0..5),
            host in "[a-z.:0-9\\[\\]]{0,12}", path in "[/a-z*]{0,8}",
        ) {
            let uri = RequestUri::new(&host, &path);
            let changes = changes(fields.iter().map(String::as_bytes), b"SID", &uri, NOW);
            prop_assert!(changes.len() <= fields.len());
            for (index, one) in changes.iter().enumerate() {
                prop_assert!(changes.iter().skip(index + 1).all(|other| !is_same_cookie(one, other)));
            }
        }
    }
}
