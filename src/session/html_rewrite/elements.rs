//! Rewrites the elements that lead a browser to another page.

use htmlize::escape_all_quotes;
use lol_html::HandlerResult;
use lol_html::html_content::ContentType;
use lol_html::send::Element;

use super::attribute::{put, text};
use super::nesting::Nesting;
use super::refresh;
use crate::session::link::Base;

/// Selects the elements for [`Elements::visit`]. No image, script or style: they need no session, and a token in their URL
/// would make every client download them again.
pub(super) const SELECTOR: &str = "a[href], area[href], base[href], form, button[formaction], input, iframe[src], \
                                   frame[src], meta[http-equiv][content], template, table, select, svg, math";

/// The state of a page while its elements are visited in order.
pub(super) struct Elements {
    base: Base,
    /// Only the first `<base href>` counts (HTML, "frozen base URL").
    has_base: bool,
    name: String,
    token: String,
    /// The hidden field that carries the token in a form of method GET.
    field: String,
    /// The current form has our field; another field with its name is an older one and is removed.
    has_field: bool,
    nesting: Nesting,
}

impl Elements {
    pub(super) fn new(base: Base, name: &str, token: &str) -> Self {
        let field = format!(
            r#"<input type="hidden" name="{}" value="{}"/>"#,
            escape_all_quotes(name),
            escape_all_quotes(token)
        );
        Self {
            base,
            has_base: false,
            name: name.to_owned(),
            token: token.to_owned(),
            field,
            has_field: false,
            nesting: Nesting::default(),
        }
    }

    pub(super) fn visit(&mut self, element: &mut Element<'_, '_>) -> HandlerResult {
        match element.tag_name().as_str() {
            "a" | "area" => self.link(element, "href"),
            "iframe" | "frame" => self.link(element, "src"),
            "form" => self.form(element),
            "button" => self.action(element, "formaction"),
            "input" if self.is_old_field(element) => {
                element.remove();
                Ok(())
            }
            "input" => self.action(element, "formaction"),
            "meta" => self.meta(element),
            "template" => self.nesting.enter_template(element),
            "table" => self.nesting.enter_container(element, "table"),
            "select" => self.nesting.enter_container(element, "select"),
            "svg" => self.nesting.enter_picture(element, "svg"),
            "math" => self.nesting.enter_picture(element, "math"),
            "base" => {
                self.base(element);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn link(&self, element: &mut Element<'_, '_>, attribute: &str) -> HandlerResult {
        let Some(old) = text(element, attribute) else { return Ok(()) };
        match self.base.rewrite(&old, &self.name, &self.token) {
            Some(new) => put(element, attribute, &old, &new),
            None => Ok(()),
        }
    }

    /// Rewrites an attribute with a form's target, if the element has it.
    fn action(&self, element: &mut Element<'_, '_>, attribute: &str) -> HandlerResult {
        let Some(old) = text(element, attribute) else { return Ok(()) };
        match self.base.rewrite_action(&old, &self.name, &self.token) {
            Some(new) => put(element, attribute, &old, &new),
            None => Ok(()),
        }
    }

    /// In an SVG picture or a formula, a form gets no field and does not end the form around it. A form that leads to another
    /// site counts there too, and an action of ours gets the token: both are safe should a browser see the form as HTML.
    fn form(&mut self, element: &mut Element<'_, '_>) -> HandlerResult {
        let in_picture = self.nesting.is_in_picture(element);
        self.has_field &= in_picture;
        let method = text(element, "method").unwrap_or_default();
        if method.eq_ignore_ascii_case("dialog") {
            return self.nesting.leave_form_at_end(element);
        }
        let action = text(element, "action");
        if action.as_ref().is_some_and(|action| !action.is_empty() && !self.base.leads_here(action)) {
            self.nesting.enter_offsite_form();
            return self.nesting.leave_form_at_end(element);
        }
        if method.eq_ignore_ascii_case("post") {
            match action {
                Some(_) => self.action(element, "action")?,
                None => put(element, "action", "", &self.base.own(&self.name, &self.token))?,
            }
        } else if !in_picture && !self.nesting.in_offsite_form() {
            // The browser replaces the action's query with the fields (HTML, "mutate action URL").
            element.prepend(&self.field, ContentType::Html);
            self.has_field = true;
        }
        self.nesting.leave_form_at_end(element)
    }

    /// A field that an earlier pass or the application wrote. A field with `form=` may belong to another form. An `<input>` in a
    /// picture may have content, which would be removed along with it.
    fn is_old_field(&self, element: &Element<'_, '_>) -> bool {
        self.has_field
            && !element.can_have_content()
            && text(element, "name").is_some_and(|name| name == self.name)
            && text(element, "type").is_some_and(|kind| kind.eq_ignore_ascii_case("hidden"))
            && !element.has_attribute("form")
    }

    fn meta(&self, element: &mut Element<'_, '_>) -> HandlerResult {
        if !text(element, "http-equiv").is_some_and(|name| name.eq_ignore_ascii_case("refresh")) {
            return Ok(());
        }
        let Some(old) = text(element, "content") else { return Ok(()) };
        let Some((before, address, after)) = refresh::split_url(&old) else { return Ok(()) };
        match self.base.rewrite(address, &self.name, &self.token) {
            Some(new) => put(element, "content", &old, &[before, &new, after].concat()),
            None => Ok(()),
        }
    }

    fn base(&mut self, element: &Element<'_, '_>) {
        let (false, Some(href)) = (self.has_base, text(element, "href")) else { return };
        // Browsers ignore a `<base>` in a template or an SVG picture. If it leads to another site it is applied all the same:
        // then no link gets a token, which is safe should a browser read it.
        let counts = self.nesting.is_rendered(element);
        if counts || !self.base.leads_here(&href) {
            self.has_base = counts;
            self.base = self.base.with_base_href(&href);
        }
    }
}
