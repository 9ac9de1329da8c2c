//! Links of a page: which lead to this site, and how the token gets into them.
//!
//! A token in a link to another site would be given away, so it is not our reading of a link that decides but that of the
//! `url` crate, which follows the WHATWG URL standard as browsers do (`/\evil.example` is another host there). What was
//! written is then resolved again, and must lead to the same place: where the two readings differ, a link stays as it is.

use std::borrow::Cow;

use url::Url;

use super::target;

/// What the links of one page are resolved against.
#[derive(Debug, Clone)]
pub struct Base {
    /// The page itself.
    page: Url,
    /// What relative links are resolved against, when the page says so itself.
    base: Option<Url>,
}

impl Base {
    /// A page by its request: whether it came by TLS, its host with the port if there is one, its path and query.
    #[must_use]
    pub fn new(secure: bool, host: &str, path_and_query: &str) -> Option<Self> {
        let scheme = if secure { "https" } else { "http" };
        let page = Url::parse(&format!("{scheme}://{host}")).ok()?;
        // A host that is more than a host would make the page another site's.
        if page.path() != "/" || page.query().is_some() || page.fragment().is_some() || !is_bare(&page) {
            return None;
        }
        let page = page.join(path_and_query).ok().filter(|joined| joined.origin() == page.origin())?;
        Some(Self { page, base: None })
    }

    /// The page has a `<base href>`; the first counts.
    pub fn set_base(&mut self, href: &str) {
        if self.base.is_none() {
            self.base = self.page.join(href).ok();
        }
    }

    /// The link with the token in it, when it leads to this site; `None` = it stays as it is. It keeps the form in which
    /// it was written: what was relative stays relative.
    #[must_use]
    pub fn rewritten(&self, link: &str, name: &str, token: &str) -> Option<String> {
        let link = as_browsers_read(link);
        if link.starts_with('#') {
            return None;
        }
        let base = self.base.as_ref().unwrap_or(&self.page);
        let leads_to = base.join(&link).ok().filter(|url| self.is_ours(url))?;
        if link.is_empty() {
            let absolute = || target::with(leads_to.as_str(), name, token);
            return Some(if self.base.is_some() { absolute() } else { self.of_page(name, token) });
        }
        let rewritten = target::with(&link, name, token);
        let leads_now = base.join(&rewritten).ok()?;
        let same = without(&leads_now, name) == without(&leads_to, name);
        (same && self.is_ours(&leads_now)).then_some(rewritten)
    }

    /// The URL of the page itself with the token in it: what a form without an action posts to.
    #[must_use]
    pub fn of_page(&self, name: &str, token: &str) -> String {
        let page = target::with(self.page.as_str(), name, token);
        let origin = self.page.origin().ascii_serialization();
        // A path alone would be resolved against `<base href>`.
        match page.strip_prefix(&origin) {
            Some(path) if self.base.is_none() && !path.starts_with("//") => path.to_owned(),
            _ => page,
        }
    }

    /// Whether a link leads to this site.
    #[must_use]
    pub fn leads_here(&self, link: &str) -> bool {
        let base = self.base.as_ref().unwrap_or(&self.page);
        base.join(&as_browsers_read(link)).is_ok_and(|url| self.is_ours(&url))
    }

    fn is_ours(&self, url: &Url) -> bool {
        // The origin alone would let `blob:` pass, which has that of the page that made it.
        url.scheme() == self.page.scheme() && url.origin() == self.page.origin() && is_bare(url)
    }
}

/// No user and no password: such a link is not one of a page that keeps sessions.
fn is_bare(url: &Url) -> bool {
    url.username().is_empty() && url.password().is_none()
}

fn without(url: &Url, name: &str) -> String {
    target::without(url.as_str(), name).unwrap_or_else(|| url.as_str().to_owned())
}

/// Without what browsers strip (WHATWG URL, section 4.4): spaces and control characters around, tabs and line ends inside.
fn as_browsers_read(link: &str) -> Cow<'_, str> {
    let trimmed = link.trim_matches(|c: char| c <= ' ');
    if trimmed.contains(['\t', '\n', '\r']) {
        Cow::Owned(trimmed.replace(['\t', '\n', '\r'], ""))
    } else {
        Cow::Borrowed(trimmed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn base() -> Base {
        Base::new(false, "shop.example", "/cart/list?page=2").unwrap()
    }

    fn rewritten(link: &str) -> Option<String> {
        base().rewritten(link, "sid", "T")
    }

    #[test]
    fn links_to_this_site_get_the_token_in_the_form_that_they_had() {
        for (link, with_token) in [
            ("item", "item?sid=T"),
            ("./item?a=1#top", "./item?a=1&sid=T#top"),
            ("../", "../?sid=T"),
            ("/", "/?sid=T"),
            ("/a;b=c", "/a;b=c?sid=T"),
            ("?page=3", "?page=3&sid=T"),
            ("?", "?&sid=T"),
            ("", "/cart/list?page=2&sid=T"),
            ("//shop.example/x", "//shop.example/x?sid=T"),
            ("http://shop.example", "http://shop.example?sid=T"),
            ("HTTP://SHOP.example:80/x", "HTTP://SHOP.example:80/x?sid=T"),
            ("\\x", "\\x?sid=T"),
            (" /x\n", "/x?sid=T"),
            ("/x\ty", "/xy?sid=T"),
            ("/x?sid=old&a=1", "/x?a=1&sid=T"),
            ("/x;sid=old", "/x?sid=T"),
        ] {
            assert_eq!(rewritten(link).as_deref(), Some(with_token), "{link:?}");
        }
    }

    #[test]
    fn other_sites_other_schemes_and_fragments_stay_as_they_are() {
        for link in [
            "//evil.example/x",
            "https://shop.example/x",
            "http://shop.example:8080/x",
            "http://shop.example.evil.example/",
            "http://shop.example@evil.example/",
            "http://user@shop.example/",
            "/\\evil.example",
            "\\\\evil.example",
            "/\t/evil.example",
            "h\nttp://evil.example/",
            "#top",
            " #top",
            "mailto:a@shop.example",
            "javascript:void(0)",
            "data:text/html,x",
            "tel:1",
            "blob:http://shop.example/x",
            "ftp://shop.example/",
            "http://[",
            "http://shop.example:x/",
        ] {
            assert_eq!(rewritten(link), None, "{link:?}");
        }
    }

    #[test]
    fn a_base_of_its_own_decides_for_relative_links() {
        let mut elsewhere = base();
        elsewhere.set_base("https://cdn.example/assets/");
        elsewhere.set_base("/ignored/");
        assert_eq!(elsewhere.rewritten("item", "sid", "T"), None);
        assert_eq!(elsewhere.rewritten("", "sid", "T"), None);
        assert_eq!(elsewhere.rewritten("//shop.example/x", "sid", "T"), None, "https now");
        let ours = "http://shop.example/x?sid=T";
        assert_eq!(elsewhere.rewritten("http://shop.example/x", "sid", "T").as_deref(), Some(ours));
        assert_eq!(elsewhere.of_page("sid", "T"), "http://shop.example/cart/list?page=2&sid=T");
        let mut below = base();
        below.set_base("/deep/");
        assert_eq!(below.rewritten("item", "sid", "T").as_deref(), Some("item?sid=T"));
        assert_eq!(below.rewritten("", "sid", "T").as_deref(), Some("http://shop.example/deep/?sid=T"));
    }

    #[test]
    fn what_is_no_host_makes_no_base() {
        for host in ["", "a/b", "a?b", "a#b", "user@a", "a b", "a:x", "[::1"] {
            assert!(Base::new(false, host, "/").is_none(), "{host:?}");
        }
        assert!(Base::new(true, "[::1]:8443", "/").is_some());
        assert!(Base::new(false, "shop.example", "//evil.example/").is_none());
    }

    fn link() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "/",
            "\\",
            "?",
            "#",
            "&",
            ";",
            "=",
            "sid",
            "a",
            "..",
            ".",
            ":",
            "@",
            "http:",
            "//",
            "shop.example",
            "evil",
            " ",
            "\t",
            "%2F",
            "é",
            "http://shop.example",
            "[",
        ]);
        prop::collection::vec(piece, 0..10).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn a_rewritten_link_leads_where_it_led_and_never_elsewhere(link in link()) {
            let base = base();
            let Some(rewritten) = base.rewritten(&link, "sid", "T") else { return Ok(()) };
            let (before, after) = (base.page.join(&link).unwrap(), base.page.join(&rewritten).unwrap());
            prop_assert_eq!(after.origin(), base.page.origin());
            let others = |url: &Url| url.query_pairs().filter(|pair| pair.0 != "sid").map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>();
            prop_assert_eq!(others(&before), others(&after));
            prop_assert_eq!(before.fragment(), after.fragment());
            prop_assert_eq!(target::without(before.path(), "sid").unwrap_or_else(|| before.path().to_owned()), after.path());
            prop_assert_eq!(base.rewritten(&rewritten, "sid", "T"), Some(rewritten.clone()), "once is enough");
        }
    }
}
