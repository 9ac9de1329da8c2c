//! Open forms and templates, where a browser's tree differs from the tags: a form stays open when only its parent is closed,
//! and the fields of the next form are still submitted to its target (HTML, "form element pointer").

use std::sync::Arc;

use lol_html::HandlerResult;
use lol_html::html_content::EndTag;
use lol_html::send::Element;
use parking_lot::Mutex;

const HTML: &str = "http://www.w3.org/1999/xhtml";

/// Shared with the end tag handlers. Never contended: a page is rewritten by one thread at a time.
#[derive(Clone, Default)]
pub(super) struct Nesting(Arc<Mutex<OpenElements>>);

#[derive(Default)]
struct OpenElements {
    /// Number of open templates; their content is not rendered.
    templates: usize,
    /// A form that submits to another site is open; the number of templates around it. Browsers ignore a form inside a form
    /// and submit its fields to the outer form's target, so they get no token.
    offsite_form: Option<usize>,
    /// Number of open `table`, `select`, `svg` and `math` elements inside that form.
    containers: usize,
    /// Number of open `svg` and `math` elements.
    pictures: usize,
}

impl Nesting {
    /// A `template` begins.
    pub(super) fn enter_template(&self, element: &mut Element<'_, '_>) -> HandlerResult {
        if !element.can_have_content() || element.namespace_uri() != HTML {
            return Ok(());
        }
        self.0.lock().templates += 1;
        // A parent's end tag does not end a template.
        self.at_end(element, "template", |open| open.templates = open.templates.saturating_sub(1))
    }

    /// A `table`, `select`, `svg` or `math` begins. A form's end tag inside of it does not end the form: in a table or select
    /// browsers ignore it, in a picture it ends an element of the picture that has the same name.
    pub(super) fn enter_container(&self, element: &mut Element<'_, '_>, name: &'static str) -> HandlerResult {
        if !element.can_have_content() || !self.in_offsite_form() {
            return Ok(());
        }
        self.0.lock().containers += 1;
        self.at_end(element, name, |open| open.containers = open.containers.saturating_sub(1))
    }

    /// An `svg` or `math` begins.
    pub(super) fn enter_picture(&self, element: &mut Element<'_, '_>, name: &'static str) -> HandlerResult {
        if !element.can_have_content() {
            return Ok(());
        }
        self.0.lock().pictures += 1;
        let open = Arc::clone(&self.0);
        // A parent's end tag ends a picture too.
        element.on_end_tag(Box::new(move |_: &mut EndTag<'_>| {
            let mut open = open.lock();
            open.pictures = open.pictures.saturating_sub(1);
            Ok(())
        }))?;
        self.enter_container(element, name)
    }

    /// Whether the element is part of an SVG picture or a formula, where `<form>` and `<input>` have no function. The parser's
    /// namespace alone does not say so: to it an `<svg/>` without content goes on.
    pub(super) fn is_in_picture(&self, element: &Element<'_, '_>) -> bool {
        element.namespace_uri() != HTML && self.0.lock().pictures > 0
    }

    /// A form that submits to another site begins.
    pub(super) fn enter_offsite_form(&self) {
        let mut open = self.0.lock();
        open.offsite_form = open.offsite_form.or(Some(open.templates));
    }

    pub(super) fn in_offsite_form(&self) -> bool {
        self.0.lock().offsite_form.is_some()
    }

    /// The end tag of any form ends the form that browsers see, unless one of the two is in a template; the end tag of an
    /// outer element does not.
    pub(super) fn leave_form_at_end(&self, element: &mut Element<'_, '_>) -> HandlerResult {
        if !element.can_have_content() || !self.in_offsite_form() {
            return Ok(());
        }
        self.at_end(element, "form", |open| {
            if open.containers == 0 && open.offsite_form == Some(open.templates) {
                open.offsite_form = None;
            }
        })
    }

    /// Whether the element is HTML outside of templates, and not part of an SVG picture.
    pub(super) fn is_rendered(&self, element: &Element<'_, '_>) -> bool {
        self.0.lock().templates == 0 && element.namespace_uri() == HTML
    }

    /// Runs `then` at the element's end tag. The handler is also called with the end tag of an outer element, which closes
    /// both.
    fn at_end(&self, element: &mut Element<'_, '_>, name: &'static str, then: fn(&mut OpenElements)) -> HandlerResult {
        let open = Arc::clone(&self.0);
        element.on_end_tag(Box::new(move |end: &mut EndTag<'_>| {
            if end.name() == name {
                then(&mut open.lock());
            }
            Ok(())
        }))
    }
}
