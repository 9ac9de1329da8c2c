//! Puts the token into a link, if the link leads to this site.
//!
//! Links are resolved as browsers do it (WHATWG URL, by the `url` crate): `/\evil.org`, a tab inside a scheme and leading
//! blanks are read as browsers read them. The author's form is kept: a relative link stays relative. A link is changed only
//! if the new text resolves to the old target plus our parameter; in doubt it is left unchanged, since a lost session is
//! better than a broken link.

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use url::Url;

use super::url_params;

/// The base for a page's links: its own URL, and its `<base href>`. Built once for each response.
#[derive(Debug, Clone)]
pub struct Base {
    /// The page's own URL.
    page: Url,
    /// The base of relative links, if the page has a `<base href>`.
    base: Option<Url>,
}

impl Base {
    /// `host` is the value of the `Host` header, with its port if it has one. `None` if host and path form no URL.
    #[must_use]
    pub fn new(https: bool, host: &str, path_and_query: &str) -> Option<Self> {
        // In a URL these characters would end the host or precede it.
        if host.is_empty() || host.contains(['/', '\\', '?', '#', '@']) {
            return None;
        }
        let scheme = if https { "https" } else { "http" };
        let path = if path_and_query.starts_with('/') { path_and_query } else { "/" };
        let page = Url::parse(&format!("{scheme}://{host}{path}")).ok()?;
        Some(Self { page, base: None })
    }

    /// The same page with `href`, the value of its `<base>` element, as the base of relative links. A value that browsers
    /// refuse is ignored (HTML, "frozen base URL").
    #[must_use]
    pub fn with_base_href(&self, href: &str) -> Self {
        let base = self.page.join(href).ok().filter(|base| !matches!(base.scheme(), "data" | "javascript"));
        Self { page: self.page.clone(), base }
    }

    /// The link with the token as its parameter `name`; `None` if it must not change: it leads to another site, or only to a
    /// fragment of the same page, or has the token already.
    #[must_use]
    pub fn rewrite(&self, link: &str, name: &str, token: &str) -> Option<String> {
        let text = without_ignored(link);
        if text.starts_with('#') {
            return None;
        }
        let leads_to = self.start().join(&text).ok()?;
        if !self.is_ours(&leads_to) {
            return None;
        }
        // An empty reference keeps the query of its base; a `?` alone would drop it.
        let put = if text.is_empty() { within(&leads_to, name, token) } else { url_params::with(&text, name, token) };
        let same =
            self.start().join(&put).is_ok_and(|now| now.as_str() == url_params::with(leads_to.as_str(), name, token));
        (same && put != link).then_some(put)
    }

    /// The same for a form's action: an empty action is the page itself, and an action that is only a fragment does reach
    /// the server.
    #[must_use]
    pub fn rewrite_action(&self, action: &str, name: &str, token: &str) -> Option<String> {
        if action.is_empty() {
            return Some(self.own(name, token));
        }
        let text = without_ignored(action);
        if !text.starts_with('#') {
            return self.rewrite(action, name, token);
        }
        self.is_ours(self.start()).then(|| within(self.start(), name, token) + &text)
    }

    /// The page's own URL with the token: the target of a form without an action (HTML, "form submission algorithm": the
    /// document's URL, regardless of `<base>`).
    #[must_use]
    pub fn own(&self, name: &str, token: &str) -> String {
        if self.base.is_some() {
            return url_params::with(self.page.as_str(), name, token);
        }
        within(&self.page, name, token)
    }

    /// Whether the link leads to this origin.
    #[must_use]
    pub fn leads_here(&self, link: &str) -> bool {
        self.start().join(link).is_ok_and(|url| self.is_ours(&url))
    }

    fn start(&self) -> &Url {
        self.base.as_ref().unwrap_or(&self.page)
    }

    /// Not by [`Url::origin`], which gives a `blob:` the origin of its creator.
    fn is_ours(&self, url: &Url) -> bool {
        url.scheme() == self.page.scheme() && url.host() == self.page.host() && url.port() == self.page.port()
    }
}

/// Path and query with the token, as a reference. A path that begins with two slashes would be read as a host.
fn within(url: &Url, name: &str, token: &str) -> String {
    let path = url.path();
    if path.starts_with("//") {
        return url_params::with(url.as_str(), name, token);
    }
    match url.query() {
        Some(query) => url_params::with(&format!("{path}?{query}"), name, token),
        None => url_params::with(path, name, token),
    }
}

/// The text without the characters that browsers ignore (WHATWG URL, "basic URL parser", steps 1 to 3).
fn without_ignored(link: &str) -> Cow<'_, str> {
    let trimmed = link.trim_matches(|c: char| c <= ' ');
    if trimmed.contains(['\t', '\n', '\r']) {
        return trimmed.chars().filter(|c| !matches!(c, '\t' | '\n' | '\r')).collect::<String>().into();
    }
    trimmed.into()
}
