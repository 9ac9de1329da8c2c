//! The token in a link: which links of an answer are ours, and how one looks with the token in it.
//!
//! What a link leads to is what a browser makes of it (WHATWG URL, by the `url` crate): `/\evil.org`, a tab inside of a
//! scheme and leading blanks are read as browsers read them. What is written keeps the author's form: a relative link
//! stays relative. A link is changed only if what browsers make of the new text is what they make of the old one with
//! our parameter put in; any doubt leaves it as it is, for a lost session is better than a broken link.

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use url::Url;

use super::url_params;

/// The page that an answer is, and so what its links start from. Made once for each answer.
#[derive(Debug, Clone)]
pub struct Base {
    /// The document's own address.
    page: Url,
    /// What relative links start from, if the page has a `<base href>`.
    base: Option<Url>,
}

impl Base {
    /// `host` is the value of the `Host` header, with its port if it has one. `None` if host and path make no URL.
    #[must_use]
    pub fn new(https: bool, host: &str, path_and_query: &str) -> Option<Self> {
        // In a URL these would end the host or put something before it.
        if host.is_empty() || host.contains(['/', '\\', '?', '#', '@']) {
            return None;
        }
        let scheme = if https { "https" } else { "http" };
        let path = if path_and_query.starts_with('/') { path_and_query } else { "/" };
        let page = Url::parse(&format!("{scheme}://{host}{path}")).ok()?;
        Some(Self { page, base: None })
    }

    /// The same page with relative links that start from `href`, the value of its `<base>` element. One that no browser
    /// would take changes nothing (HTML, "frozen base URL").
    #[must_use]
    pub fn with_base_href(&self, href: &str) -> Self {
        let base = self.page.join(href).ok().filter(|base| !matches!(base.scheme(), "data" | "javascript"));
        Self { page: self.page.clone(), base }
    }

    /// The link with the token as its parameter `name`; `None` if it is to stay as it is: it leads elsewhere, or only to
    /// another place of the same page, or has the token already.
    #[must_use]
    pub fn rewrite(&self, link: &str, name: &str, token: &str) -> Option<String> {
        let text = bare(link);
        if text.starts_with('#') {
            return None;
        }
        let leads_to = self.start().join(&text).ok()?;
        if !self.is_ours(&leads_to) {
            return None;
        }
        // An empty reference keeps the query of where it starts from; a `?` alone would drop it.
        let put = if text.is_empty() { within(&leads_to, name, token) } else { url_params::with(&text, name, token) };
        let same =
            self.start().join(&put).is_ok_and(|now| now.as_str() == url_params::with(leads_to.as_str(), name, token));
        (same && put != link).then_some(put)
    }

    /// The same for a form's action: the empty one is the page itself, and one that is only a fragment does reach the
    /// server.
    #[must_use]
    pub fn rewrite_action(&self, action: &str, name: &str, token: &str) -> Option<String> {
        if action.is_empty() {
            return Some(self.own(name, token));
        }
        let text = bare(action);
        if !text.starts_with('#') {
            return self.rewrite(action, name, token);
        }
        self.is_ours(self.start()).then(|| within(self.start(), name, token) + &text)
    }

    /// The page's own address with the token: where a form without an action goes (HTML, "form submission algorithm":
    /// the document's URL, whatever `<base>` says).
    #[must_use]
    pub fn own(&self, name: &str, token: &str) -> String {
        if self.base.is_some() {
            return url_params::with(self.page.as_str(), name, token);
        }
        within(&self.page, name, token)
    }

    /// Whether a browser that follows the link comes back to this origin.
    #[must_use]
    pub fn leads_here(&self, link: &str) -> bool {
        self.start().join(link).is_ok_and(|url| self.is_ours(&url))
    }

    fn start(&self) -> &Url {
        self.base.as_ref().unwrap_or(&self.page)
    }

    /// Not [`Url::origin`], by which a `blob:` is of the origin that made it.
    fn is_ours(&self, url: &Url) -> bool {
        url.scheme() == self.page.scheme() && url.host() == self.page.host() && url.port() == self.page.port()
    }
}

/// Path and query with the token, as a reference. A path that starts with two slashes would be read as a host.
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

/// The text without what browsers drop before they read it (WHATWG URL, "basic URL parser", steps 1 to 3).
fn bare(link: &str) -> Cow<'_, str> {
    let trimmed = link.trim_matches(|c: char| c <= ' ');
    if trimmed.contains(['\t', '\n', '\r']) {
        return trimmed.chars().filter(|c| !matches!(c, '\t' | '\n' | '\r')).collect::<String>().into();
    }
    trimmed.into()
}
