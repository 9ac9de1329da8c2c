//! The elements of a page that lead somewhere.

use std::error::Error;

use lol_html::html_content::ContentType;
use lol_html::send::Element;

use crate::session::link::Base;

type Visited = Result<(), Box<dyn Error + Send + Sync>>;

/// The namespace of HTML's own elements.
const HTML: &str = "http://www.w3.org/1999/xhtml";

/// Puts the token into them.
pub(super) struct Elements {
    base: Base,
    name: Box<str>,
    token: Box<str>,
    /// A form's own field with the token.
    field: Box<str>,
}

impl Elements {
    pub(super) fn new(base: Base, name: &str, token: &str) -> Self {
        let field = format!("<input type=\"hidden\" name=\"{name}\" value=\"{token}\">");
        Self { base, name: name.into(), token: token.into(), field: field.into() }
    }

    pub(super) fn visit(&mut self, element: &mut Element<'_, '_>) -> Visited {
        let name = element.tag_name();
        // SVG has links too, but no forms.
        if element.namespace_uri() != HTML && name != "a" {
            return Ok(());
        }
        match name.as_str() {
            "a" | "area" => self.link(element, "href"),
            "iframe" | "frame" => self.link(element, "src"),
            "button" => self.link(element, "formaction"),
            "input" => self.input(element),
            "form" => self.form(element),
            "meta" => self.refresh(element),
            "base" => {
                if let Some(href) = value(element, "href") {
                    self.base.set_base(&href);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn link(&self, element: &mut Element<'_, '_>, attribute: &str) -> Visited {
        let link = value(element, attribute);
        match link.and_then(|link| self.base.rewritten(&link, &self.name, &self.token)) {
            Some(link) => set(element, attribute, &link),
            None => Ok(()),
        }
    }

    /// A field of ours from an earlier rewriting goes: the form has a new one.
    fn input(&self, element: &mut Element<'_, '_>) -> Visited {
        let hidden = value(element, "type").is_some_and(|kind| kind.eq_ignore_ascii_case("hidden"));
        if hidden && value(element, "name").as_deref() == Some(&*self.name) {
            element.remove();
            return Ok(());
        }
        self.link(element, "formaction")
    }

    /// A form that is got replaces the query of its action by its fields, so the token must be one of them. One that is
    /// posted keeps it.
    fn form(&self, element: &mut Element<'_, '_>) -> Visited {
        let method = value(element, "method").unwrap_or_default();
        let action = value(element, "action").filter(|action| !action.trim().is_empty());
        if method.eq_ignore_ascii_case("dialog") {
            return Ok(());
        }
        if method.eq_ignore_ascii_case("post") {
            return match action {
                Some(_) => self.link(element, "action"),
                // It goes to the page itself, whatever its base is.
                None => set(element, "action", &self.base.of_page(&self.name, &self.token)),
            };
        }
        if action.is_none_or(|action| self.base.leads_here(&action)) {
            element.prepend(&self.field, ContentType::Html);
        }
        Ok(())
    }

    /// `<meta http-equiv="refresh" content="5; url=/next">`
    fn refresh(&self, element: &mut Element<'_, '_>) -> Visited {
        if !value(element, "http-equiv").is_some_and(|name| name.trim().eq_ignore_ascii_case("refresh")) {
            return Ok(());
        }
        let Some(content) = value(element, "content") else { return Ok(()) };
        let Some((before, link, after)) = refresh_link(&content) else { return Ok(()) };
        match self.base.rewritten(link, &self.name, &self.token) {
            Some(link) => set(element, "content", &format!("{before}{link}{after}")),
            None => Ok(()),
        }
    }
}

/// The link of a refresh, and what is around it (HTML, section 4.2.5.3, "shared declarative refresh steps").
fn refresh_link(content: &str) -> Option<(&str, &str, &str)> {
    let rest = content.trim_start().trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let rest = rest.trim_start();
    let rest = rest.strip_prefix([';', ',']).unwrap_or(rest).trim_start();
    let named = rest
        .get(..3)
        .filter(|word| word.eq_ignore_ascii_case("url"))
        .and_then(|_| rest.get(3..)?.trim_start().strip_prefix('=').map(str::trim_start));
    let link = named.unwrap_or(rest);
    let (link, after) = match link.chars().next()? {
        quote @ ('"' | '\'') => {
            let inner = link.get(1..)?;
            inner.split_at(inner.find(quote).unwrap_or(inner.len()))
        }
        _ => (link, ""),
    };
    let start = content.len() - after.len() - link.len();
    Some((content.get(..start)?, link, after))
}

/// An attribute as browsers read it, character references resolved.
fn value(element: &Element<'_, '_>, attribute: &str) -> Option<String> {
    let raw = element.get_attribute(attribute)?;
    Some(htmlize::unescape_attribute(raw.as_str()).into_owned())
}

fn set(element: &mut Element<'_, '_>, attribute: &str, value: &str) -> Visited {
    // Quotes are escaped by `set_attribute`.
    element.set_attribute(attribute, &value.replace('&', "&amp;"))?;
    Ok(())
}
